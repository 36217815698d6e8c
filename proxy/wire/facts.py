"""What a row wants to know of a body, in one vocabulary for every provider's format. Unknown is ``None``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from storage.records import Usage

__all__ = ["RequestFacts", "ResponseFacts", "as_count", "as_text"]

# SQLite's integers end here, and no provider counts further.
_LARGEST_COUNT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Of a request's body."""

    model: str | None = None
    user: str | None = None
    is_stream: bool = False


@dataclass(frozen=True, slots=True)
class ResponseFacts:
    """Of a response's body. ``body`` is the parsed answer; of a stream the same answer assembled."""

    id: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    text: str | None = None
    tool_calls: list[Any] | None = None
    is_stream: bool = False
    error_kind: str | None = None
    error_message: str | None = None
    body: Any = None


def as_text(value: object) -> str | None:
    """The value if it is text that says something."""
    return value.replace("\0", "") if isinstance(value, str) and value else None


def as_count(value: object) -> int | None:
    """The value if it is a count that can be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= _LARGEST_COUNT:
        return None
    return int(value)
