"""Answers without a length: as fast as the client takes them, and no longer than it stays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from proxy.client_http import RelayedResponse, Request
from proxy.config import Limits
from proxy.connection_limits import ConnectionLimits
from proxy.dialects import Answer
from proxy.metrics import Metrics
from proxy.server import Server
from proxy.streamed import begun, send_stream
from tests.raw_client import ask, connect, request

PIECE = b"x" * 65536
# More than sockets hold of a client that reads nothing: some megabytes.
MOST_AHEAD = 500


@dataclass(slots=True)
class Endless:
    """A body that never ends by itself; counts its pieces. After ``breaks_at`` of them it fails."""

    pieces: int = 0
    breaks_at: int | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def stream(self) -> AsyncGenerator[bytes]:
        try:
            while self.pieces != self.breaks_at:
                self.pieces += 1
                yield PIECE
                await asyncio.sleep(0)
            raise RuntimeError("the store is gone")
        finally:
            self.closed.set()


@contextlib.asynccontextmanager
async def serving(body: Endless, idle_timeout: float = 300) -> AsyncIterator[int]:
    """The port of a server that answers everything with this body, but for /ping."""

    async def handle(message: Request) -> RelayedResponse:
        if message.raw_path == "/ping":
            return await send(message, _short())
        return await send(message, body.stream())

    async def send(message: Request, stream: AsyncGenerator[bytes]) -> RelayedResponse:
        answer = await begun(Answer(None, media_type="text/plain", stream=stream))
        return await send_stream(message, answer, stream, [(b"X-A", b"b")])

    known = Limits().model_dump(include=set(ConnectionLimits.__dataclass_fields__))
    limits = ConnectionLimits(**{**known, "download_idle_timeout": idle_timeout})
    runner = web.ServerRunner(Server(handle, limits, Metrics(), access_log=None), shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _short() -> AsyncGenerator[bytes]:
    yield b"ping"
    yield b"pong"


async def test_a_client_that_reads_nothing_holds_the_work_up_and_one_that_leaves_ends_it() -> None:
    body = Endless()
    async with serving(body) as port:
        async with connect(port) as connection:
            await connection.send(request("GET", "/"))
            await connection.read_head()
            for _ in range(200):  # meanwhile the work would go on, if it did
                answer = await ask(port, request("GET", "/ping"))
                assert answer.body == b"pingpong"
            assert 0 < body.pieces < MOST_AHEAD
            assert not body.closed.is_set()
        async with asyncio.timeout(10):
            await body.closed.wait()


async def test_a_client_that_takes_nothing_for_too_long_is_cut_off() -> None:
    body = Endless()
    async with serving(body, idle_timeout=0.05) as port, connect(port) as connection:
        await connection.send(request("GET", "/"))
        await connection.read_head()
        async with asyncio.timeout(10):
            await body.closed.wait()


async def test_a_failure_on_the_way_is_no_end_of_the_message(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Endless(breaks_at=3)) as port, connect(port) as connection:
        await connection.send(request("GET", "/"))
        await connection.read_head()
        content = await connection.reader.read(-1)
    assert content.count(b"10000\r\n") == 3
    assert not content.endswith(b"0\r\n\r\n")
    assert [record.getMessage() for record in caplog.records] == ["streaming an answer"]


async def test_without_chunks_a_failure_resets_the_connection() -> None:
    async with serving(Endless(breaks_at=3)) as port, connect(port) as connection:
        await connection.send(request("GET", "/", version="1.0"))
        await connection.read_head()
        with pytest.raises(ConnectionResetError):
            await connection.reader.read(-1)


async def test_head_has_the_fields_alone_and_closes_the_stream() -> None:
    body = Endless()
    async with serving(body) as port, connect(port) as connection:
        await connection.send(request("HEAD", "/") + request("GET", "/ping"))
        head, fields = await connection.read_head()
        assert head == b"HTTP/1.1 200 OK"
        assert (b"X-A", b"b") in fields
        assert body.closed.is_set()
        assert (await connection.read_request()).body == b"pingpong"
