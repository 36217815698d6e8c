"""Where few calls run, the last event of a stream is at its client before its row is made."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import AsyncExitStack
from typing import Any

import pytest

from proxy import row
from proxy.building import RowBuilder
from proxy.exchange import Exchange
from storage.records import Call
from tests.conftest import Running
from tests.raw_client import connect, request
from tests.upstream import Connection, Upstream, chat_events

CHAT = "/v1/chat/completions"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = chat_events("Hello", " there")
DONE = EVENTS[-1]
LAST = b"0\r\n\r\n"
LARGE = b": %b\n\n" % (b"x" * 300_000)  # more than the event loop makes a row of
PATIENCE = 10  # seconds
SHORT = 0.2  # seconds; what has not left by then waits for this to be over
FEW = 4


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Reader(threading.Thread):
    """A client in a thread of its own: it reads on while the event loop makes a row."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.has_last_event = threading.Event()
        self.received = b""

    def run(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE) as connection:
            connection.sendall(request("POST", CHAT, b"Helicone-Request-Id: first", body=b'{"stream": true}'))
            while not self.received.endswith(LAST):
                self.received += connection.recv(65536)
                if DONE in self.received:
                    self.has_last_event.set()


class Rows:
    """Of each row of that client's, whether it had the last event when the row was about to be made."""

    def __init__(self, reader: Reader, patience: float) -> None:
        self._reader = reader
        self._patience = patience
        self.came_later: list[bool] = []

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make = row.build_call

        def build_call(exchange: Exchange, *others: Any, **named: Any) -> Call:
            if exchange.identity.request_id == "first":
                self.came_later.append(self._reader.has_last_event.wait(self._patience))
            return make(exchange, *others, **named)

        monkeypatch.setattr("proxy.building.build_call", build_call)


async def read_back(kibitz: Running, upstream: Upstream, reader: Reader, script: list[bytes]) -> None:
    """Stream some pieces, the last of them once the client has the last event."""

    async def stream(connection: Connection) -> None:
        await connection.read_request()
        for piece in script[:-1]:
            await connection.send(piece)
        await asyncio.to_thread(reader.has_last_event.wait, PATIENCE)
        await connection.send(script[-1])
        await connection.closed_by_peer()

    upstream.script = stream
    reader.start()
    await asyncio.to_thread(reader.join, PATIENCE)
    assert not reader.is_alive()
    row = await kibitz.row("first")
    assert (row["response_text"], row["finish_reason"], row["error"]) == ("Hello there", "stop", None)


ALL_AT_ONCE = HEAD + b"".join(map(chunk, EVENTS)) + LAST


@pytest.mark.parametrize(
    "script",
    [
        [ALL_AT_ONCE, b""],
        [HEAD + b"".join(map(chunk, EVENTS[:-1])), chunk(DONE) + LAST, b""],
        [HEAD, *map(chunk, EVENTS), LAST],
        [HEAD + chunk(LARGE), b"".join(map(chunk, EVENTS)), LAST],
    ],
    ids=["all at once", "the end at once", "one by one", "a large one"],
)
async def test_the_last_event_leaves_before_its_row_is_made(
    kibitz: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, script: list[bytes]
) -> None:
    reader = Reader(kibitz.port)
    rows = Rows(reader, PATIENCE)
    rows.watch(monkeypatch)
    await read_back(kibitz, upstream, reader, script)
    assert rows.came_later == [True]


async def test_where_many_calls_run_their_rows_are_made_at_once(
    kibitz: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(kibitz.port)
    rows = Rows(reader, SHORT)
    rows.watch(monkeypatch)

    came = asyncio.Semaphore(0)

    async def never_answer(connection: Connection) -> None:
        await connection.read_request()
        came.release()
        await connection.closed_by_peer()

    upstream.script = never_answer
    async with AsyncExitStack() as stack:
        for _ in range(FEW):
            other = await stack.enter_async_context(connect(kibitz.port))
            await other.send(request("POST", CHAT, body=b"{}"))
            await came.acquire()
        await read_back(kibitz, upstream, reader, [ALL_AT_ONCE, b""])
    assert rows.came_later == [False]


async def test_a_large_stream_is_found_by_its_response_id_as_soon_as_its_last_event_is_there(
    kibitz: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = RowBuilder.aside

    async def aside(builder: RowBuilder, exchange: Exchange) -> Call:
        await asyncio.sleep(SHORT)
        return await make(builder, exchange)

    monkeypatch.setattr(RowBuilder, "aside", aside)
    upstream.answer = HEAD + b"".join(map(chunk, [EVENTS[0], LARGE, *EVENTS[1:]])) + LAST
    async with connect(kibitz.port) as client:
        await client.send(request("POST", CHAT, body=b'{"stream": true}'))
        await client.reader.readuntil(DONE)
        assert (await kibitz.row("chatcmpl-2"))["response_text"] == "Hello there"
