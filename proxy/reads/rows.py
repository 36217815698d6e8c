"""A stored call as the read routes show it: Helicone's names, and Kibitz's own beside them. Contract section 7."""

from __future__ import annotations

from typing import Any

from proxy.feedback.items import feedback_summary, iso_time
from proxy.reads.shapes import LatestRating, NothingOfTheKind, Row, RowError, RowIdentity, RowOutcome, RowUsage
from proxy.wire import Message, read_response, visible_answer, visible_body
from storage.records import Body, Call, Score, StoredCall

__all__ = ["row"]

# The name under which Helicone keeps a request's rating among its scores.
_RATING_SCORE = "helicone-score-feedback"
# Beyond this a float no longer tells one integer from the next (IEEE 754: 53 bits).
_LARGEST_EXACT = 2**53


def row(stored: StoredCall, *, include_body: bool) -> Row:
    """The row's JSON; without ``include_body`` its two bodies are null."""
    call, feedback = stored.call, feedback_summary(stored.feedback)
    answered = read_response(call.path, _message(call.response))
    return {
        **_identity(stored),
        **_outcome(call),
        **_usage(call),
        "scores": _scores(stored.scores, feedback["rating"]),
        **_latest_rating(stored),
        "feedback": feedback,
        "response_text": answered.text,
        "tool_calls": answered.tool_calls,
        "request_body": _visible(call.request) if include_body else None,
        "response_body": _visible_answer(call.response, answered.body) if include_body else None,
        **_nothing_of_the_kind(),
        "request_body_size": call.request.size,
        "response_body_size": call.response.size,
        "request_body_truncated": call.request.truncated,
        "response_body_truncated": call.response.truncated,
    }


def _identity(stored: StoredCall) -> RowIdentity:
    call = stored.call
    properties = dict(call.properties)
    return {
        "request_id": call.request_id,
        "response_id": call.provider_response_id,
        "attempt": stored.attempt,
        "trace_id": call.trace_id,
        "span_id": call.span_id,
        "parent_span_id": call.parent_span_id,
        "span_name": call.span_name,
        "session_id": call.session_id,
        "session_name": call.session_name,
        "session_path": call.session_path,
        "request_user_id": call.user_id,
        "helicone_user": call.user_id,
        "request_properties": properties,
        "properties": properties,
        "prompt_id": call.prompt_id,
        "prompt_version": call.prompt_version,
        "organization_id": call.organisation,
    }


def _outcome(call: Call) -> RowOutcome:
    error: RowError | None = {"kind": call.error_kind, "message": call.error_message} if call.error_kind else None
    return {
        "request_created_at": iso_time(call.started_at),
        "response_created_at": iso_time(call.started_at + call.latency),
        "request_method": call.method,
        "request_path": call.path,
        "target_url": call.target_url,
        "provider": call.provider,
        "provider_response_id": call.provider_response_id,
        "response_status": call.status,
        "delay_ms": _milliseconds(call.latency),
        "time_to_first_token": _milliseconds(call.time_to_first_token),
        "is_stream": call.is_stream,
        "finish_reason": call.finish_reason,
        "error": error,
        "cut": call.cut.split(",") if call.cut else None,
        "model": call.model,
        "model_override": call.model_override,
        "request_model": call.request_model,
        "response_model": call.response_model,
    }


def _usage(call: Call) -> RowUsage:
    usage = call.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_cache_read_tokens": usage.cache_read_tokens,
        "prompt_cache_write_tokens": usage.cache_write_tokens,
        "prompt_audio_tokens": usage.prompt_audio_tokens,
        "completion_audio_tokens": usage.completion_audio_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost": call.cost,
        "costUSD": call.cost,
    }


def _milliseconds(microseconds: int | None) -> float | None:
    return microseconds / 1000 if microseconds is not None else None


def _scores(scores: tuple[Score, ...], rating: bool | None) -> dict[str, bool | int | float]:
    shown: dict[str, bool | int | float] = {score.name: _number(score) for score in scores}
    if rating is not None:
        shown[_RATING_SCORE] = int(rating)
    return shown


def _number(score: Score) -> bool | int | float:
    if score.is_boolean:
        return bool(score.value)
    exact = score.value.is_integer() and abs(score.value) <= _LARGEST_EXACT
    return int(score.value) if exact else score.value


def _latest_rating(stored: StoredCall) -> LatestRating:
    ratings = [item for item in stored.feedback if item.kind == "rating" and item.effective]
    rating = ratings[-1] if ratings else None
    return {
        "feedback_id": rating.id if rating else None,
        "feedback_rating": bool(rating.value) if rating else None,
        "feedback_created_at": iso_time(rating.created_at) if rating else None,
    }


def _nothing_of_the_kind() -> NothingOfTheKind:
    return {
        "signed_body_url": None,
        "storage_location": None,
        "asset_ids": None,
        "asset_urls": None,
        "assets": [],
        "request_referrer": None,
        "country_code": None,
        "ai_gateway_body_mapping": None,
        "llmSchema": None,
        "cache_enabled": False,
        "cache_reference_id": None,
        "updated_at": None,
    }


def _message(body: Body) -> Message:
    return Message(body.data or b"", body.content_type, body.content_encoding)


def _visible(body: Body) -> Any:
    return visible_body(_message(body)) if body.data else None


def _visible_answer(body: Body, parsed: Any) -> Any:
    return visible_answer(parsed, _message(body)) if body.data else None
