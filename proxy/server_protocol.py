"""aiohttp's server protocol, made leaner and stricter.

Leaner: one task a connection serves its requests, as `proxy.client_http.Request`, instead of one more a request.
Stricter where a request is no HTTP: aiohttp would let a handler wait for ever for the rest of a broken body, and
quote what it could not read, credentials and all, in the answer and in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import _PAYLOAD_ACCESS_ERROR, ERROR, RequestHandler, _ErrInfo

from proxy.client_http import RelayedResponse, Request
from proxy.dialects import Dialect, Failed, failure
from proxy.identity import new_id
from proxy.responses import own_response

__all__ = ["Handler", "Server"]

Handler = Callable[[Request], Awaitable[RelayedResponse]]


# How a body in chunks ends, if there is no trailer.
_END_OF_CHUNKS: Final = b"\n0\r\n\r\n"


class _Protocol(RequestHandler):
    __slots__ = ("_last_bytes", "_task")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called once there is a connection."""
        self._last_bytes: bytes = b""
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Called with the next bytes of the connection's."""
        if data:
            self._last_bytes = data[-6:] if len(data) >= 6 else (self._last_bytes + data)[-6:]
        super().data_received(data)
        request = self._current_request
        if request is not None and self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            payload = request.content
            if not payload.is_eof() and payload.exception() is None:
                payload.set_exception(web.RequestPayloadError("the framing of the body is broken"))

    async def start(self) -> None:
        """Serve the connection's requests, one after the other, until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[None] = task
        try:
            while not self._force_close and await self._serve(*await self._next_message()):
                self._wait_no_longer_than_keepalive()
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
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message, payload = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        return message, payload

    async def _serve(self, message: RawRequestMessage | _ErrInfo, payload: StreamReader) -> bool:
        """Answer one request; whether the connection can serve another."""
        assert self._manager is not None
        self._manager.requests_count += 1
        handler: Any = self._request_handler
        if isinstance(message, _ErrInfo):
            handler, message = self._make_error_handler(message), ERROR
        request = Request(message, payload, self, self._task)
        try:
            # What aiohttp does around a handler asks of requests and responses what ours have.
            response, is_lost = await self._handle_request(cast(web.BaseRequest, request), None, handler)
        except ConnectionError:
            return False
        if is_lost:
            return False
        self._keepalive = response.keep_alive  # type: ignore[assignment]
        if not payload.is_eof():
            await self._linger(payload)
        payload.set_exception(_PAYLOAD_ACCESS_ERROR)
        if message.chunked and not self._has_no_trailer():
            return False
        return self._keepalive and not self._close and not self._force_close

    def _has_no_trailer(self) -> bool:
        """Whether the request in chunks that was read last surely had none, and nothing has come behind it.

        aiohttp's parser would put the last field of a trailer among those of the connection's next request.
        """
        return not self._messages and self._last_bytes == _END_OF_CHUNKS

    async def _linger(self, payload: StreamReader) -> None:
        """Read what is left of a body for a while: closed on, the client might not get to read the answer."""
        try:
            async with asyncio.timeout(self._lingering_time):
                while not self._force_close and not payload.is_eof():
                    await payload.readany()
        except TimeoutError:
            pass
        if not payload.is_eof():
            self.close()

    def _wait_no_longer_than_keepalive(self) -> None:
        now = self._loop.time()
        self._next_keepalive_close_time = now + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    def handle_error(  # type: ignore[override]
        self,
        request: Request,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> RelayedResponse:
        """The answer to what no handler was asked, or could answer; the connection ends with it."""
        self.log_exception("a request could not be handled", exc_info=exc)
        if request.answered:
            raise ConnectionError("half an answer is sent already")
        is_http = status != web.HTTPBadRequest.status_code
        failed = Failed(status, "internal_error" if is_http else "invalid_http", _explain(status))
        request.keep_alive = False
        fields = [(b"x-portkey-trace-id", new_id().encode("ascii")), (b"Server", b"kibitz")]
        return own_response(request, status, failure(Dialect.OPENAI, failed), fields)


def _explain(status: int) -> str:
    if status == web.HTTPBadRequest.status_code:
        return "The request is not HTTP/1.1, or its header section is larger than is allowed."
    return "Kibitz failed to answer this request."


class Server(web.Server):
    """aiohttp's low-level server with this protocol."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        super().__init__(cast(Any, handler), **options)

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        options: dict[str, Any] = self._kwargs
        return _Protocol(self, loop=self._loop, **options)
