"""`Helicone-Stream-Usage: true`: the one change of a body that there is. Contract section 3."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from proxy.stream_usage import LARGEST, with_usage_asked
from tests.conftest import Running, StartKibitz
from tests.raw_client import Eventually, ask, connect, request
from tests.upstream import Connection, Received, Upstream, chat_events, sse_answer

PLAIN = b'{"model": "gpt-4o-mini", "messages": [], "stream": true}'
ASKING = b'{"model": "gpt-4o-mini", "messages": [], "stream": true,"stream_options":{"include_usage":true}}'
WANTED = b"Helicone-Stream-Usage: true"
JSON = b"Content-Type: application/json"
NAMED = b"Helicone-Request-Id: asked"


async def sent(
    kibitz: Running, upstream: Upstream, body: bytes, *lines: bytes, path: str = "chat/completions"
) -> bytes:
    """The body that the upstream gets."""
    await ask(kibitz.port, request("POST", f"/v1/{path}", NAMED, *(lines or (WANTED, JSON)), body=body))
    [received] = upstream.received
    assert received.values("content-length") == [b"%d" % len(received.body)]
    return received.body


async def test_the_sdk_s_stream_ends_with_its_usage_and_the_row_has_the_tokens(
    kibitz: Running, upstream: Upstream
) -> None:
    async def tell_usage_if_asked(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            options = orjson.loads(received.body).get("stream_options") or {}
            await connection.send(sse_answer(*chat_events("Hi", usage=bool(options.get("include_usage")))))

    upstream.script = tell_usage_if_asked
    for asked, tokens in (("true", 10), ("false", None)):
        async with AsyncOpenAI(base_url=kibitz.base_url, api_key="sk-test") as client:
            headers = {"Helicone-Stream-Usage": asked, "Helicone-Request-Id": asked}
            stream = await client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}], stream=True, extra_headers=headers
            )
            usages = [chunk.usage async for chunk in stream if chunk.usage is not None]
        assert [usage.total_tokens for usage in usages] == ([tokens] if tokens else [])
        assert (await kibitz.row(asked))["total_tokens"] == tokens


async def test_what_the_client_wrote_stays_as_it_is_and_is_what_the_log_holds(
    kibitz: Running, upstream: Upstream
) -> None:
    assert await sent(kibitz, upstream, PLAIN) == ASKING
    row = await kibitz.row("asked")
    assert (row["request_body"], row["request_body_size"]) == (orjson.loads(PLAIN), len(PLAIN))


async def test_the_other_fields_keep_their_bytes_and_their_order(kibitz: Running, upstream: Upstream) -> None:
    lines = (b"X-First: 1", b"content-LENGTH: %d" % len(PLAIN), b"X-Last: Content-Length: 9", JSON, WANTED)
    await ask(kibitz.port, request("POST", "/v1/chat/completions", *lines) + PLAIN)
    [received] = upstream.received
    expected = [(b"X-First", b"1"), (b"content-LENGTH", b"%d" % len(ASKING)), (b"X-Last", b"Content-Length: 9")]
    assert (received.fields[1:4], received.body) == (expected, ASKING)


async def test_a_chunked_body_is_changed_too(kibitz: Running, upstream: Upstream) -> None:
    async with connect(kibitz.port) as client:
        await client.send(request("POST", "/v1/chat/completions", JSON, WANTED, b"Transfer-Encoding: chunked"))
        for piece in (PLAIN[:7], PLAIN[7:]):
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await client.send(b"0\r\n\r\n")
        assert (await client.read_request()).request_line == b"HTTP/1.1 200 OK"
    assert upstream.received[0].body == ASKING


async def test_a_body_that_comes_slowly_is_changed_once_it_is_here(kibitz: Running, upstream: Upstream) -> None:
    async with connect(kibitz.port) as client:
        await client.send(request("POST", "/v1/chat/completions", JSON, WANTED, b"Content-Length: %d" % len(PLAIN)))
        await client.send(PLAIN[:20])
        assert (await ask(kibitz.port, request("GET", "/healthz"))).request_line == b"HTTP/1.1 200 OK"
        await client.send(PLAIN[20:])
        await client.read_request()
    assert upstream.received[0].body == ASKING


async def test_the_older_completions_can_be_asked_too(kibitz: Running, upstream: Upstream) -> None:
    assert await sent(kibitz, upstream, PLAIN, path="completions") == ASKING


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_obfuscation": False}])
async def test_options_that_are_there_already_keep_what_else_they_say(
    kibitz: Running, upstream: Upstream, options: object
) -> None:
    asked = {"model": "m", "stream_options": options, "seed": 2**70, "top_p": 1.0, "stream": True, "text": "é\ud800"}
    known = options if isinstance(options, dict) else {}
    got = json.loads(await sent(kibitz, upstream, json.dumps(asked).encode()))
    assert got == {**asked, "stream_options": {**known, "include_usage": True}}


UNTOUCHED = {
    "asks already": (b'{"stream": true, "stream_options": {"include_usage": true}}', [WANTED, JSON]),
    "no stream": (b'{"model": "m"}', [WANTED, JSON]),
    "stream that is no boolean": (b'{"stream": "true"}', [WANTED, JSON]),
    "no JSON": (b'{"stream": true, ', [WANTED, JSON]),
    "options that are none": (b'{"stream": true, "stream_options": "x"}', [WANTED, JSON]),
    "a number that JSON can't hold again": (b'{"stream": true, "stream_options": {}, "t": 1e400}', [WANTED, JSON]),
    "no object": (b'[{"stream": true}]', [WANTED, JSON]),
    "another type": (PLAIN, [WANTED, b"Content-Type: text/plain"]),
    "encoded": (PLAIN, [WANTED, JSON, b"Content-Encoding: gzip"]),
    "not asked for": (PLAIN, [JSON]),
    "refused": (PLAIN, [JSON, b"Helicone-Stream-Usage: false"]),
    "too large": (PLAIN[:-1] + b" " * LARGEST + b"}", [WANTED, JSON]),
}


@pytest.mark.parametrize(("body", "lines"), UNTOUCHED.values(), ids=UNTOUCHED)
async def test_any_other_body_passes_to_the_byte(
    kibitz: Running, upstream: Upstream, body: bytes, lines: list[bytes]
) -> None:
    assert await sent(kibitz, upstream, body, *lines) == body


@pytest.mark.parametrize("path", ["responses", "messages", "embeddings", "chat/completions/chatcmpl-1"])
async def test_an_api_without_the_option_is_left_alone(kibitz: Running, upstream: Upstream, path: str) -> None:
    assert await sent(kibitz, upstream, PLAIN, path=path) == PLAIN


async def test_a_client_that_leaves_before_its_body_is_whole_leaves_a_row(
    kibitz: Running, upstream: Upstream, eventually: Eventually
) -> None:
    async with connect(kibitz.port) as client:
        await client.send(request("POST", "/v1/chat/completions", NAMED, JSON, WANTED, b"Content-Length: 99") + PLAIN)

    async def error() -> str:
        kind: str = (await kibitz.row("asked"))["error"]["kind"]
        return kind

    assert await eventually(error) == "client_cancelled"
    assert upstream.connections == 0


async def test_a_body_beyond_the_limit_is_refused(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(limits={"max_request_body": 40})
    async with connect(kibitz.port) as client:
        await client.send(request("POST", "/v1/chat/completions", NAMED, JSON, WANTED, b"Transfer-Encoding: chunked"))
        await client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(PLAIN), PLAIN))
        answer: Received = await client.read_request()
    assert answer.request_line.startswith(b"HTTP/1.1 413 ")
    assert (await kibitz.row("asked"))["error"]["kind"] == "request_too_large"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON_VALUES), st.booleans(), st.sampled_from([None, 2]))
def test_whatever_else_a_body_says_it_still_says(body: dict[str, object], ascii_only: bool, indent: int | None) -> None:
    asked = {**body, "stream": True}
    asked.pop("stream_options", None)
    changed = with_usage_asked(json.dumps(asked, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "replace"))
    assert changed is not None
    got = json.loads(changed)
    assert got.pop("stream_options") == {"include_usage": True}
    assert got == json.loads(json.dumps(asked, ensure_ascii=ascii_only).encode("utf-8", "replace"))


@given(st.binary())
def test_whatever_comes_nothing_is_raised(body: bytes) -> None:
    assert with_usage_asked(body) is None
