"""Making questions quick, behind the calls that they are about: in small steps, and at leisure while calls pass.

Texts are indexed, and what calls add up to is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

from proxy.in_flight import InFlight
from storage.base import Storage, StorageError

__all__ = ["adding_up", "indexing_texts"]

logger = logging.getLogger(__name__)

Step: TypeAlias = Callable[[], Awaitable[bool]]
"""Does a little, and answers whether there was anything to do."""

# Of a step, which keeps rows waiting that want to be written meanwhile: a few milliseconds.
_MOST_CALLS: Final = 8
_MOST_BYTES: Final = 256 * 1024
# Seconds until the next look where nothing is left, or the store is away.
_PAUSE: Final = 1.0
# How many times as long as a step took nothing is done behind it. Sums that are not there yet are right all the same,
# so they wait longer for calls than texts do, which else are read one by one: a step takes several times as long then,
# most of it in pauses.
_WHILE_IDLE: Final = 1
_TEXTS_WHILE_BUSY: Final = 9
_SUMS_WHILE_BUSY: Final = 24


def indexing_texts(storage: Storage, in_flight: InFlight) -> contextlib.AbstractAsyncContextManager[None]:
    """While inside, what has been written and what will be gets indexed."""

    async def step() -> bool:
        return await storage.index_texts(most_calls=_MOST_CALLS, most_bytes=_MOST_BYTES) > 0

    return _repeating(step, in_flight, _TEXTS_WHILE_BUSY, "text-index")


def adding_up(storage: Storage, in_flight: InFlight) -> contextlib.AbstractAsyncContextManager[None]:
    """While inside, calls are added up."""

    async def step() -> bool:
        return await storage.add_up(beside_calls=not in_flight.are_none)

    return _repeating(step, in_flight, _SUMS_WHILE_BUSY, "adding-up")


@contextlib.asynccontextmanager
async def _repeating(step: Step, in_flight: InFlight, while_busy: int, name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(_repeat(step, in_flight, while_busy), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _repeat(step: Step, in_flight: InFlight, while_busy: int) -> None:
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        if await _done(step):
            times = _WHILE_IDLE if in_flight.are_none else while_busy
            await asyncio.sleep(times * (loop.time() - began))
        else:
            await asyncio.sleep(_PAUSE)


async def _done(step: Step) -> bool:
    try:
        return await step()
    except StorageError as error:
        logger.debug("a step behind the calls was put off: %s", error)
        return False
