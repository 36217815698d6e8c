"""A scripted upstream over a raw socket: it shows the bytes that came, and sends the bytes it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import orjson

__all__ = ["Connection", "Received", "Upstream", "chat_answer", "drop", "json_answer", "running_upstream", "sse_answer"]

CHAT_BODY = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello there."}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
)


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came: the head's lines, and the body without its framing."""

    request_line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    chunks: list[bytes]

    @property
    def method(self) -> bytes:
        return self.request_line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.request_line.split(b" ")[1]

    @property
    def names(self) -> list[bytes]:
        return [name.lower() for name, _ in self.fields]

    def values(self, name: str) -> list[bytes]:
        return [value for known, value in self.fields if known.lower() == name.lower().encode()]


@dataclass(slots=True)
class Connection:
    """One connection of a client's, for a script to use."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read_head(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        request_line, *lines = head[:-4].split(b"\r\n")
        fields = [(name, value.removeprefix(b" ")) for name, _, value in (line.partition(b":") for line in lines)]
        return request_line, fields

    async def read_request(self) -> Received:
        """The next request, whole. Raises IncompleteReadError when there is none."""
        request_line, fields = await self.read_head()
        known = {name.lower(): value for name, value in fields}
        chunks: list[bytes] = []
        if b"chunked" in known.get(b"transfer-encoding", b""):
            while chunk := await self.read_chunk():
                chunks.append(chunk)
        elif length := int(known.get(b"content-length", b"0")):
            chunks.append(await self.reader.readexactly(length))
        return Received(request_line, fields, b"".join(chunks), chunks)

    async def read_chunk(self) -> bytes:
        size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
        chunk = await self.reader.readexactly(size)
        await self.reader.readexactly(2)
        return chunk

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def closed_by_peer(self) -> bool:
        """Waits until the peer closes; True if it did without sending more."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Connection], Awaitable[None]]


@dataclass(slots=True)
class Upstream:
    """Serves `answer` to every request, or runs `script` on every connection instead."""

    port: int = 0
    answer: bytes = b""
    script: Script | None = None
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    transports: list[asyncio.WriteTransport] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = Connection(reader, writer)
        self.transports.append(writer.transport)
        try:
            if self.script is not None:
                await self.script(connection)
            else:
                await self._serve_answers(connection)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _serve_answers(self, connection: Connection) -> None:
        while True:
            self.received.append(await connection.read_request())
            await connection.send(self.answer)


async def drop(transports: Iterable[asyncio.WriteTransport]) -> None:
    """End connections with what is unsent on them: one that closes waits for a peer that may have gone."""
    for transport in transports:
        # One that has nothing left to send is closed, or about to be; asyncio's can't be aborted then.
        if transport.get_write_buffer_size() or not transport.is_closing():
            transport.abort()
    await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running_upstream(tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """An upstream on a free port that gives a small chat completion to every request."""
    upstream = Upstream(answer=chat_answer())
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=2**20, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await drop(upstream.transports)


def json_answer(body: bytes, *, status: str = "200 OK", fields: bytes = b"") -> bytes:
    """A whole response with a JSON body."""
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    return head % (status.encode(), fields, len(body)) + body


def chat_answer(body: bytes = CHAT_BODY, fields: bytes = b"") -> bytes:
    """A whole response with a chat completion."""
    return json_answer(body, fields=fields)


def sse_answer(*events: bytes) -> bytes:
    """A whole response that streams events, one a chunk."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunks
    )


def chat_events(*contents: str, usage: bool = True, model: str = "gpt-4o-mini", id: str = "chatcmpl-2") -> list[bytes]:
    """The events of a streamed chat completion."""

    def event(choices: list[object], **more: object) -> bytes:
        chunk = {"id": id, "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices, **more}
        return b"data: %b\n\n" % orjson.dumps(chunk)

    events = [event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])]
    events += [event([{"index": 0, "delta": {"content": text}, "finish_reason": None}]) for text in contents]
    events.append(event([{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    if usage:
        counts = {"prompt_tokens": 9, "completion_tokens": len(contents), "total_tokens": 9 + len(contents)}
        events.append(event([], usage=counts))
    return [*events, b"data: [DONE]\n\n"]
