"""What the feedback routes answer, and what other routes show of feedback. Contract section 6."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from storage.records import FeedbackKind

__all__ = [
    "Done",
    "FeedbackItem",
    "FeedbackList",
    "FeedbackSaved",
    "FeedbackSummary",
    "OldRatingSaved",
    "TagAnswer",
    "Time",
]

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""ISO 8601 in UTC."""


class Done(TypedDict):
    """All went well, on Helicone's routes."""

    data: None
    error: None


class TagAnswer(TypedDict):
    """A session's tag, or null."""

    data: str | None
    error: None


class OldRatingSaved(TypedDict):
    """All went well, on the route of Helicone's old proxy."""

    message: str
    helicone_id: str


class FeedbackSaved(TypedDict):
    """All went well, on Portkey's routes; the ids are in the order of the items sent."""

    status: Literal["success"]
    message: str
    feedback_ids: list[str]


class FeedbackItem(TypedDict):
    """One verdict: a rating (value 1 or 0, weight 1) of a request or session, or a weighted value on a trace.

    ``effective`` is false for a rating that a later one replaced.
    """

    id: str
    kind: FeedbackKind
    value: Annotated[int, Field(ge=-10, le=10)]
    weight: Annotated[float, Field(ge=0, le=1)]
    comment: str | None
    metadata: dict[str, Any] | None
    request_id: str | None
    trace_id: str | None
    session_id: str | None
    source: str
    effective: bool
    created_at: Time
    updated_at: Time


class FeedbackList(TypedDict):
    """Items of feedback."""

    object: Literal["list"]
    total: int
    data: list[FeedbackItem]


class FeedbackSummary(TypedDict):
    """Figures over the effective items, the request's rating and its trace's values together; and all items."""

    rating: bool | None
    count: int
    positive: int
    negative: int
    weighted_mean: float | None
    items: list[FeedbackItem]
