"""`make bench-queries` runs: every question is answered, and calls are made alone and beside questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.questions import questions
from tests.test_bench import ROOT


def test_a_filled_log_is_asked_every_question(tmp_path: Path) -> None:
    path = tmp_path / "queries.json"
    flags = ["--calls", "600", "--days", "all,30", "--texts", "--rounds", "1"]
    flags += ["--rate", "20", "--seconds", "0.5", "--turns", "1", "--json", str(path)]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.queries", *flags],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    run = json.loads(path.read_text(encoding="utf-8"))
    wanted = {
        (one.name, days) for days in (None, 30) for texts in (False, True) for one in questions(days, texts=texts)
    }
    assert {(one["name"], one["days"]) for one in run["questions"]} == wanted
    assert all(one["size"] > 0 and one["again"] > 0 for one in run["questions"])
    assert all(run[name]["calls"] == 10 for name in ("calls_alone", "calls_beside_questions"))
    assert "p99 beside questions to p99 alone" in ended.stdout
