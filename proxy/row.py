"""From an exchange to the row that is stored, and from a stored row to what its bodies give now.

Both ways use the one rule of `_derive`. Pure, and never raises for anything that came over the wire, unless it is told
how long it may take; what is too long of it is cut, and the row's ``cut`` says of what.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple, TypedDict

import orjson

from proxy.exchange import Capture, Exchange
from proxy.pricing import Pricer
from proxy.redaction.keys import Keys
from proxy.redaction.redactor import Redactor, left_out
from proxy.redaction.rules import Rules, TooSlow, Unsearchable
from proxy.redaction.suspicion import is_in_pieces, keys_in
from proxy.text_limits import DEFAULT_TEXT_LIMITS, TextLimits, cut_to
from proxy.wire import Message, RequestFacts, ResponseFacts, read_request, read_response, skim_response
from proxy.wire.encoding import decode
from proxy.wire.gist import Gist, find_gist
from proxy.wire.sse import is_event_stream
from storage.records import Body, Call, Derived

__all__ = ["build_call", "derive_again"]

_MICROSECONDS = 1_000_000
# Bytes of bodies that are searched for keys in the event loop.
_MOST_SEARCHED_IN_LOOP: Final = 4 * 1024
_NO_RULES: Final = Redactor(Rules())
_FIRST_ERROR_STATUS = 400
# The errors that bodies tell of; all others are of the exchange, and no body knows of them.
_ERROR_EVENT: Final = "upstream_error_event"
_ERROR_BODY: Final = "upstream_error_body"
# The columns that either side's body gives; a user may have been named elsewhere.
_OF_REQUEST: Final = frozenset({"request_model"})
_OF_RESPONSE: Final = frozenset({"response_model", "provider_response_id", "finish_reason", "error_message"})


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
    limits: TextLimits
    cut: tuple[str, ...]
    """What is known to be cut but by the bodies' facts."""


class _Ways(TypedDict):
    """How a call came and where it went."""

    method: str
    path: str
    target_url: str
    provider: str


def build_call(
    exchange: Exchange, pricer: Pricer, redactor: Redactor | None = None, *, within: float | None = None
) -> Call:
    """The row of an exchange that has ended, without what is not to be stored.

    Raises `proxy.redaction.rules.TooSlow` if the searches for that take longer than ``within`` seconds.
    """
    exchange, sent, received, gist = _to_log(exchange, redactor, within)
    identity, failure = exchange.identity, exchange.failure
    request, response = exchange.request, exchange.response
    asked = read_request(exchange.path, Message(sent, request.content_type))
    answered = skim_response(exchange.path, Message(received, response.content_type), gist)
    ended = exchange.ended if exchange.ended is not None else exchange.started
    cut = list(identity.cut)
    ways = _ways(exchange, cut)
    sent_body, received_body = _body(exchange, request, cut), _body(exchange, response, cut)
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
        exchange.limits,
        tuple(cut),
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
        started_at=known.started_at,
        latency=max(0, round((ended - exchange.started) * _MICROSECONDS)),
        time_to_first_token=_time_to_first_token(exchange, answered),
        status=exchange.status,
        model_override=identity.model_override,
        properties=identity.properties,
        request=sent_body,
        response=received_body,
        **ways,
        **_derive(known, asked, answered, pricer),
    )


def _to_log(
    exchange: Exchange, redactor: Redactor | None, within: float | None
) -> tuple[Exchange, bytes, bytes, Gist | None]:
    """The exchange without what is not to be stored, its bodies without their encoding, and the gist of a stream."""
    sent, received = _decoded(exchange.request), _decoded(exchange.response)
    gist = find_gist(received) if is_event_stream(exchange.response.content_type) else None
    keys = keys_in(exchange, sent, received, gist, at_once=within is not None)
    if redactor is None and keys is None:
        return exchange, sent, received, gist
    if keys is not None and within is not None and len(sent) + len(received) > _MOST_SEARCHED_IN_LOOP:
        raise TooSlow
    exchange = (redactor or _NO_RULES).exchange(exchange, within=within, keys=keys)
    if keys is not None and _tells_still(exchange, keys):
        exchange = replace(exchange, response=left_out(exchange.response))
    return exchange, _decoded(exchange.request), _decoded(exchange.response), None


