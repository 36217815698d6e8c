"""Contract section 3: a call is sent again only where a pooled connection was closed before any of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson
import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import ask, connect, request, reset
from tests.upstream import CHAT_BODY, Connection, Received, Upstream

NAMED = b"Helicone-Request-Id: second"
BODY = b'{"model": "gpt-4o-mini"}'
WARM_UP = request("GET", "/v1/models")
WHOLE = request("POST", "/v1/chat/completions", NAMED, body=BODY)
CHUNKED = request("POST", "/v1/chat/completions", NAMED, b"Transfer-Encoding: chunked")
CHUNKED += b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (9, BODY[:9], len(BODY) - 9, BODY[9:])

Answer = Callable[[Connection], Awaitable[None]]


def only_once(upstream: Upstream, second: Answer) -> None:
    """Every connection answers its first request; what the first connection does after that is up to ``second``."""

    async def script(connection: Connection) -> None:
        is_first = upstream.connections == 1
        upstream.received.append(await connection.read_request())
        await connection.send(upstream.answer)
        if is_first:
            await second(connection)
        else:
            await connection.closed_by_peer()

    upstream.script = script


async def close_unasked(connection: Connection) -> None:
    """The idle connection ends, as it does after an upstream's keep-alive time."""


async def close_when_asked(connection: Connection) -> None:
    await connection.read_head()


async def reset_when_asked(connection: Connection) -> None:
    await connection.read_head()
    reset(connection)


async def close_after_the_whole_request(connection: Connection) -> None:
    await connection.read_request()


STALE = pytest.mark.parametrize(
    "second", [close_unasked, close_when_asked, reset_when_asked, close_after_the_whole_request]
)


async def ask_twice(kibitz: Running, message: bytes) -> Received:
    """The answer to a call that finds a pooled connection."""
    assert (await ask(kibitz.port, WARM_UP)).request_line == b"HTTP/1.1 200 OK"
    return await ask(kibitz.port, message)


@STALE
@pytest.mark.parametrize("message", [WHOLE, CHUNKED], ids=["length", "chunked"])
async def test_a_call_that_met_a_stale_connection_goes_out_again_whole(
    kibitz: Running, upstream: Upstream, second: Answer, message: bytes
) -> None:
    only_once(upstream, second)
    answer = await ask_twice(kibitz, message)
    assert (answer.request_line, answer.body) == (b"HTTP/1.1 200 OK", CHAT_BODY)
    assert upstream.connections == 2
    assert [received.body for received in upstream.received] == [b"", BODY]


@STALE
async def test_a_call_without_a_body_goes_out_again_too(kibitz: Running, upstream: Upstream, second: Answer) -> None:
    only_once(upstream, second)
    answer = await ask_twice(kibitz, request("GET", "/v1/models", NAMED))
    assert (answer.request_line, answer.body) == (b"HTTP/1.1 200 OK", CHAT_BODY)
    row = await kibitz.row("second")
    assert (row["attempt"], row["response_status"], row["error"]) == (1, 200, None)


async def test_a_call_sent_again_is_one_attempt_in_the_log(kibitz: Running, upstream: Upstream) -> None:
    only_once(upstream, close_when_asked)
    await ask_twice(kibitz, WHOLE)
    row = await kibitz.row("second")
    assert (row["attempt"], row["response_status"], row["error"]) == (1, 200, None)
    assert row["request_body"] == orjson.loads(BODY)
    assert row["request_body_size"] == len(BODY)


async def test_an_upload_that_is_under_way_is_not_lost_with_the_connection(kibitz: Running, upstream: Upstream) -> None:
    half_way = asyncio.Event()

    async def close_half_way(connection: Connection) -> None:
        await connection.read_head()
        await connection.reader.readexactly(4)
        half_way.set()

    only_once(upstream, close_half_way)
    await ask(kibitz.port, WARM_UP)
    async with connect(kibitz.port) as client:
        await client.send(request("POST", "/v1/files", b"Content-Length: 8") + b"0123")
        await half_way.wait()
        await client.send(b"4567")
        assert (await client.read_request()).request_line == b"HTTP/1.1 200 OK"
    assert upstream.received[-1].body == b"01234567"


async def test_a_body_too_large_to_be_kept_at_hand_is_not_sent_again(kibitz: Running, upstream: Upstream) -> None:
    only_once(upstream, close_after_the_whole_request)
    answer = await ask_twice(kibitz, request("POST", "/v1/files", body=bytes(2**21)))
    assert answer.request_line.startswith(b"HTTP/1.1 502 ")
    assert (upstream.connections, len(upstream.received)) == (1, 1)


