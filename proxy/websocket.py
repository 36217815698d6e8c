"""Connections that were switched to WebSocket: bytes relayed both ways, frames only looked at. Contract section 3.

Nothing is taken apart on the way, so masks, fragments, extensions, pings and close codes pass to the byte. Only the
upstream's close frame, or the end of its connection where it sends none, waits for the row's commit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp.base_protocol import BaseProtocol

from proxy.call_record import CallRecord
from proxy.client_http import RelayedResponse
from proxy.exchange import Exchange, Failure
from proxy.frame_log import FrameLog, FrameTap
from proxy.frames import FrameReader, inflaters
from proxy.taken import TakenConnection

__all__ = ["Switched", "relay_websocket"]

_CLIENT_LEFT: Final = Failure("client_cancelled", "the client left without a close frame")
_UPSTREAM_LEFT: Final = Failure("upstream_cut", "the upstream broke off without a close frame")
_SILENCE: Final = Failure("upstream_timeout", "neither side said anything for too long")
# Bytes that wait for the row; a close frame has 129 at most, and what says that it has more is none.
_LONGEST_HELD: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Switched:
    """Two connections on which HTTP is over, and what to do with them.

    ``response`` is the answer that tells the client so, ``extensions`` what it says of them.
    """

    exchange: Exchange
    client: TakenConnection
    upstream: TakenConnection
    response: RelayedResponse
    extensions: bytes
    idle_timeout: float
    record: CallRecord


async def relay_websocket(switched: Switched) -> RelayedResponse:
    """Relay until one of the two sides ends it.

    Cancelled with the client's connection it records that; cancelled for another reason it leaves that to its caller.
    """
    relay = _Relay(switched)
    try:
        await relay.run()
    finally:
        relay.close()
    return switched.response


class _Side(asyncio.Protocol):
    """One of the two connections. What fills up here makes the other side wait; bytes and the end go to the relay.

    aiohttp's protocol, which it replaced, is still told of all else: it keeps count of the connection.
    """

    def __init__(
        self, taken: TakenConnection, take: Callable[[bytes], None], leave: Callable[[Exception | None], None]
    ) -> None:
        self._transport = taken.transport
        self._replaced: BaseProtocol = taken.protocol
        self._take = take
        self._leave = leave
        self.other: _Side | None = None
        self.held = False
        """Not to be read from, whatever room there is."""

    def attach(self, early: bytes) -> None:
        """From here on bytes come to this side; first those that came too early."""
        if self._transport is None or self._transport.is_closing():
            self._take(early)
            self._leave(None)
            return
        self._transport.set_protocol(self)
        if self._replaced.writing_paused:
            self.pause_writing()
        else:
            self.resume()
        self._take(early)

    def data_received(self, data: bytes) -> None:
        """Called with the next bytes."""
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection is over."""
        self._replaced.connection_lost(exc)
        self._leave(exc)

    def pause_writing(self) -> None:
        """Called when more waits to be sent than should."""
        if not self._replaced.writing_paused:
            self._replaced.pause_writing()
        if self.other is not None:
            self.other.pause()

    def resume_writing(self) -> None:
        """Called when there is room again."""
        self._replaced.resume_writing()
        if self.other is not None:
            self.other.resume()

    def pause(self) -> None:
        """Read no further for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, unless this side is held."""
        if self._transport is not None and not self.held and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send, if there is still somebody to send to."""
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close, once what waits has been sent."""
        if self._transport is not None:
            self._transport.close()


class _Relay:
    """One WebSocket from its switch to its end."""

    def __init__(self, switched: Switched) -> None:
        self._switched = switched
        exchange, largest = switched.exchange, switched.exchange.response.limit
        of_client, of_upstream = inflaters(switched.extensions, largest)
        self._from_client = FrameTap(
            FrameReader(largest, of_client), FrameLog(exchange.request, "client"), exchange.started
        )
        self._from_upstream = FrameTap(
            FrameReader(largest, of_upstream), FrameLog(exchange.response, "upstream"), exchange.started
        )
        self._client = _Side(switched.client, self._take_from_client, self._lose_client)
        self._upstream = _Side(switched.upstream, self._take_from_upstream, self._lose_upstream)
        self._client.other, self._upstream.other = self._upstream, self._client
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._held = b""
        self._recorded = False
        self._ended: asyncio.Future[Failure | None] = self._loop.create_future()
        """Done with what the row is to tell, once there is a row to write."""
        self._over: asyncio.Future[None] = self._loop.create_future()
        """Done once one of the connections is."""

    async def run(self) -> None:
        """Relay to the end."""
        switched = self._switched
        try:
            switched.response.send_head()
            self._client.attach(switched.client.early)
            self._upstream.attach(switched.upstream.early)
            outcome = self._ended.result() if await self._wait_for(self._ended) else _SILENCE
            self._end_logs()
            await switched.record.end_safely(outcome)
            self._release()
            if outcome is None:
                await self._wait_for(self._over)
        except asyncio.CancelledError:
            self._end_logs()
            if self._ended.done():
                switched.record.end(self._ended.result())
            raise
        finally:
            self._end_logs()

    def close(self) -> None:
        """Let go of both connections; what waits to be sent on them still is."""
        self._client.close()
        self._upstream.close()

    async def _wait_for(self, future: asyncio.Future[Any]) -> bool:
        """Whether it was done before both sides had been silent for too long."""
        while not future.done():
            patience = self._heard + self._switched.idle_timeout - self._loop.time()
            if patience <= 0:
                return False
            await asyncio.wait([future], timeout=patience)
        return True

    def _take_from_client(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._upstream.write(data)
        self._from_client.note(self._from_client.look(data))

    def _take_from_upstream(self, data: bytes) -> None:
        exchange = self._switched.exchange
        if exchange.first_byte is None and data:
            exchange.first_byte = time.perf_counter()
        self._heard = self._loop.time()
        frames = self._from_upstream.look(data)
        passing = len(data) if self._recorded else 0 if self._held else self._from_upstream.until_close(data)
        self._client.write(data[:passing])
        self._held += data[passing:]
        self._from_upstream.note(frames)
        if not self._recorded and (self._from_upstream.closed or len(self._held) > _LONGEST_HELD):
            self._upstream.held = True
            self._upstream.pause()
            self._end(None)

    def _release(self) -> None:
        """The row is safe: let the client have the close frame, and what there is behind it."""
        self._recorded = True
        self._client.write(self._held)
        self._held = b""
        self._upstream.held = False
        self._upstream.resume()

    def _lose_client(self, _: Exception | None) -> None:
        self._end(self._unless_closed(_CLIENT_LEFT))
        self._finish()

    def _lose_upstream(self, _: Exception | None) -> None:
        self._end(self._unless_closed(_UPSTREAM_LEFT))
        self._finish()

    def _unless_closed(self, failure: Failure) -> Failure | None:
        """A side that goes after a close frame was sent goes as it should."""
        return None if self._from_client.closed or self._from_upstream.closed else failure

    def _end(self, outcome: Failure | None) -> None:
        if not self._ended.done():
            self._ended.set_result(outcome)

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _end_logs(self) -> None:
        self._from_client.end()
        self._from_upstream.end()
