"""The figures of all workers: what ``/metrics`` and ``/readyz`` tell is the same from any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.metrics import Snapshot
from proxy.siblings import Answerer, Siblings

__all__ = ["Snapshots"]

_SNAPSHOT: Final = "snapshot"
# Seconds to wait for the others: whoever probes does not wait for long either.
_PATIENCE: Final = 1.0


class Snapshots:
    """Takes one of this worker, and asks the others for theirs."""

    def __init__(self, take: Callable[[], Snapshot], siblings: Siblings) -> None:
        self._take = take
        self._siblings = siblings

    def answers(self) -> dict[str, Answerer]:
        """What this worker answers its siblings."""
        return {_SNAPSHOT: self._own}

    async def _own(self) -> Snapshot:
        return self._take()

    async def of_all(self) -> list[Snapshot]:
        """One of each worker that answers."""
        return [self._take(), *await self._siblings.gather(_SNAPSHOT, within=_PATIENCE)]
