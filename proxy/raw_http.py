"""aiohttp's two ends, made to send header sections exactly as they are given.

aiohttp reads HTTP for us, pools connections and keeps the protocol. But its own requests and responses pass
header fields through dictionaries of text: that joins spellings, drops bytes that are not UTF-8, and adds
fields. A transparent proxy can't have that, nor pay for it. So `OutgoingRequest` and `RelayedResponse` write a
finished head. They lean on a few of aiohttp's internals, gathered here and nowhere else; the version is pinned.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from aiohttp import ClientConnectionResetError, ClientPayloadError, ClientRequest, ClientResponse, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection, TCPConnector
from aiohttp.http import StreamWriter
from multidict import CIMultiDict
from yarl import URL

__all__ = [
    "Connector",
    "Outgoing",
    "OutgoingRequest",
    "RelayedResponse",
    "TakenConnection",
    "UpstreamProtocol",
    "reset_connection",
    "take_client",
    "take_upstream",
    "unread_bytes",
]

# l_onoff and l_linger of socket(7): closing throws away what is unsent and resets.
_NO_LINGERING: Final = struct.pack("ii", 1, 0)
_NO_HEADERS: Final[CIMultiDict[str]] = CIMultiDict()


class UpstreamProtocol(ResponseHandler):
    """Remembers whether it has heard anything since ``heard`` was last set to False."""

    heard = False

    def data_received(self, data: bytes) -> None:
        """Called with the next bytes of the connection's."""
        self.heard = True
        super().data_received(data)
        error, payload = self.exception(), self._payload
        if error is not None and payload is not None and not payload.is_eof() and payload.exception() is None:
            # aiohttp tells of broken framing only him who waits for the next response.
            payload.set_exception(ClientPayloadError("the framing of the body is broken"))


@dataclass(slots=True)
class Outgoing:
    """A request to send: its head up to and with the empty line, and its body, if any.

    ``chunked`` frames the body in chunks, one for each piece that ``body`` gives.
    """

    head: bytes
    body: AsyncIterator[bytes] | None = None
    chunked: bool = False
    on_new_connection: bool = False
    """Set once it was sent on a connection made for it, not on one from the pool."""
    body_task: asyncio.Task[None] | None = None
    """What writes the body."""
    protocol: UpstreamProtocol | None = None
    """The connection's protocol, once there is one."""

    @property
    def was_answered(self) -> bool:
        """Whether any byte of an answer has come."""
        return self.protocol is not None and self.protocol.heard

    async def stop(self) -> None:
        """Stop writing the body; afterwards somebody else may read it."""
        if self.body_task is not None:
            self.body_task.cancel()
            await asyncio.wait([self.body_task])


class OutgoingRequest(ClientRequest):
    """Sends an `Outgoing`, given as the ``data`` of a session's request; the URL says where, not what."""

    # ClientRequest.__init__ is not called: it would make headers, guess at the body and parse the URL again.
    def __init__(self, method: str, url: URL, *, data: Outgoing, **options: Any) -> None:
        self.method = method
        self.url = self.original_url = url
        self.outgoing = data
        self.headers = _NO_HEADERS
        self.loop = options["loop"]
        self.response_class = options["response_class"] or ClientResponse
        self.server_hostname = options["server_hostname"]
        self.proxy = self.proxy_auth = self.proxy_headers = None
        self._session = options["session"]
        self._timer = options["timer"]
        self._ssl = options["ssl"]
        self._traces = []

    async def send(self, conn: Connection) -> ClientResponse:
        """Write the head, start writing the body, and give the response that is to come."""
        outgoing, transport, protocol = self.outgoing, conn.transport, conn.protocol
        if transport is None or not isinstance(protocol, UpstreamProtocol) or transport.is_closing():
            raise ClientConnectionResetError("Cannot write to closing transport")
        protocol.heard = False
        outgoing.protocol = protocol
        transport.write(outgoing.head)
        writer = StreamWriter(protocol, self.loop)
        task = None
        if outgoing.body is None:
            protocol.start_timeout()
        else:
            if outgoing.chunked:
                writer.enable_chunking()
            # ClientResponse keeps it, and cancels it when the response ends before the body or is closed.
            task = outgoing.body_task = self.loop.create_task(_write_body(outgoing.body, writer, conn))
        return self.response_class(
            self.method,
            self.url,
            writer=task,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=self._traces,
            loop=self.loop,
            session=self._session,
            stream_writer=writer,
        )


