"""The calls under way in this process, from their start until their row is committed.

Whoever rates one of them is not told that it doesn't exist, and whoever asks for one that has just ended waits
for its row instead of missing it: an SDK that stops reading at a stream's last event is that quick.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Set
from typing import Final, Literal

from proxy.exchange import Exchange

__all__ = ["InFlight", "Kind"]

Kind = Literal["request", "trace", "session"]
_Name = tuple[str, str]

_IDS: Final[dict[Kind, Callable[[Exchange], tuple[str | None, ...]]]] = {
    "request": lambda call: (call.identity.request_id, call.response_id),
    "trace": lambda call: (call.identity.trace_id,),
    "session": lambda call: (call.identity.session_id,),
}
# Seconds that a reader waits for a row that is being written; a store that is away for longer has its say then.
_PATIENCE = 5.0
# Calls. With more, what one gains by work at another time the others lose.
_FEW: Final = 4
# Seconds since there were more. Where clients send their next calls as soon as the last are answered, many end
# together: then for a moment there is none, and the first of the next ones are few for as long.
_CALM: Final = 0.05
# The same since the last one, for what would hold the next ones up.
_QUIET: Final = 1.0
# The same of those whose rows come one by one: with more, they come together and are cheaper to write so.
_HARDLY_ANY: Final = 2


class InFlight:
    """The calls themselves, with no index of their ids: for each that somebody asks for, many come and go unasked."""

    def __init__(self) -> None:
        self._calls: dict[int, Exchange] = {}
        # Those that have ended, as they were submitted.
        self._landing: dict[int, Exchange] = {}
        self._waiters: defaultdict[_Name, set[asyncio.Future[None]]] = defaultdict(set)
        self._crowded_at = self._last_at = -math.inf
        self.running = 0
        """Calls that have not ended."""

    @property
    def are_none(self) -> bool:
        """Whether there is none, and has been none for a while."""
        return not self._calls and time.perf_counter() - self._last_at > _QUIET

    @property
    def are_few(self) -> bool:
        """Whether they are so few, and not only now, that most turns of the event loop are for one of them alone."""
        # With those that wait for their rows: under full load these may be nearly all.
        return len(self._calls) <= _FEW and time.perf_counter() - self._crowded_at > _CALM

    @property
    def are_hardly_any(self) -> bool:
        """Whether they are so few that a row that waits for others to come would wait for none."""
        return len(self._calls) <= _HARDLY_ANY

    def add(self, exchange: Exchange) -> None:
        """The call has started."""
        self.running += 1
        self._calls[exchange.number] = exchange

    def land(self, exchange: Exchange) -> None:
        """The call has ended, and its row is on its way."""
        self.running -= 1
        self._landing[exchange.number] = exchange

    def remove(self, exchange: Exchange) -> None:
        """The row of a call that landed is in the store, or will never be."""
        self._take_note_of_time()
        self._calls.pop(exchange.number, None)
        landed = self._landing.pop(exchange.number, None)
        if self._waiters and landed is not None:
            self._wake_for(exchange.organisation, {*_names_of_row(exchange), *_names_of_row(landed)})

    def _take_note_of_time(self) -> None:
        """Called before each end: from then on there may be few, or none."""
        if len(self._calls) > _FEW:
            self._crowded_at = time.perf_counter()
        elif len(self._calls) == 1:
            self._last_at = time.perf_counter()

    def _wake_for(self, organisation: str, texts: Iterable[str | None]) -> None:
        for text in texts:
            if text is None or (organisation, text) not in self._waiters or self._landing_of(organisation, {text}):
                continue
            for waiter in self._waiters.pop((organisation, text)):
                if not waiter.done():
                    waiter.set_result(None)

    def _landing_of(self, organisation: str, texts: Set[str]) -> set[str]:
        """Those of some request ids or response ids whose rows are on their way."""
        return {
            text
            for call in self._landing.values()
            if call.organisation == organisation
            for text in _names_of_row(call)
            if text is not None and text in texts
        }

    def which(self, kind: Kind, organisation: str, texts: Set[str]) -> set[str]:
        """Those of some ids that are under way; a response id that was told is a request's, too."""
        return {
            text
            for call in self._calls.values()
            if call.organisation == organisation
            for text in _IDS[kind](call)
            if text is not None and text in texts
        }

    async def known(self, kind: Kind, organisation: str, texts: Iterable[str]) -> list[str]:
        """The same; of request ids once no row is on its way that may turn out to be meant."""
        asked = {*texts}
        if kind == "request" and (landing := self._landing_of(organisation, asked)):
            # A call whose response id is meant may be known by it only now that it has ended.
            # Each looks again: between this and its turn the row may have landed, and nobody would wake it.
            await asyncio.gather(*(self.landed(organisation, text) for text in landing))
        return list(self.which(kind, organisation, asked))

    async def landed(self, organisation: str, text: str) -> None:
        """Return once no row of that request id or response id is on its way to the store any more."""
        if self._landing_of(organisation, {text}):
            await self._until_landed((organisation, text))

    async def _until_landed(self, name: _Name) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters[name]
        waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=_PATIENCE)
        finally:
            waiters.discard(waiter)
            if not waiters and self._waiters.get(name) is waiters:
                del self._waiters[name]


def _names_of_row(landed: Exchange) -> tuple[str | None, ...]:
    """What a row on its way may be asked for by. It may say another response id than its stream did, or none."""
    return landed.identity.request_id, landed.response_id, landed.response_id_of_row
