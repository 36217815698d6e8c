"""The measuring: in each cell all contestants stand beside each other, and take turns round by round.

Each is started anew for a cell, and so is the upstream, so memory and the database are of that cell alone. The order
turns round after each round (A B C, C B A, …), so that a drift of the machine hits all alike. Whose turn it is not is
stopped: what Kibitz puts off until there are no calls is in nobody's figures, and slows nobody down.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.contestants import CONTESTANTS, DIRECT, Launch, Place, Unavailable
from tests.benchmarks.database import await_rows, committed_rows, size_on_disk
from tests.benchmarks.figures import Measured, Sample
from tests.benchmarks.options import Cell, Plan
from tests.benchmarks.processes import ENDED, ROOT, Cores, Group, NotStarted, free_port, pin, running_group

__all__ = ["Bench"]

_START_WITHIN = 20.0


class RoundFailed(Exception):
    """A round that came to no result."""


@dataclass(frozen=True, slots=True)
class _Upstream:
    """The running upstream."""

    port: int
    group: Group


@dataclass(slots=True)
class _Entrant:
    """A contestant that runs, and what its rounds gave."""

    name: str
    port: int
    launch: Launch
    group: Group | None
    size: int = 0  # bytes of the database before any call
    samples: list[Sample] = field(default_factory=list)


@contextmanager
def _running_upstream(gap: float, cores: Cores | None, log: Path) -> Iterator[_Upstream]:
    """The fake upstream, beside the load."""
    port = free_port()
    command = (sys.executable, "-m", "tests.benchmarks.upstream", str(port), str(gap))
    with running_group(command, log, cores.load if cores else ()) as group:
        group.await_listening(port, _START_WITHIN)
        yield _Upstream(port, group)


@dataclass(slots=True)
class Bench:
    """A run under way. ``absent`` says why a contestant isn't there, ``warnings`` what is wrong with a figure."""

    plan: Plan
    cores: Cores | None
    folder: Path
    tell: Callable[[str], None]
    absent: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def run(self, cell: Cell) -> dict[str, Measured]:
        """Measures all contestants in a cell."""
        with ExitStack() as stack:
            log = self.folder / f"{cell.shape}-{cell.connections}-upstream.log"
            upstream = stack.enter_context(_running_upstream(self.plan.gap_of(cell.shape), self.cores, log))
            entrants = self._start_all(cell, upstream, stack)
            for number in range(self.plan.rounds):
                for entrant in entrants if number % 2 == 0 else entrants[::-1]:
                    if ENDED.is_set():
                        sys.exit("ended by SIGTERM")
                    self._round(cell, number, upstream, entrant)
        return {entrant.name: Measured(entrant.samples, _bytes_per_row(entrant)) for entrant in entrants}

    def _start_all(self, cell: Cell, upstream: _Upstream, stack: ExitStack) -> list[_Entrant]:
        entrants = []
        for name in self.plan.contestants:
            try:
                if name not in self.absent:
                    entrants.append(self._start(name, cell, upstream, stack))
            except (Unavailable, NotStarted) as error:
                self.absent[name] = str(error)
                self.tell(f"{name} takes no part: {error}")
        return entrants

    def _start(self, name: str, cell: Cell, upstream: _Upstream, stack: ExitStack) -> _Entrant:
        if name == DIRECT:
            return _Entrant(name, upstream.port, Launch(()), None)
        folder = self.folder / f"{cell.shape}-{cell.connections}-{name}"
        folder.mkdir()
        place = Place(free_port(), upstream.port, folder, self.plan.peers)
        launch = CONTESTANTS[name](place)
        cores = self.cores.contestant if self.cores else ()
        group = stack.enter_context(running_group(launch.command, folder / "log", cores, launch.environment))
        group.await_listening(place.port, launch.starts_within)
        group.pause()
        return _Entrant(name, place.port, launch, group, size_on_disk(launch.database) if launch.database else 0)

    def _round(self, cell: Cell, number: int, upstream: _Upstream, entrant: _Entrant) -> None:
        where = f"{cell}, round {number + 1}, {entrant.name}"
        try:
            with entrant.group.awake() if entrant.group else nullcontext():
                sample = self._measure(cell, number, upstream, entrant)
        except RoundFailed as error:
            self._warn(f"{where}: no result: {error}")
            return
        entrant.samples.append(sample)
        self.tell(f"{where}: {sample.requests / max(sample.seconds, 1e-9):,.0f} requests/s")
        if sample.failures:
            self._warn(f"{where}: {sample.failures} requests failed beside {sample.requests} that did not")
        self._check_rows(where, entrant.launch, sample)

    def _check_rows(self, where: str, launch: Launch, sample: Sample) -> None:
        rows = sample.rows_at_once if launch.guaranteed else sample.rows
        if rows is not None and rows != sample.requests:
            when = "when the last answer was out" if launch.guaranteed else "in the end"
            self._warn(f"{where}: {sample.requests} requests completed, but {rows} rows were committed {when}")

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.tell(f"WARNING: {text}")

    def _measure(self, cell: Cell, number: int, upstream: _Upstream, entrant: _Entrant) -> Sample:
        database = entrant.launch.database
        before = committed_rows(database) if database else 0
        with _load(self._load_command(cell, entrant), self.cores) as load:
            warmed_up = _result(load)
            if database:
                before = await_rows(database, before + warmed_up["requests"])
            cpu, load_cpu, began = _cpu(entrant.group), _cpu(upstream.group), time.monotonic()
            assert load.stdin is not None
            load.stdin.write("go\n")
            load.stdin.flush()
            result = _result(load)
            rows = _rows(database, before, result, began) if database else {}
            upstream_cpu = _between(load_cpu, _cpu(upstream.group))
            own_cpu = result.pop("cpu_seconds")
            return Sample(
                round=number,
                **result,
                **rows,
                **_memory(entrant.group),
                cpu=_between(cpu, _cpu(entrant.group)),
                load_cpu=None if upstream_cpu is None else own_cpu + upstream_cpu,
            )

    def _load_command(self, cell: Cell, entrant: _Entrant) -> list[str]:
        flags = {
            "--port": entrant.port,
            "--shape": cell.shape,
            "--connections": cell.connections,
            "--warm-up": self.plan.warm_up,
            "--seconds": self.plan.seconds,
        }
        command = [sys.executable, "-m", "tests.benchmarks.load"]
        command += [word for flag, value in flags.items() for word in (flag, str(value))]
        return command + [word for line in entrant.launch.fields for word in ("--header", line)]


