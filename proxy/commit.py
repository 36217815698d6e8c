"""The moment at which a row is safe, and waiting for it with a bound.

Every response waits for its row, most for a millisecond or two: one timer for all of them, and no task, context or
timer of its own for any.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from typing import Any

__all__ = ["Commit", "Patience"]


class Commit:
    """Done when a row is committed, or dropped. Awaiting it waits for that; a cancelled waiter loses its wait only."""

    __slots__ = ("_waiters", "after", "done", "made")

    def __init__(self, *, after: Commit | None = None) -> None:
        self.done = False
        self.after = after
        """What has to be committed before this."""
        self.made: Commit | None = None
        """Done when the row is made; ``None`` if it was made at once."""
        self._waiters: list[asyncio.Future[bool]] = []

    def waiter(self) -> asyncio.Future[bool]:
        """A future that turns true when this is done, unless it is done otherwise before."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self.done:
            future.set_result(True)
        else:
            self._waiters.append(future)
        return future

    def set(self) -> None:
        """It is done."""
        self.done = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(True)
        self._waiters.clear()

    def __await__(self) -> Generator[Any, None, bool]:
        return self.waiter().__await__()


class Patience:
    """Waits of the same length, in seconds, that share a timer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, commit: Commit) -> bool:
        """Whether it was done in time."""
        if commit.done:
            return True
        waiter = commit.waiter()
        loop = asyncio.get_running_loop()
        self._forget_what_is_done()
        self._waiting.append((loop.time() + self._seconds, waiter))
        if self._timer is None:
            self._set_timer(loop)
        return await waiter

    def _forget_what_is_done(self) -> None:
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_at(self._waiting[0][0], self._look_at_the_clock, loop)

    def _look_at_the_clock(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        self._forget_what_is_done()
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting.popleft()[1].set_result(False)
            self._forget_what_is_done()
        if self._waiting:
            self._set_timer(loop)
