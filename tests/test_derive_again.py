"""A stored row from its bodies again: an unchanged parser changes nothing, and a better one heals what there was."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import brotli
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange import Capture, Exchange, Failure
from proxy.headers import RequestFields
from proxy.identity import identify
from proxy.pricing import Pricer
from proxy.row import build_call, derive_again
from storage.records import Body, Call, Usage
from tests.upstream import CHAT_BODY, chat_events
from tests.wire.recordings import beside_the_repository, recordings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PRICER = Pricer({})
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}
FAILURE = Failure("upstream_cut", "the upstream broke off")
ASKED = orjson.dumps({"model": "gpt-4o-mini", "user": "ada", "messages": [], "stream": True})
STREAM = b"".join(chat_events("Hello", " there."))
EVENTS = "text/event-stream"
# Its price depends on more than the row holds: Anthropic counts what it read from the cache apart.
CACHED = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 1000}
MESSAGE: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-3-5-sonnet-20241022"}
MESSAGE |= {"content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": CACHED}


def side(
    data: bytes, content_type: str, encoding: str = "identity", limit: int = 2**24, omitted: bool = False
) -> Capture:
    capture = Capture(limit=limit, content_type=content_type, content_encoding=encoding, omitted=omitted)
    capture.feed(ENCODERS[encoding](data))
    return capture


def ended(path: str, request: Capture, response: Capture, **fields: Any) -> Exchange:
    """An exchange that has ended, with a time that whole microseconds can't tell."""
    own = {b"helicone-user-id": [(b"Helicone-User-Id", fields.pop("user").encode())]} if "user" in fields else {}
    failure = fields.pop("failure", None)
    known = {"organisation": "o", "method": "POST", "provider": "openai", "status": 200, "started_at": 1.7e9 + 1 / 3}
    exchange = Exchange(
        identity=identify(RequestFields(own=own, noted={})),
        path=path,
        target_url=f"https://api.openai.com{path}",
        request=request,
        response=response,
        **{**known, **fields},
    )
    exchange.end(failure)
    return exchange


def chat(data: bytes = CHAT_BODY, content_type: str = "application/json", **fields: Any) -> Call:
    """The row of a chat."""
    omit_request, omit_response = fields.pop("omit", (False, False))
    request = side(ASKED, "application/json", omitted=omit_request)
    response = side(data, content_type, omitted=omit_response)
    return build_call(ended("/v1/chat/completions", request, response, **fields), PRICER)


def message(*, omitted: bool) -> Call:
    """The row of a message of Anthropic's."""
    response = side(orjson.dumps(MESSAGE), "application/json", omitted=omitted)
    exchange = ended("/v1/messages", side(ASKED, "application/json"), response, provider="anthropic")
    return build_call(replace(exchange, target_url="https://api.anthropic.com/v1/messages"), PRICER)


@beside_the_repository
@settings(max_examples=200)
@given(
    item=st.sampled_from(recordings() or [{}]),
    encoding=st.sampled_from(sorted(ENCODERS)),
    cut=st.none() | st.integers(0, 5000),
    limit=st.sampled_from([2**24, 0, 50, 500, 5000]),
    omit=st.tuples(st.booleans(), st.booleans()),
    more=st.sampled_from([{}, {"failure": FAILURE}, {"user": "u"}, {"status": 500}, {"status": None}]),
)
def test_an_unchanged_parser_finds_every_row_as_it_is(
    item: dict[str, Any], encoding: str, cut: int | None, limit: int, omit: tuple[bool, bool], more: dict[str, Any]
) -> None:
    """However its bodies were packed, cut, truncated or left out, and however its exchange ended."""
    request = side(item["request"], "application/json", limit=limit, omitted=omit[0])
    response = side(item["body"][:cut], item["content_type"], encoding, limit, omit[1])
    call = build_call(ended(item["path"], request, response, **more), PRICER)
    assert derive_again(call, PRICER) == call


def test_the_rows_of_these_tests_hold_something_in_every_derived_field() -> None:
    call = chat(STREAM, EVENTS)
    assert (call.user_id, call.is_stream, call.request_model) == ("ada", True, "gpt-4o-mini")
    assert (call.response_model, call.provider_response_id, call.finish_reason) == ("gpt-4o-mini", "chatcmpl-2", "stop")
    assert call.cost
    assert call.usage.total_tokens == 11
    assert (message(omitted=False).cost or 0) > 0