def _tells_still(exchange: Exchange, keys: Keys) -> bool:
    """Whether a stream, put together as readers of the log see it, holds what none of its texts does."""
    response = exchange.response
    data = _decoded(response) or response.data()
    if not is_in_pieces(data, response.content_type):
        return False
    body = read_response(exchange.path, Message(data, response.content_type)).body
    if body is None:
        return False
    try:
        told = orjson.dumps(body).decode()
        return Rules().search(len(told), keys=keys).document(told) != told
    except (orjson.JSONEncodeError, Unsearchable):
        return True


def _ways(exchange: Exchange, cut: list[str]) -> _Ways:
    label, text = exchange.limits.max_label_characters, exchange.limits.max_text_characters
    return {
        "method": cut_to(label, exchange.method, "method", cut),
        "path": cut_to(text, exchange.path, "path", cut),
        "target_url": cut_to(text, exchange.target_url, "target_url", cut),
        "provider": cut_to(label, exchange.provider, "provider", cut),
    }


def derive_again(call: Call, pricer: Pricer, limits: TextLimits = DEFAULT_TEXT_LIMITS) -> Call:
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
        limits,
        tuple(name for name in (call.cut or "").split(",") if name and name not in _derived_anew(call)),
    )
    derived = _derive(known, _asked(call), _answered(call), pricer)
    if not answer_kept:
        derived["cost"] = call.cost  # it may depend on more of the answer than the row holds
    return replace(call, **derived)


def _derived_anew(call: Call) -> frozenset[str]:
    """The columns of the bodies that are kept."""
    of_request = _OF_REQUEST if call.request.data is not None else frozenset()
    return of_request | _OF_RESPONSE if call.response.data is not None else of_request


def _asked(call: Call) -> RequestFacts:
    """What the request of a stored row says; where it is not kept, what it had said."""
    if call.request.data is None:
        return RequestFacts(model=call.request_model)
    return read_request(call.path, _message(call.request, call.request.data))


def _answered(call: Call) -> ResponseFacts:
    """The same of its response."""
    if call.response.data is None:
        return ResponseFacts(call.provider_response_id, call.response_model, call.finish_reason, call.usage)
    return skim_response(call.path, _message(call.response, call.response.data))


def _derive(known: _Known, asked: RequestFacts, answered: ResponseFacts, pricer: Pricer) -> Derived:
    cut, most = list(known.cut), known.limits.max_label_characters
    error_kind, error_message = _error(known, answered)
    request_model = cut_to(most, asked.model, "request_model", cut)
    response_model = cut_to(most, answered.model, "response_model", cut)
    response_id = cut_to(most, answered.id, "provider_response_id", cut)
    return {
        "user_id": known.user_id or cut_to(most, asked.user, "user_id", cut),
        "is_stream": known.is_stream or (asked.is_stream if answered.is_stream is None else answered.is_stream),
        "request_model": request_model,
        "response_model": response_model,
        "provider_response_id": response_id if response_id == answered.id else None,  # half of an id names nothing
        "finish_reason": cut_to(most, answered.finish_reason, "finish_reason", cut),
        "error_kind": error_kind,
        "error_message": cut_to(known.limits.max_text_characters, error_message, "error_message", cut),
        "cost": _cost(known, (response_model, request_model), answered, pricer),
        "usage": answered.usage,
        "cut": ",".join(sorted(set(cut))) if cut else None,
    }


def _error(known: _Known, answered: ResponseFacts) -> tuple[str | None, str | None]:
    """How the exchange failed; or the error that an answer with a good status tells of."""
    if known.error_kind is not None or answered.error is None or (known.status or 0) >= _FIRST_ERROR_STATUS:
        return known.error_kind, known.error_message
    message = answered.error if known.may_quote else "the answer tells of an error"
    return _ERROR_EVENT if answered.is_stream else _ERROR_BODY, message


def _cost(known: _Known, models: tuple[str | None, ...], answered: ResponseFacts, pricer: Pricer) -> float | None:
    override = known.model_override
    named = (override,) if override else models
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


def _decoded(capture: Capture) -> bytes:
    data, encoding = capture.data(), capture.content_encoding
    return (decode(data, encoding) or b"") if encoding else data


def _body(exchange: Exchange, capture: Capture, cut: list[str]) -> Body:
    omitted, most = capture.omitted, exchange.limits.max_label_characters
    return Body(
        None if omitted else capture.data(),
        capture.size,
        not omitted and capture.truncated,
        omitted,
        cut_to(most, capture.content_type, "content_type", cut),
        cut_to(most, capture.content_encoding, "content_encoding", cut),
    )


def _message(side: Body, data: bytes) -> Message:
    return Message(data, side.content_type, side.content_encoding)
