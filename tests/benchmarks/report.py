"""A run in words: a table for people, and the same with every sample as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Final

from tests.benchmarks.contestants import DIRECT
from tests.benchmarks.figures import Spread, Summary
from tests.benchmarks.options import Plan
from tests.benchmarks.processes import Cores

__all__ = ["Report"]

_NONE: Final = "-"
_SATURATED: Final = 0.9  # of the load's cores


@dataclass(frozen=True, slots=True)
class Report:
    """What a run gave."""

    plan: Plan
    machine: Mapping[str, Any]
    cores: Cores | None
    summaries: Sequence[Summary]
    absent: Mapping[str, str]
    warnings: Sequence[str]

    def json(self) -> str:
        """Everything; units stand in the names, seconds and bytes where there is none."""
        pinned = asdict(self.cores) if self.cores else None
        content = asdict(self) | {"cores": pinned, "notes": self._notes()}
        return json.dumps(content, indent=1, default=str) + "\n"

    def text(self) -> str:
        """A table for each cell, and what to know for reading it."""
        parts = [self._head()]
        for (shape, connections), group in groupby(self.summaries, lambda one: (one.shape, one.connections)):
            parts.append(_table(f"{shape}, {connections} at once", list(group)))
        remarks = [f"{name} took no part: {reason}" for name, reason in self.absent.items()]
        remarks += [*self._notes(), *(f"WARNING: {warning}" for warning in self.warnings)]
        return "\n\n".join([*parts, *(["\n".join(remarks)] if remarks else [])]) + "\n"

    def _head(self) -> str:
        versions = ", ".join(
            f"{name} {self.machine[name]}"
            for name in ("python", "sqlite", "kibitz", "aiohttp", "uvloop", "nginx", "litellm", "portkey")
            if self.machine.get(name)
        )
        return "\n".join(
            (
                f"{self.machine['cpu']}, {self.machine['cores']} cores, {self.machine['system']}",
                versions,
                f"{self._where()}; load average before {self.machine['load_average'][0]}",
                f"medians of {self.plan.rounds} rounds of {self.plan.seconds:g} s; "
                f"{self.plan.gap * 1000:g} ms between the events of sse, none between those of sse-burst; "
                "x: bare's multiple, +ms: beside bare, both in the same round; MB: resident, and its peak",
            )
        )

    def _where(self) -> str:
        if self.cores is None:
            return "nothing pinned"
        return f"contestant on core {_list(self.cores.contestant)}, load and upstream on {_list(self.cores.load)}"

    def _notes(self) -> list[str]:
        available = len(self.cores.load) if self.cores else None
        if available is None:
            return []
        return [
            f"NOTE: {one.shape}, {one.connections} at once: {one.contestant} kept the load and the upstream busy "
            "on all their cores, so its requests/s are a lower bound"
            for one in self.summaries
            if one.contestant != DIRECT and _median(one.figures.get("cores_used_by_load")) > _SATURATED * available
        ]


def _list(cores: Sequence[int]) -> str:
    return ",".join(map(str, cores))


def _median(spread: Spread | None) -> float:
    return spread.median if spread else 0.0


def _shown(spread: Spread | None, form: str) -> str:
    return format(spread.median, form) if spread else _NONE


def _range(spread: Spread | None) -> str:
    return f"{spread.min:,.0f}-{spread.max:,.0f}" if spread else _NONE


_COLUMNS: Final[Mapping[str, Callable[[Summary], str]]] = {
    "": lambda one: one.contestant,
    "requests/s": lambda one: _shown(one.figures.get("requests_per_second"), ",.0f"),
    "(min-max)": lambda one: _range(one.figures.get("requests_per_second")),
    "x": lambda one: _shown(one.to_bare.get("requests_per_second"), ".2f"),
    "p50 ms": lambda one: _shown(one.figures.get("latency_p50_ms"), ".2f"),
    "+ms": lambda one: _shown(one.over_bare.get("latency_p50_ms"), "+.2f"),
    "p99 ms": lambda one: _shown(one.figures.get("latency_p99_ms"), ".2f"),
    "x ": lambda one: _shown(one.to_bare.get("latency_p99_ms"), ".2f"),
    "first token +ms": lambda one: _shown(one.over_bare.get("first_token_p50_ms"), "+.2f"),
    "last event +ms": lambda one: _shown(one.over_bare.get("last_event_p50_ms"), "+.2f"),
    "CPU us/req": lambda one: _shown(one.figures.get("cpu_us_per_request"), ",.0f"),
    "x  ": lambda one: _shown(one.to_bare.get("cpu_us_per_request"), ".2f"),
    "cores": lambda one: _shown(one.figures.get("cores_used"), ".2f"),
    "MB": lambda one: _shown(one.figures.get("resident_mb"), ",.0f"),
    "peak": lambda one: _shown(one.figures.get("peak_resident_mb"), ",.0f"),
    "rows/s": lambda one: _shown(one.figures.get("rows_per_second"), ",.0f"),
    "bytes/row": lambda one: _NONE if one.bytes_per_row is None else f"{one.bytes_per_row:,.0f}",
}


def _table(title: str, summaries: Sequence[Summary]) -> str:
    rows = [list(_COLUMNS), *([show(one) for show in _COLUMNS.values()] for one in summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join((title, *(line.rstrip() for line in lines)))
