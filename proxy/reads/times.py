"""The spans of time that Helicone's questions name."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from proxy.reads.bodies import HeliconeBody
from storage.filters import All, Condition, Node, Operator
from storage.filters import Field as CallField

__all__ = ["MillisecondSpan", "SecondSpan", "within"]

_MILLISECOND: Final = 1000
_SECOND: Final = 1_000_000
# Milliseconds: the year 5138.
_LARGEST: Final = 10**14

Moment = Annotated[float, Field(ge=0, le=_LARGEST)]


class MillisecondSpan(HeliconeBody):
    """From and to, in milliseconds since the epoch."""

    start_time_unix_ms: Moment
    end_time_unix_ms: Moment

    def node(self) -> Node:
        """The calls that started in it."""
        return within(self.start_time_unix_ms * _MILLISECOND, self.end_time_unix_ms * _MILLISECOND)


class SecondSpan(HeliconeBody):
    """From and to, in seconds since the epoch."""

    start_time_unix_seconds: Moment
    end_time_unix_seconds: Moment

    def node(self) -> Node:
        """The calls that started in it."""
        return within(self.start_time_unix_seconds * _SECOND, self.end_time_unix_seconds * _SECOND)


def within(start: float, end: float) -> Node:
    """The calls that started between two moments, both included, in microseconds since the epoch."""
    started_at = CallField("started_at")
    return All(
        (
            Condition(started_at, Operator.GTE, round(min(start, 2**53))),
            Condition(started_at, Operator.LTE, round(min(end, 2**53))),
        )
    )
