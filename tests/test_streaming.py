"""Contract section 3: streams pass as they come, both ways, and what the log makes of one."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import connect, request
from tests.upstream import Connection, Upstream, chat_events, json_answer, sse_answer

EVENTS = chat_events("Hello", " there", ".")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CALL = request("POST", "/v1/chat/completions", b"Helicone-Request-Id: streamed", body=b'{"stream": true}')
PIECE = b"x" * 65536
MiB = 2**20


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_each_event_is_there_before_the_next_is_sent(kibitz: Running, upstream: Upstream) -> None:
    wanted = asyncio.Semaphore(0)

    async def send_when_wanted(connection: Connection) -> None:
        await connection.read_request()
        for part in (STREAM_HEAD, *map(chunk, EVENTS), b"0\r\n\r\n"):
            await wanted.acquire()
            await connection.send(part)

    upstream.script = send_when_wanted
    async with connect(kibitz.port) as connection:
        await connection.send(CALL)
        wanted.release()
        assert (await connection.read_head())[0] == b"HTTP/1.1 200 OK"
        for event in [*EVENTS, b""]:
            wanted.release()
            assert await connection.read_chunk() == event


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_each_piece_of_a_known_length_is_there_before_the_next_is_sent(
    kibitz: Running, upstream: Upstream, version: str
) -> None:
    wanted = asyncio.Semaphore(0)

    async def send_when_wanted(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n")
        for _ in range(3):
            await wanted.acquire()
            await connection.send(b"0123456789")

    upstream.script = send_when_wanted
    async with connect(kibitz.port) as connection:
        await connection.send(request("GET", "/v1/files/1/content", version=version))
        await connection.read_head()
        for _ in range(3):
            wanted.release()
            assert await connection.reader.readexactly(10) == b"0123456789"


async def test_part_of_a_chunk_is_not_held_back(kibitz: Running, upstream: Upstream) -> None:
    arrived = asyncio.Event()

    async def send_half(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(STREAM_HEAD + b"14\r\n0123456789")
        await arrived.wait()
        await connection.send(b"0123456789\r\n0\r\n\r\n")

    upstream.script = send_half
    async with connect(kibitz.port) as connection:
        await connection.send(CALL)
        await connection.reader.readuntil(b"0123456789")
        arrived.set()
        await connection.reader.readuntil(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("framing", "parts"),
    [
        (b"Content-Length: 15", [b"first", b"middl", b"final"]),
        (b"Transfer-Encoding: chunked", [b"5\r\nfirst\r\n", b"5\r\nmiddl\r\n", b"5\r\nfinal\r\n0\r\n\r\n"]),
    ],
    ids=["length", "chunked"],
)
async def test_each_part_of_an_upload_is_there_before_the_next_is_sent(
    kibitz: Running, upstream: Upstream, framing: bytes, parts: list[bytes]
) -> None:
    there = asyncio.Semaphore(0)

    async def tell(connection: Connection) -> None:
        await connection.read_head()
        for word in (b"first", b"middl", b"final"):
            await connection.reader.readuntil(word)
            there.release()
        await connection.send(upstream.answer)

    upstream.script = tell
    async with connect(kibitz.port) as connection:
        await connection.send(request("POST", "/v1/files", framing))
        for part in parts:
            await connection.send(part)
            await there.acquire()
        assert (await connection.read_request()).request_line == b"HTTP/1.1 200 OK"


async def test_a_stream_is_logged_with_its_text_and_figures(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = sse_answer(*EVENTS)
    async with connect(kibitz.port) as connection:
        await connection.send(CALL)
        await connection.read_request()
    row = await kibitz.row("streamed")
    assert (row["is_stream"], row["response_status"], row["error"]) == (True, 200, None)
    assert (row["response_text"], row["finish_reason"], row["model"]) == ("Hello there.", "stop", "gpt-4o-mini")
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (9, 3, 12)
    assert row["response_body"]["choices"][0]["message"]["content"] == "Hello there."
    assert row["provider_response_id"] == "chatcmpl-2"
    assert 0 <= row["time_to_first_token"] <= row["delay_ms"]


async def test_a_whole_answer_has_no_time_to_first_token(kibitz: Running) -> None:
    await kibitz.chat(Helicone_Request_Id="whole")
    row = await kibitz.row("whole")
    assert (row["is_stream"], row["time_to_first_token"]) == (False, None)


@pytest.mark.parametrize(("answer", "is_stream"), [(json_answer(b"{}", status="404 Not Found"), False), (b"", True)])
async def test_a_stream_that_was_asked_for_is_one_unless_the_answer_is_none(
    kibitz: Running, upstream: Upstream, answer: bytes, is_stream: bool
) -> None:
    """A refusal is no stream; of an upstream that gives no answer it is known only what was asked."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(answer)

    upstream.script = script
    async with connect(kibitz.port) as connection:
        await connection.send(CALL)
        await connection.read_request()
    row = await kibitz.row("streamed")
    assert (row["response_status"], row["is_stream"]) == (404 if answer else 502, is_stream)


async def stalls(progress: list[int]) -> int:
    """How much got through once no more does."""
    seen = -1
    while seen < sum(progress) or not progress:
        seen = sum(progress)
        await asyncio.sleep(0.1)
    return seen


async def pour(connection: Connection, progress: list[int]) -> None:
    """More than the sockets on the way hold."""
    for _ in range(96 * MiB // len(PIECE)):
        await connection.send(PIECE)
        progress.append(len(PIECE))


async def test_a_client_that_does_not_read_holds_the_upstream_up(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(max_logged_body=MiB)
    progress: list[int] = []

    async def send_much(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (96 * MiB))
        await pour(connection, progress)

    upstream.script = send_much
    async with connect(kibitz.port) as connection:
        await connection.send(CALL)
        assert await stalls(progress) < 48 * MiB


async def test_an_upstream_that_does_not_read_holds_the_client_up(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start_kibitz(max_logged_body=MiB)
    done = asyncio.Event()

    async def not_read(connection: Connection) -> None:
        await done.wait()

    upstream.script = not_read
    progress: list[int] = []
    async with connect(kibitz.port) as connection:
        await connection.send(request("POST", "/v1/files", b"Content-Length: %d" % (96 * MiB)))
        pouring = asyncio.ensure_future(pour(connection, progress))
        assert await stalls(progress) < 48 * MiB
        pouring.cancel()
        done.set()
