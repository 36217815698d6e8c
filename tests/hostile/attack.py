"""An upstream that keeps every byte it gets and reads it strictly, and a client that sends whatever it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.hostile.strict_http import Message, NotStrict, read_answers, read_requests
from tests.upstream import drop

__all__ = ["CANARY", "PATIENCE", "Witness", "attack", "converse", "running_witness"]

# Seconds. Only a fault makes anything wait this long: it fails the test instead of hanging the suite.
PATIENCE = 20
# Of a form that is sent byte by byte; a longer one is sent in longer ones.
_MOST_PIECES = 500
CANARY = b"GET /v1/canary HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(slots=True)
class Witness:
    """What reached an upstream, by connection. Each whole request is answered with its own target as the body."""

    port: int = 0
    connections: list[bytearray] = field(default_factory=list)
    open: int = 0
    """How many connections are."""
    transports: list[asyncio.WriteTransport] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[Message]:
        """Every request of every connection. Raises `NotStrict` for bytes that are not exactly requests."""
        found = []
        for data in self.connections:
            requests, rest = read_requests(bytes(data))
            found += requests
            if rest:
                raise NotStrict(f"half a request: {rest[:200]!r}")
        return found

    @property
    def targets(self) -> list[bytes]:
        return [request.start[1] for request in self.requests]

    def forget(self) -> None:
        """Forget what came so far; what is open stays so."""
        for data in self.connections:
            data.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = bytearray()
        self.connections.append(data)
        self.open += 1
        self.transports.append(writer.transport)
        unread = b""
        try:
            while piece := await reader.read(2**16):
                data += piece
                requests, unread = read_requests(unread + piece)
                for request in requests:
                    writer.write(answer_to(request))
        except (ConnectionError, NotStrict):
            pass  # the bytes are kept; whoever looks at them is told
        finally:
            self.open -= 1
            writer.close()


def answer_to(request: Message) -> bytes:
    method, target = request.start
    body = b"" if method == b"HEAD" else target
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(target), body)


@contextlib.asynccontextmanager
async def running_witness() -> AsyncIterator[Witness]:
    witness = Witness()
    server = await asyncio.start_server(witness.serve, "127.0.0.1", 0)
    witness.port = server.sockets[0].getsockname()[1]
    try:
        yield witness
    finally:
        server.close()
        await drop(witness.transports)


async def converse(port: int, data: bytes, *, bytewise: bool = False) -> bytes:
    """All that comes back until the connection ends, which the server has to end. Raises `TimeoutError` if it hangs."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE):
            return await _send_and_read(reader, writer, data, bytewise=bytewise)
    finally:
        writer.close()


async def _send_and_read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, *, bytewise: bool
) -> bytes:
    # Read meanwhile: a connection that is closed on what the client still sends may lose what it has not read.
    reading = asyncio.ensure_future(_read_all(reader))
    step = max(1, len(data) // _MOST_PIECES) if bytewise else len(data)
    for start in range(0, len(data), step):
        if reading.done():
            break
        writer.write(data[start : start + step])
        await asyncio.sleep(0)  # a turn for the server, which takes the piece by itself
    return await reading


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    data = b""
    try:
        while piece := await reader.read(2**16):
            data += piece
    except ConnectionError:
        pass  # closed with bytes unread; what had come counts
    return data


async def attack(port: int, form: bytes, *, bytewise: bool = False) -> list[Message]:
    """The answers to a form with a good request behind it, that closes the connection if it is understood."""
    answers = await converse(port, form + CANARY, bytewise=bytewise)
    return read_answers(answers, first_to_head=form.startswith(b"HEAD "))
