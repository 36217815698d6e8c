"""`make bench` runs: the figures are there, and every request that a strict Kibitz completed has its row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.markdown import table
from tests.benchmarks.options import read_plan
from tests.benchmarks.processes import Group, running_group
from tests.raw_client import Eventually

ROOT = Path(__file__).parent.parent
FIGURES = {
    "requests_per_second",
    "latency_p50_ms",
    "latency_p99_ms",
    "first_token_p50_ms",
    "first_token_p99_ms",
    "cpu_us_per_request",
    "resident_mb",
    "peak_resident_mb",
}
STREAMED = {"last_event_p50_ms"}
LOGGED = {"rows_per_second"}
COMPARED = {"requests_per_second", "latency_p50_ms", "latency_p99_ms", "cpu_us_per_request", "resident_mb"}
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="CPU time and memory come from /proc")


def bench(folder: Path, *flags: str) -> tuple[dict[str, Any], str]:
    """The JSON and the text of a run."""
    path = folder / "bench.json"
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--json", str(path), *flags],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(path.read_text(encoding="utf-8")), ended.stdout


SHORT = ("--connections", "4", "--rounds", "1", "--seconds", "0.15", "--warm-up", "0.05")


@needs_proc
def test_a_run_gives_every_figure_and_a_row_for_each_request(tmp_path: Path) -> None:
    run, text = bench(tmp_path, "--contestants", "direct,bare,strict", *SHORT)
    assert (run["warnings"], run["absent"]) == ([], {}), text
    assert all(run["machine"][name] for name in ("cpu", "cores", "system", "python", "aiohttp", "uvloop"))
    names = [(one["shape"], one["contestant"]) for one in run["summaries"]]
    shapes = ("json", "json-ids", "sse", "sse-burst")
    assert names == [(shape, name) for shape in shapes for name in ("direct", "bare", "strict")]
    for one in run["summaries"]:
        logged = one["contestant"] == "strict"
        assert one["requests"] > 0
        assert one["contestant"] in text
        if one["contestant"] != "direct":
            figures = FIGURES | (STREAMED if one["shape"].startswith("sse") else set())
            assert set(one["figures"]) >= figures | (LOGGED if logged else set())
            assert set(one["to_bare"]) == COMPARED
            assert (
                set(one["over_bare"]) == set(one["over_direct"]) == {name for name in figures if name.endswith("_ms")}
            )
        assert one["rows"] == (one["requests"] if logged else None)
        assert (one["bytes_per_row"] is not None) == logged
        assert [sample["requests"] for sample in one["samples"]] == [one["requests"]]
    assert list(tmp_path.iterdir()) == [tmp_path / "bench.json"]
    rows = [line.split("|")[1:-1] for line in table(run).splitlines()]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert [row[0].split(":")[1].strip() for row in rows[2:]] == ["bare pass-through", "**Kibitz, strict**"] * 4
    assert all(any(cell.strip() for cell in column) for column in zip(*rows[2:], strict=True))


def test_a_stream_takes_as_long_as_its_gaps(tmp_path: Path) -> None:
    flags = ("--contestants", "direct", "--shapes", "sse", "--gap", "20", "--connections", "1")
    run, _ = bench(tmp_path, *flags, "--rounds", "1", "--seconds", "0.1", "--warm-up", "0.05")
    times = {name: figure["median"] for name, figure in run["summaries"][0]["figures"].items()}
    assert 22 * 20 <= times["last_event_p50_ms"] <= times["latency_p50_ms"]
    assert times["first_token_p50_ms"] < times["last_event_p50_ms"]


def test_a_burst_has_no_gaps() -> None:
    plan = read_plan(["--gap", "20"])
    assert [plan.gap_of(cell.shape) for cell in plan.cells[::3]] == [0.0, 0.0, 0.02, 0.0]


@pytest.mark.parametrize(
    "flags",
    [
        ("--seconds", "nan"),
        ("--seconds", "inf"),
        ("--warm-up", "0"),
        ("--gap", "-5"),
        ("--gap", "nan"),
        ("--rounds", "0"),
        ("--connections", "1,x"),
        ("--connections", ","),
        ("--connections", "0"),
        ("--shapes", "xml"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(flags: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_plan(flags)
    assert "make bench: error:" in capsys.readouterr().err


def test_a_contestant_that_is_not_installed_is_told_of_and_left_out(tmp_path: Path) -> None:
    flags = ("--contestants", "direct,litellm", "--shapes", "json", "--no-pin", "--peers", str(tmp_path / "none"))
    run, text = bench(tmp_path, *flags, *SHORT)
    assert [one["contestant"] for one in run["summaries"]] == ["direct"]
    assert "litellm took no part" in text
    assert (list(run["absent"]), run["cores"]) == (["litellm"], None)


@needs_proc
def test_ending_a_run_early_ends_its_processes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks",
        "--contestants",
        "bare",
        "--seconds",
        "0.05",
        "--rounds",
        "9999",
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        assert "round 1, bare" in run.stderr.readline()
        assert writing_below(tmp_path)
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=60)
    assert run.returncode == 1
    assert writing_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def writing_below(folder: Path) -> list[str]:
    """The processes whose output goes to a file in a folder, gone or not."""
    found = []
    for output in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            found += [output.parts[2]] if str(folder) in os.readlink(output) else []
        except OSError:  # ended, or somebody else's
            continue
    return found


@needs_proc
async def test_a_contestant_whose_turn_it_is_not_does_nothing_and_ends_all_the_same(
    tmp_path: Path, eventually: Eventually
) -> None:
    forever = (sys.executable, "-c", "while True: pass")

    async def is_stopped() -> bool:
        return state(group) == "T"  # proc(5)

    async def is_running() -> bool:
        return state(group) == "R"

    with running_group(forever, tmp_path / "log") as group:
        group.pause()
        await eventually(is_stopped)
        with group.awake():
            await eventually(is_running)
        await eventually(is_stopped)
    assert group.process.returncode == -signal.SIGTERM


def state(group: Group) -> str:
    return Path(f"/proc/{group.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
