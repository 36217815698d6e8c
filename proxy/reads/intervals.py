"""How sure a rate is: intervals of a proportion, and of the difference of two.

Wilson's score interval (Wilson 1927) also holds where few were asked, or where all said the same; the difference of
two proportions has Newcombe's interval, made of theirs (Newcombe 1998, method 10).
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

__all__ = ["CONFIDENCE", "Interval", "difference", "wilson"]

CONFIDENCE: Final = 0.95
_Z: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Interval(NamedTuple):
    """Where the true value lies, as surely as `CONFIDENCE` says."""

    low: float
    high: float


def wilson(successes: int, trials: int) -> Interval | None:
    """Of a proportion; ``None`` without trials."""
    if not trials:
        return None
    rate, square = successes / trials, _Z * _Z / trials
    middle = (rate + square / 2) / (1 + square)
    half = sqrt(square * (rate * (1 - rate) + square / 4)) / (1 + square)
    # The ends are exact where all or none succeeded, and rounding must not move them.
    return Interval(0.0 if successes == 0 else middle - half, 1.0 if successes == trials else middle + half)


def difference(successes: int, trials: int, other_successes: int, other_trials: int) -> Interval | None:
    """Of the other proportion less this one; ``None`` where either has no trials."""
    one, other = wilson(successes, trials), wilson(other_successes, other_trials)
    if one is None or other is None:
        return None
    rate, other_rate = successes / trials, other_successes / other_trials
    change = other_rate - rate
    below = sqrt((other_rate - other.low) ** 2 + (one.high - rate) ** 2)
    above = sqrt((other.high - other_rate) ** 2 + (rate - one.low) ** 2)
    return Interval(max(-1.0, change - below), min(1.0, change + above))
