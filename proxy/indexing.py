"""Making texts quick to search, behind the calls that have them: in small steps, and at leisure while calls pass."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

from proxy.in_flight import InFlight
from storage.base import Storage, StorageError

__all__ = ["indexing_texts"]

logger = logging.getLogger(__name__)

# Of a step, which keeps rows waiting that want to be written meanwhile: a few milliseconds.
_MOST_CALLS: Final = 8
_MOST_BYTES: Final = 256 * 1024
# Seconds until the next look where nothing is left, or the store is away.
_PAUSE: Final = 1.0
# How many times as long as a step took nothing is done behind it.
_WHILE_IDLE: Final = 1
_WHILE_BUSY: Final = 9


@contextlib.asynccontextmanager
async def indexing_texts(storage: Storage, in_flight: InFlight) -> AsyncIterator[None]:
    """While inside, what has been written and what will be gets indexed."""
    task = asyncio.create_task(_index(storage, in_flight), name="text-index")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _index(storage: Storage, in_flight: InFlight) -> None:
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        if await _step(storage):
            times = _WHILE_BUSY if in_flight else _WHILE_IDLE
            await asyncio.sleep(times * (loop.time() - began))
        else:
            await asyncio.sleep(_PAUSE)


async def _step(storage: Storage) -> int:
    try:
        return await storage.index_texts(most_calls=_MOST_CALLS, most_bytes=_MOST_BYTES)
    except StorageError as error:
        logger.debug("indexing texts was put off: %s", error)
        return 0
