"""How another thread tells the event loop of something, so that the loop goes on at once.

The loop's own way for that wakes it while the other thread holds the interpreter: the loop's thread is woken for
nothing, waits, and is woken again. A system call for which Python lets go of the interpreter does without.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Bell"]

_Callback = Callable[[], None]
_HAS_EVENTS: Final = sys.platform == "linux"


class Bell:
    """Made in the event loop's thread, for that loop. What it is given is called there, in the order of the rings."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Callback] = deque()
        self._event: int | None = None
        if _HAS_EVENTS:
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._loop.add_reader(self._event, self._answer)

    def ring(self, callback: _Callback) -> None:
        """Have ``callback`` called by the loop. From any thread; it must have returned before this is closed."""
        if self._event is None:
            self._loop.call_soon_threadsafe(callback)
        else:
            self._waiting.append(callback)
            os.eventfd_write(self._event, 1)

    def _answer(self) -> None:
        assert self._event is not None
        try:
            os.eventfd_read(self._event)  # first: who rings from now on is heard by the next turn, or by this one
        except BlockingIOError:
            return
        self._call_all()

    def _call_all(self) -> None:
        while self._waiting:
            callback = self._waiting.popleft()
            try:
                callback()
            except Exception as error:
                self._loop.call_exception_handler({"message": "answering a bell", "exception": error})

    def close(self) -> None:
        """Call what has been rung for, then nothing any more. Closing again does nothing."""
        if self._event is not None:
            self._call_all()
            self._loop.remove_reader(self._event)
            os.close(self._event)
            self._event = None
