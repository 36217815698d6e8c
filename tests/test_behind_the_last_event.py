"""Contract sections 3 and 5: a stream is logged at the event that ends its format, and truly whatever follows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import Eventually, connect, request
from tests.upstream import Connection, Upstream, chat_events

NAMED = b"Helicone-Request-Id: streamed"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
CHAT = chat_events("Hello", " there.", usage=False)
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}\n\n'
MESSAGE = [
    b'event: message_start\ndata: {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": '
    b'"assistant", "model": "claude", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}}\n\n',
    b'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": '
    b'{"output_tokens": 2}}\n\n',
    b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
]


def call(path: str = "/v1/chat/completions") -> bytes:
    return request("POST", path, NAMED, body=b'{"stream": true}')


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def relayed(kibitz: Running, upstream: Upstream, before: list[bytes], behind: bytes, message: bytes) -> bytes:
    """Stream ``before``, wait until the client has it, then send ``behind`` and end the connection; what came."""
    received = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(HEAD + b"".join(map(chunk, before)))
        await received.wait()
        await connection.send(behind)
        connection.close()

    upstream.script = script
    async with connect(kibitz.port) as connection:
        await connection.send(message)
        head = await connection.reader.readuntil(b"\r\n\r\n")
        body = await connection.reader.readuntil(before[-1] + b"\r\n")
        received.set()
        body += await connection.reader.readexactly(len(behind))
        if not behind.endswith(END):
            assert not await connection.reader.read()  # a cut, not an end
    assert head.startswith(b"HTTP/1.1 200 OK")
    return body


def body_size(*pieces: bytes) -> int:
    return sum(map(len, pieces))


async def test_usage_behind_the_last_event_is_in_the_row(kibitz: Running, upstream: Upstream) -> None:
    behind = chunk(USAGE) + END
    body = await relayed(kibitz, upstream, CHAT, behind, call())
    assert body == b"".join(map(chunk, CHAT)) + behind
    row = await kibitz.row("streamed")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (7, 2)
    assert (row["response_text"], row["error"]) == ("Hello there.", None)
    assert row["response_body_size"] == body_size(*CHAT, USAGE)
    assert row["attempt"] == 1


async def test_a_cut_behind_the_last_event_is_in_the_row(
    kibitz: Running, upstream: Upstream, eventually: Eventually
) -> None:
    await relayed(kibitz, upstream, CHAT, b"", call())

    async def row_tells() -> dict[str, Any]:
        row = await kibitz.row("streamed")
        assert row["error"]["kind"] == "upstream_cut"
        return row

    row = await eventually(row_tells)
    assert (row["response_text"], row["response_status"], row["attempt"]) == ("Hello there.", 200, 1)


@pytest.mark.parametrize("at", range(1, len(MESSAGE[-1])))
async def test_a_last_event_that_comes_in_two_parts_is_whole_in_the_row(
    kibitz: Running, upstream: Upstream, at: int
) -> None:
    first, second = MESSAGE[-1][:at], MESSAGE[-1][at:]
    await relayed(kibitz, upstream, [*MESSAGE[:-1], first], chunk(second) + END, call("/v1/messages"))
    row = await kibitz.row("streamed")
    assert row["response_body_size"] == body_size(*MESSAGE)
    assert (row["finish_reason"], row["completion_tokens"], row["error"]) == ("end_turn", 2, None)


@pytest.mark.parametrize("event", ["completed", "incomplete", "failed"])
async def test_a_response_is_readable_once_its_last_event_is_there(
    kibitz: Running, upstream: Upstream, event: str
) -> None:
    """Whoever stops reading there asks for the row while the stream is still open."""
    done = asyncio.Event()
    last = b'event: response.%b\ndata: {"type": "response.%b", "response": {"id": "resp_1", "object": "response"}}\n\n'

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(HEAD + chunk(last % (event.encode(), event.encode())))
        await done.wait()

    upstream.script = script
    async with connect(kibitz.port) as connection:
        await connection.send(call("/v1/responses"))
        await connection.reader.readuntil(b"\n\n\r\n")
        assert (await kibitz.row("streamed"))["is_stream"] is True
        done.set()


async def test_a_rating_of_the_early_row_stays_on_the_whole_one(kibitz: Running, upstream: Upstream) -> None:
    rated, answered = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(HEAD + b"".join(map(chunk, CHAT)))
        await rated.wait()
        await connection.send(chunk(USAGE) + END)
        await answered.wait()

    upstream.script = script
    async with connect(kibitz.port) as connection:
        await connection.send(call())
        await connection.reader.readuntil(b"[DONE]\n\n")
        rating = {"rating": True}
        async with kibitz.client.post(f"{kibitz.url}/v1/request/streamed/feedback", json=rating) as answer:
            assert answer.status == 200
        rated.set()
        await connection.reader.readuntil(END)
        answered.set()
    row = await kibitz.row("streamed")
    assert (row["total_tokens"], row["feedback"]["rating"]) == (9, True)


async def test_a_large_stream_with_more_behind_its_last_event_is_whole_in_the_row(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    """Its first row is built in a thread, while what comes behind it is taken down."""
    kibitz = await start_kibitz(commit_wait=10)
    large = chat_events(*["x" * 1000] * 600, usage=False)
    await relayed(kibitz, upstream, large, chunk(USAGE) + END, call())
    row = await kibitz.row("streamed")
    assert (len(row["response_text"]), row["total_tokens"]) == (600_000, 9)
    assert row["response_body_size"] == body_size(*large, USAGE)


@pytest.mark.parametrize("limit", [0, 100])
async def test_a_client_that_leaves_at_the_last_event_of_a_stream_longer_than_what_is_logged_has_not_broken_off(
    start_kibitz: StartKibitz, upstream: Upstream, eventually: Eventually, limit: int
) -> None:
    kibitz = await start_kibitz(max_logged_body=limit)
    left = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(HEAD + b"".join(map(chunk, CHAT)))
        await connection.closed_by_peer()
        left.set()

    upstream.script = script
    async with connect(kibitz.port) as connection:
        await connection.send(call())
        await connection.reader.readuntil(b"[DONE]\n\n")
        connection.close()
        await left.wait()
    await asyncio.sleep(0.05)  # for an amendment, if there were one
    row = await eventually(lambda: kibitz.row("streamed"))
    assert (row["error"], row["response_body_truncated"]) == (None, True)
