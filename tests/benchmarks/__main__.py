"""`make bench`: runs the plan, prints the tables, writes the JSON. Status 0 once it ran: figures pass no judgement."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.figures import Measured, Summary, summarise
from tests.benchmarks.machine import describe
from tests.benchmarks.options import Cell, Plan, read_plan
from tests.benchmarks.processes import ENDED, choose_cores, pin
from tests.benchmarks.report import Report
from tests.benchmarks.rounds import Bench


def main() -> int:
    """Runs what the flags ask for."""
    # Raising here would be lost where Python runs a callback of its own, as it does behind each fork.
    signal.signal(signal.SIGTERM, lambda *_: ENDED.set())
    plan = read_plan()
    report = _run(plan)
    plan.json.parent.mkdir(parents=True, exist_ok=True)
    plan.json.write_text(report.json(), encoding="utf-8")
    sys.stdout.write(f"{report.text()}\nwritten to {plan.json}\n")
    return 0


def _run(plan: Plan) -> Report:
    machine = describe(plan.peers)
    cores = choose_cores() if plan.pinned else None
    if cores and (stay := pin(cores.load)):
        stay()
    with tempfile.TemporaryDirectory(prefix="kibitz-bench-") as name:
        bench = Bench(plan, cores, Path(name), _tell)
        summaries = [one for cell in plan.cells for one in _summaries(cell, bench.run(cell))]
    return Report(plan, machine, cores, summaries, bench.absent, bench.warnings)


def _summaries(cell: Cell, measured: dict[str, Measured]) -> list[Summary]:
    bare, direct = measured.get("bare"), measured.get("direct")
    return [summarise(cell.shape, cell.connections, name, one, bare, direct) for name, one in measured.items()]


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
