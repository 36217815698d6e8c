"""aiohttp's client end, made to send heads exactly as they are given and to do no more than a relay needs.

aiohttp's connector makes, pools and secures connections for us, and its protocol reads HTTP. Its session and its
request and response objects are left out: they pass header fields through dictionaries of text, which joins
spellings, drops bytes that are not UTF-8 and adds fields, and cost more than all the rest of a relayed call. What
this leans on of aiohttp's internals is gathered here and in `upstream_protocol`; the version is pinned.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, cast

from aiohttp import (
    ClientConnectionResetError,
    ClientOSError,
    ClientRequest,
    ClientTimeout,
    StreamReader,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection, TCPConnector
from aiohttp.hdrs import CONTENT_LENGTH, TRANSFER_ENCODING
from aiohttp.http import RawResponseMessage, StreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from proxy.arrived import take_all_at_once
from proxy.outbox import Outbox
from proxy.taken import TakenConnection
from proxy.upstream_protocol import UpstreamProtocol

__all__ = ["Outgoing", "UpstreamClient", "UpstreamResponse", "Whereto"]

_INFORMATIONAL: Final = range(100, 200)
_SWITCHING_PROTOCOLS: Final = 101
_LOWEST_STATUS: Final = 100
# Of a Content-Length; more are zeros, or too much for any reader.
_MOST_DIGITS: Final = 19
# Seconds between two looks at who waits for an upstream that takes nothing.
_LOOK_AFTER: Final = 1.0
# What an answer may have at least, in bytes of a field and in fields: limits of clients are no reason to lose one.
_LARGEST_FIELD: Final = 256 * 1024
_MOST_FIELDS: Final = 2048
_NO_HEADERS: Final[CIMultiDict[str]] = CIMultiDict()


class Whereto(ClientRequest):
    """Where to connect, in the shape that aiohttp's connector asks for. ``connect_timeout`` in seconds."""

    # ClientRequest.__init__ is not called: it would make a request, of which the connector asks nothing.
    def __init__(self, origin: str, connect_timeout: float) -> None:
        self.method = "CONNECT"
        self.url = self.original_url = URL(origin)
        self.timeout = ClientTimeout(total=None, connect=connect_timeout)
        self.headers = _NO_HEADERS
        self.server_hostname = None
        self.proxy = self.proxy_auth = self.proxy_headers = None
        self._ssl = True

    @cached_property
    def connection_key(self) -> Any:
        """What the connector's pool goes by."""
        return super().connection_key


@dataclass(slots=True)
class Outgoing:
    """A request to send: its head up to and with the empty line, and its body, if any.

    ``chunked`` frames the body in chunks, one for each piece that ``body`` gives; ``bodiless`` tells that no answer
    to this has a body, whatever its fields say. ``timeout`` is the seconds from the request's end to the answer,
    ``stall_timeout`` those in which the upstream may take nothing of the body; ``while_stalled`` is called every
    second of them.
    """

    head: bytes
    timeout: float
    bodiless: bool = False
    hurries: bool = False
    """Whether it leaves at once, since nothing comes that it could leave together with."""
    meanwhile: Callable[[], None] | None = None
    """Called once all of the request has left, at the cost of no time in which it could leave."""
    stall_timeout: float | None = None
    while_stalled: Callable[[], None] | None = None
    body: AsyncIterator[bytes] | None = None
    chunked: bool = False
    was_pooled: bool = False
    """Whether it was sent on a connection that others had used before."""
    body_task: asyncio.Task[None] | None = None
    """What writes the body."""
    protocol: UpstreamProtocol | None = None
    """The connection's protocol, once there is one."""

    @property
    def met_a_dead_connection(self) -> bool:
        """Whether what failed may be no more than a pooled connection that the upstream had closed."""
        return self.protocol is not None and self.was_pooled and not self.protocol.heard

    def on_written(self, protocol: UpstreamProtocol, loop: asyncio.AbstractEventLoop) -> None:
        """Await the answer: nothing is left to write, or only what the outbox sends at the end of this turn."""
        protocol.start_timeout()
        if self.meanwhile is not None:
            loop.call_soon(self.meanwhile)

    async def stop(self) -> None:
        """Stop writing the body; afterwards somebody else may read it."""
        if self.body_task is not None:
            self.body_task.cancel()
            await asyncio.wait([self.body_task])


