"""From an exchange to the row that is stored, and from a stored row to what its bodies give now.

Both ways use the one rule of `_derive`. Pure, and never raises for anything that came over the wire.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from proxy.exchange import Capture, Exchange
from proxy.pricing import Pricer
from proxy.wire import Message, RequestFacts, ResponseFacts, read_request, read_response
from storage.records import Body, Call, Derived

__all__ = ["build_call", "derive_again"]

_MICROSECONDS = 1_000_000
_FIRST_ERROR_STATUS = 400
# The errors that bodies tell of; all others are of the exchange, and no body knows of them.
_ERROR_EVENT: Final = "upstream_error_event"
_ERROR_BODY: Final = "upstream_error_body"


class _Known(NamedTuple):
    """What is known of a call without its bodies, as `Call` has it; of its error, user and stream what was told."""

    user_id: str | None
    is_stream: bool
    status: int | None
    error_kind: str | None
    error_message: str | None
    model_override: str | None
    target_url: str
    provider: str
    started_at: int
    may_quote: bool
    """Whether the answer's own words may be stored."""


def build_call(exchange: Exchange, pricer: Pricer) -> Call:
    """The row of an exchange that has ended."""
    identity, failure = exchange.identity, exchange.failure
    request, response = exchange.request, exchange.response
    sent, received = request.data(), response.data()
    asked = read_request(exchange.path, _message(request, sent))
    answered = read_response(exchange.path, _message(response, received))
    ended = exchange.ended if exchange.ended is not None else exchange.started
    known = _Known(
        identity.user_id,
        False,
        exchange.status,
        failure.kind if failure else None,
        failure.message if failure else None,
        identity.model_override,
        exchange.target_url,
        exchange.provider,
        round(exchange.started_at * _MICROSECONDS),
        not response.omitted,
    )
    return Call(
        organisation=exchange.organisation,
        request_id=identity.request_id,
        trace_id=identity.trace_id,
        span_id=identity.span_id,
        parent_span_id=identity.parent_span_id,
        span_name=identity.span_name,
        session_id=identity.session_id,
        session_name=identity.session_name,
        session_path=identity.session_path,
        prompt_id=identity.prompt_id,
        prompt_version=identity.prompt_version,
        method=exchange.method,
        path=exchange.path,
        target_url=exchange.target_url,
        provider=exchange.provider,
        started_at=known.started_at,
        latency=max(0, round((ended - exchange.started) * _MICROSECONDS)),
        time_to_first_token=_time_to_first_token(exchange, answered),
        status=exchange.status,
        model_override=identity.model_override,
        properties=identity.properties,
        request=_body(request, sent),
        response=_body(response, received),
        **_derive(known, asked, answered, pricer),
    )


def derive_again(call: Call, pricer: Pricer) -> Call:
    """A stored row as its bodies give it now.

    What can't be derived stays: the columns of a side whose body is not kept, the error of an exchange that failed,
    a user that was named (which of them came from a body isn't known), and that an answer was streamed.
    """
    answer_kept = call.response.data is not None
    kept_error = not answer_kept or call.error_kind not in (_ERROR_EVENT, _ERROR_BODY)
    known = _Known(
        call.user_id,
        call.is_stream,
        call.status,
        call.error_kind if kept_error else None,
        call.error_message if kept_error else None,
        call.model_override,
        call.target_url,
        call.provider,
        call.started_at,
        answer_kept,
    )
    derived = _derive(known, _asked(call), _answered(call), pricer)
    if not answer_kept:
        derived["cost"] = call.cost  # it may depend on more of the answer than the row holds
    return replace(call, **derived)


def _asked(call: Call) -> RequestFacts:
    """What the request of a stored row says; where it is not kept, what it had said."""
    if call.request.data is None:
        return RequestFacts(model=call.request_model)
    return read_request(call.path, _message(call.request, call.request.data))


def _answered(call: Call) -> ResponseFacts:
    """The same of its response."""
    if call.response.data is None:
        return ResponseFacts(call.provider_response_id, call.response_model, call.finish_reason, call.usage)
    return read_response(call.path, _message(call.response, call.response.data))


def _derive(known: _Known, asked: RequestFacts, answered: ResponseFacts, pricer: Pricer) -> Derived:
    error_kind, error_message = _error(known, answered)
    return {
        "user_id": known.user_id or asked.user,
        "is_stream": known.is_stream or (asked.is_stream if answered.is_stream is None else answered.is_stream),
        "request_model": asked.model,
        "response_model": answered.model,
        "provider_response_id": answered.id,
        "finish_reason": answered.finish_reason,
        "error_kind": error_kind,
        "error_message": error_message,
        "cost": _cost(known, asked, answered, pricer),
        "usage": answered.usage,
    }


def _error(known: _Known, answered: ResponseFacts) -> tuple[str | None, str | None]:
    """How the exchange failed; or the error that an answer with a good status tells of."""
    if known.error_kind is not None or answered.error is None or (known.status or 0) >= _FIRST_ERROR_STATUS:
        return known.error_kind, known.error_message
    message = answered.error if known.may_quote else "the answer tells of an error"
    return _ERROR_EVENT if answered.is_stream else _ERROR_BODY, message


def _cost(known: _Known, asked: RequestFacts, answered: ResponseFacts, pricer: Pricer) -> float | None:
    override = known.model_override
    named = (override,) if override else (answered.model, asked.model)
    return pricer.cost(
        answered,
        tuple(filter(None, named)),
        target_url=known.target_url,
        provider=known.provider,
        started=known.started_at / _MICROSECONDS,
    )


def _time_to_first_token(exchange: Exchange, answered: ResponseFacts) -> int | None:
    if not answered.is_stream or exchange.first_byte is None:
        return None
    return max(0, round((exchange.first_byte - exchange.started) * _MICROSECONDS))


def _body(capture: Capture, data: bytes) -> Body:
    omitted = capture.omitted
    return Body(
        None if omitted else data,
        capture.size,
        not omitted and capture.truncated,
        omitted,
        capture.content_type,
        capture.content_encoding,
    )


def _message(side: Capture | Body, data: bytes) -> Message:
    return Message(data, side.content_type, side.content_encoding)
