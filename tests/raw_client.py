"""For tests that look at bytes: a client over a raw socket, and what the database keeps on disk."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.upstream import Connection, Received

__all__ = ["Eventually", "ask", "connect", "one_value", "request", "reset", "stored_bytes"]

# What the fixture `eventually` gives.
Eventually = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]

# Only a fault makes anything wait this long: it fails the test instead of hanging the suite.
_PATIENCE = 10


@contextlib.asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    """A connection to a local port; closed with what is unread on it at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        async with asyncio.timeout(_PATIENCE):
            yield Connection(reader, writer)
    finally:
        writer.close()


def request(method: str, target: str, *lines: bytes, body: bytes = b"", version: str = "1.1") -> bytes:
    """A request's bytes: its Host, the given field lines, a Content-Length if there is a body."""
    length = (b"Content-Length: %d" % len(body),) if body else ()
    head = (f"{method} {target} HTTP/{version}".encode("latin-1"), b"Host: localhost", *lines, *length)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def ask(port: int, message: bytes) -> Received:
    """The answer to one request on a connection of its own, whole; its ``request_line`` is the status line."""
    async with connect(port) as connection:
        await connection.send(message)
        return await connection.read_request()


def one_value(answer: Received, name: str) -> bytes:
    """The value of a field that must be there exactly once."""
    [value] = answer.values(name)
    return value


def reset(connection: Connection) -> None:
    """End a connection with RST, as a crashed host does, not with FIN."""
    sock = connection.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.reset()


def stored_bytes(directory: Path) -> bytes:
    """Every byte of the test's database: the file and its write-ahead log."""
    return b"".join(file.read_bytes() for file in sorted(directory.glob("kibitz.db*")))
