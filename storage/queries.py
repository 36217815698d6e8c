"""What is asked of many calls at once: pages of them, and what groups of them add up to.

Times are microseconds since the Unix epoch, durations microseconds, money US dollars.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from storage.filters import FIGURES, Field, FilterError, Kind, Value

__all__ = [
    "FIGURES",
    "OF_FEEDBACK",
    "OLDEST_FIRST",
    "Dimension",
    "FeedbackFigures",
    "Figures",
    "Group",
    "GroupSort",
    "Page",
    "Position",
    "Shuffled",
    "Sort",
    "TimeBucket",
]


@dataclass(frozen=True, slots=True)
class Sort:
    """An order of calls: by a field, what is unknown last, and where that is the same by when they landed.

    Raises `FilterError` for a document.
    """

    field: Field
    descending: bool = False

    def __post_init__(self) -> None:
        if self.field.kind is Kind.DOCUMENT:
            raise FilterError(f"nothing can be sorted by {self.field.name!r}")


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Another order each time: a page is a sample, and nothing stands behind it."""


OF_FEEDBACK: Final = frozenset(name for name in FIGURES if name.startswith("feedback_"))
"""The figures that `FeedbackFigures` holds."""
OLDEST_FIRST: Final = Sort(Field("started_at"))


@dataclass(frozen=True, slots=True)
class Position:
    """Where a call stands in an order: the sorted field's value, and its number among all calls."""

    value: Value
    number: int


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of what was found. ``after`` goes on behind a call, at the same cost however far that is."""

    limit: int
    offset: int = 0
    after: Position | None = None


@dataclass(frozen=True, slots=True)
class TimeBucket:
    """Groups calls by their start, in spans of ``width`` that begin at ``offset`` from the epoch; microseconds both.

    Raises `FilterError` for a width below a second.
    """

    width: int
    offset: int = 0

    def __post_init__(self) -> None:
        if self.width < 1_000_000:
            raise FilterError("a time bucket is a second or wider")


Dimension: TypeAlias = Field | TimeBucket
"""What calls are grouped by."""


@dataclass(frozen=True, slots=True)
class GroupSort:
    """An order of groups: by one of `FIGURES`, what is unknown last, else by what they are grouped by.

    Raises `FilterError` for a figure that there is not.
    """

    figure: str | None = None
    descending: bool = False

    def __post_init__(self) -> None:
        if self.figure is not None and self.figure not in FIGURES:
            raise FilterError(f"there is no figure {self.figure!r}")


@dataclass(frozen=True, slots=True)
class FeedbackFigures:
    """What was said of a group of calls, by its effective items: each counts once, however many calls it speaks of."""

    count: int
    positive: int
    """Items whose value is above 0."""
    negative: int
    """Items whose value is 0 or below."""
    weighted_sum: float
    weights: float
    rated_calls: int
    """Calls of which at least one item speaks; all others are unrated."""

    @property
    def weighted_mean(self) -> float | None:
        """The sum of value times weight, by the sum of weights."""
        return self.weighted_sum / self.weights if self.weights else None

    @property
    def mean_product(self) -> float | None:
        """The plain mean of value times weight, as Portkey's graphs have it."""
        return self.weighted_sum / self.count if self.count else None


@dataclass(frozen=True, slots=True)
class Figures:
    """What a group of calls adds up to. Sums of what no call of the group knows are ``None``."""

    calls: int
    failed_calls: int
    """Calls that have an error, or a status of 400 and above."""
    first_started_at: int | None
    last_started_at: int | None
    active_days: int
    """On how many days in UTC its calls started."""
    sessions: int
    """How many different ones its calls belong to."""
    latency_sum: int | None
    time_to_first_token_mean: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cost: float | None
    feedback: FeedbackFigures

    @property
    def latency_mean(self) -> float | None:
        """Microseconds."""
        return self.latency_sum / self.calls if self.calls and self.latency_sum is not None else None

    @property
    def tokens_per_call(self) -> float | None:
        """Of all kinds."""
        return self.total_tokens / self.calls if self.calls and self.total_tokens is not None else None

    @property
    def calls_per_active_day(self) -> float | None:
        """The mean over the days that have any."""
        return self.calls / self.active_days if self.active_days else None


@dataclass(frozen=True, slots=True)
class Group:
    """The calls whose dimensions have these values, and their figures."""

    keys: tuple[Value, ...]
    figures: Figures
