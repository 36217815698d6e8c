"""The calls under way in this process, from their start until their row is committed.

Whoever rates one of them is not told that it doesn't exist, and whoever asks for one that has just ended waits
for its row instead of missing it: an SDK that stops reading at a stream's last event is that quick.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

from proxy.exchange import Exchange

__all__ = ["InFlight", "Kind"]

Kind = Literal["request", "trace", "session"]
_Key = tuple[str, str, str]
_Name = tuple[str, str]

# Seconds that a reader waits for a row that is being written; a store that is away for longer has its say then.
_PATIENCE = 5.0


class InFlight:
    """Counts the ids of calls; ``landing`` are those that have ended and whose rows are on their way."""

    def __init__(self) -> None:
        self._ids: dict[_Key, int] = {}
        self._landing: dict[_Name, int] = {}
        self._waiters: defaultdict[_Name, list[asyncio.Future[None]]] = defaultdict(list)
        self.running = 0
        """Calls that have not ended."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._ids)

    def add(self, exchange: Exchange) -> None:
        """The call has started."""
        self.running += 1
        _count_up(self._ids, _keys(exchange))

    def name_response(self, exchange: Exchange, response_id: str) -> None:
        """The call's response has told its id; it serves for the request's from now on."""
        exchange.response_id = response_id
        _count_up(self._ids, [("request", exchange.organisation, response_id)])

    def land(self, exchange: Exchange) -> None:
        """The call has ended, and its row is on its way."""
        self.running -= 1
        _count_up(self._landing, [(exchange.organisation, exchange.identity.request_id)])

    def land_as(self, exchange: Exchange, response_id: str | None) -> None:
        """A call that landed has this response id too."""
        if response_id is not None:
            _count_up(self._landing, [(exchange.organisation, response_id)])

    def remove(self, exchange: Exchange, response_id: str | None) -> None:
        """The row of a call that landed is in the store, or will never be."""
        _count_down(self._ids, _keys(exchange))
        names = [(exchange.organisation, exchange.identity.request_id)]
        if response_id is not None:
            names.append((exchange.organisation, response_id))
        _count_down(self._landing, names)
        if self._waiters:
            self._wake_for(names)

    def _wake_for(self, names: Iterable[_Name]) -> None:
        for name in names:
            if name in self._landing:
                continue
            for waiter in self._waiters.pop(name, ()):
                if not waiter.done():
                    waiter.set_result(None)

    def has(self, kind: Kind, organisation: str, text: str) -> bool:
        """Whether a call of that request id, trace id or session id is under way."""
        return (kind, organisation, text) in self._ids

    async def known(self, kind: Kind, organisation: str, texts: Iterable[str]) -> list[str]:
        """Those that `has` knows; of request ids once no row is on its way that may turn out to be meant."""
        asked = list(texts)
        if kind == "request":
            # A call whose response id is meant may be known by it only now that it has ended.
            for text in asked:
                await self.landed(organisation, text)
        return [text for text in asked if self.has(kind, organisation, text)]

    async def landed(self, organisation: str, text: str) -> None:
        """Return once no row of that request id or response id is on its way to the store any more."""
        name = (organisation, text)
        if name in self._landing:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[name].append(waiter)
            await asyncio.wait([waiter], timeout=_PATIENCE)


def _keys(exchange: Exchange) -> list[_Key]:
    identity, organisation = exchange.identity, exchange.organisation
    keys = [("request", organisation, identity.request_id), ("trace", organisation, identity.trace_id)]
    if exchange.response_id is not None:
        keys.append(("request", organisation, exchange.response_id))
    if identity.session_id is not None:
        keys.append(("session", organisation, identity.session_id))
    return keys


def _count_up(counts: dict[Any, int], keys: Iterable[Any]) -> None:
    for key in keys:
        counts[key] = counts.get(key, 0) + 1


def _count_down(counts: dict[Any, int], keys: Iterable[Any]) -> None:
    for key in keys:
        left = counts.get(key, 0) - 1
        if left > 0:
            counts[key] = left
        else:
            counts.pop(key, None)
