"""What feedback adds up to over a group of calls, as answers show it. Contract section 6."""

from __future__ import annotations

from typing_extensions import TypedDict

from proxy.reads.intervals import wilson
from storage.queries import Figures

__all__ = ["FeedbackFigures", "RateInterval", "feedback_figures"]


class RateInterval(TypedDict):
    """Where the true value lies, as surely as the answer's `confidence` says."""

    low: float
    high: float


class FeedbackFigures(TypedDict):
    """Each effective item of feedback counts once. A rate is `positive` by `count`; unrated calls are in neither."""

    rated_calls: int
    unrated_calls: int
    count: int
    positive: int
    negative: int
    rate: float | None
    rate_interval: RateInterval | None
    weighted_mean: float | None


def feedback_figures(figures: Figures) -> FeedbackFigures:
    """From the store's figures of a group of calls."""
    said = figures.feedback
    interval = wilson(said.positive, said.count)
    return {
        "rated_calls": said.rated_calls,
        "unrated_calls": figures.calls - said.rated_calls,
        "count": said.count,
        "positive": said.positive,
        "negative": said.negative,
        "rate": said.positive / said.count if said.count else None,
        "rate_interval": {"low": interval.low, "high": interval.high} if interval else None,
        "weighted_mean": said.weighted_mean,
    }
