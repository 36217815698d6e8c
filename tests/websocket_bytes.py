"""For tests of WebSockets: frames and handshakes as bytes, and scripts of an upstream that speaks them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from tests.raw_client import request
from tests.upstream import Connection, Received, Script, Upstream

__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "closing",
    "event",
    "frame",
    "handshake",
    "open_websocket",
    "speaking",
    "switching",
]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_MASK = b"\x37\xfa\x21\x3d"


def frame(opcode: int, payload: bytes = b"", *, masked: bool = False, final: bool = True, reserved: int = 0) -> bytes:
    """A frame's bytes (RFC 6455 section 5.2)."""
    size = len(payload)
    short = size if size < 126 else 126 if size < 2**16 else 127
    extended = b"" if short < 126 else size.to_bytes(2 if short == 126 else 8, "big")
    head = bytes([final << 7 | reserved | opcode, masked << 7 | short]) + extended
    if not masked:
        return head + payload
    return head + _MASK + bytes(byte ^ _MASK[at % 4] for at, byte in enumerate(payload))


def closing(code: int = 1000, reason: str = "", *, masked: bool = False) -> bytes:
    """A close frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode(), masked=masked)


def event(kind: str, **members: Any) -> bytes:
    """A text frame of an upstream's with an event of the Realtime API."""
    return frame(TEXT, orjson.dumps({"type": kind, **members}))


def handshake(*lines: bytes, target: str = "/v1/realtime?model=gpt-realtime") -> bytes:
    """A client's request to open a WebSocket."""
    return request(
        "GET",
        target,
        b"Connection: keep-alive, Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *lines,
    )


def switching(*lines: bytes) -> bytes:
    """An upstream's answer that opens it."""
    head = (
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        *lines,
    )
    return b"\r\n".join(head) + b"\r\n\r\n"


def speaking(then: Callable[[Connection], Awaitable[Any]], upstream: Upstream, *, answer: bytes = b"") -> Script:
    """Opens a WebSocket, then does as told."""

    async def script(connection: Connection) -> None:
        upstream.received.append(await connection.read_request())
        await connection.send(answer or switching())
        await then(connection)

    return script


async def open_websocket(connection: Connection, *lines: bytes) -> Received:
    """Open a WebSocket at Kibitz's; gives the answer's head, as a request without a body."""
    await connection.send(handshake(*lines))
    status_line, fields = await connection.read_head()
    return Received(status_line, fields, b"", [])


async def until_closed(connection: Connection) -> bytes:
    """All that still comes."""
    received = b""
    while piece := await connection.reader.read(2**16):
        received += piece
    return received


async def forever(_: Connection) -> None:
    """Stay, and say nothing."""
    await asyncio.Event().wait()
