"""An answer on its way from the upstream to the client: the hot path of every call. Contract sections 3 and 5.

Bytes pass as they come. The end of the message, and only that, waits for the row's commit: the piece that completes
the body, or what frames its end. Of a stream all events pass at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from aiohttp import ClientError

from proxy.arrived import is_silent, take_arrived
from proxy.call_record import CallRecord
from proxy.client_http import RelayedResponse, Request, reset_connection
from proxy.exchange import Exchange, Failure
from proxy.headers import ResponseFields, read_response_fields
from proxy.identity import usable_id
from proxy.request_body import BrokenBody, RequestTooLarge, StalledBody
from proxy.responses import id_fields, response_head
from proxy.upstream_http import UpstreamResponse
from proxy.wire import first_id
from proxy.wire.gist import NEVER, GistSoFar
from proxy.wire.media_types import is_event_stream
from proxy.wire.sse import LastEventWatch

__all__ = ["Download"]

logger = logging.getLogger(__name__)

_HTTP_1_1: Final = (1, 1)
_GIST_BEGINS_AT: Final = GistSoFar().goes_on_at
# Bytes of a stream within which it tells its id, if it does.
_EARLY: Final = 16 * 1024
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
        *,
        drain: bool,
    ) -> None:
        self._request = request
        self._exchange = exchange
        self._record = record
        self._upstream = upstream
        self._drain = drain
        fields = read_response_fields(upstream.raw_headers)
        exchange.status = upstream.status
        exchange.response.content_type = _latin(fields.content_type)
        exchange.response.content_encoding = _latin(fields.content_encoding)
        self._is_stream = is_event_stream(exchange.response.content_type)
        self._watch = LastEventWatch() if self._is_stream else None
        if fields.cookies:
            exchange.credentials = exchange.credentials.with_cookies(fields.cookies)
        # With how many bytes of a stream its gist goes on.
        is_plain = self._is_stream and not fields.content_encoding
        self._gist_goes_on_at = _GIST_BEGINS_AT if is_plain else NEVER
        self._length = fields.content_length
        # With time between the calls, nothing comes that a piece could leave together with at the end of a turn.
        self._hurries = record.has_time
        self._held = b""
        self._has_ended = False  # the upstream's answer
        self._is_over = False  # all that there was to do
        self._fault: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
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
        """Relay to the end, record it, and let the client have the end.

        A piece leaves for the client in the very turn of the event loop that brings it, and the end in the one that
        brings the row's commit; this only waits for that, and for a client that is behind. Raises what went wrong
        with a piece.
        """
        try:
            await self._relay()
        finally:
            self._is_over = True  # another answer may be on the connection when the row is safe
        if self._fault is not None:
            raise self._fault
        if not self._request.has_left:
            await self._until_client_caught_up()
        return self._response

    async def _relay(self) -> None:
        if is_silent(self._upstream.content):
            self._response.send_head()
        self._upstream.listen(self._on_news)
        self._go_on()
        while not self._is_over:
            await self._wait()
            await self._until_client_caught_up()
            self._go_on()

    async def _wait(self) -> None:
        """Wait until all is over, or the client is behind."""
        if self._has_ended or not self._response.is_behind:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    async def _until_client_caught_up(self) -> None:
        try:
            await self._response.drained()
        except ConnectionError:
            pass  # it is gone; writing tells

    def _on_news(self) -> None:
        """Called by the upstream's protocol, which is not to be told of faults of ours."""
        if self._has_ended:
            return
        try:
            self._go_on()
            if self._response.is_behind and not self._has_ended:
                self._wake()
        except Exception as error:
            self._has_ended, self._is_over, self._fault = True, True, error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _go_on(self) -> None:
        """Pass on what has come, as long as the client takes it; a piece that came before an error before its end."""
        content = self._upstream.content
        while not self._has_ended and not self._response.is_behind:
            if pieces := take_arrived(content):
                self._take(pieces)
            elif (error := content.exception()) is not None:
                self._end(_failure(error))
            elif content.at_eof():
                self._end(self._unless_still_there())
            else:
                return

    def _take(self, pieces: list[bytes]) -> None:
        whole = b"".join(pieces)
        self._exchange.on_response_bytes(whole)
        if self._watch is not None:
            self._look_at(whole, self._watch)
        is_last = self._is_last()
        if is_last:
            self._held = pieces.pop()
        comes_slowly = len(pieces) == 1
        if pieces and not self._pass_on(pieces) and not self._drain:
            self._end(self._record.unless_complete())
        elif is_last:
            self._end(self._unless_still_there())
        elif comes_slowly and self._exchange.response.kept >= self._gist_goes_on_at:
            self._gist_goes_on_at = NEVER
            asyncio.get_running_loop().call_soon(self._continue_gist)  # behind the sending of what came

    def _continue_gist(self) -> None:
        """Called between two events of a stream, so that its end is not held up by all of it at once."""
        try:
            if self._exchange.ended is None and self._watch is not None:
                self._gist_goes_on_at = self._exchange.continue_gist()
        except Exception:  # it is no more than a head start
            logger.exception("the gist of a stream")

    def _is_last(self) -> bool:
        """Whether the pieces just taken complete the body, and the last one is to wait with the message's end."""
        if self._length is not None:
            return self._exchange.response.size >= self._length
        return not self._is_stream and self._upstream.content.at_eof()

    def _end(self, outcome: Failure | None) -> None:
        if outcome is None and self._upstream.was_reset:
            outcome = Failure("upstream_cut", "the upstream broke off (connection reset)")
        self._has_ended = True
        if outcome is not None:
            self._upstream.close()  # else once the client has its end, which this would hold up
        self._record.end(outcome)
        self._record.when_safe(partial(self._conclude, self._finish if outcome is None else self._break_off))

    def _conclude(self, how: Callable[[], None]) -> None:
        """Called by the recorder, which is not to be told of faults of ours either."""
        if self._is_over:
            return
        try:
            how()
        except ConnectionError:
            pass  # the client left between the commit and the last byte
        except Exception as error:
            self._fault = error
        self._is_over = True
        self._wake()

    def _unless_still_there(self) -> Failure | None:
        return self._record.unless_complete() if self._request.has_left else None

    def _pass_on(self, pieces: list[bytes]) -> bool:
        """Whether the client was still there to be written to."""
        try:
            send = self._response.write if self._hurries else self._response.write_soon
            send(pieces)
        except ConnectionError:
            return False
        return True

    def _look_at(self, whole: bytes, watch: LastEventWatch) -> None:
        """See whether a stream tells its id with its next pieces, or ends its format: its row is on its way then."""
        if self._exchange.response_id is None and self._exchange.response.size - len(whole) < _EARLY:
            self._note_response_id(whole[:_EARLY])
        if watch.has_come(whole):
            self._watch = None
            self._hurries = self._record.has_time
            if self._upstream.content.at_eof() and not self._upstream.was_reset:
                self._record.end(None, soon=self._hurries)  # nothing can come behind it
            else:
                self._record.end_early(soon=self._hurries)

    def _note_response_id(self, piece: bytes) -> None:
        response_id = first_id(piece)
        if response_id is not None and usable_id(response_id):
            self._exchange.response_id = response_id

    def _finish(self) -> None:
        self._response.end(self._held)

    def _break_off(self) -> None:
        """End the connection so that the client can't take what it has for the whole."""
        transport = self._request.transport
        if transport is None:
            return
        self._response.flush()
        if self._is_framed:
            transport.close()  # what was written still arrives; the framing shows that more was to come
        else:
            reset_connection(transport)  # without framing a clean close would say that this was all


def _failure(error: BaseException) -> Failure:
    """What to say of an upstream's answer that ended with an error. Raises an error that is nobody's but ours."""
    match error:
        case TimeoutError():
            return Failure("upstream_timeout", "the upstream fell silent")
        case RequestTooLarge():
            return Failure("request_too_large", "the request's body is larger than is allowed")
        case StalledBody():
            return Failure("client_timeout", str(error))
        case BrokenBody():
            return Failure("client_broke_off", "the request's body is not whole")
        case ClientError() | OSError():
            return Failure("upstream_cut", f"the upstream broke off ({type(error).__name__})")
        case _:
            raise error


def _latin(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None
