"""The proxied call: the only code that streams. Contract sections 3 and 5.

Bytes pass as they come, both ways. The end of the response, and only that, waits for the row's commit: the last
piece of a body of known length, the last chunk of any other. Whatever goes wrong, one row tells of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

from aiohttp import (
    ClientConnectionResetError,
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ServerDisconnectedError,
    web,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from proxy import stream_usage
from proxy.dialects import Dialect, Failed, failure
from proxy.exchange import ErrorKind, Exchange, Failure
from proxy.headers import ResponseFields, read_response_fields
from proxy.identity import Identity, usable_id
from proxy.in_flight import InFlight
from proxy.raw_http import (
    Outgoing,
    RelayedResponse,
    TakenConnection,
    reset_connection,
    take_client,
    take_upstream,
    unread_bytes,
)
from proxy.recorder import Recorder
from proxy.request_body import BrokenBody, RequestBody, RequestTooLarge
from proxy.responses import own_response, response_head
from proxy.upstreams import Upstream
from proxy.websocket import Switched, relay_websocket
from proxy.wire import first_id
from proxy.wire.encoding import decode
from proxy.wire.sse import LastEventWatch, is_event_stream

__all__ = ["Forwarder", "ProxiedCall", "failed_response"]

_HTTP_1_1: Final = (1, 1)
# Bytes of a stream within which it tells its id, if it does.
_EARLY: Final = 16 * 1024
_SWITCHING_PROTOCOLS: Final = 101
_EXTENSIONS: Final = b"sec-websocket-extensions"
# Changing a body of more bytes than this takes long enough to hold other calls up; a thread does it.
_ASK_IN_THREAD: Final = 64 * 1024
# Responses that have no body, whatever their fields say (RFC 9112 section 6.3).
_BODILESS: Final = frozenset({204, 304})
_STOPPED: Final = Failure("server_shutdown", "Kibitz was stopped before the response was complete")
_CLIENT_LEFT: Final = Failure("client_cancelled", "the client left before the response was complete")


@dataclass(slots=True)
class ProxiedCall:
    """One call to relay: what came in, where it goes, and what to remember of it.

    ``head`` is the request's head as the upstream gets it, up to and with the empty line; ``body`` is ``None``
    for a request without one.
    """

    request: web.BaseRequest
    exchange: Exchange
    upstream: Upstream
    head: bytes
    body: RequestBody | None
    chunked: bool
    upgrade: bytes | None = None
    """The protocol that the client wants to switch to, if that is WebSocket."""
    asks_for_usage: bool = False
    """Whether the body is to ask for a stream's usage, if it can."""
    committed: asyncio.Future[None] | None = None
    """Done when the call's row is; there is one once the call has ended and is recorded."""


