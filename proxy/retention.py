"""What the settings let the log keep, held to in the background of a server.

The rule it keeps: nothing here hurts a call. Steps are small and far between; a fault is told of and tried again
when the next pass is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Final

from proxy.config import RetentionSettings
from proxy.metrics import Metrics
from proxy.pruning import remove, rules
from storage.base import Storage, StorageError
from storage.pruning import Pruning

__all__ = ["running_retention"]

logger = logging.getLogger(__name__)

# For each millisecond of a step, so many in which there is none.
_REST: Final = 4.0
# The part of the file that may lie unused: new rows take it up sooner than it is worth giving back.
_UNUSED: Final = 8
# Bytes that are given back in one step, and seconds until the next.
_GIVEN_BACK: Final = 256 * 1024
_PAUSE: Final = 0.02
# Seconds after which most of a chat that a call belongs to has been said.
_SETTLED: Final = 600


@contextlib.asynccontextmanager
async def running_retention(settings: RetentionSettings, storage: Storage, metrics: Metrics) -> AsyncIterator[None]:
    """Hold the log to its bounds, and repeated bodies to one, for as long as the context lasts."""
    if settings.max_age is None and settings.max_size is None and not settings.share_bodies:
        yield
        return
    task = asyncio.create_task(_hold(settings, storage, metrics), name="retention")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _hold(settings: RetentionSettings, storage: Storage, metrics: Metrics) -> None:
    while True:
        await asyncio.sleep(settings.interval)  # first, so that a start has its time for itself
        try:
            await _prune(settings, storage, metrics)
            if settings.share_bodies:
                await _share(storage)
        except StorageError as error:
            logger.warning("the log was not made as small as it should be: %s", error)
        except Exception:
            logger.exception("the log was not made as small as it should be")


async def _prune(settings: RetentionSettings, storage: Storage, metrics: Metrics) -> None:
    if settings.max_age is None and settings.max_size is None:
        return
    for rule in rules(Pruning(keep_rated=settings.keep == "rated"), settings.max_age, settings.max_size):
        async for removed in remove(storage, rule, rest=_REST):
            metrics.rows_pruned += removed.calls
            await _give_back(storage)
    while True:
        if not await _give_back(storage):
            return
        await asyncio.sleep(_PAUSE)


async def _share(storage: Storage) -> None:
    before = int((time.time() - _SETTLED) * 1_000_000)
    while True:
        began = time.perf_counter()
        if not await storage.share_bodies(before):
            return
        await asyncio.sleep(_REST * (time.perf_counter() - began))


async def _give_back(storage: Storage) -> bool:
    """Whether there was more to give back than may lie unused."""
    space = await storage.space()
    if space.total - space.used <= max(space.total // _UNUSED, _GIVEN_BACK):
        return False
    return await storage.give_back(_GIVEN_BACK) > 0