@STALE
async def test_how_much_is_logged_does_not_decide_what_can_be_sent_again(
    start_kibitz: StartKibitz, upstream: Upstream, second: Answer
) -> None:
    kibitz = await start_kibitz(max_logged_body=4)
    only_once(upstream, second)
    assert (await ask_twice(kibitz, WHOLE)).request_line == b"HTTP/1.1 200 OK"
    assert [received.body for received in upstream.received] == [b"", BODY]


BEGINNINGS = [
    b"HTTP/1.1 2",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Le",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
]


@pytest.mark.parametrize("end", [Connection.close, reset], ids=["close", "reset"])
@pytest.mark.parametrize("beginning", BEGINNINGS, ids=lambda beginning: beginning[9:].decode())
async def test_a_call_whose_answer_has_begun_is_never_sent_again(
    kibitz: Running, upstream: Upstream, beginning: bytes, end: Callable[[Connection], None]
) -> None:
    calls = 0

    async def break_off(connection: Connection) -> None:
        nonlocal calls
        await connection.read_request()
        await connection.send(upstream.answer)
        while True:
            await connection.read_request()
            calls += 1
            await connection.send(beginning)
            await asyncio.sleep(0.01)  # so that it is there before the end
            end(connection)

    upstream.script = break_off
    assert (await ask(kibitz.port, WARM_UP)).request_line == b"HTTP/1.1 200 OK"
    try:
        answer = await ask(kibitz.port, WHOLE)
    except asyncio.IncompleteReadError:
        pass  # the answer's beginning was handed on, and its break with it
    else:
        assert answer.request_line.startswith(b"HTTP/1.1 502 ")
    assert (upstream.connections, calls) == (1, 1)


@pytest.mark.parametrize("end", [Connection.close, reset], ids=["close", "reset"])
async def test_a_call_that_a_fresh_connection_lost_is_not_sent_again(
    kibitz: Running, upstream: Upstream, end: Callable[[Connection], None]
) -> None:
    async def end_when_asked(connection: Connection) -> None:
        await connection.read_request()
        end(connection)

    upstream.script = end_when_asked
    answer = await ask(kibitz.port, WHOLE)
    assert answer.request_line.startswith(b"HTTP/1.1 502 ")
    assert upstream.connections == 1
    assert (await kibitz.row("second"))["error"]["kind"] == "upstream_unreachable"


@pytest.mark.parametrize("status", ["500 Broken", "503 Busy", "429 Slow Down", "408 Too Slow", "409 Conflict"])
async def test_an_error_answer_is_never_a_reason_to_ask_again(kibitz: Running, upstream: Upstream, status: str) -> None:
    upstream.answer = f"HTTP/1.1 {status}\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".encode()
    answer = await ask(kibitz.port, WHOLE)
    assert answer.request_line == b"HTTP/1.1 " + status.encode()
    assert len(upstream.received) == 1


MORE = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


def assert_right_or_failed(answer: Received) -> None:
    """An upstream that sends garbage may be found not to speak HTTP, but never to have answered something else."""
    if not answer.request_line.startswith(b"HTTP/1.1 502 "):
        assert (answer.request_line, answer.body) == (b"HTTP/1.1 200 OK", CHAT_BODY)


@pytest.mark.parametrize("more", [MORE, MORE[:20], b"\r\n", b"garbage"], ids=["answer", "half", "blank", "garbage"])
@pytest.mark.parametrize("together", [True, False], ids=["together", "later"])
async def test_what_an_upstream_sends_unasked_answers_no_call(
    kibitz: Running, upstream: Upstream, more: bytes, together: bool
) -> None:
    """The next call on that connection may be another caller's."""
    answered = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(upstream.answer + (more if together else b""))
        await answered.wait()
        await connection.send(b"" if together else more)
        await connection.closed_by_peer()

    async def plain(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(upstream.answer)
        await connection.closed_by_peer()

    upstream.script = script
    assert_right_or_failed(await ask(kibitz.port, WARM_UP))
    upstream.script = plain
    answered.set()
    await asyncio.sleep(0.05)  # for what was sent to arrive; the calls below go right however soon they come
    assert_right_or_failed(await ask(kibitz.port, WHOLE))
    assert (await ask(kibitz.port, WARM_UP)).body == CHAT_BODY