class Forwarder:
    """Relays calls through one client session, and records them."""

    def __init__(self, session: ClientSession, recorder: Recorder, in_flight: InFlight, *, drain: bool) -> None:
        self._session = session
        self._recorder = recorder
        self._in_flight = in_flight
        self._drain = drain
        self._running: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def relay(self, call: ProxiedCall) -> web.StreamResponse:
        """Relay one call to its end. Cancelled with the client's connection, it cancels the upstream's."""
        self._in_flight.add(call.exchange)
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await self._relay(call)
        except asyncio.CancelledError:
            self._record_at_once(call, _STOPPED if self._stopping else _unless_complete(call.exchange))
            raise
        except Exception as error:
            outcome = Failure("internal_error", f"{type(error).__name__} in Kibitz")
            self._record_at_once(call, outcome)
            raise
        finally:
            self._running.discard(task)

    async def end_within(self, grace: float) -> None:
        """Wait for the calls under way, those without a client too; end what lasts longer than ``grace`` seconds."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=grace)
        self._stopping = True
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=grace)

    def _record_at_once(self, call: ProxiedCall, outcome: Failure | None) -> None:
        """Record how a call ended, unless that is done. The first ending is the one that counts."""
        if call.exchange.ended is None:
            call.exchange.end(outcome)
            call.committed = self._recorder.submit(call.exchange)

    async def _record(self, call: ProxiedCall, outcome: Failure | None) -> None:
        """The same, and wait until the row is safe."""
        if call.exchange.ended is None:
            call.exchange.end(outcome)
            call.committed = self._recorder.submit(call.exchange)
        if call.committed is not None:
            await self._recorder.settled(call.committed)

    async def _relay(self, call: ProxiedCall) -> web.StreamResponse:
        try:
            if call.asks_for_usage:
                await _ask_for_usage(call)
            upstream = await self._send(call)
        except RequestTooLarge:
            return await self._fail(call, "request_too_large", "The request's body is larger than is allowed.")
        except BrokenBody:
            if _has_left(call.request):
                return await self._fail(call, "client_cancelled", "The client left while it sent its request.")
            return await self._fail(call, "client_broke_off", "The request's body is not whole.")
        except TimeoutError:
            return await self._fail(call, "upstream_timeout", f"{call.upstream.base.origin} did not answer in time.")
        except (ClientError, HttpProcessingError, OSError) as error:
            return await self._fail(
                call, "upstream_unreachable", f"{call.upstream.base.origin} failed: {_reason(error)}"
            )
        try:
            if upstream.status == _SWITCHING_PROTOCOLS:
                return await self._switch(call, upstream)
            return await self._answer(call, upstream)
        finally:
            # Harmless where the response was read to its end: its connection is back in the pool.
            upstream.close()

    async def _send(self, call: ProxiedCall) -> ClientResponse:
        """The upstream's response, begun. Sends again only where a pooled connection was closed before it."""
        where, timeout = _reach(call.upstream)
        while True:
            outgoing = _outgoing(call)
            try:
                return await self._session.request(
                    call.exchange.method, where, data=outgoing, timeout=timeout, allow_redirects=False
                )
            except (ServerDisconnectedError, ClientOSError, ClientConnectionResetError):
                await outgoing.stop()
                if outgoing.on_new_connection or outgoing.was_answered:
                    raise
                if call.body is not None and not call.body.can_be_sent_again:
                    raise
            except BaseException:
                await outgoing.stop()
                raise

    async def _switch(self, call: ProxiedCall, upstream: ClientResponse) -> web.StreamResponse:
        taken = take_upstream(upstream)
        if call.upgrade is None or taken is None:
            return await self._fail(
                call, "upstream_unreachable", f"{call.upstream.base.origin} switched protocols without being asked."
            )
        call.exchange.status = upstream.status
        return await relay_websocket(self._switched(call, upstream, taken, call.upgrade), call.request)

    def _switched(
        self, call: ProxiedCall, upstream: ClientResponse, taken: TakenConnection, protocol: bytes
    ) -> Switched:
        fields = read_response_fields(upstream.raw_headers)
        forward = [
            *fields.forward,
            *_id_fields(call.exchange.identity, b"success"),
            (b"Connection", b"Upgrade"),
            (b"Upgrade", protocol),
        ]
        head = response_head(
            call.request, upstream.status, upstream.reason or "", forward, chunked=False, keep_alive=True
        )
        return Switched(
            exchange=call.exchange,
            client=take_client(call.request),
            upstream=taken,
            response=RelayedResponse(upstream.status, head, chunked=False, keep_alive=False),
            extensions=b",".join(value for name, value in fields.forward if name.lower() == _EXTENSIONS),
            idle_timeout=call.upstream.idle_timeout,
            record=partial(self._record, call),
            record_at_once=partial(self._record_at_once, call),
        )

    async def _answer(self, call: ProxiedCall, upstream: ClientResponse) -> web.StreamResponse:
        exchange = call.exchange
        exchange.status = upstream.status
        fields = read_response_fields(upstream.raw_headers)
        exchange.response.content_type = _latin(fields.content_type)
        exchange.response.content_encoding = _latin(fields.content_encoding)
        protocol = _wait_between_pieces(upstream, call.upstream)

        response = _begin_response(call, upstream, fields)
        await response.prepare(call.request)
        held, outcome = await self._pump(call, upstream, response, fields.content_length)
        if outcome is None and _was_reset(protocol):
            outcome = Failure("upstream_cut", "the upstream broke off (connection reset)")
        await self._record(call, outcome)
        if outcome is None:
            await _finish(response, held)
        else:
            _break_off(call.request, visibly=response.chunked or fields.content_length is not None)
        return response

    async def _pump(
        self, call: ProxiedCall, upstream: ClientResponse, response: RelayedResponse, length: int | None
    ) -> tuple[bytes, Failure | None]:
        """Relay the body but for its end; that is given back, with what went wrong if something did."""
        content, exchange = upstream.content, call.exchange
        if not content.total_bytes and not content.is_eof():
            response.send_head()
        watch = LastEventWatch() if is_event_stream(exchange.response.content_type) else None
        outcome = None
        while not content.at_eof():
            try:
                piece, _ = await content.readchunk()
            except TimeoutError:
                piece, outcome = unread_bytes(content), Failure("upstream_timeout", "the upstream fell silent")
            except (ClientError, OSError) as error:
                piece, outcome = (
                    unread_bytes(content),
                    Failure("upstream_cut", f"the upstream broke off ({type(error).__name__})"),
                )
            if piece:
                exchange.on_response_bytes(piece)
                if watch is not None and exchange.response_id is None and exchange.response.size < _EARLY:
                    self._note_response_id(exchange, piece)
                if watch is not None and watch.has_come(piece):
                    # SDKs read no further, and may ask for the row at once: it is on its way before they can.
                    self._record_at_once(call, None)
                if length is not None and exchange.response.size >= length:
                    return piece, _unless_complete(exchange) if _has_left(call.request) else None
                if not await _written(response, piece) and not self._drain:
                    return b"", _unless_complete(exchange)
            if outcome:
                return b"", outcome
        return b"", _unless_complete(exchange) if _has_left(call.request) else None

    def _note_response_id(self, exchange: Exchange, piece: bytes) -> None:
        response_id = first_id(piece)
        if response_id is not None and usable_id(response_id):
            self._in_flight.name_response(exchange, response_id)

    async def _fail(self, call: ProxiedCall, kind: ErrorKind, message: str) -> web.StreamResponse:
        failed = Failed(_STATUSES[kind], kind, message)
        call.exchange.status = None if kind == "client_cancelled" else failed.status
        await self._record(call, Failure(kind, message))
        return failed_response(call.request, call.exchange.identity, failed)


