"""aiohttp's protocol of a connection to an upstream: it tells who listens, and sets fewer timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import ClientPayloadError
from aiohttp.client_proto import ResponseHandler

from proxy.arrived import has_too_much, take_all_at_once

__all__ = ["UpstreamProtocol"]

_END_OF_HEAD: Final = b"\r\n\r\n"
_CHUNKED: Final = b"chunked"


class UpstreamProtocol(ResponseHandler):
    """Remembers what it was used for, and times its reads at the cost of looking at the clock."""

    used = False
    """Whether a request was sent on it."""
    heard = False
    """Whether anything has come since the last request, or since the end of its answer."""
    listener: Callable[[], None] | None = None
    """Called when more of the answer's body may have come, its end, or an error instead of it."""
    _deadline: float | None = None
    _timer_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Called with the next bytes of the connection's; with none by aiohttp itself, to parse what it kept back."""
        if data and not self.heard:
            self.heard = True
            data = self._take_head_of_chunks(data)
        super().data_received(data)
        if self._exception is not None:
            self._tell_reader(ClientPayloadError("the framing of the body is broken"))
        if data:
            self._tell_listener()
            if self._payload is not None and has_too_much(self._payload):
                self._hold_back()

    def _take_head_of_chunks(self, data: bytes) -> bytes:
        """Parse an answer's head by itself if chunks came with it, so that these can be taken in a shorter way.

        Gives what is left to parse.
        """
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if not (len(_END_OF_HEAD) <= end < len(data) and data.find(_CHUNKED, 0, end) >= 0):
            return data
        super().data_received(data[:end])
        if self._payload is not None:
            take_all_at_once(self._payload)
        return data[end:]

    def _hold_back(self) -> None:
        """Let nothing come until a reader takes of what it has.

        aiohttp's own way is for within the parser: told between two pieces to pause, it would do so in the next one,
        which nobody would have it go on with.
        """
        self._reading_paused = True
        self._pause_transport_reading()
        self._drop_timeout()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called at the end of the connection."""
        super().connection_lost(exc)
        self._tell_listener()

    def _tell_listener(self) -> None:
        if self.listener is not None:
            self.listener()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called by a reader that has taken of what it has, whether it had paused the connection or not."""
        if self._reading_paused:  # else aiohttp would parse an empty piece, and call the transport, for each read
            super().resume_reading(resume_parser)

    def fail(self, error: BaseException) -> None:
        """End what is under way with an error, whether its answer has begun or not."""
        self.set_exception(error)
        self._tell_reader(error)
        self._tell_listener()

    def _on_read_timeout(self) -> None:
        super()._on_read_timeout()
        self._tell_listener()

    def _tell_reader(self, error: BaseException) -> None:
        # aiohttp tells of an error only him who waits for the next answer, not him who reads this one's body.
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(error)

    # aiohttp sets a timer and takes it back with every piece that comes. One that looks whether its time has
    # really come, and sets itself again if it hasn't, does with a call every few minutes.

    def _reschedule_timeout(self) -> None:
        if not self._read_timeout:
            self._deadline = None
            return
        self._deadline = self._loop.time() + self._read_timeout
        if self._read_timeout_handle is None or self._timer_at > self._deadline:
            self._set_timer()

    def _set_timer(self) -> None:
        assert self._deadline is not None
        self._stop_timer()
        self._timer_at = self._deadline
        self._read_timeout_handle = self._loop.call_at(self._deadline, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._read_timeout_handle = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        else:
            self._on_read_timeout()

    def _drop_timeout(self) -> None:
        self._deadline = None
        if self.transport is None or self._connection_lost_called:
            self._stop_timer()  # it would keep the connection's memory until it is over

    def _stop_timer(self) -> None:
        if self._read_timeout_handle is not None:
            self._read_timeout_handle.cancel()
            self._read_timeout_handle = None
