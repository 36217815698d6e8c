"""The calls under way in this process, from their start until their row is committed.

Whoever rates one of them is not told that it doesn't exist, and whoever asks for one that has just ended waits
for its row instead of missing it: an SDK that stops reading at a stream's last event is that quick.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from proxy.exchange import Exchange

__all__ = ["InFlight", "Kind"]

Kind = Literal["request", "trace", "session"]

# Seconds that a reader waits for a row that is being written; a store that is away for longer has its say then.
_PATIENCE = 5.0


class InFlight:
    """The calls themselves, with no index of their ids: for each that somebody asks for, many come and go unasked."""

    def __init__(self) -> None:
        self._calls: dict[int, Exchange] = {}
        # Those that have ended, each with the response id that its row says.
        self._landing: dict[int, tuple[Exchange, str | None]] = {}
        self._waiters: defaultdict[int, list[asyncio.Future[None]]] = defaultdict(list)
        self.running = 0
        """Calls that have not ended."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._calls)

    def add(self, exchange: Exchange) -> None:
        """The call has started."""
        self.running += 1
        self._calls[exchange.number] = exchange

    def land(self, exchange: Exchange) -> None:
        """The call has ended, and its row is on its way."""
        self.running -= 1
        self._landing[exchange.number] = exchange, None

    def land_as(self, exchange: Exchange, response_id: str | None) -> None:
        """A call that landed has this response id too."""
        self._landing[exchange.number] = exchange, response_id

    def remove(self, exchange: Exchange) -> None:
        """The row of a call that landed is in the store, or will never be."""
        self._calls.pop(exchange.number, None)
        self._landing.pop(exchange.number, None)
        if self._waiters:
            for waiter in self._waiters.pop(exchange.number, ()):
                if not waiter.done():
                    waiter.set_result(None)

    def ids(self, kind: Kind, organisation: str) -> set[str]:
        """Those of the calls under way; a response id that was told is a request's, too."""
        calls = [call for call in self._calls.values() if call.organisation == organisation]
        match kind:
            case "request":
                told = {call.response_id for call in calls if call.response_id is not None}
                return told.union(call.identity.request_id for call in calls)
            case "trace":
                return {call.identity.trace_id for call in calls}
            case "session":
                return {call.identity.session_id for call in calls if call.identity.session_id is not None}

    async def known(self, kind: Kind, organisation: str, texts: Iterable[str]) -> list[str]:
        """Which of some ids are; of request ids once no row is on its way that may turn out to be meant."""
        asked = list(texts)
        if kind == "request":
            # A call whose response id is meant may be known by it only now that it has ended.
            await self.landed(organisation, *asked)
        known = self.ids(kind, organisation)
        return [text for text in asked if text in known]

    async def landed(self, organisation: str, *texts: str) -> None:
        """Return once no row of these request ids or response ids is on its way to the store any more."""
        if self._landing and (waiters := [self._wait_for(number) for number in self._of(organisation, {*texts})]):
            await asyncio.wait(waiters, timeout=_PATIENCE)

    def _of(self, organisation: str, texts: set[str]) -> list[int]:
        return [
            number
            for number, (call, response_id) in self._landing.items()
            if call.organisation == organisation and (call.identity.request_id in texts or response_id in texts)
        ]

    def _wait_for(self, number: int) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[number].append(waiter)
        return waiter
