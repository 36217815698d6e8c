"""aiohttp's server protocol where a request is no HTTP: it would let a handler wait for ever for the rest of a
broken body, and quote what it could not read, credentials and all, in the answer and in the log.
"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from proxy.dialects import Dialect, Failed, failure
from proxy.identity import new_id

__all__ = ["Server"]


class _Protocol(RequestHandler):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Called with the next bytes of the connection's."""
        super().data_received(data)
        request = self._current_request
        if request is not None and self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            payload = request.content
            if not payload.is_eof() and payload.exception() is None:
                payload.set_exception(web.RequestPayloadError("the framing of the body is broken"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what no handler was asked, or could answer; the connection ends with it."""
        self.log_exception("a request could not be handled", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer is sent already")
        is_http = status != web.HTTPBadRequest.status_code
        failed = Failed(status, "internal_error" if is_http else "invalid_http", _explain(status))
        response = web.Response(
            status=status,
            body=orjson.dumps(failure(Dialect.OPENAI, failed)),
            content_type="application/json",
            headers={"x-portkey-trace-id": new_id(), "Server": "kibitz"},
        )
        response.force_close()
        return response


def _explain(status: int) -> str:
    if status == web.HTTPBadRequest.status_code:
        return "The request is not HTTP/1.1, or its header section is larger than is allowed."
    return "Kibitz failed to answer this request."


class Server(web.Server):
    """aiohttp's low-level server with this protocol."""

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        options: dict[str, Any] = self._kwargs
        return _Protocol(self, loop=self._loop, **options)
