"""Keeping processes running, seen with workers that do little else than end."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent


def supervised(work: str, *, count: int = 1) -> subprocess.Popen[str]:
    """A supervisor in a process of its own, of workers that do this, ``place`` being what they are given."""
    script = f"""
import contextlib, socket, sys, time
from proxy.supervisor import supervise

def say(what):
    sys.stdout.write(f"{{what}}\\n")
    sys.stdout.flush()

def work(place):
{textwrap.indent(textwrap.dedent(work), "    ")}

with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range({count})]
    sys.exit(supervise(sockets, work, announce=lambda: say("ready"), grace=1))
"""
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_worker_that_fails_again_and_again_is_started_later_each_time() -> None:
    process = supervised("place.report_ready(); say(time.monotonic()); return 3")
    with process:
        assert process.stdout is not None
        times = [float(line) for line in itertools.islice((one for one in process.stdout if one != "ready\n"), 6)]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    # Half of what they are, since the times are those at which the workers came to tell them.
    assert [pause > least for pause, least in zip(pauses[1:], (0.05, 0.1, 0.2, 0.4), strict=True)] == [True] * 4
    assert "exit status 3; another takes its place" in errors


def test_the_status_of_a_worker_that_ends_before_it_is_ready_is_the_supervisor_s() -> None:
    process = supervised("return 2 if place.number else (place.report_ready(), place.control.recv(1), 0)[-1]", count=3)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (2, "", "")


def test_a_worker_killed_before_it_is_ready_is_told_of() -> None:
    process = supervised("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (1, "")
    assert "worker 0" in errors
    assert "SIGKILL" in errors


def test_a_fault_in_a_worker_is_shown_and_ends_no_other_process() -> None:
    process = supervised("raise RuntimeError('a fault')")
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (1, "")
    assert "RuntimeError: a fault" in errors


def test_a_signal_before_all_are_ready_ends_in_order() -> None:
    process = supervised("say('begun'); place.control.recv(1); say('told'); return 0", count=2)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert "ready" not in output
    assert output.count("told") >= 1


def test_the_directory_of_the_workers_is_only_this_user_s_and_goes_with_them() -> None:
    process = supervised(
        """
        say(f"{place.directory} {place.directory.stat().st_mode & 0o777:o}")
        place.report_ready()
        place.control.recv(1)
        return 0
        """
    )
    assert process.stdout is not None
    directory, mode = process.stdout.readline().split()
    assert (mode, process.stdout.readline()) == ("700", "ready\n")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert not Path(directory).exists()
