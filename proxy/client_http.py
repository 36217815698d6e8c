"""What a handler sees of a client's request, and how it answers: aiohttp's server end without what a relay pays for.

aiohttp's own requests and responses pass header fields through dictionaries of text, which joins spellings, drops
bytes that are not UTF-8 and adds fields. Here a request keeps the bytes that came, and a response writes the head
that it is given. What this leans on of aiohttp's internals is here and in `proxy.server_protocol`; the version is
pinned.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientConnectionResetError, HttpVersion, StreamReader
from aiohttp.hdrs import CONTENT_LENGTH, UPGRADE
from aiohttp.http import RawRequestMessage

from proxy.cors import CrossOrigin
from proxy.last_head import LastHead
from proxy.outbox import Outbox
from proxy.taken import TakenConnection

if TYPE_CHECKING:
    from aiohttp.web_protocol import RequestHandler

__all__ = ["RelayedResponse", "Request", "has_unread_bytes", "reset_connection", "take_client"]

_INT: Final = struct.Struct("i")
# l_onoff and l_linger of socket(7): closing throws away what is unsent and resets.
_NO_LINGERING: Final = struct.pack("ii", 1, 0)
# What poll(2) says of a peer's end though bytes are unread; the first is Linux's alone.
_HUNG_UP: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
# Framing a piece in place copies it; of more bytes than this the parts go out one by one.
_JOINED: Final = 16 * 1024
# The lines in front of chunks of sizes that most events have: to write one takes longer than all else of a chunk.
_MOST_SIZES: Final = 1024
_SIZES: Final = tuple(b"%x\r\n" % size for size in range(_MOST_SIZES))


class Request:
    """A request as it came. ``content`` is its body; ``answered`` turns true with the answer's first byte.

    ``task`` is the one that serves the connection, ``last_head`` what it remembers; ``cross_origin`` tells what its
    answer says to a browser. ``is_surplus`` tells that there are more connections than are allowed, and that this one
    came when all others were busy.
    """

    __slots__ = (
        "_may_go_on",
        "answered",
        "content",
        "cross_origin",
        "idle_timeout",
        "is_chunked",
        "is_surplus",
        "last_head",
        "method",
        "outbox",
        "protocol",
        "raw_headers",
        "raw_path",
        "stalled",
        "task",
        "version",
        "waits_for_client",
    )

    def __init__(
        self,
        message: RawRequestMessage,
        content: StreamReader,
        protocol: RequestHandler,
        task: asyncio.Task[None],
        last_head: LastHead[Any],
        outbox: Outbox,
    ) -> None:
        self.method: str = message.method
        self.raw_path: str = message.path
        self.raw_headers = message.raw_headers
        self.version: HttpVersion = message.version
        self.is_chunked: bool = message.chunked
        self._may_go_on = not message.should_close and not _loses_what_follows(message)
        self.content = content
        self.protocol = protocol
        self.answered = False
        self.cross_origin: CrossOrigin | None = None
        self.idle_timeout: float | None = None
        """Seconds in which the client may take nothing of the answer."""
        self.is_surplus = False
        self.stalled = False
        self.task = task
        self.last_head = last_head
        self.outbox = outbox
        self.waits_for_client: Callable[[], AbstractContextManager[None]] = nullcontext
        """For the time in which a handler waits for what the client sends: the connection may have to give way."""

    def give_up(self) -> None:
        """End the connection with the answer, without waiting for what is left of the body: it has stopped coming."""
        self.stalled = True
        self.end_connection()

    def end_connection(self) -> None:
        """Let the connection end with the answer."""
        self._may_go_on = False

    @property
    def keep_alive(self) -> bool:
        """Whether another request can follow on the connection; asked when the answer begins.

        Not where it begins before the end of a body in chunks: whether that has a trailer, behind which the connection
        has to end, is known too late for the client to be told.
        """
        return self._may_go_on and not (self.is_chunked and not self.content.is_eof())

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection; none once it is lost."""
        return self.protocol.transport

    @property
    def has_left(self) -> bool:
        """Whether the client is gone."""
        transport = self.protocol.transport
        return transport is None or transport.is_closing()

    def close_if_hung_up(self) -> None:
        """Close the connection if the client has ended it. For who does not read from it, and so is not told."""
        connection = None if self.transport is None else self.transport.get_extra_info("socket")
        if connection is None or self.transport is None or connection.fileno() < 0:
            return
        poll = select.poll()
        poll.register(connection.fileno(), _HUNG_UP)
        if poll.poll(0):
            self.transport.close()

    # The two names by which aiohttp's protocol calls.

    def _cancel(self, error: BaseException) -> None:
        if not self.content.is_eof():
            self.content.set_exception(error)

    def _finish(self) -> None:
        pass


def _loses_what_follows(message: RawRequestMessage) -> bool:
    """Whether aiohttp's parser may lose what comes behind a request that asks for an upgrade and does not get it.

    It throws it away for a protocol that it doesn't know, and keeps it for ever where a body ends after the answer.
    """
    if not message.upgrade:
        return False
    has_body = message.chunked or message.headers.get(CONTENT_LENGTH, "0") != "0"
    return has_body or message.headers.get(UPGRADE, "").lower() != "websocket"


