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
ASKING = b'{"stream_options":{"include_usage":true},"model": "gpt-4o-mini", "messages": [], "stream": true}'
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


CHANGED = {
    "empty": (b'{"stream_options": { }', b'{"stream_options": {"include_usage":true }'),
    "null": (b'{"stream_options" : null', b'{"stream_options" : {"include_usage":true}'),
    "false": (b'{"stream_options":{"include_usage": false }', b'{"stream_options":{"include_usage": true }'),
    "a text": (b'{"stream_options":{"include_usage":"\\"}"}', b'{"stream_options":{"include_usage":true}'),
    "an array": (b'{"stream_options":{"include_usage":[{},"]"]}', b'{"stream_options":{"include_usage":true}'),
    "others": (b'{"stream_options":{"a": 1.10}', b'{"stream_options":{"include_usage":true,"a": 1.10}'),
    "inner": (
        b'{"stream_options":{"a":{"include_usage":false}}',
        b'{"stream_options":{"include_usage":true,"a":{"include_usage":false}}',
    ),
    "repeated": (
        b'{"stream_options":{"include_usage":true},"stream_options":{"include_usage":1,"include_usage":false}',
        b'{"stream_options":{"include_usage":true},"stream_options":{"include_usage":1,"include_usage":true}',
    ),
    "escaped": (b'{"stream\\u005foptions":null', b'{"stream\\u005foptions":{"include_usage":true}'),
    "a value of the name": (
        b'{"a":"stream_options","b":{"stream_options":null},"stream_options":{}',
        b'{"a":"stream_options","b":{"stream_options":null},"stream_options":{"include_usage":true}',
    ),
    "a byte order mark": (b'\xef\xbb\xbf{"stream_options":{}', b'\xef\xbb\xbf{"stream_options":{"include_usage":true}'),
}
# What would not survive being parsed and written anew.
REST = (
    b', "t":1.10, "n":1180591620717411303424, "x":1e400, "t":\t0.50, "u":"\\u00e9\\ud800\xc3\xa9{",\r\n"stream":true}\n'
)


@pytest.mark.parametrize(("options", "asking"), CHANGED.values(), ids=CHANGED)
async def test_of_options_that_are_there_already_only_the_asking_changes(
    kibitz: Running, upstream: Upstream, options: bytes, asking: bytes
) -> None:
    assert await sent(kibitz, upstream, options + REST) == asking + REST


UNTOUCHED = {
    "options that are no number": (b'{"stream": true, "stream_options": NaN}', [WANTED, JSON]),
    "options that are too large a number": (b'{"stream": true, "stream_options": 1e400}', [WANTED, JSON]),
    "asks already": (b'{"stream": true, "stream_options": {"include_usage": true}}', [WANTED, JSON]),
    "no stream": (b'{"model": "m"}', [WANTED, JSON]),
    "stream that is no boolean": (b'{"stream": "true"}', [WANTED, JSON]),
    "no JSON": (b'{"stream": true, ', [WANTED, JSON]),
    "options that are none": (b'{"stream": true, "stream_options": "x"}', [WANTED, JSON]),
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
NAMES = st.sampled_from(["stream_options", "include_usage", "a", '"', "\\", "{"]) | st.text()
BLANKS = st.text(" \t\r\n", max_size=2)
VALUES = JSON_VALUES | st.dictionaries(NAMES, JSON_VALUES, max_size=3)
TEXTS = st.builds(json.dumps, VALUES, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 1]))
MEMBERS = st.lists(st.tuples(NAMES, TEXTS), max_size=4)


def written(members: list[tuple[str, str]], blank: str) -> str:
    """The text of an object, repeated members and all, with blanks wherever they may be."""
    inside = f"{blank},{blank}".join(f"{json.dumps(name)}{blank}:{blank}{value}" for name, value in members)
    return f"{blank}{{{blank}{inside}{blank}}}{blank}"


OPTIONS = st.none() | st.dictionaries(NAMES, JSON_VALUES, max_size=4)


@given(MEMBERS, OPTIONS, MEMBERS, BLANKS)
def test_only_the_options_that_count_are_changed_whatever_else_a_body_says(
    before: list[tuple[str, str]], options: dict[str, object] | None, behind: list[tuple[str, str]], blank: str
) -> None:
    behind = [member for member in behind if member[0] not in ("stream_options", "stream")] + [("stream", "true")]
    head = written([*before, ("stream_options", "")], blank).rstrip(" \t\r\n}").encode()
    tail = written(behind, blank).lstrip(" \t\r\n").replace("{", ",", 1).encode()
    changed = with_usage_asked(b"%b %b%b" % (head, json.dumps(options).encode(), tail))
    if options is not None and options.get("include_usage") is True:
        assert changed is None
        return
    assert changed is not None
    assert changed.startswith(head)
    assert changed.endswith(tail)
    between = json.loads(changed[len(head) : -len(tail)])
    assert between == {**(options or {}), "include_usage": True}


@given(MEMBERS, BLANKS)
def test_options_that_are_not_there_are_added_and_nothing_is_changed(
    members: list[tuple[str, str]], blank: str
) -> None:
    others = [member for member in members if member[0] not in ("stream_options", "stream")]
    body = written([*others, ("stream", "true")], blank).encode()
    head, tail = body[: body.index(b"{") + 1], body[body.index(b"{") + 1 :]
    assert with_usage_asked(body) == head + b'"stream_options":{"include_usage":true},' + tail


@given(st.binary())
def test_whatever_comes_nothing_is_raised(body: bytes) -> None:
    assert with_usage_asked(body) is None
