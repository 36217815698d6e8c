"""A call as one flat row, for tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from proxy.reads.rows import row
from proxy.reads.shapes import Row
from storage.records import StoredCall

__all__ = ["COLUMNS", "Kind", "flat"]

Kind = Literal["text", "integer", "number", "boolean", "time"]


@dataclass(frozen=True, slots=True)
class _Column:
    kind: Kind
    value: Callable[[Row], Any]


def _of_row(name: str) -> Callable[[Row], Any]:
    return lambda shown: shown[name]  # type: ignore[literal-required]


def _of_feedback(name: str) -> Callable[[Row], Any]:
    return lambda shown: shown["feedback"][name]  # type: ignore[literal-required]


def _json(name: str) -> Callable[[Row], Any]:
    return lambda shown: _text(shown[name])  # type: ignore[literal-required]


def _text(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _named(kind: Kind, *names: str) -> dict[str, _Column]:
    return {name: _Column(kind, _of_row(name)) for name in names}


_ALL: Final[dict[str, _Column]] = {
    **_named("text", "request_id", "response_id"),
    **_named("integer", "attempt"),
    **_named("text", "organization_id", "trace_id", "span_id", "parent_span_id", "span_name"),
    **_named("text", "session_id", "session_name", "session_path", "request_user_id", "prompt_id", "prompt_version"),
    **_named("time", "request_created_at", "response_created_at"),
    **_named("text", "request_method", "request_path", "target_url", "provider"),
    **_named("text", "model", "request_model", "response_model", "finish_reason"),
    **_named("integer", "response_status"),
    "error_kind": _Column("text", lambda shown: shown["error"]["kind"] if shown["error"] else None),
    "error_message": _Column("text", lambda shown: shown["error"]["message"] if shown["error"] else None),
    **_named("number", "delay_ms", "time_to_first_token"),
    **_named("boolean", "is_stream"),
    **_named("integer", "prompt_tokens", "completion_tokens", "total_tokens"),
    **_named("integer", "prompt_cache_read_tokens", "prompt_cache_write_tokens", "reasoning_tokens"),
    **_named("number", "cost"),
    "rating": _Column("boolean", _of_feedback("rating")),
    "feedback_count": _Column("integer", _of_feedback("count")),
    "feedback_positive": _Column("integer", _of_feedback("positive")),
    "feedback_negative": _Column("integer", _of_feedback("negative")),
    "feedback_weighted_mean": _Column("number", _of_feedback("weighted_mean")),
    "properties": _Column("text", _json("properties")),
    "scores": _Column("text", _json("scores")),
    "response_text": _Column("text", _of_row("response_text")),
    "request_body": _Column("text", _json("request_body")),
    "response_body": _Column("text", _json("response_body")),
}

COLUMNS: Final[dict[str, Kind]] = {name: column.kind for name, column in _ALL.items()}
"""What each holds. Properties, scores and bodies are JSON texts; times are ISO 8601 in UTC."""


def flat(stored: StoredCall) -> list[Any]:
    """The values of `COLUMNS`."""
    shown = row(stored, include_body=True)
    return [column.value(shown) for column in _ALL.values()]
