"""The proxied call, from its admission to its end. Contract sections 3 and 5.

Bytes pass as they come, both ways. Whatever goes wrong, one row tells of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import (
    ClientConnectionResetError,
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ServerDisconnectedError,
)
from aiohttp.http_exceptions import HttpProcessingError

from proxy import stream_usage
from proxy.call_record import CallRecord
from proxy.client_http import RelayedResponse, Request, take_client
from proxy.dialects import Dialect, Failed, failure
from proxy.download import Download
from proxy.exchange import ErrorKind, Exchange, Failure
from proxy.headers import read_response_fields
from proxy.identity import Identity
from proxy.in_flight import InFlight
from proxy.recorder import Recorder
from proxy.request_body import BrokenBody, RequestBody, RequestTooLarge, StalledBody
from proxy.responses import id_fields, own_response, response_head
from proxy.taken import TakenConnection
from proxy.upstream_http import Outgoing, UpstreamClient, UpstreamResponse, Whereto
from proxy.upstreams import Upstream
from proxy.websocket import Switched, relay_websocket

__all__ = ["Forwarder", "ProxiedCall", "failed_response"]

_SWITCHING_PROTOCOLS: Final = 101
_EXTENSIONS: Final = b"sec-websocket-extensions"
# Changing a body of more bytes than this takes long enough to hold other calls up; a thread does it.
_ASK_IN_THREAD: Final = 64 * 1024
# Seconds after which a client may come again that found Kibitz at its limits.
_RETRY_AFTER: Final = (b"Retry-After", b"1")
_STOPPED: Final = Failure("server_shutdown", "Kibitz was stopped before the response was complete")


@dataclass(slots=True)
class ProxiedCall:
    """One call to relay: what came in, where it goes, and what to remember of it.

    ``head`` is the request's head as the upstream gets it, up to and with the empty line; ``body`` is ``None``
    for a request without one.
    """

    request: Request
    exchange: Exchange
    upstream: Upstream
    head: bytes
    body: RequestBody | None
    chunked: bool
    upgrade: bytes | None = None
    """The protocol that the client wants to switch to, if that is WebSocket."""
    asks_for_usage: bool = False
    """Whether the body is to ask for a stream's usage, if it can."""


class Forwarder:
    """Relays calls over one pool of connections, no more than ``most`` at once, and has them recorded."""

    def __init__(
        self, client: UpstreamClient, recorder: Recorder, in_flight: InFlight, *, drain: bool, most: int
    ) -> None:
        self._most = most
        self._client = client
        self._recorder = recorder
        self._in_flight = in_flight
        self._drain = drain
        self._running: set[asyncio.Task[Any]] = set()
        self._none_running: asyncio.Event | None = None
        self._stopping = False
        self._places: dict[tuple[str, float], Whereto] = {}

    def refuse_if_full(self, request: Request) -> None:
        """Raise `Failed` where there are as many calls under way, or connections open, as are allowed."""
        if len(self._running) >= self._most:
            raise Failed(503, "overloaded", f"{self._most} calls are under way (limits.max_requests_in_flight).")
        if request.is_surplus:
            raise Failed(503, "overloaded", "As many connections are open as are allowed (limits.max_connections).")

    async def relay(self, call: ProxiedCall) -> RelayedResponse:
        """Relay one call to its end. Cancelled with the client's connection, it cancels the upstream's."""
        self._in_flight.add(call.exchange)
        record = CallRecord(call.exchange, self._recorder)
        self._running.add(call.request.task)
        try:
            return await self._relay(call, record)
        except asyncio.CancelledError:
            record.end(_STOPPED if self._stopping else record.unless_complete())
            raise
        except Exception as error:
            record.end(Failure("internal_error", f"{type(error).__name__} in Kibitz"))
            raise
        finally:
            self._running.discard(call.request.task)
            if self._none_running is not None and not self._running:
                self._none_running.set()

    async def end_within(self, grace: float) -> None:
        """Wait for the calls under way, those without a client too; end what lasts longer than ``grace`` seconds."""
        await self._until_none_runs(grace)
        self._stopping = True
        for task in self._running:
            task.cancel()
        await self._until_none_runs(grace)

    async def _until_none_runs(self, seconds: float) -> None:
        # Not for the tasks: each serves a connection, which may be kept open long after its call.
        if not self._running:
            return
        self._none_running = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none_running.wait()

    async def _relay(self, call: ProxiedCall, record: CallRecord) -> RelayedResponse:
        try:
            if call.asks_for_usage:
                await _ask_for_usage(call)
            upstream = await self._send(call, record)
        except Exception as error:
            kind, message = _explain(error, call)
            return await _fail(call, record, kind, message)
        try:
            if upstream.status == _SWITCHING_PROTOCOLS:
                return await _switch(call, record, upstream)
            upstream.wait_between_pieces(call.upstream.idle_timeout)
            return await Download(call.request, call.exchange, record, upstream, drain=self._drain).run()
        finally:
            await upstream.end()

    async def _send(self, call: ProxiedCall, record: CallRecord) -> UpstreamResponse:
        """The upstream's response, begun. Sends again only where a pooled connection was closed before it."""
        whereto = self._whereto(call.upstream)
        while True:
            outgoing = _outgoing(call)
            if self._recorder.has_time:  # else what is done ahead would only be more work
                outgoing.hurries, outgoing.meanwhile = True, record.prepare
            try:
                return await self._client.send(outgoing, whereto)
            except (ServerDisconnectedError, ClientOSError, ClientConnectionResetError):
                await outgoing.stop()
                if not outgoing.met_a_dead_connection:
                    raise
                if call.body is not None and not call.body.can_be_sent_again:
                    raise
            except BaseException:
                await outgoing.stop()
                raise

    def _whereto(self, upstream: Upstream) -> Whereto:
        origin, timeout = upstream.base.origin, upstream.connect_timeout
        place = self._places.get((origin, timeout))
        if place is None:
            place = self._places[origin, timeout] = Whereto(origin, timeout)
        return place


