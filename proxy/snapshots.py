"""The figures of all workers: what ``/metrics`` and ``/readyz`` tell is the same from any of them.

What a worker last told counts for it while it does not answer, and whoever takes its place goes on from there: a
counter that fell would look to Prometheus as if all of it had been counted anew.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import orjson

from proxy.metrics import Snapshot, counters
from proxy.siblings import Answerer, Siblings

__all__ = ["Snapshots"]

logger = logging.getLogger(__name__)

_SNAPSHOT: Final = "snapshot"
# Seconds to wait for the others: whoever probes does not wait for long either.
_PATIENCE: Final = 1.0


class Snapshots:
    """Takes one of this worker, and asks the others for theirs."""

    def __init__(self, take: Callable[[], Snapshot], siblings: Siblings) -> None:
        self._take = take
        self._siblings = siblings
        self._inherited = _left(path) if (path := siblings.for_successor) else {}

    def answers(self) -> dict[str, Answerer]:
        """What this worker answers its siblings."""
        return {_SNAPSHOT: self._own}

    async def _own(self) -> Snapshot:
        total = Counter(self._inherited)
        total.update(self._take())
        if path := self._siblings.for_successor:
            _leave(path, counters(total))
        return total

    async def of_all(self) -> list[Snapshot]:
        """One of each worker; of one that does not answer, the counters that it last told."""
        return [await self._own(), *await self._siblings.gather(_SNAPSHOT, within=_PATIENCE, instead=_left)]


def _left(path: Path) -> Snapshot:
    """What a worker left there, if anything; where it can't be read, a counter falls."""
    try:
        left = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return left if isinstance(left, dict) else {}


def _leave(path: Path, figures: Snapshot) -> None:
    """Write the file, whole or not at all; without it there is nothing worse than a counter that falls."""
    new = path.with_suffix(".new")
    try:
        new.write_bytes(orjson.dumps(figures))
        new.replace(path)
    except OSError as error:
        logger.warning("can't leave the figures to a successor: %s", error)
