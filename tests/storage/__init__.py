"""Helpers of the store's tests: records filled in but for what a test is about, and short ways to read back."""

from __future__ import annotations

from typing import Any

from storage import Storage
from storage.pruning import Pruning
from storage.records import Call, Feedback, StoredCall

__all__ = [
    "ACME",
    "NOW",
    "UNSTORABLE",
    "VERDICT",
    "a_call",
    "a_rating",
    "a_session_rating",
    "a_value",
    "add_values",
    "feedback_of",
    "forget",
    "listed",
    "row",
]

ACME = "acme"
# Half of a UTF-16 pair: a text that no store takes.
UNSTORABLE = "\ud800"
# How a score or a property is set where its call has to be known already.
NOW: dict[str, Any] = {"known": False, "updated_at": 2}
# The property that a session's rating sets.
VERDICT = "Helicone-Session-Feedback"


def a_call(request_id: str = "r1", **fields: Any) -> Call:
    """A small call; its trace is its request unless told, as the proxy has it."""
    known = {"organisation": ACME, "trace_id": request_id, "method": "POST", "path": "/v1/chat/completions"}
    known |= {"target_url": "https://api.openai.com/v1/chat/completions", "provider": "openai"}
    return Call(request_id=request_id, **{**known, "started_at": 1_700_000_000_000_000, "latency": 1500, **fields})


def a_rating(id: str, request_id: str | None = "r1", value: int = 1, **fields: Any) -> Feedback:
    """A rating of a request."""
    known = {"organisation": ACME, "source": "helicone", "created_at": 1, "updated_at": 1}
    return Feedback(id=id, kind="rating", value=value, request_id=request_id, **{**known, **fields})


def a_session_rating(id: str, session_id: str, value: int = 1, **fields: Any) -> Feedback:
    """A rating of a session."""
    return a_rating(id, None, value, session_id=session_id, **fields)


def a_value(id: str, trace_id: str, value: int = 1, **fields: Any) -> Feedback:
    """A weighted value on a trace."""
    known = {"organisation": ACME, "source": "portkey", "created_at": 1, "updated_at": 1}
    return Feedback(id=id, kind="value", value=value, trace_id=trace_id, **{**known, **fields})


async def add_values(store: Storage, *values: Feedback, in_flight: frozenset[str] = frozenset()) -> None:
    """Add values while no trace is in flight but those told."""
    await store.add_values(values, traces_in_flight=in_flight)


async def row(store: Storage, call_id: str = "r1", attempt: int | None = None) -> StoredCall:
    """A row that has to be there."""
    stored = await store.read_call(ACME, call_id, attempt)
    assert stored is not None
    return stored


def feedback_of(stored: StoredCall) -> dict[str, bool]:
    """The ids of a row's feedback in order, and whether it is effective."""
    return {item.id: item.effective for item in stored.feedback}


async def listed(store: Storage, **named: Any) -> dict[str, bool]:
    """The ids of the feedback that a list holds in order, and whether it is effective."""
    return {item.id: item.effective for item in await store.list_feedback(ACME, **named)}


async def forget(store: Storage, before: int) -> None:
    """Delete the calls that began before a time: a request's later attempts may be left."""
    old, reached = Pruning(before=before), None
    while True:
        step = await store.find_prunable(old, reached, most_calls=10, most_bytes=10**6)
        await store.prune(old, step)
        reached = step.reached
        if reached is None:
            return
