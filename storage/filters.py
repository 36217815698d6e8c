"""What to look for among calls: a tree of conditions, apart from any SQL dialect.

Every field of a call that can be asked for stands in `FIELDS` with its kind. What a field doesn't know (``None``)
is a thing to be asked for as well, and differs from every value: a call that nobody rated is neither rated well nor
badly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

__all__ = [
    "EVERYTHING",
    "FIELDS",
    "FIGURES",
    "All",
    "Any",
    "Condition",
    "Field",
    "Figure",
    "FilterError",
    "Kind",
    "Node",
    "Not",
    "OneOf",
    "Operator",
    "Value",
    "operators_of",
]

Value: TypeAlias = str | int | float | bool | None

# Patterns have a bound in SQLite, 50,000 bytes; and a number is to be one that every database can compare with.
_LONGEST_TEXT: Final = 10_000
_LARGEST: Final = 2**53


class FilterError(ValueError):
    """A field, an operator or a value that there is not; the text names it."""


class Kind(Enum):
    """What a field holds. Times are microseconds since the epoch; a document is a text of any length."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"
    DOCUMENT = "document"


class Operator(Enum):
    """How a field is compared. ``LIKE`` takes ``%`` and ``_``, and heeds case; ``ILIKE`` and ``CONTAINS`` don't.

    They know the case of ASCII only, in documents that of every script.
    """

    EQUALS = "equals"
    NOT_EQUALS = "not-equals"
    LIKE = "like"
    ILIKE = "ilike"
    CONTAINS = "contains"
    NOT_CONTAINS = "not-contains"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"


_EQUALITY: Final = frozenset({Operator.EQUALS, Operator.NOT_EQUALS})
_ORDER: Final = frozenset({Operator.GT, Operator.GTE, Operator.LT, Operator.LTE})
_OPERATORS: Final = {
    Kind.TEXT: _EQUALITY | {Operator.LIKE, Operator.ILIKE, Operator.CONTAINS, Operator.NOT_CONTAINS},
    Kind.NUMBER: _EQUALITY | _ORDER,
    Kind.BOOLEAN: _EQUALITY,
    Kind.TIME: _EQUALITY | _ORDER,
    Kind.DOCUMENT: frozenset({Operator.CONTAINS, Operator.NOT_CONTAINS}),
}
_TEXTS: Final = (
    "organisation",
    "request_id",
    "trace_id",
    "span_id",
    "parent_span_id",
    "span_name",
    "session_id",
    "session_name",
    "session_path",
    "session_tag",
    "user_id",
    "prompt_id",
    "prompt_version",
    "method",
    "path",
    "target_url",
    "provider",
    "model",
    "request_model",
    "response_model",
    "model_override",
    "provider_response_id",
    "finish_reason",
    "error_kind",
)
_NUMBERS: Final = (
    "attempt",
    "status",
    "latency",  # microseconds, as the next
    "time_to_first_token",
    "cost",  # US dollars
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "prompt_audio_tokens",
    "completion_audio_tokens",
    "reasoning_tokens",
    "weighted_mean",  # of the effective feedback: sum of value times weight, by the sum of weights
    "mean_product",  # of the same: the plain mean of value times weight
)

FIELDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(_TEXTS, Kind.TEXT),
    **dict.fromkeys(_NUMBERS, Kind.NUMBER),
    "started_at": Kind.TIME,
    "ended_at": Kind.TIME,
    "is_stream": Kind.BOOLEAN,
    "is_latest_attempt": Kind.BOOLEAN,
    "is_scored": Kind.BOOLEAN,  # by a score or a rating
    "rating": Kind.BOOLEAN,
    "session_rating": Kind.BOOLEAN,
    # The texts of its bodies, as `storage.texts` has them: by a part of them is all they can be asked for.
    "request_text": Kind.DOCUMENT,
    "response_text": Kind.DOCUMENT,
    "text": Kind.DOCUMENT,  # either of the two
    # With a key: the name of a property, without its case, or of a score.
    "property": Kind.TEXT,
    "score": Kind.NUMBER,
}
"""The fields by name. ``rating`` is the effective one, of the request or of its session."""

_MOMENTS: Final = ("first_started_at", "last_started_at")
FIGURES: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(_MOMENTS, Kind.TIME),
    **dict.fromkeys(
        (
            "calls",
            "failed_calls",
            "active_days",
            "calls_per_active_day",
            "sessions",
            "latency_sum",
            "latency_mean",
            "time_to_first_token_mean",
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "tokens_per_call",
            "cost",
            "feedback_count",
            "feedback_positive",
            "feedback_negative",
            "feedback_rated_calls",
            "weighted_mean",
            "mean_product",
        ),
        Kind.NUMBER,
    ),
}
"""What groups of calls add up to, by name: what groups can be sorted by, and be asked for."""

_KEYED: Final = frozenset({"property", "score"})


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a call; ``key`` names which property or score. Raises `FilterError` for one that there is not."""

    name: str
    key: str | None = None

    def __post_init__(self) -> None:
        if self.name not in FIELDS:
            raise FilterError(f"there is no field {self.name!r}")
        if (self.name in _KEYED) != (self.key is not None):
            raise FilterError(f"{self.name!r} {'wants' if self.name in _KEYED else 'has no'} names below it")

    @property
    def kind(self) -> Kind:
        """What the field holds."""
        return FIELDS[self.name]


@dataclass(frozen=True, slots=True)
class Figure:
    """What a group of calls adds up to, one of `FIGURES`. Raises `FilterError` for one that there is not."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in FIGURES:
            raise FilterError(f"there is no figure {self.name!r}")

    @property
    def kind(self) -> Kind:
        """What it is."""
        return FIGURES[self.name]


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison, of calls or of groups of them; ``None`` as the value asks for what is not known.

    Raises `FilterError` for what can't be.
    """

    field: Field | Figure
    operator: Operator
    value: Value

    def __post_init__(self) -> None:
        kind = self.field.kind
        if self.operator not in _OPERATORS[kind]:
            can = ", ".join(operators_of(kind))
            raise FilterError(f"{self.field.name!r} can't be compared by {self.operator.value!r}; it can by {can}")
        if self.value is None and self.operator not in _EQUALITY:
            raise FilterError(f"{self.operator.value!r} wants a value")
        if isinstance(self.value, str) and len(self.value) > _LONGEST_TEXT:
            raise FilterError(f"{self.field.name!r} is compared with no more than {_LONGEST_TEXT} characters")
        if self.value is not None and not _fits(kind, self.value):
            raise FilterError(f"{self.field.name!r} is compared with a {kind.value}, not with {self.value!r:.80}")


@dataclass(frozen=True, slots=True)
class OneOf:
    """What has one of these texts in a field of texts."""

    field: Field
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class All:
    """What meets every part."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """What meets at least one part."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """What does not meet the part."""

    part: Node


Node: TypeAlias = Condition | OneOf | All | Any | Not

EVERYTHING: Final = All(())


def operators_of(kind: Kind) -> list[str]:
    """The names of the operators that a kind of field knows."""
    return [operator.value for operator in Operator if operator in _OPERATORS[kind]]


def _fits(kind: Kind, value: str | float) -> bool:
    if kind in (Kind.TEXT, Kind.DOCUMENT):
        return isinstance(value, str)
    if kind is Kind.BOOLEAN or isinstance(value, bool | str):
        return kind is Kind.BOOLEAN and isinstance(value, bool)
    return abs(value) <= _LARGEST and (kind is Kind.NUMBER or isinstance(value, int))
