"""No text that a client sends becomes a header field, or a line of one, by being echoed. Contract sections 3 and 4."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.conftest import Running
from tests.hostile.attack import converse
from tests.hostile.strict_http import Message, read_answers, read_requests
from tests.raw_client import ask, request
from tests.upstream import Connection, Upstream, chat_answer

# What header fields are named whose values come back, and which of the ways a value may be sent in.
ECHOED = ["Helicone-Request-Id", "x-portkey-trace-id", "traceparent"]
LOGGING = [
    *ECHOED,
    *(
        "Helicone-Session-Id",
        "Helicone-Session-Path",
        "Helicone-User-Id",
        "Helicone-Property-App",
        "Helicone-Prompt-Id",
    ),
    *("x-portkey-metadata", "x-portkey-span-id", "baggage", "Helicone-Model-Override", "x-portkey-provider"),
    *("Helicone-Omit-Request", "Helicone-Stream-Usage", "Helicone-Property-", "Helicone-", "x-portkey-"),
]
REFUSED = [
    b"a\rX-Evil: 1",
    b"a\nX-Evil: 1",
    b"a\r\n X-Evil: 1",
    b"a\0b",
    b"a\r\n\tb",
    b"a\r\n\r\nGET /v1/evil HTTP/1.1",
]
PASSED = [
    b"",
    b" \t ",
    b"%0d%0aX-Evil: 1",
    b"\\r\\nX-Evil: 1",
    "a\u010d\u010aX-Evil: 1".encode(),  # what cutting code points to bytes makes a line end of
    "\u2028X-Evil: 1\u0085".encode(),
    b"caf\xe9 \xff",
    "日本語".encode(),
    b"\x85\x9f",
    b"x" * 60_000,
    b'{"_user": "a\\r\\nX-Evil: 1", "b\\u0000": "\\u0000", "c": [[[[]]]]}',
    b'{"_user": "\\ud800"}',
    b'{"a": 1e999}',
    b"[" * 5000,
    b"a=%0d%0a,%00=%ff;b,=,,c=%ed%a0%80",
    b"00-" + b"g" * 32 + b"-" + b"1" * 16 + b"-01",
    b"..",
]


def own_names(answer: Message) -> set[bytes]:
    return {name.lower() for name, _ in answer.fields}


@pytest.mark.parametrize("value", REFUSED)
async def test_a_value_that_holds_a_line_end_or_a_control_character_is_no_http(
    kibitz: Running, upstream: Upstream, value: bytes
) -> None:
    for name in LOGGING:
        sent = request("GET", "/v1/models", b"%b: %b" % (name.encode(), value))
        [answer, *more] = read_answers(await converse(kibitz.port, sent))
        assert (answer.start, more) == ((b"400",), [])
        assert b"x-evil" not in own_names(answer)
    assert upstream.connections == 0


@pytest.mark.parametrize("value", PASSED)
async def test_no_logging_field_fails_a_call_or_adds_a_field(kibitz: Running, upstream: Upstream, value: bytes) -> None:
    for number, name in enumerate(LOGGING):
        named = [] if name in ECHOED else [b"Helicone-Request-Id: odd-%d" % number]
        sent = request("GET", "/v1/models", b"%b: %b" % (name.encode(), value), *named, b"Connection: close")
        [answer] = read_answers(await converse(kibitz.port, sent))
        assert answer.start == (b"200",)
        assert own_names(answer) <= {
            *(b"content-type", b"content-length", b"connection"),
            *(b"helicone-id", b"helicone-request-id", b"helicone-status", b"x-portkey-trace-id"),
        }
        assert all(len(answer.values(echo)) == 1 for echo in (b"helicone-id", b"x-portkey-trace-id"))
        if named:
            orjson.dumps(await kibitz.row(f"odd-{number}"))
    assert len(upstream.received) == len(LOGGING)


PATH_IDS = [
    *("%0d%0aX-Evil:%201", "%0D%0A%0D%0Aevil", "%00", "%0a", "a%20b", "%ff%fe", "%ed%a0%80", "%C2%85", "%E2%80%A8"),
    *("%2e%2e", "%2f..%2f", "..%5c", "%25%30%64", "%", "%zz", "x" * 5000, "%f0%9f%98%80", "'%22<script>", "%7f"),
]


@pytest.mark.parametrize("text", PATH_IDS)
async def test_an_id_in_a_path_is_echoed_into_no_field(kibitz: Running, text: str) -> None:
    calls: list[tuple[str, str, Any]] = [
        ("POST", f"/v1/request/{text}/feedback", {"rating": True}),
        ("POST", f"/v1/session/{text}/feedback", {"rating": True}),
        ("POST", f"/v1/request/{text}/score", {"scores": {"a": 1}}),
        ("PUT", f"/v1/request/{text}/property", {"key": "a", "value": "b"}),
        ("GET", f"/v1/request/{text}", None),
        ("GET", f"/v1/feedback?trace_id={text}", None),
        ("GET", f"/v1/feedback?request_id={text}&session_id={text}", None),
        ("PUT", f"/v1/feedback/{text}", {"value": 1}),
        ("DELETE", f"/v1/feedback/{text}", None),
    ]
    for method, target, body in calls:
        sent = orjson.dumps(body) if body is not None else b""
        data = await converse(kibitz.port, request(method, target, b"Connection: close", body=sent))
        [answer] = read_answers(data)
        assert int(answer.start[0]) in (200, 400, 404)
        assert b"x-evil" not in own_names(answer)
        assert len(answer.values(b"x-portkey-trace-id")) == 1
        orjson.loads(answer.body)


BODY_IDS = [
    "a\r\nX-Evil: 1",
    "a\nb",
    "\0",
    "\u2028",
    "\x85",
    "é",
    "日本",
    "x" * 10_000,
    " ",
    "\x7f",
    "\U0001f600",
    "..",
]


@pytest.mark.parametrize("text", BODY_IDS)
async def test_an_id_in_a_body_is_echoed_into_no_field(kibitz: Running, text: str) -> None:
    log = {
        "request": {"url": "https://api.openai.com/v1/chat/completions", "body": {}},
        "response": {"status": 200, "body": {"id": text}},
        "metadata": {"trace_id": text, "Helicone-Request-Id": text},
    }
    custom = {
        "providerRequest": {"url": "x", "json": {}, "meta": {"Helicone-Request-Id": text, "x-portkey-trace-id": text}},
        "providerResponse": {"status": 200, "json": {"id": text}, "headers": {}},
    }
    calls: list[tuple[str, Any]] = [
        ("/v1/feedback", {"trace_id": text, "value": 1}),
        ("/v1/feedback", {"helicone-id": text, "rating": True}),
        ("/v1/feedback/undefined", {"feedback_id": text, "value": 1}),
        ("/v1/logs", log),
        ("/custom/v1/log", custom),
    ]
    for target, body in calls:
        sent = request("POST", target, b"Connection: close", body=orjson.dumps(body))
        [answer] = read_answers(await converse(kibitz.port, sent))
        assert int(answer.start[0]) in (200, 400, 404)
        assert own_names(answer) <= {
            *(b"content-type", b"content-length", b"date", b"connection", b"x-portkey-trace-id", b"helicone-id")
        }
        [trace_id] = answer.values(b"x-portkey-trace-id")
        assert len(trace_id) <= 4 * 256


async def test_what_an_upstream_says_adds_no_field_to_another_answer(kibitz: Running, upstream: Upstream) -> None:
    """The provider's own id of a response names a row, and may be anything."""
    upstream.answer = chat_answer(orjson.dumps({"id": "a\r\nX-Evil: 1", "choices": []}))
    await kibitz.chat(Helicone_Request_Id="odd")
    sent = orjson.dumps({"rating": True})
    asked = request("POST", "/v1/request/a%0d%0aX-Evil:%201/feedback", b"Connection: close", body=sent)
    [answer] = read_answers(await converse(kibitz.port, asked))
    assert answer.start == (b"200",)
    assert answer.values(b"x-portkey-trace-id") == [b"odd"]


async def test_fields_that_connection_names_are_dropped_and_frame_nothing(kibitz: Running, upstream: Upstream) -> None:
    named = b"Connection: close, Content-Length, Transfer-Encoding, Host, X-Gone, Content-Type, , helicone-id"
    sent = request("POST", "/v1/chat/completions", named, b"X-Gone: 1", b"Content-Type: text/odd", body=b"hello")
    await ask(kibitz.port, sent)
    [received] = upstream.received
    assert received.body == b"hello"
    assert received.names == [b"host", b"content-length"]


async def test_what_goes_up_is_one_request_whatever_its_fields_hold(kibitz: Running, upstream: Upstream) -> None:
    arrived = b""

    async def script(connection: Connection) -> None:
        nonlocal arrived
        arrived += await connection.reader.readuntil(b"\r\n\r\n")
        await connection.send(chat_answer())

    upstream.script = script
    odd = b"a\x85\xff \t ; b"
    await ask(kibitz.port, request("GET", "/v1/models", b"X-Odd: " + odd, b"X-Empty:", b"Connection: close"))
    [found], rest = read_requests(arrived)
    assert (found.values(b"X-Odd"), found.values(b"X-Empty"), rest) == ([odd], [b""], b"")
