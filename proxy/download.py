"""An answer on its way from the upstream to the client: the hot path of every call. Contract sections 3 and 5.

Bytes pass as they come. The end of the message, and only that, waits for the row's commit: the piece that completes
the body, or what frames its end. Of a stream all events pass at once.
"""

from __future__ import annotations

from typing import Final

from aiohttp import ClientError, StreamReader

from proxy.call_record import CallRecord
from proxy.client_http import RelayedResponse, Request, reset_connection
from proxy.exchange import Exchange, Failure
from proxy.headers import ResponseFields, read_response_fields
from proxy.identity import usable_id
from proxy.in_flight import InFlight
from proxy.request_body import BrokenBody, RequestTooLarge, StalledBody
from proxy.responses import id_fields, response_head
from proxy.upstream_http import UpstreamResponse, next_chunks, unread_bytes
from proxy.wire import first_id
from proxy.wire.sse import LastEventWatch, is_event_stream

__all__ = ["Download"]

_HTTP_1_1: Final = (1, 1)
# Bytes of a stream within which it tells its id, if it does.
_EARLY: Final = 16 * 1024
# Bytes that are passed on together where they have come together.
_AT_ONCE: Final = 64 * 1024
# Responses that have no body, whatever their fields say (RFC 9112 section 6.3).
_BODILESS: Final = frozenset({204, 304})


class Download:
    """Relays one answer. With ``drain`` the upstream is read to its end though the client has left."""

    def __init__(
        self,
        request: Request,
        exchange: Exchange,
        record: CallRecord,
        upstream: UpstreamResponse,
        in_flight: InFlight,
        *,
        drain: bool,
    ) -> None:
        self._request = request
        self._exchange = exchange
        self._record = record
        self._upstream = upstream
        self._in_flight = in_flight
        self._drain = drain
        fields = read_response_fields(upstream.raw_headers)
        exchange.status = upstream.status
        exchange.response.content_type = _latin(fields.content_type)
        exchange.response.content_encoding = _latin(fields.content_encoding)
        self._is_stream = is_event_stream(exchange.response.content_type)
        self._watch = LastEventWatch() if self._is_stream else None
        self._length = fields.content_length
        self._response = self._begin(fields)

    def _begin(self, fields: ResponseFields) -> RelayedResponse:
        request, status = self._request, self._upstream.status
        has_body = request.method != "HEAD" and status not in _BODILESS
        unbounded = has_body and fields.content_length is None
        chunked = unbounded and request.version >= _HTTP_1_1
        keep_alive = request.keep_alive and (chunked or not unbounded)
        self._is_framed = chunked or fields.content_length is not None
        forward = [*fields.forward, *id_fields(self._exchange.identity, b"success")]
        head = response_head(
            request, status, self._upstream.reason or "", forward, chunked=chunked, keep_alive=keep_alive
        )
        return RelayedResponse(request, status, head, chunked=chunked, keep_alive=keep_alive)

    async def run(self) -> RelayedResponse:
        """Relay to the end, record it, and let the client have the end."""
        held, outcome = await self._relay()
        if outcome is None and self._upstream.was_reset:
            outcome = Failure("upstream_cut", "the upstream broke off (connection reset)")
        self._upstream.close()
        await self._record.end_safely(outcome)
        if outcome is None:
            await self._finish(held)
        else:
            self._break_off()
        return self._response

    async def _relay(self) -> tuple[bytes, Failure | None]:
        """Relay the body but for its end; that is given back, with what went wrong if something did."""
        content, exchange = self._upstream.content, self._exchange
        if not content.total_bytes and not content.is_eof():
            self._response.send_head()
        while not content.at_eof():
            chunks, outcome = await _next_chunks(content)
            if chunks:
                exchange.on_response_bytes(b"".join(chunks))
            held = chunks.pop() if chunks and outcome is None and self._is_last(content) else None
            if chunks and not await self._pass_on(chunks) and not self._drain:
                return b"", self._record.unless_complete()
            if held is not None:
                return held, self._unless_still_there()
            if outcome is not None:
                return b"", outcome
        return b"", self._unless_still_there()

    def _is_last(self, content: StreamReader) -> bool:
        """Whether the chunk just read completes the body, and is to wait with the message's end."""
        if self._length is not None:
            return self._exchange.response.size >= self._length
        return not self._is_stream and content.at_eof()

    def _unless_still_there(self) -> Failure | None:
        return self._record.unless_complete() if self._request.has_left else None

    async def _pass_on(self, chunks: list[bytes]) -> bool:
        """Whether the client was still there to be written to."""
        if self._watch is not None:
            self._look_at(b"".join(chunks), self._watch)
        try:
            await self._response.write(chunks)
        except ConnectionError:
            return False
        return True

    def _look_at(self, piece: bytes, watch: LastEventWatch) -> None:
        """See whether a stream tells its id with its next bytes, or ends its format."""
        if self._exchange.response_id is None and self._exchange.response.size < _EARLY:
            self._note_response_id(piece)
        if watch.has_come(piece):
            self._watch = None
            self._record.end_early()

    def _note_response_id(self, piece: bytes) -> None:
        response_id = first_id(piece)
        if response_id is not None and usable_id(response_id):
            self._in_flight.name_response(self._exchange, response_id)

    async def _finish(self, held: bytes) -> None:
        try:
            await self._response.write_eof(held)
        except ConnectionError:
            pass  # it left between the commit and the last byte

    def _break_off(self) -> None:
        """End the connection so that the client can't take what it has for the whole."""
        transport = self._request.transport
        if transport is None:
            return
        if self._is_framed:
            transport.close()  # what was written still arrives; the framing shows that more was to come
        else:
            reset_connection(transport)  # without framing a clean close would say that this was all


async def _next_chunks(content: StreamReader) -> tuple[list[bytes], Failure | None]:
    """The chunks that have come, or what has of them, with what went wrong behind them if something did."""
    try:
        return await next_chunks(content, _AT_ONCE), None
    except TimeoutError:
        failure = Failure("upstream_timeout", "the upstream fell silent")
    except RequestTooLarge:
        failure = Failure("request_too_large", "the request's body is larger than is allowed")
    except StalledBody as error:
        failure = Failure("client_timeout", str(error))
    except BrokenBody:
        failure = Failure("client_broke_off", "the request's body is not whole")
    except (ClientError, OSError) as error:
        failure = Failure("upstream_cut", f"the upstream broke off ({type(error).__name__})")
    unread = unread_bytes(content)
    return [unread] if unread else [], failure


def _latin(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None