@contextmanager
def _load(command: Sequence[str], cores: Cores | None) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    pinned = pin(cores.load if cores else ())
    with subprocess.Popen(
        command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=pinned
    ) as load:
        try:
            yield load
        finally:
            load.kill()


def _result(load: subprocess.Popen[str]) -> dict[str, Any]:
    assert load.stdout is not None
    assert load.stderr is not None
    line = load.stdout.readline()
    if not line:
        raise RoundFailed((load.stderr.read().strip().splitlines() or ["the load ended"])[-1])
    result: dict[str, Any] = json.loads(line)
    return result


def _rows(database: Path, before: int, result: dict[str, Any], began: float) -> dict[str, Any]:
    """The rows of the round: those that stood at its end, and those that came after it with how long that took."""
    at_once = committed_rows(database) - before
    if at_once >= result["requests"]:
        return {"rows": at_once, "rows_at_once": at_once, "rows_seconds": result["seconds"]}
    rows = await_rows(database, before + result["requests"]) - before
    return {"rows": rows, "rows_at_once": at_once, "rows_seconds": time.monotonic() - began}


def _cpu(group: Group | None) -> float | None:
    usage = group.usage() if group else None
    return usage.cpu_seconds if usage else None


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


def _memory(group: Group | None) -> dict[str, int]:
    usage = group.usage() if group else None
    return {"resident": usage.resident, "peak_resident": usage.peak_resident} if usage else {}


def _bytes_per_row(entrant: _Entrant) -> float | None:
    """Of an ended contestant: what its database grew by for each row."""
    database = entrant.launch.database
    if database is None or not (rows := committed_rows(database)):
        return None
    return (size_on_disk(database) - entrant.size) / rows
