"""Processes in groups of their own: started on chosen cores, measured as a whole, ended as a whole.

The figures are of Linux's /proc; elsewhere there are none, and the report shows a dash.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENDED", "Cores", "Group", "NotStarted", "Usage", "choose_cores", "free_port", "running_group", "usage_of"]

ENDED = threading.Event()
"""Set once the run was told to end: it does so before its next round."""

ROOT = Path(__file__).parent.parent.parent
_PROC = Path("/proc")
_END_WITHIN = 15.0  # seconds, then it is killed
_POLL = 0.05


class NotStarted(Exception):
    """A process that did not come to listen; the text says why, as far as it said."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: the measured process on one core, what it talks to on the others."""

    contestant: tuple[int, ...]
    load: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a whole process group: CPU time so far in seconds; memory now and at its highest in bytes.

    Pages that processes share count once for each.
    """

    cpu_seconds: float
    resident: int
    peak_resident: int


@dataclass(slots=True)
class Group:
    """A running process with all that it starts."""

    process: subprocess.Popen[bytes]
    log: Path

    def usage(self) -> Usage | None:
        """What it has used so far; None where that can't be told."""
        return usage_of(self.process.pid)

    def await_listening(self, port: int, within: float) -> None:
        """Returns once the port takes connections. Raises `NotStarted` after ``within`` seconds, or at its end."""
        until = time.monotonic() + within
        while not _listens(port):
            if self.process.poll() is not None or time.monotonic() > until:
                raise NotStarted(self._last_words())
            time.sleep(_POLL)

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return " | ".join([line.strip() for line in lines if line.strip()][-3:])[-400:] or "it said nothing"

    def pause(self) -> None:
        """Nothing of it runs until `awake`: what it does behind its calls would take the time of another's turn."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Inside, it runs."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def end(self) -> None:
        """SIGTERM, and after a while SIGKILL, to the whole group."""
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            os.killpg(self.process.pid, signal.SIGCONT)
            self.process.wait(_END_WITHIN)
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def running_group(
    command: Sequence[str | Path], log: Path, cores: Sequence[int] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Group]:
    """A process in the repository's root, on these cores (on any, if none is given); ended when the context is."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_without_settings() | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=pin(cores),
        )
    group = Group(process, log)
    try:
        yield group
    finally:
        group.end()


def pin(cores: Sequence[int]) -> Pin | None:
    """What a child does first, to stay on these cores with all its threads; None for any core."""
    return Pin(tuple(cores)) if cores else None


@dataclass(frozen=True, slots=True)
class Pin:
    """Stays on these cores when called."""

    cores: tuple[int, ...]

    def __call__(self) -> None:
        if sys.platform == "linux":
            os.sched_setaffinity(0, self.cores)


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("KIBITZ_")}


def choose_cores() -> Cores | None:
    """The first core for the contestant, the others for the load; None with a single core, or no means to pin."""
    if sys.platform != "linux":
        return None
    first, *others = sorted(os.sched_getaffinity(0))
    return Cores((first,), tuple(others)) if others else None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def usage_of(group: int) -> Usage | None:
    """What the processes of a group have used, with their children that ended."""
    members = list(_members(group))
    if not members:
        return None
    ticks = sum(ticks for _, ticks in members)
    memory = [_memory(process) for process, _ in members]
    return Usage(
        ticks / os.sysconf("SC_CLK_TCK"),
        sum(resident for resident, _ in memory),
        sum(peak for _, peak in memory),
    )


def _members(group: int) -> Iterator[tuple[Path, int]]:
    """The group's processes and their CPU time in clock ticks (proc(5): utime, stime, cutime, cstime)."""
    for process in _PROC.glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[2]) == group:
            yield process, sum(int(ticks) for ticks in fields[11:15])


def _memory(process: Path) -> tuple[int, int]:
    """VmRSS and VmHWM in bytes; zeros for a process that ended."""
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return int(sizes.get("VmRSS", 0)) * 1024, int(sizes.get("VmHWM", 0)) * 1024
