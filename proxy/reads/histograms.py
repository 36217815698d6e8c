"""How values are spread: as many ranges of the same width as a chart shows."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final, Literal

from typing_extensions import TypedDict

__all__ = ["PERCENTILES", "Average", "Percentile", "Range", "average", "histogram"]

_RANGES: Final = 10
Percentile = Literal["p50", "p75", "p95", "p99", "p99.9"]
PERCENTILES: Final[dict[Percentile, float]] = {"p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


class Range(TypedDict):
    """How many values lie in a range; its end belongs to the next one, but for the last range's."""

    range_start: float
    range_end: float
    value: int


class Average(TypedDict):
    """A mean; null of no values."""

    average: float | None


def histogram(values: Sequence[float], percentile: float, *, interquartile: bool) -> list[Range]:
    """The spread of the values up to a percentile of them, or of those between the quartiles' fences."""
    ordered = sorted(values)
    if not ordered:
        return []
    kept = _between_fences(ordered) if interquartile else ordered[: max(1, ceil(len(ordered) * percentile))]
    low, high = kept[0], kept[-1]
    width = (high - low) / _RANGES
    counts = [0] * _RANGES
    for value in kept:
        counts[min(_RANGES - 1, int((value - low) / width)) if width else 0] += 1
    return [
        {"range_start": low + place * width, "range_end": low + (place + 1) * width, "value": count}
        for place, count in enumerate(counts)
    ]


def average(values: Sequence[float]) -> list[Average]:
    """The mean, in the list that Helicone has it in."""
    return [{"average": sum(values) / len(values) if values else None}]


def _between_fences(ordered: Sequence[float]) -> Sequence[float]:
    """Without what lies beyond one and a half times the quartiles' distance (Tukey 1977)."""
    first, third = ordered[len(ordered) // 4], ordered[len(ordered) * 3 // 4]
    reach = 1.5 * (third - first)
    return [value for value in ordered if first - reach <= value <= third + reach]