class UpstreamResponse:
    """An answer, begun. `close` gives its connection back to the pool if all of it was read."""

    __slots__ = (
        "_body_task",
        "_connection",
        "_ends_with_connection",
        "_protocol",
        "content",
        "raw_headers",
        "reason",
        "status",
    )

    def __init__(
        self, message: RawResponseMessage, content: StreamReader, connection: Connection, outgoing: Outgoing
    ) -> None:
        self.status: int = message.code
        self.reason: str = message.reason
        self.raw_headers = message.raw_headers
        self.content = content
        self._ends_with_connection = not message.chunked and "Content-Length" not in message.headers
        self._connection: Connection | None = connection
        self._protocol = cast(UpstreamProtocol, connection.protocol)
        self._body_task = outgoing.body_task
        content.on_eof(self._on_end)

    def wait_between_pieces(self, timeout: float) -> None:
        """From here on it is the pause between two pieces that is limited, in seconds."""
        if self._connection is not None:
            self._protocol.read_timeout = timeout
            self._protocol.start_timeout()

    def listen(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever there may be more of ``content``, an end or an error, until `close`.

        From now on `proxy.arrived.take_arrived` is how it is read.
        """
        if self._connection is not None:
            take_all_at_once(self.content)
            self._protocol.listener = listener

    @property
    def was_reset(self) -> bool:
        """Whether the connection broke that was to tell by its end where the body ends: aiohttp takes that for an end.

        To be asked before `close`, which forgets it.
        """
        return self._ends_with_connection and isinstance(self._protocol.exception(), ClientOSError)

    def take(self) -> TakenConnection | None:
        """The connection, which the upstream has switched; ``None`` if it said so without saying to what."""
        protocol = self._protocol
        if self._connection is None or not protocol.upgraded:
            return None
        protocol.read_timeout = None
        protocol.start_timeout()
        early, protocol._tail = protocol._tail, b""
        protocol._buffer_paused = False
        return TakenConnection(protocol.transport, protocol, early)

    def close(self) -> None:
        """Let go of the connection. One that was not read to its end, or written to its end, nothing else can use.

        Not before: a reader pauses its connection and lets it go on, whoever has that by then.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._protocol.listener = None
        is_written = self._body_task is None or self._body_task.done()
        if self.content.at_eof() and is_written and not self._protocol.upgraded:
            connection.release()
            return
        if self._body_task is not None:
            self._body_task.cancel()
        connection.close()

    async def end(self) -> None:
        """The same, and wait until nobody reads the request's body any more."""
        self.close()
        if self._body_task is not None and not self._body_task.done():
            await asyncio.wait([self._body_task])

    def _on_end(self) -> None:
        self._protocol.heard = False


class UpstreamClient:
    """Sends requests over pooled connections.

    The limits, in bytes and in header fields, are those of clients: an upstream's answer may have as much, and more.
    """

    def __init__(self, *, max_header_field: int, max_header_fields: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(self._loop)
        self._connector = TCPConnector(limit=0)
        self._connector._factory = cast(partial[ResponseHandler], partial(UpstreamProtocol, loop=self._loop))
        self._max_header_field = max(max_header_field, _LARGEST_FIELD)
        self._max_header_fields = max(max_header_fields, _MOST_FIELDS)

    async def close(self) -> None:
        """Close every connection."""
        await self._connector.close()

    async def send(self, outgoing: Outgoing, whereto: Whereto) -> UpstreamResponse:
        """Send a request and give the answer that begins.

        Raises `TimeoutError`, `aiohttp.ClientError`, `aiohttp.http_exceptions.HttpProcessingError` and `OSError`, and
        what the body raises.
        """
        connection = await self._connect(whereto)
        try:
            protocol = self._prepare(connection, outgoing)
            self._start(outgoing, connection, protocol)
            while True:
                message, content = await protocol.read()
                if message.code not in _INFORMATIONAL or message.code == _SWITCHING_PROTOCOLS:
                    _check_framing(message)
                    return UpstreamResponse(message, content, connection, outgoing)
                if outgoing.body_task is None or outgoing.body_task.done():
                    protocol.start_timeout()  # any message stops it
        except BaseException:
            if outgoing.body_task is not None:
                outgoing.body_task.cancel()
            connection.close()
            raise

    async def _connect(self, whereto: Whereto) -> Connection:
        """A connection on which nothing waits to be read.

        Who sends more than it was asked for would answer the next call with it, which may be another caller's.
        """
        while True:
            connection = await self._connector.connect(whereto, [], whereto.timeout)
            protocol = connection.protocol
            assert isinstance(protocol, UpstreamProtocol)
            if not (protocol.used and (protocol.heard or protocol.should_close)):
                return connection
            connection.close()

    def _prepare(self, connection: Connection, outgoing: Outgoing) -> UpstreamProtocol:
        protocol = connection.protocol
        assert isinstance(protocol, UpstreamProtocol)
        outgoing.protocol = protocol
        outgoing.was_pooled = protocol.used
        protocol.used = True
        protocol.heard = False
        protocol.set_response_params(
            skip_payload=outgoing.bodiless,
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=outgoing.timeout,
            max_line_size=self._max_header_field,
            max_field_size=self._max_header_field,
            max_headers=self._max_header_fields,
        )
        return protocol

    def _start(self, outgoing: Outgoing, connection: Connection, protocol: UpstreamProtocol) -> None:
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("Cannot write to closing transport")
        if outgoing.body is None:
            if outgoing.hurries:
                transport.write(outgoing.head)
            else:
                self._outbox.put(transport, outgoing.head)
            outgoing.on_written(protocol, self._loop)
            return
        transport.write(outgoing.head)
        writer = StreamWriter(protocol, self._loop)
        if outgoing.chunked:
            writer.enable_chunking()
        outgoing.body_task = self._loop.create_task(_write_body(outgoing, outgoing.body, writer, connection, protocol))


def _check_framing(message: RawResponseMessage) -> None:
    """Refuse an answer that its readers may see end in different places, or that is of no class of status.

    aiohttp reads a body in an unknown transfer coding up to the connection's end. Raises `HttpProcessingError`.
    """
    headers = message.headers
    codings = headers.getall(TRANSFER_ENCODING, ())
    if (
        message.code < _LOWEST_STATUS
        or len(headers.get(CONTENT_LENGTH, "")) > _MOST_DIGITS
        or any(coding.strip(" \t").lower() != "chunked" for coding in codings)
    ):
        raise HttpProcessingError(message="the framing of the answer is not HTTP/1.1")


async def _write_body(
    outgoing: Outgoing,
    body: AsyncIterator[bytes],
    writer: StreamWriter,
    connection: Connection,
    protocol: UpstreamProtocol,
) -> None:
    try:
        async for piece in body:
            await writer.write(piece, drain=False)
            if protocol.writing_paused:
                await _wait_for_room(outgoing, protocol)
        await writer.write_eof()
        outgoing.on_written(protocol, asyncio.get_running_loop())
    except asyncio.CancelledError:
        connection.close()  # a half-sent body makes the connection useless
        raise
    except Exception as error:
        protocol.fail(error)
        connection.close()


async def _wait_for_room(outgoing: Outgoing, protocol: UpstreamProtocol) -> None:
    """Wait until the upstream has taken of the body what it was sent. Raises `TimeoutError`."""
    async with asyncio.timeout(outgoing.stall_timeout):
        drained = asyncio.ensure_future(protocol._drain_helper())
        try:
            while not (await asyncio.wait([drained], timeout=_LOOK_AFTER))[0]:
                if outgoing.while_stalled is not None:
                    outgoing.while_stalled()
            drained.result()
        finally:
            drained.cancel()
