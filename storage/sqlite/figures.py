"""What of calls adds up, and by which dimensions the sums of a block of calls are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from storage.filters import Field

__all__ = [
    "BLOCK",
    "COLUMNS",
    "DAY",
    "EVERY_CALL",
    "FIELDS",
    "MODEL",
    "PROPERTY",
    "QUARTER",
    "SESSION",
    "bucket",
    "day",
    "dimension_of",
    "pair_columns",
    "pair_of",
]

DAY: Final = 86_400_000_000
QUARTER: Final = 900_000_000
"""The width of the buckets of `EVERY_CALL`: all time zones are some quarters of an hour from UTC."""
BLOCK: Final = 1 << 13
"""Calls of a block, as the migration's triggers have it."""

# Of each column what it is of one call `c`, and what makes one of several.
COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "calls": ("1", "sum"),
    "failed": ("(c.error_kind IS NOT NULL OR coalesce(c.status, 0) >= 400)", "sum"),
    "first_started_at": ("c.started_at", "min"),
    "last_started_at": ("c.started_at", "max"),
    "first_token": ("c.time_to_first_token", "sum"),
    "first_tokens": ("(c.time_to_first_token IS NOT NULL)", "sum"),
    "latency": ("c.latency", "sum"),
    "prompt_tokens": ("c.prompt_tokens", "sum"),
    "completion_tokens": ("c.completion_tokens", "sum"),
    "total_tokens": ("c.total_tokens", "sum"),
    "cost": ("c.cost", "sum"),
}

EVERY_CALL: Final = "time"
"""The dimension whose values are quarters of an hour."""
SESSION: Final = "session"
MODEL: Final = "model"
PROPERTY: Final = "property"
# The one dimension whose values are numbers.
_STATUS: Final = "status"
# By dimension: which field is its value, and which its name.
FIELDS: Final[Mapping[str, tuple[str, str | None]]] = {
    SESSION: ("session_id", "session_name"),
    "user": ("user_id", None),
    MODEL: ("model", None),
    "request_model": ("request_model", None),
    "provider": ("provider", None),
    _STATUS: ("status", None),
    "path": ("path", None),
    "span_name": ("span_name", None),
    "prompt": ("prompt_id", "prompt_version"),
}
_OF_FIELD: Final = {
    field: (dimension, column)
    for dimension, fields in FIELDS.items()
    for field, column in zip(fields, ("value", "name"), strict=True)
    if field is not None
}


def dimension_of(field: Field) -> tuple[str, str] | None:
    """The dimension that tells of a field, and in which column of it; None where there is none."""
    if field.name == PROPERTY:
        return f"{PROPERTY}:{field.key}", "value"
    return _OF_FIELD.get(field.name)


def pair_of(one: str, other: str) -> str:
    """The dimension of two at once: of the values of both, not of the names."""
    return json.dumps(sorted((one, other), key=lambda dimension: (dimension != _STATUS, dimension)))


def pair_columns(dimension: str) -> dict[str, str] | None:
    """In which column each of a pair's dimensions stands, a name being a text; None for what is no pair."""
    return dict(zip(json.loads(dimension), ("value", "name"), strict=True)) if dimension.startswith("[") else None


def bucket(moment: str, width: int, offset: int = 0) -> str:
    """Where the span of time begins that a moment lies in; SQLite's remainder has the sign of what is divided."""
    return f"({moment} - (({moment} - {offset}) % {width} + {width}) % {width})"


def day(moment: str) -> str:
    """The day in UTC that a moment lies in, counted from the epoch."""
    return f"({bucket(moment, DAY)} / {DAY})"