_STATUSES: Final[dict[ErrorKind, int]] = {
    "upstream_unreachable": 502,
    "upstream_timeout": 504,
    "request_too_large": 413,
    "client_broke_off": 400,
    "client_cancelled": 400,
}


def failed_response(request: web.BaseRequest, identity: Identity, failed: Failed) -> RelayedResponse:
    """A failure of Kibitz's own on a proxied path, in the OpenAI shape (contract section 3)."""
    body = failure(Dialect.OPENAI, failed)
    return own_response(request, failed.status, body, _id_fields(identity, b"failed"))


def _id_fields(identity: Identity, status: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"Helicone-Id", identity.request_id_header),
        (b"Helicone-Request-Id", identity.request_id_header),
        (b"Helicone-Status", status),
        (b"x-portkey-trace-id", identity.trace_id_header),
    ]


async def _ask_for_usage(call: ProxiedCall) -> None:
    """Read the body and change it, unless it is one that can't ask. Raises as `RequestBody.pieces` does."""
    assert call.body is not None
    body = await call.body.read(stream_usage.LARGEST)
    if body is None:
        return
    if len(body) > _ASK_IN_THREAD:
        asking = await asyncio.to_thread(stream_usage.with_usage_asked, body)
    else:
        asking = stream_usage.with_usage_asked(body)
    if asking is not None:
        call.body.replace(asking)
        call.head = stream_usage.with_length(call.head, len(asking))


def _outgoing(call: ProxiedCall) -> Outgoing:
    if call.body is None:
        return Outgoing(call.head)
    if not call.chunked and (whole := call.body.whole()) is not None:
        return Outgoing(call.head + whole)
    return Outgoing(call.head, call.body.pieces(), chunked=call.chunked)


@lru_cache(maxsize=1024)
def _reach(upstream: Upstream) -> tuple[URL, ClientTimeout]:
    timeout = ClientTimeout(total=None, connect=upstream.connect_timeout, sock_read=upstream.first_byte_timeout)
    return URL(upstream.base.origin), timeout


def _reason(error: Exception) -> str:
    """What went wrong, without quoting what was sent: that may hold anything."""
    if isinstance(error, ClientConnectorError):
        return f"can't connect: {error.strerror or error.os_error}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, ServerDisconnectedError):
        return "it closed the connection"
    return f"it does not speak HTTP ({type(error).__name__})"


def _wait_between_pieces(response: ClientResponse, upstream: Upstream) -> ResponseHandler | None:
    """From here on it is the pause between two pieces that is limited. Gives the connection's protocol."""
    protocol = response.connection.protocol if response.connection is not None else None
    if protocol is not None:
        protocol.read_timeout = upstream.idle_timeout
        protocol.start_timeout()
    return protocol


def _was_reset(protocol: ResponseHandler | None) -> bool:
    """Whether a body that had no length ended by a reset: aiohttp takes that for its end."""
    return protocol is not None and isinstance(protocol.exception(), ClientOSError)


def _begin_response(call: ProxiedCall, upstream: ClientResponse, fields: ResponseFields) -> RelayedResponse:
    request, status = call.request, upstream.status
    has_body = request.method != "HEAD" and status not in _BODILESS
    unbounded = has_body and fields.content_length is None
    chunked = unbounded and request.version >= _HTTP_1_1
    keep_alive = bool(request.keep_alive) and (chunked or not unbounded)
    forward = [*fields.forward, *_id_fields(call.exchange.identity, b"success")]
    head = response_head(request, status, upstream.reason or "", forward, chunked=chunked, keep_alive=keep_alive)
    return RelayedResponse(status, head, chunked=chunked, keep_alive=keep_alive)


def _unless_complete(exchange: Exchange) -> Failure | None:
    """That the client left too early; nothing, if it left a stream that its format had already ended."""
    response = exchange.response
    if is_event_stream(response.content_type):
        body = decode(response.data(), response.content_encoding)
        if body is not None and LastEventWatch().has_come(body):
            return None
    return _CLIENT_LEFT


async def _written(response: RelayedResponse, piece: bytes) -> bool:
    """Whether the client was still there to be written to."""
    try:
        await response.write(piece)
    except ConnectionError:
        return False
    return True


async def _finish(response: RelayedResponse, held: bytes) -> None:
    try:
        await response.write_eof(held)
    except ConnectionError:
        pass  # it left between the commit and the last byte


def _break_off(request: web.BaseRequest, *, visibly: bool) -> None:
    """End the connection so that the client can't take what it has for the whole."""
    transport = request.transport
    if transport is None:
        return
    if visibly:
        transport.close()  # what was written still arrives; the framing shows that more was to come
    else:
        reset_connection(transport)  # without framing a clean close would say that this was all


def _has_left(request: web.BaseRequest) -> bool:
    return request.transport is None or request.transport.is_closing()


def _latin(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None