async def _write_body(body: AsyncIterator[bytes], writer: StreamWriter, conn: Connection) -> None:
    protocol = conn.protocol
    assert protocol is not None
    try:
        async for piece in body:
            await writer.write(piece)
        await writer.write_eof()
        protocol.start_timeout()
    except asyncio.CancelledError:
        conn.close()  # a half-sent body makes the connection useless
        raise
    except Exception as error:
        # Wakes whoever waits for the response, if the upstream hasn't already answered.
        protocol.set_exception(error)
        conn.close()


class Connector(TCPConnector):
    """A pool that tells a request whether its connection was made for it, and what was heard on it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast(partial[ResponseHandler], partial(UpstreamProtocol, loop=self._loop))

    async def _create_connection(self, req: ClientRequest, *args: Any, **kwargs: Any) -> Any:
        if isinstance(req, OutgoingRequest):
            req.outgoing.on_new_connection = True
        return await super()._create_connection(req, *args, **kwargs)


class RelayedResponse(web.StreamResponse):
    """A response whose head is written as given. ``chunked`` frames the body, one chunk a `write`.

    The head goes out with the first bytes of the body, or when `send_head` is called. ``body`` is a whole body
    for whoever returns the response without having written one.
    """

    def __init__(self, status: int, head: bytes, *, chunked: bool, keep_alive: bool, body: bytes = b"") -> None:
        super().__init__(status=status)
        self._head = head
        self._chunked = chunked
        self._keep_alive = keep_alive
        self._whole_body = body

    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self._req = request
        writer = self._payload_writer = request._payload_writer
        assert isinstance(writer, StreamWriter)
        if self._chunked:
            writer.enable_chunking()
        writer._headers_buf = self._head
        writer._headers_written = False
        return writer

    def send_head(self) -> None:
        """Let the client have the head now, before any of the body."""
        if self._payload_writer is not None:
            try:
                self._payload_writer.send_headers()
            except ConnectionError:
                pass  # it has left; whoever writes next finds out

    async def write_eof(self, data: bytes = b"") -> None:
        """End the response with its last bytes."""
        await super().write_eof(data or self._whole_body)


def reset_connection(transport: asyncio.BaseTransport) -> None:
    """Close a connection so that the peer sees an error, not an end."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


def unread_bytes(content: StreamReader) -> bytes:
    """What had arrived before a stream broke and nobody has read yet; reading it as usual only raises."""
    pieces = list(content._buffer)
    if pieces and content._buffer_offset:
        pieces[0] = pieces[0][content._buffer_offset :]
    content._buffer.clear()
    content._buffer_offset = 0
    return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class TakenConnection:
    """A connection on which HTTP is over. There is no transport where it was closed meanwhile.

    ``early`` is what had come behind the last message of HTTP.
    """

    transport: asyncio.Transport | None
    protocol: BaseProtocol
    early: bytes


def take_client(request: web.BaseRequest) -> TakenConnection:
    """The client's connection, whose request asked for an upgrade."""
    protocol = request.protocol
    early, protocol._message_tail = protocol._message_tail, b""
    protocol._buffer_paused = False
    return TakenConnection(protocol.transport, protocol, early)


def take_upstream(response: ClientResponse) -> TakenConnection | None:
    """The upstream's connection, which it has switched; ``None`` if it said so without saying to what."""
    protocol = response.connection.protocol if response.connection is not None else None
    if protocol is None or not protocol.upgraded:
        return None
    protocol.read_timeout = None
    protocol.start_timeout()
    early, protocol._tail = protocol._tail, b""
    protocol._buffer_paused = False
    return TakenConnection(protocol.transport, protocol, early)
