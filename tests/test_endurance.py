"""`make bench-endurance` runs, tells what it is to tell, and finds every row."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def endure(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks.endurance", *flags]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_it_fills_the_log_and_measures_every_step(tmp_path: Path) -> None:
    ended = endure(tmp_path, "--fill", "600", "--calls", "250", "--step", "100", "--connections", "4")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "WARNING" not in ended.stdout
    filled, called = ended.stdout.split("calls, 4 at once")
    assert re.findall(r"(?m)^ +(\d+) +[\d.]+$", filled) == ["100", "200", "300", "400", "500", "600"]
    assert re.findall(r"(?m)^ +(\d+) +[\d.]+ +[\d.]+ +\d+$", called) == ["100", "200", "250"]
    assert len(re.findall(r"last tenth to that of the first: \d", ended.stdout)) == 2
    assert list(tmp_path.iterdir()) == []


def test_flags_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    assert endure(tmp_path, "--calls", "0").returncode == 2
