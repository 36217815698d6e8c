"""When one call is recorded: at its end, and a stream already at the event with which its format ends it.

SDKs read no further than that event, and may ask for the row, or die, before the connection has come to its end.
What comes behind it is rare; then the row is written again. Contract section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.commit import Commit
from proxy.exchange import Exchange, Failure
from proxy.recorder import Recorder
from proxy.wire.encoding import decode
from proxy.wire.media_types import is_event_stream
from proxy.wire.sse import LastEventWatch

__all__ = ["CallRecord"]

_CLIENT_LEFT: Final = Failure("client_cancelled", "the client left before the response was complete")


class CallRecord:
    """The record of one exchange."""

    def __init__(self, exchange: Exchange, recorder: Recorder) -> None:
        self._exchange = exchange
        self._recorder = recorder
        self._early: Exchange | None = None
        self._committed: Commit | None = None

    @property
    def has_time(self) -> bool:
        """See `proxy.recorder.Recorder.has_time`."""
        return self._recorder.has_time

    def unless_complete(self) -> Failure | None:
        """That the client left too early; nothing, if it left a stream that its format had already ended."""
        response = self._exchange.response
        if self._early is not None:
            return None
        if is_event_stream(response.content_type) and response.content_encoding is not None:
            body = decode(response.data(), response.content_encoding)
            if body is not None and LastEventWatch().has_come(body):
                return None
        return _CLIENT_LEFT

    def prepare(self) -> None:
        """Do what of the row can be done while the answer is awaited, all of the request having left."""
        exchange = self._exchange
        if exchange.ended is None and self._early is None and exchange.asked_ahead is None:
            self._recorder.prepare(exchange)

    def end(self, outcome: Failure | None, *, soon: bool = False) -> None:
        """Record how the call ended, unless that is done. The first ending is the one that counts.

        ``soon`` has its row made behind what is being sent.
        """
        exchange, early = self._exchange, self._early
        if exchange.ended is not None:
            return
        exchange.end(outcome)
        if early is None:
            self._committed = self._submit(exchange, soon=soon)
        elif outcome is not None or exchange.response.size > early.response.size:
            assert self._committed is not None
            self._committed = self._recorder.amend(exchange, after=self._committed)

    async def end_safely(self, outcome: Failure | None) -> None:
        """The same, and wait until the row is safe."""
        self.end(outcome)
        if self._committed is not None:
            await self._recorder.settled(self._committed)

    def when_safe(self, then: Callable[[], None]) -> None:
        """Have ``then``, which must not raise, called once the row is safe: for who would wait for nothing else."""
        assert self._committed is not None
        self._recorder.when_settled(self._committed, then)

    def end_early(self, *, soon: bool) -> None:
        """Record what there is of a stream whose last event is about to leave: before it its row is on its way."""
        if self._exchange.ended is None and self._early is None:
            self._early = self._exchange.so_far()
            self._early.end()
            self._committed = self._submit(self._early, soon=soon)

    def _submit(self, exchange: Exchange, *, soon: bool) -> Commit:
        return self._recorder.submit_soon(exchange) if soon else self._recorder.submit(exchange)
