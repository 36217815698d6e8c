"""What is to be measured: the flags, and the plan that comes of them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.contestants import CONTESTANTS, DIRECT, PEERS
from tests.benchmarks.load import SHAPES

__all__ = ["Cell", "Plan", "read_plan"]

_QUICK = {"connections": "1,16", "rounds": 2, "seconds": 0.5, "warm_up": 0.2}
_FULL = {"connections": "1,16,256", "rounds": 3, "seconds": 2.0, "warm_up": 0.4}


@dataclass(frozen=True, slots=True)
class Cell:
    """What all contestants are asked in turn: the shape of the answer, and how many at once."""

    shape: str
    connections: int

    def __str__(self) -> str:
        return f"{self.shape}, {self.connections} connection{'s' if self.connections != 1 else ''}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A run; times in seconds. ``gap`` lies between the events of a stream that is no burst."""

    contestants: tuple[str, ...]
    cells: tuple[Cell, ...]
    rounds: int
    seconds: float
    warm_up: float
    gap: float
    pinned: bool
    peers: Path | None
    json: Path

    def gap_of(self, shape: str) -> float:
        """The seconds between the events of a stream of that shape."""
        return self.gap if shape == "sse" else 0.0


def read_plan(arguments: Sequence[str] | None = None) -> Plan:
    """The plan that the flags ask for; exits with status 2 for flags that make no sense."""
    parser = _parser()
    given = parser.parse_args(arguments)
    for name, value in (_QUICK if given.quick else _FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    try:
        return _plan(given)
    except ValueError as error:
        parser.error(str(error))


def _plan(given: argparse.Namespace) -> Plan:
    known = [DIRECT, *CONTESTANTS]
    usual = [name for name in known if given.peers or name not in PEERS]
    shapes = _names(given.shapes, SHAPES)
    if given.rounds < 1:
        raise ValueError("there is at least one round")
    if not all(0 < time < math.inf for time in (given.seconds, given.warm_up)) or not 0 <= given.gap < math.inf:
        raise ValueError("times are more than 0, and none lasts for ever; a gap may be 0")
    return Plan(
        contestants=_names(given.contestants, known) if given.contestants else tuple(usual),
        cells=tuple(Cell(shape, number) for shape in shapes for number in _numbers(given.connections)),
        rounds=given.rounds,
        seconds=given.seconds,
        warm_up=given.warm_up,
        gap=given.gap / 1000,
        pinned=given.pinned,
        peers=given.peers,
        json=given.json,
    )


def _names(text: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no {', '.join(unknown)}; there is {', '.join(known)}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"{text!r}: connections are whole numbers from 1 on")
    return tuple(map(int, parts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description="Measures Kibitz beside others, in one run.")
    add = parser.add_argument
    add("--quick", action="store_true", help="a first look, in a minute or two")
    add("--contestants", metavar="A,B", help=f"any of {','.join([DIRECT, *CONTESTANTS])}")
    add("--shapes", metavar="A,B", default=",".join(SHAPES), help="any of %(default)s: sse-burst has no gaps")
    add("--connections", metavar="N,M", help=f"numbers at once ({_FULL['connections']})")
    add("--rounds", metavar="N", type=int, help=f"rounds of each ({_FULL['rounds']})")
    add("--seconds", metavar="S", type=float, help=f"of a round ({_FULL['seconds']})")
    add("--warm-up", metavar="S", type=float, help=f"seconds before each round ({_FULL['warm_up']})")
    add("--gap", metavar="MS", type=float, default=1.0, help="milliseconds between the events of an sse stream (1)")
    add("--no-pin", dest="pinned", action="store_false", help="let all processes run on all cores")
    add("--peers", metavar="FOLDER", type=Path, help="adds the proxies that make bench-peers put there")
    add("--json", metavar="PATH", type=Path, default=Path("build/bench.json"), help="where to write (%(default)s)")
    return parser
