"""aiohttp's server protocol, made leaner and stricter.

Leaner: one task a connection serves its requests, as `proxy.client_http.Request`, instead of one more a request.
Stricter where a request is no HTTP: aiohttp would let a handler wait for ever for the rest of a broken body, and
quote what it could not read, credentials and all, in the answer and in the log. And stricter with those who take
their time, or more than their part: see `proxy.connection_limits`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Final, Protocol, cast

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _PAYLOAD_ACCESS_ERROR, ERROR, RequestHandler, _ErrInfo

from proxy.client_http import RelayedResponse, Request, has_unread_bytes
from proxy.connection_limits import (
    ConnectionLimits,
    failed_by,
    head_too_large,
    head_took_too_long,
    unfinished_head_too_large,
)
from proxy.dialects import Dialect, Failed, failure
from proxy.identity import new_id
from proxy.last_head import LastHead
from proxy.metrics import Metrics
from proxy.outbox import Outbox
from proxy.responses import own_response

__all__ = ["ServerProtocol"]

# Seconds for which a client is heard out that was refused in the middle of what it sends: closed on, it might not
# get to read the answer.
_HEARD_OUT: Final = 2.0
# How a body in chunks ends, if there is no trailer.
_END_OF_CHUNKS: Final = b"\n0\r\n\r\n"


class _Connections(Protocol):
    """What a protocol asks of the server whose connection it serves."""

    metrics: Metrics
    outbox: Outbox
    waiting: dict[ServerProtocol, None]
    is_ending: bool

    @property
    def is_full(self) -> bool: ...


class ServerProtocol(RequestHandler):
    """One connection. ``is_surplus`` tells that it came when there were as many as are allowed, and all were busy."""

    __slots__ = (
        "_arriving",
        "_barren",
        "_deadline",
        "_head_begun",
        "_in_line",
        "_is_deaf",
        "_last_body",
        "_last_bytes",
        "_last_head",
        "_limits",
        "_most_pending",
        "_queued",
        "_server",
        "_task",
        "_timer_at",
        "_unchecked",
        "_without_trailer",
        "is_counted",
        "is_surplus",
    )

    def __init__(self, server: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(server, **options)
        self._server: _Connections = server
        self._limits = limits
        self.is_counted = True
        self.is_surplus = False
        self._is_deaf = False
        self._last_body: StreamReader = EMPTY_PAYLOAD
        self._last_bytes: bytes = b""
        self._last_head: LastHead[Any] = LastHead()
        self._arriving: StreamReader | None = None
        # aiohttp's parser would put the last field of a trailer among those of the connection's next request. So it is
        # kept in mind which body in chunks surely had none, and had nothing behind it when it ended.
        self._without_trailer: StreamReader | None = None
        self._head_begun = False
        self._in_line = True
        self._barren = 0
        self._most_pending = 0
        self._queued = 0
        self._unchecked = False
        self._msg_queue_resume_size = 0
        self._deadline = self._timer_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Called with the next bytes of the connection's; with none by aiohttp itself, to parse what it kept back."""
        if self._is_deaf or self._force_close or self._close:
            return
        if data:
            self._last_bytes = data[-6:] if len(data) >= 6 else (self._last_bytes + data)[-6:]
        body = self._messages[-1][1] if self._messages else self._last_body
        count, state = self._request_count, (body.total_bytes, body.is_eof())
        super().data_received(data)
        if self._last_bytes == _END_OF_CHUNKS:
            newest = self._messages[-1][1] if self._messages else self._last_body
            self._without_trailer = newest if newest.is_eof() else None
        if self._request_count != count:
            if self._most_pending + len(data) > self._limits.harmless:
                self._refuse_large_heads(self._request_count - count)
            self._begin_anew(len(data))
        elif (body.total_bytes, body.is_eof()) != state:
            self._begin_anew(len(data))
        elif data and not (self._upgraded or self._reading_paused or self._buffer_paused):
            self._take_note_of_barren(data, body)
        self._unchecked = self._unchecked or self._upgraded
        if self._messages:
            self._look_at_the_queue(len(data))

    def _look_at_the_queue(self, size: int) -> None:
        """``size`` more bytes have come while requests wait for their turn: aiohttp would take 32 of any size."""
        if isinstance(self._messages[-1][0], _ErrInfo):
            self._hear_no_more()
        self._queued += size
        if self._queued > self._limits.max_header_bytes and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _begin_anew(self, size: int) -> None:
        """The bytes that came have brought something; of the last ``size`` some may begin the next head."""
        self._head_begun, self._in_line = False, True
        self._barren, self._most_pending = 0, size

    def _take_note_of_barren(self, data: bytes, body: StreamReader) -> None:
        """These bytes brought neither a request nor anything of a body: they are of a head, or trailers or the like."""
        self._barren += len(data)
        self._most_pending += len(data)
        self._in_line = self._in_line and b"\n" not in data
        if self._barren > self._limits.max_header_bytes:
            in_line = self._in_line and body.is_eof()
            self._refuse(unfinished_head_too_large(self._limits, in_line=in_line))
        elif not self._head_begun and body.is_eof():
            self._head_begun = True
            if self._waiter is not None:
                self._wait_for(self._limits.header_timeout)

    def _refuse_large_heads(self, new: int) -> None:
        for index in range(-new, 0):
            message = self._messages[index][0]
            if not isinstance(message, _ErrInfo) and (failed := head_too_large(message, self._limits)):
                self._messages[index] = (_ErrInfo(failed.status, failed, failed.message), EMPTY_PAYLOAD)

    def _refuse(self, failed: Failed) -> None:
        self._messages.append((_ErrInfo(failed.status, failed, failed.message), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _hear_no_more(self) -> None:
        """Drop what else comes: the connection ends with the refusal; a handler that reads a body waits in vain."""
        self._is_deaf = True
        payload = self._arriving
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(web.RequestPayloadError("the framing of the body is broken"))

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called by a reader that has taken of what it has, whether it had paused the connection or not."""
        if self._reading_paused:  # else aiohttp would parse an empty piece, and call the transport, for each read
            super().resume_reading(resume_parser)

    async def start(self) -> None:
        """Serve the connection's requests, one after the other, until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[None] = task
        try:
            while not self._force_close and await self._serve(*await self._next_message()):
                pass
        except asyncio.CancelledError:
            self.force_close()
            raise
        except Exception as error:
            self.log_exception("a connection could not be served", exc_info=error)
            self.force_close()
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _next_message(self) -> tuple[Any, StreamReader]:
        if not self._messages:
            is_idle = self._request_count > 0 and not self._head_begun
            await self._wait(self._limits.keep_alive_timeout if is_idle else self._limits.header_timeout)
        if self._unchecked:
            # What came behind a request for an upgrade that was declined: aiohttp parses it elsewhere.
            self._unchecked = self._upgraded
            self._refuse_large_heads(len(self._messages))
        message, payload = self._messages.popleft()
        if not self._messages:
            self._last_body, self._queued = payload, 0
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        return message, payload

    async def _wait(self, seconds: float) -> None:
        """Wait for a request, or for the client's end."""
        self._waiter = self._loop.create_future()
        self._wait_for(seconds)
        self._server.waiting[self] = None  # without `_giving_way`: each request on a kept connection comes by here
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._server.waiting.pop(self, None)

    @contextlib.contextmanager
    def _giving_way(self) -> Iterator[None]:
        """For the time in which the connection waits for the rest of a body."""
        self._server.waiting[self] = None
        try:
            yield
        finally:
            self._server.waiting.pop(self, None)

    # One timer a connection, which looks whether its time has really come: most waits are over long before.

    def _wait_for(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds
        if self._keepalive_handle is None or self._timer_at > self._deadline:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        self._timer_at = self._deadline
        self._keepalive_handle = self._loop.call_at(self._deadline, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._keepalive_handle = None
        if self._force_close or self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        elif self._head_begun and not self._is_deaf:
            self._refuse(head_took_too_long(self._limits))
            self._hear_no_more()
        else:
            self.force_close()

    @property
    def waits_for_request(self) -> bool:
        """Whether no request is being served."""
        return self._waiter is not None

    def give_way(self) -> bool:
        """Close the connection for another one, unless something has come on it that nobody has read yet."""
        if self.transport is None or has_unread_bytes(self.transport):
            return False
        self.force_close()
        return True

    async def _serve(self, message: RawRequestMessage | _ErrInfo, payload: StreamReader) -> bool:
        """Answer one request; whether the connection can serve another."""
        assert self._manager is not None
        self._manager.requests_count += 1
        handler: Any = self._request_handler
        is_refused = isinstance(message, _ErrInfo)
        if isinstance(message, _ErrInfo):
            handler, message = self._make_error_handler(message), ERROR
        self._arriving = payload
        request = Request(message, payload, self, self._task, self._last_head, self._server.outbox)
        request.waits_for_client = self._giving_way
        request.idle_timeout = self._limits.download_idle_timeout
        if self.is_surplus and self._server.is_full:
            request.is_surplus = True
            request.end_connection()
        try:
            # What aiohttp does around a handler asks of requests and responses what ours have.
            response, is_lost = await self._handle_request(cast(web.BaseRequest, request), None, handler)
        except ConnectionError:
            return False
        if is_lost:
            return False
        self._keepalive = response.keep_alive  # type: ignore[assignment]
        if request.stalled:
            return False
        if is_refused or payload.exception() is not None:
            await self._hear_out()
            return False
        if not payload.is_eof():
            await self._linger(payload)
        payload.set_exception(_PAYLOAD_ACCESS_ERROR)
        if message.chunked and payload is not self._without_trailer:
            return False
        return self._keepalive and not (self._close or self._force_close or self._server.is_ending)

    async def _linger(self, payload: StreamReader) -> None:
        """Read what is left of a body for a while: closed on, the client might not get to read the answer."""
        with contextlib.suppress(TimeoutError, ConnectionError, web.RequestPayloadError), self._giving_way():
            async with asyncio.timeout(self._lingering_time):
                while not self._force_close and not payload.is_eof():
                    await payload.readany()
        if not payload.is_eof():
            self.close()

    async def _hear_out(self) -> None:
        """The same where nothing can be read any more: let the client see the end, and drop what it sends."""
        if self.transport is None or self.transport.is_closing() or self._close:
            return
        self.transport.write_eof()
        self._resume_transport_reading()
        await self._wait(_HEARD_OUT)

    def handle_error(  # type: ignore[override]
        self,
        request: Request,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> RelayedResponse:
        """The answer to what no handler was asked, or could answer; the connection ends with it."""
        failed = failed_by(exc, status, self._limits)
        if failed is exc:
            self.logger.debug("refused a request: %s", failed.code)
        else:
            self.log_exception("a request could not be handled", exc_info=exc)
        if request.answered:
            raise ConnectionError("half an answer is sent already")
        if failed.status < web.HTTPInternalServerError.status_code:
            self._server.metrics.refuse(failed.code)
        request.end_connection()
        fields = [(b"x-portkey-trace-id", new_id().encode("ascii")), (b"Server", b"kibitz")]
        return own_response(request, failed.status, failure(Dialect.OPENAI, failed), fields)
