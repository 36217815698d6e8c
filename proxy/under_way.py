"""Whether a call is under way, in this worker or in another one. What feedback and reads ask before the store.

The order matters: a call leaves its worker's registry only once its row is committed, so that whoever asks here
first and in the store second finds it in one of the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from proxy.in_flight import InFlight, Kind
from proxy.siblings import Answerer, Siblings

__all__ = ["UnderWay"]

_KNOWN: Final = "known"
_LANDED: Final = "landed"


class UnderWay:
    """The calls under way in all workers; those of this one without asking."""

    def __init__(self, in_flight: InFlight, siblings: Siblings) -> None:
        self._in_flight = in_flight
        self._siblings = siblings

    def answers(self) -> dict[str, Answerer]:
        """What this worker answers its siblings."""
        return {_KNOWN: self._in_flight.known, _LANDED: self._in_flight.landed}

    async def known(self, kind: Kind, organisation: str, texts: Iterable[str]) -> frozenset[str]:
        """Those of the request ids, trace ids or session ids whose calls are under way.

        Of a request id or response id that is none of these no row is on its way to the store any more.
        """
        asked = set(texts)
        here = await self._in_flight.known(kind, organisation, asked)
        elsewhere: list[list[str]] = []
        if unknown := asked.difference(here):
            elsewhere = await self._siblings.gather(_KNOWN, kind, organisation, list(unknown))
        return frozenset(here).union(*elsewhere)

    async def landed(self, organisation: str, text: str) -> None:
        """Return once no row of that request id or response id is on its way to the store any more."""
        await asyncio.gather(
            self._in_flight.landed(organisation, text), self._siblings.gather(_LANDED, organisation, text)
        )
