"""From an exchange to the row that is stored, and from a stored row to what its bodies give now.

Both ways use the one rule of `_derive`. Pure, but that a row that was begun is used up; and never raises for anything
that came over the wire, unless it is told how long it may take. What is too long of it is cut, and the row's ``cut``
says of what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from proxy.exchange import Asked, Begun, Capture, Exchange
from proxy.pricing import Pricer
from proxy.redaction.keys import Keys
from proxy.redaction.redactor import Redactor, left_out
from proxy.redaction.rules import Rules, TooSlow, Unsearchable
from proxy.redaction.suspicion import is_in_pieces, keys_in, keys_in_request
from proxy.text_limits import DEFAULT_TEXT_LIMITS, TextLimits, cut_to
from proxy.wire import Message, RequestFacts, ResponseFacts, read_request, read_response, skim_response
from proxy.wire.encoding import decode
from proxy.wire.gist import Gist, find_gist_if_worth
from proxy.wire.media_types import is_event_stream
from storage.records import Body, Call, Derived, Usage

__all__ = ["build_call", "derive_again", "read_ahead"]

_MICROSECONDS = 1_000_000
# Bytes of bodies that are searched for keys in the event loop.
_MOST_SEARCHED_IN_LOOP: Final = 4 * 1024
_NO_RULES: Final = Redactor(Rules())
# What a row is begun with, and gets its own in the place of.
_NO_ANSWER: Final = Body()
_NO_USAGE: Final = Usage()
_FIRST_ERROR_STATUS = 400
# The errors that bodies tell of; all others are of the exchange, and no body knows of them.
_ERROR_EVENT: Final = "upstream_error_event"
_ERROR_BODY: Final = "upstream_error_body"
# The columns that either side's body gives; a user may have been named elsewhere.
_OF_REQUEST: Final = frozenset({"request_model"})
_OF_RESPONSE: Final = frozenset({"response_model", "provider_response_id", "finish_reason", "error_message"})


def build_call(
    exchange: Exchange, pricer: Pricer, redactor: Redactor | None = None, *, within: float | None = None
) -> Call:
    """The row of an exchange that has ended, without what is not to be stored.

    Raises `proxy.redaction.rules.TooSlow` if the searches for that take longer than ``within`` seconds.
    """
    asked, begun = exchange.asked, exchange.take_begun()
    logged, facts, received, gist = _to_log(exchange, asked, redactor, within)
    if begun is None or asked is None or logged is not exchange:
        begun = _begin(logged)  # that was of another request, or with what is to go
    exchange, (call, cut) = logged, begun
    answered = skim_response(exchange.path, Message(received, exchange.response.content_type), gist)
    _fill(call, _ending(exchange, cut, is_stream=bool(answered.is_stream)))
    _fill(call, _derive(call, facts, answered, pricer, exchange.limits, cut))
    return call


def read_ahead(exchange: Exchange) -> None:
    """Do what of an exchange's row only its request tells, all of which is there, before the exchange has ended.

    Raises `proxy.redaction.rules.TooSlow` if that would take long.
    """
    sent = _decoded(exchange.request)
    keys = keys_in_request(exchange, sent, at_once=True)
    exchange.asked_ahead = Asked(exchange.request_source, exchange.credentials, keys, _asked_of(exchange, sent))
    exchange.begun_ahead = _begin(exchange)


def _asked_of(exchange: Exchange, sent: bytes) -> RequestFacts:
    return read_request(exchange.path, Message(sent, exchange.request.content_type))


def _begin(exchange: Exchange) -> Begun:
    """The row without what only the answer tells; of the user what is known without the body."""
    identity, limits, cut = exchange.identity, exchange.limits, list(exchange.identity.cut)
    label, text = limits.max_label_characters, limits.max_text_characters
    call = Call(
        organisation=exchange.organisation,
        request_id=identity.request_id,
        trace_id=identity.trace_id,
        method=cut_to(label, exchange.method, "method", cut),
        path=cut_to(text, exchange.path, "path", cut),
        target_url=cut_to(text, exchange.target_url, "target_url", cut),
        provider=cut_to(label, exchange.provider, "provider", cut),
        started_at=round(exchange.started_at * _MICROSECONDS),
        latency=0,
        span_id=identity.span_id,
        parent_span_id=identity.parent_span_id,
        span_name=identity.span_name,
        session_id=identity.session_id,
        session_name=identity.session_name,
        session_path=identity.session_path,
        user_id=identity.user_id,
        prompt_id=identity.prompt_id,
        prompt_version=identity.prompt_version,
        model_override=identity.model_override,
        properties=identity.properties,
        request=_body(exchange.request, label, cut),
        response=_NO_ANSWER,
        usage=_NO_USAGE,
    )
    return Begun(call, cut)


def _ending(exchange: Exchange, cut: list[str], *, is_stream: bool) -> dict[str, Any]:
    """What a row that was begun lacks of how its exchange ended, and the answer; of an error what no body tells."""
    failure, started = exchange.failure, exchange.started
    ended = exchange.ended if exchange.ended is not None else started
    first = exchange.first_byte if is_stream else None
    return {
        "latency": _microseconds(ended - started),
        "time_to_first_token": None if first is None else _microseconds(first - started),
        "status": exchange.status,
        "error_kind": failure.kind if failure else None,
        "error_message": failure.message if failure else None,
        "response": _body(exchange.response, exchange.limits.max_label_characters, cut),
    }


def _fill(call: Call, values: Mapping[str, Any]) -> None:
    """In place, since nobody else has it yet: to hand it all to the class at once takes several times as long."""
    for name, value in values.items():
        setattr(call, name, value)


def _to_log(
    exchange: Exchange, asked: Asked | None, redactor: Redactor | None, within: float | None
) -> tuple[Exchange, RequestFacts, bytes, Gist | None]:
    """The exchange without what is not to be stored; what it asks; its response decoded, and the gist of a stream."""
    sent, received = _decoded(exchange.request), _decoded(exchange.response)
    gist = _gist(exchange, received) if is_event_stream(exchange.response.content_type) else None
    keys = keys_in(exchange, sent, received, gist, asked, at_once=within is not None)
    if redactor is None and keys is None:
        return exchange, asked.facts if asked else _asked_of(exchange, sent), received, gist
    if keys is not None and within is not None and len(sent) + len(received) > _MOST_SEARCHED_IN_LOOP:
        raise TooSlow
    exchange = (redactor or _NO_RULES).exchange(exchange, within=within, keys=keys)
    if keys is not None and _tells_still(exchange, keys):
        exchange = replace(exchange, response=left_out(exchange.response))
    return exchange, _asked_of(exchange, _decoded(exchange.request)), _decoded(exchange.response), None


def _gist(exchange: Exchange, received: bytes) -> Gist:
    return exchange.gist.of_whole(received) if exchange.gist is not None else find_gist_if_worth(received)


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


def derive_again(call: Call, pricer: Pricer, limits: TextLimits = DEFAULT_TEXT_LIMITS) -> Call:
    """A stored row as its bodies give it now.

    What can't be derived stays: the columns of a side whose body is not kept, the error of an exchange that failed,
    a user that was named (which of them came from a body isn't known), and that an answer was streamed.
    """
    answer_kept = call.response.data is not None
    known = call
    if answer_kept and call.error_kind in (_ERROR_EVENT, _ERROR_BODY):
        known = replace(call, error_kind=None, error_message=None)
    cut = [name for name in (call.cut or "").split(",") if name and name not in _derived_anew(call)]
    derived = _derive(known, _asked(call), _answered(call), pricer, limits, cut)
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


def _derive(
    known: Call, asked: RequestFacts, answered: ResponseFacts, pricer: Pricer, limits: TextLimits, cut: list[str]
) -> Derived:
    """What bodies give to a row of which all else is ``known``, and of its texts which are ``cut``."""
    most = limits.max_label_characters
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
        "error_message": cut_to(limits.max_text_characters, error_message, "error_message", cut),
        "cost": _cost(known, (response_model, request_model), answered, pricer),
        "usage": answered.usage,
        "cut": ",".join(sorted(set(cut))) if cut else None,
    }


def _error(known: Call, answered: ResponseFacts) -> tuple[str | None, str | None]:
    """How the exchange failed; or the error that an answer with a good status tells of."""
    if known.error_kind is not None or answered.error is None or (known.status or 0) >= _FIRST_ERROR_STATUS:
        return known.error_kind, known.error_message
    may_be_quoted = known.response.data is not None
    message = answered.error if may_be_quoted else "the answer tells of an error"
    return _ERROR_EVENT if answered.is_stream else _ERROR_BODY, message


def _cost(known: Call, models: tuple[str | None, ...], answered: ResponseFacts, pricer: Pricer) -> float | None:
    override = known.model_override
    named = (override,) if override else models
    return pricer.cost(
        answered,
        tuple(filter(None, named)),
        target_url=known.target_url,
        provider=known.provider,
        started=known.started_at / _MICROSECONDS,
    )


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * _MICROSECONDS))


def _decoded(capture: Capture) -> bytes:
    data, encoding = capture.data(), capture.content_encoding
    return (decode(data, encoding) or b"") if encoding else data


def _body(capture: Capture, most: int, cut: list[str]) -> Body:
    omitted = capture.omitted
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