def _explain(error: Exception, call: ProxiedCall) -> tuple[ErrorKind, str]:
    """What to tell of a call that got no answer. Raises what is nobody's fault but Kibitz's."""
    origin = call.upstream.base.origin
    match error:
        case RequestTooLarge():
            return "request_too_large", "The request's body is larger than is allowed (limits.max_request_body)."
        case StalledBody() as stalled:
            return "client_timeout", str(stalled)
        case BrokenBody() if call.request.has_left:
            return "client_cancelled", "The client left while it sent its request."
        case BrokenBody():
            return "client_broke_off", "The request's body is not whole."
        case TimeoutError():
            return "upstream_timeout", f"{origin} did not answer in time."
        case ClientError() | HttpProcessingError() | OSError():
            return "upstream_unreachable", f"{origin} failed: {_reason(error)}"
        case _:
            raise error


async def _switch(call: ProxiedCall, record: CallRecord, upstream: UpstreamResponse) -> RelayedResponse:
    taken = upstream.take()
    if call.upgrade is None or taken is None:
        return await _fail(
            call, record, "upstream_unreachable", f"{call.upstream.base.origin} switched protocols without being asked."
        )
    call.exchange.status = upstream.status
    return await relay_websocket(_switched(call, record, upstream, taken, call.upgrade))


def _switched(
    call: ProxiedCall, record: CallRecord, upstream: UpstreamResponse, taken: TakenConnection, protocol: bytes
) -> Switched:
    fields = read_response_fields(upstream.raw_headers)
    call.exchange.credentials = call.exchange.credentials.with_cookies(fields.cookies)
    forward = [
        *fields.forward,
        *id_fields(call.exchange.identity, b"success"),
        (b"Connection", b"Upgrade"),
        (b"Upgrade", protocol),
    ]
    head = response_head(call.request, upstream.status, upstream.reason or "", forward, chunked=False, keep_alive=True)
    return Switched(
        exchange=call.exchange,
        client=take_client(call.request),
        upstream=taken,
        response=RelayedResponse(call.request, upstream.status, head, chunked=False, keep_alive=False),
        extensions=b",".join(value for name, value in fields.forward if name.lower() == _EXTENSIONS),
        idle_timeout=call.upstream.idle_timeout,
        record=record,
    )


async def _fail(call: ProxiedCall, record: CallRecord, kind: ErrorKind, message: str) -> RelayedResponse:
    failed = Failed(_STATUSES[kind], kind, message)
    call.exchange.status = None if kind == "client_cancelled" else failed.status
    if kind == "client_timeout":
        call.request.give_up()
    await record.end_safely(Failure(kind, message))
    return failed_response(call.request, call.exchange.identity, failed)


_STATUSES: Final[dict[ErrorKind, int]] = {
    "upstream_unreachable": 502,
    "upstream_timeout": 504,
    "request_too_large": 413,
    "client_timeout": 408,
    "client_broke_off": 400,
    "client_cancelled": 400,
}


def failed_response(request: Request, identity: Identity, failed: Failed) -> RelayedResponse:
    """A failure of Kibitz's own on a proxied path, in the OpenAI shape (contract section 3)."""
    body = failure(Dialect.OPENAI, failed)
    fields = id_fields(identity, b"failed")
    if failed.status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields.append(_RETRY_AFTER)
    return own_response(request, failed.status, body, fields)


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
    outgoing = Outgoing(call.head, call.upstream.first_byte_timeout, bodiless=call.exchange.method == "HEAD")
    if call.body is None:
        return outgoing
    if not call.chunked and (whole := call.body.whole()) is not None:
        outgoing.head += whole
        return outgoing
    outgoing.body, outgoing.chunked = call.body.pieces(), call.chunked
    outgoing.stall_timeout, outgoing.while_stalled = call.upstream.idle_timeout, call.request.close_if_hung_up
    return outgoing


def _reason(error: Exception) -> str:
    """What went wrong, without quoting what was sent: that may hold anything."""
    if isinstance(error, ClientConnectorError):
        return f"can't connect: {error.strerror or error.os_error}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, ServerDisconnectedError):
        return "it closed the connection"
    return f"it does not speak HTTP ({type(error).__name__})"
