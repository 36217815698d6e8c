"""Whatever is told of gives rows or a refusal, and nothing else; and answers that say themselves what they are."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dialects import Failed
from proxy.headers import RequestFields
from proxy.logs import helicone, portkey
from proxy.logs.calls import build_told_call
from proxy.logs.intake import ReadLog
from proxy.pricing import Pricer
from proxy.wire import Message, read_response
from storage.records import Call
from tests.logs import chunks
from tests.logs import custom as custom_log
from tests.logs import portkey as portkey_log

_PRICER = Pricer({})
_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=9)
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)
_NAMES = st.sampled_from(
    [
        *("request", "response", "metadata", "start_time", "trace_id", "spanId", "url", "method", "body", "headers"),
        *("provider", "status", "response_time", "streamingMode", "providerRequest", "providerResponse", "timing"),
        *("json", "meta", "textBody", "startTime", "endTime", "timeToFirstToken", "seconds", "milliseconds"),
        *("Helicone-Request-Id", "x-portkey-metadata", "Helicone-Property-", "stream"),
    ]
)
_CHANGES = st.dictionaries(_NAMES, _VALUES | st.dictionaries(_NAMES, _VALUES, max_size=4), max_size=4)


@given(_CHANGES, _CHANGES, _CHANGES)
@settings(max_examples=200)
@pytest.mark.parametrize(
    ("read", "log"), [(portkey.read_logs, portkey_log), (helicone.read_log, custom_log)], ids=["portkey", "helicone"]
)
def test_any_members_of_a_log_give_a_row_that_can_be_stored_or_a_refusal(
    read: ReadLog, log: Any, whole: dict[str, Any], request: dict[str, Any], response: dict[str, Any]
) -> None:
    with contextlib.suppress(Failed):
        [told] = read(log(request=request, response=response) | whole, RequestFields())
        assert_storable(build_told_call(told, "", _PRICER, 10**6))


def assert_storable(call: Call) -> None:
    assert all(abs(number) < 2**63 for number in (call.started_at, call.latency))
    assert not any("\0" in text for text in (call.path, call.target_url, call.method, call.provider))


def _told(*objects: dict[str, Any]) -> Message:
    return Message(b"\n".join(orjson.dumps(one) for one in objects), "application/x-ndjson")


_MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "content": [], "model": "claude"}
_RESPONSE = {"object": "response", "id": "resp_1", "status": "in_progress", "output": []}
_OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]


@pytest.mark.parametrize(
    ("objects", "answer_id"),
    [
        (chunks("Hel", "lo"), "chatcmpl-9"),
        ([{"object": "", "choices": [], "prompt_filter_results": []}, *chunks("Hel", "lo")], "chatcmpl-9"),
        (
            [
                {"type": "message_start", "message": _MESSAGE},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hel"}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
            ],
            "msg_1",
        ),
        (
            [
                {"type": "response.created", "response": _RESPONSE},
                {"type": "response.completed", "response": {**_RESPONSE, "output": _OUTPUT}},
            ],
            "resp_1",
        ),
        ([{"object": "text_completion", "id": "cmpl-1", "choices": [{"index": 0, "text": "Hello"}]}], "cmpl-1"),
    ],
    ids=["chat", "azure", "anthropic", "responses", "completions"],
)
@pytest.mark.parametrize("route", ["/v1/logs", "/custom/v1/log"])
def test_the_objects_of_a_stream_are_put_together_by_what_they_say_they_are(
    objects: list[dict[str, Any]], answer_id: str, route: str
) -> None:
    answered = read_response(route, _told(*objects))
    assert (answered.text, answered.id, answered.is_stream) == ("Hello", answer_id, True)


def test_the_objects_of_an_unknown_stream_are_not_understood() -> None:
    answered = read_response("/v1/logs", _told({"response": "Hel"}, {"response": "lo"}))
    assert (answered.body, answered.is_stream) == (None, True)
