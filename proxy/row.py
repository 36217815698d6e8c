"""From an exchange to the row that is stored. Pure, and never raises for anything that came over the wire."""

from __future__ import annotations

from proxy.exchange import Capture, Exchange, Failure
from proxy.pricing import Pricer
from proxy.wire import Message, RequestFacts, ResponseFacts, read_request, read_response
from storage.records import Body, Call

__all__ = ["build_call"]

_MICROSECONDS = 1_000_000
_FIRST_ERROR_STATUS = 400


def build_call(exchange: Exchange, pricer: Pricer) -> Call:
    """The row of an exchange that has ended."""
    identity = exchange.identity
    asked = read_request(exchange.path, _message(exchange.request))
    answered = read_response(exchange.path, _message(exchange.response))
    error = _error(exchange, answered)
    ended = exchange.ended if exchange.ended is not None else exchange.started
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
        user_id=identity.user_id or asked.user,
        prompt_id=identity.prompt_id,
        prompt_version=identity.prompt_version,
        method=exchange.method,
        path=exchange.path,
        target_url=exchange.target_url,
        provider=exchange.provider,
        started_at=round(exchange.started_at * _MICROSECONDS),
        latency=max(0, round((ended - exchange.started) * _MICROSECONDS)),
        time_to_first_token=_time_to_first_token(exchange, answered),
        status=exchange.status,
        is_stream=asked.is_stream or answered.is_stream,
        model_override=identity.model_override,
        request_model=asked.model,
        response_model=answered.model,
        provider_response_id=answered.id,
        finish_reason=answered.finish_reason,
        error_kind=error.kind if error else None,
        error_message=error.message if error else None,
        cost=_cost(pricer, exchange, asked, answered),
        usage=answered.usage,
        properties=identity.properties,
        request=_body(exchange.request),
        response=_body(exchange.response),
    )


def _error(exchange: Exchange, answered: ResponseFacts) -> Failure | None:
    """How the exchange failed; or the error that an answer with a good status tells of."""
    if exchange.failure is not None or answered.error is None or (exchange.status or 0) >= _FIRST_ERROR_STATUS:
        return exchange.failure
    message = "the answer tells of an error" if exchange.response.omitted else answered.error
    return Failure("upstream_error_event" if answered.is_stream else "upstream_error_body", message)


def _cost(pricer: Pricer, exchange: Exchange, asked: RequestFacts, answered: ResponseFacts) -> float | None:
    override = exchange.identity.model_override
    named = (override,) if override else (answered.model, asked.model)
    return pricer.cost(
        answered,
        tuple(filter(None, named)),
        target_url=exchange.target_url,
        provider=exchange.provider,
        started=exchange.started_at,
    )


def _time_to_first_token(exchange: Exchange, answered: ResponseFacts) -> int | None:
    if not answered.is_stream or exchange.first_byte is None:
        return None
    return max(0, round((exchange.first_byte - exchange.started) * _MICROSECONDS))


def _body(capture: Capture) -> Body:
    return Body(
        data=None if capture.omitted else capture.data(),
        size=capture.size,
        truncated=capture.truncated and not capture.omitted,
        omitted=capture.omitted,
        content_type=capture.content_type,
        content_encoding=capture.content_encoding,
    )


def _message(capture: Capture) -> Message:
    return Message(capture.data(), capture.content_type, capture.content_encoding)