WORSE: list[dict[str, Any]] = [
    {"user_id": None},
    {"is_stream": False},
    {"request_model": None},
    {"request_model": "nonsense"},
    {"response_model": None},
    {"response_model": "nonsense"},
    {"provider_response_id": None},
    {"provider_response_id": "nonsense"},
    {"finish_reason": "nonsense"},
    {"cost": None},
    {"cost": 7.0},
    {"usage": Usage()},
    {"usage": Usage(reasoning_tokens=7)},
    {"error_kind": "upstream_error_event", "error_message": "nonsense"},
    {"error_kind": "upstream_error_body", "error_message": "nonsense"},
]
WORSE.append({name: value for fields in WORSE for name, value in fields.items()})


@pytest.mark.parametrize("worse", WORSE, ids=lambda worse: ", ".join(worse))
def test_what_a_worse_parser_left_is_healed(worse: dict[str, Any]) -> None:
    call = chat(STREAM, EVENTS)
    assert derive_again(replace(call, **worse), PRICER) == call


@pytest.mark.parametrize(
    ("data", "content_type", "kind"),
    [
        (b'{"error": {"message": "overloaded"}}', "application/json", "upstream_error_body"),
        (b'data: {"error": {"message": "overloaded"}}\n\n', EVENTS, "upstream_error_event"),
    ],
)
def test_an_error_that_a_worse_parser_did_not_see_is_found(data: bytes, content_type: str, kind: str) -> None:
    call = chat(data, content_type)
    assert (call.error_kind, call.error_message) == (kind, "overloaded")
    assert derive_again(replace(call, error_kind=None, error_message=None), PRICER) == call


@pytest.mark.parametrize("status", [200, None, 500])
def test_how_an_exchange_failed_is_no_body_s_to_tell(status: int | None) -> None:
    call = chat(b'{"error": {"message": "overloaded"}}', status=status, failure=FAILURE)
    assert (call.error_kind, call.error_message) == (FAILURE.kind, FAILURE.message)
    assert derive_again(call, PRICER) == call


def test_what_a_row_was_told_stays() -> None:
    """A user that was named, a stream that the log of a call told of, a time that no body holds."""
    told = replace(chat(user="lin"), is_stream=True, time_to_first_token=7)
    assert told.user_id == "lin"
    assert derive_again(told, PRICER) == told


def test_the_columns_of_an_omitted_request_stay_and_those_of_the_answer_are_healed() -> None:
    call = chat(omit=(True, False))
    assert (call.request.data, call.request_model, call.user_id) == (None, "gpt-4o-mini", "ada")
    assert derive_again(replace(call, response_model=None, cost=None, usage=Usage()), PRICER) == call
    changed = replace(call, request_model="gpt-4o", user_id="lin", is_stream=False)
    assert derive_again(changed, PRICER) == changed


def test_an_omitted_request_s_model_still_prices_an_answer_that_names_none() -> None:
    unnamed = orjson.dumps({name: value for name, value in orjson.loads(CHAT_BODY).items() if name != "model"})
    call = chat(unnamed, omit=(True, False))
    assert call.cost
    assert derive_again(replace(call, cost=None), PRICER) == call


def test_the_columns_of_an_omitted_answer_stay_and_those_of_the_request_are_healed() -> None:
    call = chat(b'data: {"error": {"message": "quiet"}}\n\n' + STREAM, EVENTS, omit=(False, True))
    assert (call.error_kind, call.error_message) == ("upstream_error_event", "the answer tells of an error")
    assert derive_again(replace(call, request_model=None, user_id=None), PRICER) == call
    more = {name: value for fields in WORSE[:-1] for name, value in fields.items()}
    changed = replace(call, **more | {"request_model": call.request_model, "user_id": "ada", "is_stream": True})
    assert derive_again(changed, PRICER) == changed


def test_an_omitted_answer_keeps_its_cost_which_its_figures_alone_do_not_give() -> None:
    kept, omitted = message(omitted=False), message(omitted=True)
    assert kept.cost == omitted.cost
    assert (derive_again(kept, PRICER), derive_again(omitted, PRICER)) == (kept, omitted)


def test_a_body_that_is_gone_is_as_one_that_was_omitted() -> None:
    call = chat()
    gone = replace(call, response=Body(None, call.response.size), request=Body(None, call.request.size))
    assert derive_again(gone, PRICER) == gone


def test_a_call_is_priced_anew_by_the_prices_that_there_are() -> None:
    own = Pricer({"gpt-4o-mini-2024-07-18": {"input": 1e6, "output": 2e6}})
    call = chat()
    assert derive_again(call, own) == replace(call, cost=15.0)
