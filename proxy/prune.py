"""`kibitz prune`: calls deleted by age, size or filter, in small steps, each of which is committed. Contract section 1.

A server may log on meanwhile; a run that ends early has done what it has done.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, NoReturn

from tqdm import tqdm

from proxy.app import open_store
from proxy.config import Settings
from proxy.pruning import Removed, remove, rules, would_remove
from proxy.reparse import INTERRUPTED
from storage.base import Storage, StorageError
from storage.pruning import Pruning

__all__ = ["Wish", "prune"]

# As long as a step took, whoever else writes has the file for himself.
_REST: Final = 1.0
# Bytes given back to the system behind each step: more than a step frees, so that none are left at the end.
_GIVEN_BACK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to go: of all that ``what`` means, those older than some seconds, then those beyond some bytes."""

    what: Pruning
    max_age: float | None
    max_size: int | None
    dry_run: bool


async def prune(settings: Settings, wish: Wish) -> int:
    """Do it, or so much of it as is done at SIGINT, and tell what was done; gives the exit status.

    Raises `StorageError`, of a log that is not there too.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    async with open_store(settings, create=False) as storage:
        run = _Run(storage, wish)
        try:
            await run.until(stop)
        except StorageError as error:
            raise StorageError(f"{settings.database}: {error}; {run.outcome()}") from error
    sys.stdout.write(f"{run.outcome()}\n")
    return INTERRUPTED if stop.is_set() else 0


class _Run:
    def __init__(self, storage: Storage, wish: Wish) -> None:
        self._storage = storage
        self._wish = wish
        self._calls = 0
        self._bytes = 0
        self._file = ""

    async def until(self, stop: asyncio.Event) -> None:
        before = (await self._storage.space()).total
        with _progress_bar() as bar:
            async for removed in self._steps():
                self._calls += removed.calls
                self._bytes += removed.size
                bar.update(removed.calls)
                if stop.is_set():
                    break
            if not self._wish.dry_run:
                await self._purge(stop)
        if not self._wish.dry_run:
            await self._storage.settle()
            self._file = f"; the file went from {_size(before)} to {_size((await self._storage.space()).total)}"

    async def _purge(self, stop: asyncio.Event) -> None:
        """Leave neither traces nor unused space, unless somebody stops it."""
        began, begin = time.perf_counter(), True
        while not stop.is_set() and await self._storage.purge_texts(begin=begin):
            await asyncio.sleep(_REST * (time.perf_counter() - began))
            began, begin = time.perf_counter(), False
        while not stop.is_set() and await self._storage.purge_sums():
            pass
        while not stop.is_set() and await self._storage.give_back(_GIVEN_BACK):
            pass

    async def _steps(self) -> AsyncIterator[Removed]:
        for rule in rules(self._wish.what, self._wish.max_age, self._wish.max_size):
            if self._wish.dry_run:
                async for removed in would_remove(self._storage, rule):
                    yield removed
            else:
                async for removed in remove(self._storage, rule, rest=_REST):
                    await self._storage.give_back(_GIVEN_BACK)
                    yield removed

    def outcome(self) -> str:
        """What was done so far, or would be."""
        about = "about " if self._wish.dry_run and self._wish.max_size is not None else ""
        done = "would prune" if self._wish.dry_run else "pruned"
        rows = "1 row" if self._calls == 1 else f"{self._calls} rows"
        what = f"the bodies of {rows}," if self._wish.what.bodies_only else f"{rows} with"
        return f"{done} {about}{what} {_size(self._bytes)} of bodies{self._file}"


def _size(number: int) -> str:
    return tqdm.format_sizeof(number, "B", 1000)


def _progress_bar() -> tqdm[NoReturn]:
    """On a terminal; how many rows it will be nobody knows."""
    return tqdm(unit=" rows", dynamic_ncols=True, file=sys.stderr, disable=None)
