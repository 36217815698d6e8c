"""Writing to a descriptor without holding the loop up: a pipe that nobody reads must not keep signals from it."""

from __future__ import annotations

import asyncio
import os
import select
import stat
from typing import Final

__all__ = ["write_all"]

# What a pipe takes at once without waiting, if poll(2) says that it takes anything.
_ATOMIC: Final = select.PIPE_BUF


async def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it. Raises `OSError`; of a pipe without a reader `BrokenPipeError`."""
    rest = memoryview(data)
    waits = not stat.S_ISREG(os.fstat(descriptor).st_mode)
    while rest:
        if waits:
            await _writable(descriptor)
        rest = rest[os.write(descriptor, rest[:_ATOMIC] if waits else rest) :]


async def _writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if poll.poll(0):
        return
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)
