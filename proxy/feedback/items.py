"""Feedback as readers see it: single items, and what they add up to. Contract section 6."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import orjson

from proxy.feedback.shapes import FeedbackItem, FeedbackSummary
from storage.records import Feedback

__all__ = ["feedback_item", "feedback_summary", "iso_time"]


def iso_time(microseconds: int) -> str:
    """ISO 8601 in UTC, from microseconds since the epoch."""
    moment = datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def feedback_item(feedback: Feedback) -> FeedbackItem:
    """One item of a list of feedback."""
    return {
        "id": feedback.id,
        "kind": feedback.kind,
        "value": feedback.value,
        "weight": feedback.weight,
        "comment": feedback.comment,
        "metadata": orjson.loads(feedback.metadata) if feedback.metadata is not None else None,
        "request_id": feedback.request_id,
        "trace_id": feedback.trace_id,
        "session_id": feedback.session_id,
        "source": feedback.source,
        "effective": feedback.effective,
        "created_at": iso_time(feedback.created_at),
        "updated_at": iso_time(feedback.updated_at),
    }


def feedback_summary(feedback: Sequence[Feedback]) -> FeedbackSummary:
    """A row's ``feedback``: figures over the effective items, and all of the items."""
    effective = [item for item in feedback if item.effective]
    ratings = [item for item in effective if item.kind == "rating"]
    weights = sum(item.weight for item in effective)
    return {
        "rating": bool(ratings[-1].value) if ratings else None,
        "count": len(effective),
        "positive": sum(item.value > 0 for item in effective),
        "negative": sum(item.value <= 0 for item in effective),
        "weighted_mean": sum(item.value * item.weight for item in effective) / weights if weights else None,
        "items": [feedback_item(item) for item in feedback],
    }
