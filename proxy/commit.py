"""The moment at which a row is safe, and waiting for it with a bound.

Every response waits for its row, most for a millisecond or two: one timer for all of them, and no task, context or
timer of its own for any.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

__all__ = ["Commit", "Patience", "Wait"]


class Commit:
    """Done when a row is committed, or dropped. Awaiting it waits for that; a cancelled waiter loses its wait only."""

    __slots__ = ("_to_tell", "after", "done", "made")

    def __init__(self, *, after: Commit | None = None) -> None:
        self.done = False
        self.after = after
        """What has to be committed before this."""
        self.made: Commit | None = None
        """Done when the row is made, or another took its place here; ``None`` if it was made at once."""
        self._to_tell: list[Callable[[], None]] = []

    def tell(self, callback: Callable[[], None]) -> None:
        """Have ``callback``, which must not raise, called when this is done; at once if it is."""
        if self.done:
            callback()
        else:
            self._to_tell.append(callback)

    def set(self) -> None:
        """It is done."""
        self.done = True
        to_tell, self._to_tell = self._to_tell, []
        for callback in to_tell:
            callback()

    def __await__(self) -> Generator[Any, None, None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tell(lambda: None if waiter.done() else waiter.set_result(None))
        return waiter.__await__()


class Wait(Protocol):
    """Who waits, and for no longer than may be."""

    is_over: bool

    def end_late(self) -> None:
        """What was waited for has not come in time. It must not raise."""
        ...


class Patience:
    """Waits of the same length, in seconds, that share a timer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[float, Wait]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, wait: Wait) -> None:
        """Have its end told to a wait that is not over by then."""
        loop = asyncio.get_running_loop()
        self._forget_what_is_over()
        self._waiting.append((loop.time() + self._seconds, wait))
        if self._timer is None:
            self._set_timer(loop)

    def _forget_what_is_over(self) -> None:
        while self._waiting and self._waiting[0][1].is_over:
            self._waiting.popleft()

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_at(self._waiting[0][0], self._look_at_the_clock, loop)

    def _look_at_the_clock(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._forget_what_is_over()
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting.popleft()[1].end_late()
            self._forget_what_is_over()
        self._timer = None  # not before: what ended late may have another wait begun
        if self._waiting:
            self._set_timer(loop)
