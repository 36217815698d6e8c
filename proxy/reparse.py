"""`kibitz reparse`: the derived columns of stored rows, again from their raw bodies. Contract section 1.

It goes through the log from the oldest row to the newest, in small batches that are committed one by one. So a server
may log on meanwhile, a run that ends early has done what it has done, and the next one finds that as it should be.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from tqdm import tqdm

from proxy.app import new_pricer, open_store, text_limits
from proxy.config import Settings
from proxy.pricing import Pricer
from proxy.row import derive_again
from proxy.text_limits import TextLimits
from storage.base import Storage, StorageError
from storage.records import NumberedCall

__all__ = ["INTERRUPTED", "reparse"]

INTERRUPTED: Final = 128 + signal.SIGINT
"""The exit status of a command that was told to stop, as shells have it."""

# Of a batch: rows, so that writing them takes milliseconds; and bytes of bodies, which are held in memory together.
_MOST_CALLS: Final = 200
_MOST_BYTES: Final = 8 * 1024 * 1024
# Seconds between two states of the progress bar: on a terminal, and in a file, where each of them stays.
_REDRAWN: Final = 0.1
_LOGGED: Final = 30.0


async def reparse(settings: Settings) -> int:
    """Derive every row that is there, or those until SIGINT, and tell how many changed; gives the exit status.

    Raises `StorageError`, of a log that is not there too.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    async with open_store(settings, create=False) as storage:
        walk = _Walk(storage, new_pricer(settings), text_limits(settings), await storage.count_calls())
        with _progress_bar(walk.total) as bar:
            try:
                while not stop.is_set() and (passed := await walk.advance()):
                    bar.update(passed)
            except StorageError as error:
                raise StorageError(f"{settings.database}: {error}; {walk.outcome()}") from error
    sys.stdout.write(f"{walk.outcome()}\n")
    return INTERRUPTED if stop.is_set() else 0


class _Walk:
    """The way through the log; ``total`` is how many rows it is, those that there were at its beginning."""

    def __init__(self, storage: Storage, pricer: Pricer, limits: TextLimits, total: int) -> None:
        self._storage = storage
        self._pricer = pricer
        self._limits = limits
        self._last = 0
        self.total = total
        self._read = 0
        self._changed = 0

    async def advance(self) -> int:
        """Derive the next rows and commit what changed; gives how many were read, none at the end."""
        most_calls = min(_MOST_CALLS, self.total - self._read)
        batch = await self._storage.read_batch(self._last, most_calls=most_calls, most_bytes=_MOST_BYTES)
        if changed := self._changed_of(batch):
            self._changed += await self._storage.rewrite_derived(changed)
        if batch:
            self._last = batch[-1].number
        self._read += len(batch)
        return len(batch)

    def _changed_of(self, batch: Sequence[NumberedCall]) -> list[NumberedCall]:
        derived = (NumberedCall(row.number, derive_again(row.call, self._pricer, self._limits)) for row in batch)
        return [new for new, old in zip(derived, batch, strict=True) if new != old]

    def outcome(self) -> str:
        """How far it has come."""
        of_all = f" of {self.total}" if self._read < self.total else ""
        return f"read {self._read}{of_all} rows, changed {self._changed}"


def _progress_bar(total: int) -> tqdm[NoReturn]:
    interval = _REDRAWN if sys.stderr.isatty() else _LOGGED
    return tqdm(total=total, unit=" rows", mininterval=interval, miniters=1, dynamic_ncols=True, file=sys.stderr)
