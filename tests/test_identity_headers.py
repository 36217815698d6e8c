"""Contract section 4: the ids and labels that a call's header fields give its row, read back over HTTP."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from tests.conftest import Running
from tests.raw_client import ask, one_value, request
from tests.upstream import CHAT_BODY, Received, Upstream, chat_answer

W3C_TRACE = "0af7651916cd43dd8448eb211c80319c"
W3C_SPAN = "b7ad6b7169203331"
TRACEPARENT = f"00-{W3C_TRACE}-{W3C_SPAN}-01"
BODY = b'{"model": "gpt-4o-mini", "messages": [], "user": "body-user"}'


def chat(*lines: bytes, body: bytes = BODY) -> bytes:
    return request("POST", "/v1/chat/completions", b"Content-Type: application/json", *lines, body=body)


async def call(kibitz: Running, *lines: bytes, body: bytes = BODY) -> tuple[Received, dict[str, Any]]:
    """A call that has to succeed, and its row, found by the id that came back."""
    answer = await ask(kibitz.port, chat(*lines, body=body))
    assert answer.request_line == b"HTTP/1.1 200 OK"
    assert answer.body == CHAT_BODY
    return answer, await kibitz.row(quote(one_value(answer, "Helicone-Id"), safe=""))


GOOD_IDS = [
    "ticket-42-1700000000",
    "0190b5d2-7b3e-7c4f-8a5d-0123456789ab",
    "x",
    "i" * 256,
    "é" * 256,
    "日本語 🙂 ✓",
    "with spaces, commas; and = signs",
    "a/b?c#d%2Fe&f",
    "...",
    "' OR 1=1 --",
    "null",
    "chatcmpl-not-yet-taken",
]
BAD_IDS = [
    pytest.param(b"i" * 257, id="257-characters"),
    pytest.param("é".encode() * 257, id="257-characters-of-two-bytes"),
    pytest.param(b"", id="empty"),
    pytest.param(b"  \t ", id="blank"),
    pytest.param("\u00a0\u2003".encode(), id="blank-unicode"),
    pytest.param(b".", id="dot"),
    pytest.param(b"..", id="dot-dot"),
    pytest.param(b"a\tb", id="tab"),
    pytest.param("a\x85b".encode(), id="next-line"),
]


@pytest.mark.parametrize("name", GOOD_IDS)
async def test_a_request_id_of_any_form_names_its_row(kibitz: Running, name: str) -> None:
    answer = await ask(kibitz.port, chat(b"Helicone-Request-Id: " + name.encode()))
    assert one_value(answer, "Helicone-Id") == one_value(answer, "Helicone-Request-Id") == name.encode()
    assert one_value(answer, "x-portkey-trace-id") == name.encode()
    row = await kibitz.row(quote(name, safe=""))
    assert (row["request_id"], row["trace_id"], row["attempt"]) == (name, name, 1)


@pytest.mark.parametrize("name", GOOD_IDS)
async def test_a_trace_id_of_any_form_is_kept_and_comes_back(kibitz: Running, name: str) -> None:
    answer, row = await call(kibitz, b"x-portkey-trace-id: " + name.encode())
    assert one_value(answer, "x-portkey-trace-id") == name.encode()
    assert row["trace_id"] == name
    assert row["request_id"] != name


@pytest.mark.parametrize("field", ["Helicone-Request-Id", "x-portkey-trace-id"])
async def test_an_id_that_is_not_utf_8_is_read_as_latin_1(kibitz: Running, field: str) -> None:
    answer, row = await call(kibitz, field.encode() + b": caf\xe9 \xff")
    assert row["trace_id"] == "café ÿ"
    assert one_value(answer, field) in (b"caf\xe9 \xff", "café ÿ".encode())


@pytest.mark.parametrize("value", BAD_IDS)
async def test_what_cannot_be_an_id_is_as_good_as_not_sent(kibitz: Running, value: bytes) -> None:
    answer, row = await call(kibitz, b"Helicone-Request-Id: " + value, b"x-portkey-trace-id: " + value)
    request_id = one_value(answer, "Helicone-Id").decode()
    assert uuid.UUID(request_id).version == 7
    assert one_value(answer, "Helicone-Request-Id").decode() == request_id
    assert one_value(answer, "x-portkey-trace-id").decode() == row["trace_id"] == request_id


async def test_ids_that_kibitz_makes_are_ordered_by_time(kibitz: Running) -> None:
    ids = [one_value(await ask(kibitz.port, chat()), "Helicone-Id") for _ in range(5)]
    assert ids == sorted(set(ids))


async def test_a_second_call_with_an_id_is_its_second_attempt(kibitz: Running, upstream: Upstream) -> None:
    for content in ("one", "two", "three"):
        upstream.answer = chat_answer(CHAT_BODY.replace(b"Hello there.", content.encode()))
        await ask(kibitz.port, chat(b"Helicone-Request-Id: again"))
    latest = await kibitz.row("again")
    assert (latest["attempt"], latest["response_text"]) == (3, "three")
    for attempt, content in ((1, "one"), (2, "two"), (3, "three")):
        row = await kibitz.row("again", attempt=attempt)
        assert (row["attempt"], row["response_text"]) == (attempt, content)


async def test_attempts_are_counted_per_request_id_not_per_trace(kibitz: Running) -> None:
    rows = [(await call(kibitz, b"x-portkey-trace-id: shared"))[1] for _ in range(2)]
    assert [(row["attempt"], row["trace_id"]) for row in rows] == [(1, "shared"), (1, "shared")]
    assert rows[0]["request_id"] != rows[1]["request_id"]


async def test_an_attempt_that_was_never_made_is_not_found(kibitz: Running) -> None:
    await call(kibitz, b"Helicone-Request-Id: once")
    answer = await ask(kibitz.port, request("GET", "/v1/request/once?attempt=2"))
    assert answer.request_line.startswith(b"HTTP/1.1 404 ")
    assert orjson.loads(answer.body) == {"data": None, "error": "Request not found"}


async def test_the_provider_s_response_id_serves_as_id(kibitz: Running) -> None:
    await call(kibitz, b"Helicone-Request-Id: ours")
    row = await kibitz.row("chatcmpl-1")
    assert (row["request_id"], row["provider_response_id"]) == ("ours", "chatcmpl-1")


async def test_a_request_id_goes_before_a_response_id_of_the_same_text(kibitz: Running, upstream: Upstream) -> None:
    await call(kibitz, b"Helicone-Request-Id: ours")
    upstream.answer = chat_answer(CHAT_BODY.replace(b"chatcmpl-1", b"chatcmpl-9"))
    await ask(kibitz.port, chat(b"Helicone-Request-Id: chatcmpl-1"))
    assert (await kibitz.row("chatcmpl-1"))["provider_response_id"] == "chatcmpl-9"


async def test_helicone_s_fields_label_the_row(kibitz: Running) -> None:
    _, row = await call(
        kibitz,
        b"Helicone-User-Id: user-1",
        b"helicone-session-id: session-1",
        b"Helicone-Session-Name: Support",
        b"HELICONE-SESSION-PATH: /tickets/42",
        b"Helicone-Prompt-Id: greeting",
        b"Helicone-Property-Environment: production",
        b"helicone-property-appVersion: 1.2",
    )
    assert (row["session_id"], row["session_name"], row["session_path"]) == ("session-1", "Support", "/tickets/42")
    assert (row["request_user_id"], row["prompt_id"]) == ("user-1", "greeting")
    assert row["properties"] == {"Environment": "production", "appVersion": "1.2"}


async def test_portkey_s_fields_label_the_row(kibitz: Running) -> None:
    metadata = {
        "_user": "user-2",
        "env": "dev",
        "n": 5,
        "x": 1.5,
        "on": True,
        "none": None,
        "list": [1],
        "dict": {"a": 1},
    }
    _, row = await call(
        kibitz,
        b"x-portkey-trace-id: trace-1",
        b"x-portkey-span-id: span-2",
        b"x-portkey-parent-span-id: span-1",
        b"x-portkey-span-name: LLM Call",
        b"x-portkey-metadata: " + orjson.dumps(metadata),
    )
    assert (row["trace_id"], row["span_id"], row["parent_span_id"]) == ("trace-1", "span-2", "span-1")
    assert (row["span_name"], row["request_user_id"]) == ("LLM Call", "user-2")
    assert row["properties"]["env"] == "dev"
    assert all(isinstance(value, str) for value in row["properties"].values())
    assert (row["properties"]["n"], row["properties"]["x"]) == ("5", "1.5")


async def test_w3c_s_fields_label_the_row(kibitz: Running) -> None:
    _, row = await call(
        kibitz,
        b"traceparent: " + TRACEPARENT.encode(),
        b"baggage: plan=pro;ttl=1, city=S%C3%A3o%20Paulo ,broken,=nameless",
        b"baggage: region=eu",
    )
    assert (row["trace_id"], row["parent_span_id"]) == (W3C_TRACE, W3C_SPAN)
    assert row["properties"] == {"plan": "pro", "city": "São Paulo", "region": "eu"}


async def test_portkey_s_trace_id_goes_before_traceparent(kibitz: Running) -> None:
    answer, row = await call(kibitz, b"traceparent: " + TRACEPARENT.encode(), b"x-portkey-trace-id: mine")
    assert one_value(answer, "x-portkey-trace-id") == b"mine"
    assert row["trace_id"] == "mine"


async def test_a_trace_id_that_is_none_leaves_traceparent_to_name_the_trace(kibitz: Running) -> None:
    _, row = await call(kibitz, b"traceparent: " + TRACEPARENT.encode(), b"x-portkey-trace-id: ..")
    assert row["trace_id"] == W3C_TRACE


@pytest.mark.parametrize(
    "value",
    [
        f"00-{'0' * 32}-{W3C_SPAN}-01",
        f"00-{W3C_TRACE}-{'0' * 16}-01",
        f"ff-{W3C_TRACE}-{W3C_SPAN}-01",
        f"00-{W3C_TRACE.upper()}-{W3C_SPAN}-01",
        f"00-{W3C_TRACE[:-1]}-{W3C_SPAN}-01",
        f"00-{W3C_TRACE}-{W3C_SPAN}-01-more",
        f"00-{W3C_TRACE}-{W3C_SPAN}",
        f"{TRACEPARENT},{TRACEPARENT}",
        "",
        "\xff",
    ],
)
async def test_a_traceparent_that_is_not_valid_names_no_trace(kibitz: Running, value: str) -> None:
    _, row = await call(kibitz, f"traceparent: {value}".encode("latin-1"))
    assert row["trace_id"] == row["request_id"]
    assert row["parent_span_id"] is None


@pytest.mark.parametrize(
    ("lines", "user"),
    [
        ((b"Helicone-User-Id: helicone", b'x-portkey-metadata: {"_user": "portkey"}'), "helicone"),
        ((b"Helicone-User-Id:  ", b'x-portkey-metadata: {"_user": "portkey"}'), "portkey"),
        ((b'x-portkey-metadata: {"_user": "portkey"}',), "portkey"),
        ((b'x-portkey-metadata: {"_user": 42}',), "42"),
        ((b'x-portkey-metadata: {"_user": null}',), "body-user"),
        ((b'x-portkey-metadata: {"_user": ""}',), "body-user"),
        ((), "body-user"),
    ],
)
async def test_the_user_is_helicone_s_else_portkey_s_else_the_body_s(
    kibitz: Running, lines: tuple[bytes, ...], user: str
) -> None:
    assert (await call(kibitz, *lines))[1]["request_user_id"] == user


async def test_property_names_are_compared_without_case_and_kept_as_sent(kibitz: Running) -> None:
    _, row = await call(
        kibitz,
        b"baggage: ENV=baggage,only-here=1",
        b'x-portkey-metadata: {"env": "metadata", "Team": "a"}',
        b"Helicone-Property-Env: helicone",
        b"Helicone-Property-team: b",
    )
    assert row["properties"] == {"Env": "helicone", "team": "b", "only-here": "1"}


async def test_labels_are_read_as_utf_8_else_as_latin_1(kibitz: Running) -> None:
    _, row = await call(
        kibitz,
        "Helicone-User-Id: Zoë 🙂".encode(),
        b"Helicone-Session-Name: caf\xe9",
        b"Helicone-Property-City: S\xe3o",
        'x-portkey-metadata: {"town": "Malmö", "bell": "\\u0007", "nul": "a\\u0000b"}'.encode(),
    )
    assert (row["request_user_id"], row["session_name"]) == ("Zoë 🙂", "café")
    assert (row["properties"]["City"], row["properties"]["town"]) == ("São", "Malmö")


MALFORMED = [
    b"x-portkey-metadata: {",
    b"x-portkey-metadata: [1, 2]",
    b'x-portkey-metadata: "text"',
    b"x-portkey-metadata: null",
    b"x-portkey-metadata: " + b"[" * 5000,
    b'x-portkey-metadata: {"a": "\\ud800", "b": NaN, "c": 1e999}',
    b'x-portkey-metadata: {"n": 123456789012345678901234567890}',
    b'x-portkey-metadata: {"": "", " ": " ", "A": 1, "a": 2}',
    b"x-portkey-metadata: \xff\xfe{}",
    b"x-portkey-debug: perhaps",
    b"x-portkey-config: {",
    b"x-portkey-sensitive-headers: ['",
    b"Helicone-Property-: nameless",
    b"Helicone-Property-Long: " + b"v" * 60_000,
    b"Helicone-Property-" + b"n" * 20_000 + b": v",
    b"Helicone-Session-Id: " + b"\xff" * 1000,
    b"Helicone-Session-Path: ../../\\",
    b"Helicone-Omit-Request: maybe",
    b"Helicone-Auth: Bearer",
    b"Helicone-User-Id: \xed\xa0\x80",
    b"Helicone-Cache-Enabled: true",
    b"Helicone-Retry-Num: -1",
    b"Helicone-Prompt-Version: \xc0\x80",
    b"baggage: %%%,=;=;,,=%ZZ,a=%ff%00",
    b"baggage: " + b"a=b," * 10_000,
    b"traceparent: \xff",
]


@pytest.mark.parametrize("line", MALFORMED, ids=lambda line: line[:40].decode("latin-1"))
async def test_no_malformed_logging_field_fails_a_call_or_loses_its_row(kibitz: Running, line: bytes) -> None:
    _, row = await call(kibitz, line, line)
    assert row["response_text"] == "Hello there."
    assert row["error"] is None
