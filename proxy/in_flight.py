"""The calls under way, from their start until their row is committed.

Whoever rates one of them is not told that it doesn't exist, and whoever asks for one that has just ended waits
for its row instead of missing it: an SDK that stops reading at a stream's last event is that quick.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any, Literal

from proxy.exchange import Exchange

__all__ = ["InFlight", "Kind"]

Kind = Literal["request", "trace", "session"]
_Key = tuple[str, str, str]

# Seconds that a reader waits for a row that is being written; a store that is away for longer has its say then.
_PATIENCE = 5.0


class InFlight:
    """Counts the ids of calls; ``landing`` are those that have ended and whose rows are on their way."""

    def __init__(self) -> None:
        self._ids: Counter[_Key] = Counter()
        self._landing: Counter[tuple[str, str]] = Counter()
        self._waiters: defaultdict[tuple[str, str], list[asyncio.Future[None]]] = defaultdict(list)

    def add(self, exchange: Exchange) -> None:
        """The call has started."""
        self._ids.update(_keys(exchange))

    def land(self, exchange: Exchange, response_id: str | None) -> None:
        """The call has ended, and its row is handed to the store."""
        self._landing.update(_names(exchange, response_id))

    def remove(self, exchange: Exchange, response_id: str | None) -> None:
        """The row of a call that landed is in the store, or will never be."""
        for key in _keys(exchange):
            _count_down(self._ids, key)
        for name in _names(exchange, response_id):
            _count_down(self._landing, name)
            if name not in self._landing:
                for waiter in self._waiters.pop(name, ()):
                    if not waiter.done():
                        waiter.set_result(None)

    def has(self, kind: Kind, organisation: str, text: str) -> bool:
        """Whether a call of that request id, trace id or session id is under way."""
        return (kind, organisation, text) in self._ids

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
    if identity.session_id is not None:
        keys.append(("session", organisation, identity.session_id))
    return keys


def _names(exchange: Exchange, response_id: str | None) -> list[tuple[str, str]]:
    texts = (exchange.identity.request_id, response_id)
    return [(exchange.organisation, text) for text in texts if text is not None]


def _count_down(counts: Counter[Any], key: Any) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