class RelayedResponse:
    """A response whose head is written as given. ``chunked`` frames the body, one chunk a `write`.

    The head goes out with the first bytes of the body, or when `send_head` is called. ``body`` is a whole body
    for whoever returns the response without having written one. Raises `ConnectionError` where the client is gone.
    """

    __slots__ = ("_body", "_chunked", "_ended", "_head", "_request", "keep_alive", "status")

    def __init__(
        self, request: Request, status: int, head: bytes, *, chunked: bool, keep_alive: bool, body: bytes = b""
    ) -> None:
        self.status = status
        self.keep_alive = keep_alive
        self._request = request
        self._head = head
        self._chunked = chunked
        self._body = body
        self._ended = False

    def send_head(self) -> None:
        """Let the client have the head now, before any of the body."""
        transport = self._request.protocol.transport
        if self._head and transport is not None and not transport.is_closing():
            self._request.answered = True
            transport.write(self._head)
            self._head = b""

    @property
    def is_behind(self) -> bool:
        """Whether the client, if it is there, takes less than it was sent; `drained` waits for it."""
        protocol = self._request.protocol
        return protocol._paused and protocol.transport is not None

    def write(self, pieces: Sequence[bytes]) -> None:
        """Send the next bytes of the body, each piece a chunk and none empty."""
        self._send(_framed(pieces) if self._chunked else pieces)

    def write_soon(self, pieces: Sequence[bytes]) -> None:
        """The same with the end of the event loop's turn, so that `is_behind` tells of it later.

        For pieces that come one after the other within a turn, of many responses. What is written otherwise, and
        `flush`, sends them at once.
        """
        transport = self._transport()
        if sum(map(len, pieces)) > _JOINED:
            self.write(pieces)
            return
        head, self._head = self._head, b""
        self._request.outbox.put(transport, head + b"".join(_framed(pieces) if self._chunked else pieces))

    def flush(self) -> None:
        """Send what waits for the end of the turn; nothing where the client is gone."""
        transport = self._request.protocol.transport
        if transport is not None and not transport.is_closing() and (data := self._request.outbox.take(transport)):
            transport.write(data)

    def end(self, last: bytes = b"") -> None:
        """End the response with its last bytes, once."""
        if self._ended:
            return
        self._ended = True
        last = last or self._body
        if not self._chunked:
            self._send((last,))
        elif last:
            self._send((*_framed((last,)), b"0\r\n\r\n"))
        else:
            self._send((b"0\r\n\r\n",))

    async def write_eof(self) -> None:
        """The same, and wait until the client has taken it. Called by aiohttp's protocol, too, with each response."""
        if not self._ended:
            self.end()
            await self.drained()

    async def prepare(self, _: Request) -> None:
        """Called by aiohttp's protocol before it ends the response."""

    def _transport(self) -> asyncio.Transport:
        """For the next bytes of the answer. Raises `ConnectionError` where the client is gone."""
        transport = self._request.protocol.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the client is gone")
        self._request.answered = True
        return transport

    def _send(self, parts: Sequence[bytes]) -> None:
        transport = self._transport()
        head, self._head = self._request.outbox.take(transport) + self._head, b""
        if sum(map(len, parts)) <= _JOINED:
            if data := head + b"".join(parts):
                transport.write(data)
        else:
            for part in (head, *parts):
                if part:
                    transport.write(part)

    async def drained(self) -> None:
        """Wait until the client has taken of what it was sent; one that takes nothing for too long is cut off."""
        if self._request.protocol.writing_paused:
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        protocol = self._request.protocol
        drained = asyncio.ensure_future(protocol._drain_helper())
        try:
            while (transport := protocol.transport) is not None:
                before = _untaken(transport)
                if (await asyncio.wait([drained], timeout=self._request.idle_timeout))[0]:
                    break
                if _untaken(transport) >= before:
                    reset_connection(transport)
                    raise ClientConnectionResetError("the client takes nothing")
            await drained
        finally:
            drained.cancel()


def _framed(pieces: Sequence[bytes]) -> list[bytes]:
    """Pieces as chunks (RFC 9112 section 7.1)."""
    parts = [b"\r\n"] * (3 * len(pieces))
    parts[0::3] = [_SIZES[size] if size < _MOST_SIZES else b"%x\r\n" % size for size in map(len, pieces)]
    parts[1::3] = pieces
    return parts


def _untaken(transport: asyncio.WriteTransport) -> int:
    """Bytes that the client has not taken yet, those in the system's own buffer with them where that can be told.

    That one may hold megabytes, and ours moves only once a good part of them is gone.
    """
    connection = transport.get_extra_info("socket")
    ours = transport.get_write_buffer_size()
    if connection is None or connection.fileno() < 0:
        return ours
    try:
        (sent,) = _INT.unpack(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))
    except OSError:  # Linux tells it of sockets, others don't
        return ours
    return ours + int(sent)


def has_unread_bytes(transport: asyncio.BaseTransport) -> bool:
    """Whether something has come that the loop has not read yet."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def reset_connection(transport: asyncio.BaseTransport) -> None:
    """Close a connection so that the peer sees an error, not an end."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


def take_client(request: Request) -> TakenConnection:
    """The client's connection, whose request asked for an upgrade."""
    protocol = request.protocol
    early, protocol._message_tail = protocol._message_tail, b""
    protocol._buffer_paused = False
    return TakenConnection(protocol.transport, protocol, early)
