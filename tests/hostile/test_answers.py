"""What an upstream sends, however broken, is one answer for one client, framed in one way, and reaches nobody else."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Running
from tests.hostile.attack import converse
from tests.hostile.strict_http import Message, read_answers
from tests.upstream import Connection, Upstream

CHUNKED = b"Transfer-Encoding: chunked"
FIVE = b"Content-Length: 5"
IN_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
# What would be the answer of whoever asks next.
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
ASKED = b"GET /v1/first HTTP/1.1\r\nHost: localhost\r\nHelicone-Request-Id: first\r\nConnection: close\r\n\r\n"
NEXT = b"GET /v1/next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def answer(*lines: bytes, body: bytes = b"hello", status: bytes = b"200 OK", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join((version + b" " + status, *lines)) + b"\r\n\r\n" + body


def lengths(*values: bytes) -> dict[str, bytes]:
    return {f"length {value!r}": answer(b"Content-Length: " + value, body=b"hello" + EVIL) for value in values}


def codings(*values: bytes) -> dict[str, bytes]:
    return {f"coding {value!r}": answer(b"Transfer-Encoding: " + value, body=IN_CHUNKS + EVIL) for value in values}


def statuses(*values: bytes) -> dict[str, bytes]:
    return {f"status {value!r}": answer(FIVE, status=value) for value in values}


def fields(*lines: bytes) -> dict[str, bytes]:
    return {f"field {line[:40]!r}": answer(line, FIVE) for line in lines}


REFUSED = {
    "length and coding": answer(FIVE, CHUNKED, body=IN_CHUNKS + EVIL),
    "coding and length": answer(CHUNKED, FIVE, body=IN_CHUNKS + EVIL),
    "two lengths alike": answer(FIVE, FIVE),
    "two lengths": answer(FIVE, b"Content-Length: 3", body=b"hello" + EVIL),
    **lengths(b"", b"+5", b"-5", b"5,5", b"0x5", b"5;a", b"\x0b5", b"0" * 22 + b"5"),
    **lengths(b"18446744073709551615", b"99999999999999999999999"),
    **codings(b"", b"gzip", b"identity", b"xchunked", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked"),
    **codings(b"\x0bchunked", b"chunked;q=1"),
    **fields(b"X y: a", b"X : a", b"X\xff: a", b": a", b"Xa", b"X: a\rY: b", b"X: a\0b"),
    **fields(b"Transfer-Encoding : chunked", b"X" * 300_000 + b": a", b"X: a\r\n" * 3000 + b"Y: b"),
    **statuses(b"099 Low", b"000 None", b"1000 High", b"20 Short", b"-1 Minus", b"200 a\rb", b"2x0 Odd"),
    "CR alone": answer(FIVE).replace(b"\r\n", b"\r"),
    "HTTP/0.9": b"<html>hello",
    "HTTP/1.2": answer(FIVE, version=b"HTTP/1.2"),
    "shoutcast": answer(FIVE, version=b"ICY"),
    "all bytes": bytes(range(256)),
}
TAKEN = {
    "a length with blanks": answer(b"Content-Length:  5 "),
    "LF alone": answer(FIVE).replace(b"\r\n", b"\n"),
    "a folded line": answer(b"X: a\r\n b", FIVE),
    "control characters in a value": answer(b"X: a\x01\x0b\x7fb", FIVE),
    "HTTP/1.0": answer(FIVE, version=b"HTTP/1.0"),
    "no reason": answer(FIVE, status=b"200"),
    "a reason with a NUL": answer(FIVE, status=b"200 O\0K"),
    "a coding twice": answer(CHUNKED, CHUNKED, body=IN_CHUNKS),
    "a length that is hop-by-hop": answer(b"Connection: content-length", FIVE),
    "ids of its own": answer(b"Helicone-Id: evil", b"x-portkey-trace-id: evil", FIVE),
    "an upgrade that nobody asked for": answer(b"Connection: Upgrade", b"Upgrade: h2c", FIVE),
    "a blank behind a chunk's size": answer(CHUNKED, body=b"5 \r\nhello\r\n0\r\n\r\n"),
    "a trailer": answer(CHUNKED, body=b"5\r\nhello\r\n0\r\nX-Evil: y\r\n\r\n"),
    "another answer behind it": answer(FIVE, body=b"hello" + EVIL),
    "interim answers": answer(body=b"", status=b"103 Early Hints") * 1000 + answer(FIVE),
}
BROKEN_OFF = {
    "half a body": (answer(FIVE, body=b"he"), b"he"),
    "half a chunk": (answer(CHUNKED, body=b"5\r\nhe"), b"2\r\nhe\r\n"),
    "no last chunk": (answer(CHUNKED, body=b"5\r\nhello\r\n"), b"5\r\nhello\r\n"),
    "half a trailer": (answer(CHUNKED, body=b"5\r\nhello\r\n0\r\nX: "), b"5\r\nhello\r\n"),
}


async def say(upstream: Upstream, data: bytes) -> None:
    """Have the first call answered with these bytes, and every other with a chat completion."""
    good = upstream.answer
    heard = 0

    async def script(connection: Connection) -> None:
        nonlocal heard
        while True:
            await connection.read_request()
            heard += 1
            await connection.send(data if heard == 1 else good)
            if heard == 1:
                connection.writer.write_eof()

    upstream.script = script


async def the_next_call_is_answered_rightly(kibitz: Running, upstream: Upstream) -> None:
    [good] = read_answers(await converse(kibitz.port, NEXT))
    assert good.start == (b"200",)
    assert upstream.answer.endswith(good.body)


def framed(found: Message) -> set[bytes]:
    return {name.lower() for name, _ in found.fields} & {b"content-length", b"transfer-encoding"}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
async def test_what_is_no_answer_is_a_502_and_logged(kibitz: Running, upstream: Upstream, data: bytes) -> None:
    await say(upstream, data)
    [found] = read_answers(await converse(kibitz.port, ASKED))
    assert found.start == (b"502",)
    assert b"evil" not in found.body
    assert (await kibitz.row("first"))["error"]["kind"] == "upstream_unreachable"
    await the_next_call_is_answered_rightly(kibitz, upstream)


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
async def test_what_can_be_read_in_one_way_arrives(kibitz: Running, upstream: Upstream, data: bytes) -> None:
    await say(upstream, data)
    sent = await converse(kibitz.port, ASKED)
    assert b"\0" not in sent
    assert b"evil" not in sent.lower()
    [found] = read_answers(sent.replace(b"\x01", b"").replace(b"\x0b", b"").replace(b"\x7f", b""))
    assert (found.start, found.body) == ((b"200",), b"hello")
    assert len(framed(found)) == 1
    assert (await kibitz.row("first"))["response_body"] == "hello"
    await the_next_call_is_answered_rightly(kibitz, upstream)


@pytest.mark.parametrize(("data", "body"), BROKEN_OFF.values(), ids=BROKEN_OFF)
async def test_what_breaks_off_is_not_ended(kibitz: Running, upstream: Upstream, data: bytes, body: bytes) -> None:
    await say(upstream, data)
    sent = await converse(kibitz.port, ASKED)
    assert sent.partition(b"\r\n\r\n")[2] == body
    assert (await kibitz.row("first"))["error"]["kind"] == "upstream_cut"
    await the_next_call_is_answered_rightly(kibitz, upstream)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("framing", [FIVE, CHUNKED])
async def test_a_body_where_none_can_be_is_nobody_s_answer(
    kibitz: Running, upstream: Upstream, status: bytes, framing: bytes
) -> None:
    await say(upstream, answer(framing, status=status, body=EVIL))
    assert b"evil" not in await converse(kibitz.port, ASKED)
    await the_next_call_is_answered_rightly(kibitz, upstream)


async def test_a_body_of_an_answer_to_head_is_nobody_s_answer(kibitz: Running, upstream: Upstream) -> None:
    await say(upstream, answer(b"Content-Length: %d" % len(EVIL), body=EVIL))
    assert b"evil" not in await converse(kibitz.port, ASKED.replace(b"GET", b"HEAD"))
    await the_next_call_is_answered_rightly(kibitz, upstream)


async def test_a_body_that_comes_late_where_none_can_be_is_nobody_s_answer(kibitz: Running, upstream: Upstream) -> None:
    asked = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(answer(status=b"204 No Content", body=b""))
        await asked.wait()
        await connection.send(EVIL)

    upstream.script = script
    [found] = read_answers(await converse(kibitz.port, ASKED))
    assert found.start == (b"204",)
    upstream.script = None
    asked.set()
    await the_next_call_is_answered_rightly(kibitz, upstream)
