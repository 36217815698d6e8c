"""From samples to figures: medians over the rounds, and ratios and differences of contestants in the same round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["METRICS", "Measured", "Sample", "Spread", "Summary", "summarise"]

_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One contestant's round, by its number. Seconds and bytes; None where there is nothing to tell.

    ``rows`` were committed in the end, ``rows_seconds`` after the round began, ``rows_at_once`` of them when the
    last answer was out. CPU times are of whole process groups; ``load_cpu`` is the load's and the upstream's.
    """

    round: int
    requests: int
    failures: int
    seconds: float
    latency_p50: float | None
    latency_p99: float | None
    first_byte_p50: float | None
    first_byte_p99: float | None
    last_event_p50: float | None
    load_cpu: float | None
    cpu: float | None = None
    resident: int | None = None
    peak_resident: int | None = None
    rows: int | None = None
    rows_at_once: int | None = None
    rows_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the rounds."""

    median: float
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One contestant in one cell; ``bytes_per_row`` on disk."""

    samples: Sequence[Sample]
    bytes_per_row: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one contestant in one cell, by the names of `METRICS`, and how they compare.

    ``to_bare`` are quotients with the bare pass-through of the same round, ``over_bare`` differences from it, and
    ``over_direct`` from the direct connection.
    """

    shape: str
    connections: int
    contestant: str
    requests: int
    failures: int
    rows: int | None
    bytes_per_row: float | None
    figures: dict[str, Spread] = field(default_factory=dict)
    to_bare: dict[str, Spread] = field(default_factory=dict)
    over_bare: dict[str, Spread] = field(default_factory=dict)
    over_direct: dict[str, Spread] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _per(value: float | None, divisor: float | None) -> float | None:
    return value / divisor if value is not None and divisor else None


Metric = Callable[[Sample], float | None]

METRICS: Final[Mapping[str, Metric]] = {
    "requests_per_second": lambda sample: _per(sample.requests, sample.seconds),
    "latency_p50_ms": lambda sample: _times(sample.latency_p50, 1e3),
    "latency_p99_ms": lambda sample: _times(sample.latency_p99, 1e3),
    "first_token_p50_ms": lambda sample: _times(sample.first_byte_p50, 1e3),
    "first_token_p99_ms": lambda sample: _times(sample.first_byte_p99, 1e3),
    "last_event_p50_ms": lambda sample: _times(sample.last_event_p50, 1e3),
    "cpu_us_per_request": lambda sample: _times(_per(sample.cpu, sample.requests), 1e6),
    "cores_used": lambda sample: _per(sample.cpu, sample.rows_seconds or sample.seconds),
    "cores_used_by_load": lambda sample: _per(sample.load_cpu, sample.seconds),
    "resident_mb": lambda sample: _per(sample.resident, _MB),
    "peak_resident_mb": lambda sample: _per(sample.peak_resident, _MB),
    "rows_per_second": lambda sample: _per(sample.rows, sample.rows_seconds),
}
_COMPARED: Final = ("requests_per_second", "latency_p50_ms", "latency_p99_ms", "cpu_us_per_request", "resident_mb")
_ADDED: Final = tuple(name for name in METRICS if name.endswith("_ms"))


def summarise(
    shape: str, connections: int, name: str, measured: Measured, bare: Measured | None, direct: Measured | None
) -> Summary:
    """The figures of what was measured, beside the two that it is compared with, as far as they took part."""
    samples = measured.samples
    return Summary(
        shape=shape,
        connections=connections,
        contestant=name,
        requests=sum(sample.requests for sample in samples),
        failures=sum(sample.failures for sample in samples),
        rows=_total([sample.rows for sample in samples]),
        bytes_per_row=measured.bytes_per_row,
        figures=_spreads(METRICS, lambda metric: [metric(sample) for sample in samples]),
        to_bare=_spreads(_COMPARED, lambda metric: _paired(metric, samples, bare, _per)),
        over_bare=_spreads(_ADDED, lambda metric: _paired(metric, samples, bare, _less)),
        over_direct=_spreads(_ADDED, lambda metric: _paired(metric, samples, direct, _less)),
        samples=tuple(samples),
    )


def _total(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _paired(
    metric: Metric,
    samples: Sequence[Sample],
    others: Measured | None,
    compare: Callable[[float | None, float | None], float | None],
) -> list[float | None]:
    if others is None:
        return []
    beside = {other.round: metric(other) for other in others.samples}
    return [compare(metric(one), beside.get(one.round)) for one in samples]


def _spreads(
    names: Sequence[str] | Mapping[str, Metric], values: Callable[[Metric], Sequence[float | None]]
) -> dict[str, Spread]:
    """The spread of each metric that has a value in any round."""
    found = {}
    for name in names:
        known = [value for value in values(METRICS[name]) if value is not None]
        if known:
            found[name] = Spread(statistics.median(known), min(known), max(known))
    return found
