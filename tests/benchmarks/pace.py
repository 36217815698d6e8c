"""The pauses between the events of a stream, to some microseconds.

An event loop's own timers are of whole milliseconds. One call after the other falls in step with them: then each takes
a whole number of milliseconds, and what adds a tenth of one measures as nothing, or as one. And each that is late
makes all behind it late, by as much as the processor's sleep takes, which depends on who else wakes it.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import os
import time
from collections.abc import Callable

__all__ = ["Pace"]

Step = Callable[[], bool]

_NANOSECONDS = 1_000_000_000
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class Pace:
    """Calls each ``gap`` seconds, by one of Linux's timers (timerfd_create(2)); elsewhere by the loop's own."""

    def __init__(self, gap: float) -> None:
        self._gap = round(gap * _NANOSECONDS)
        self._loop = asyncio.get_running_loop()
        self._system = ctypes.CDLL(None, use_errno=True)
        self._waiting: list[tuple[int, int, Step, int]] = []
        self._numbers = itertools.count()
        self._timer = -1
        if hasattr(self._system, "timerfd_create"):
            self._timer = self._system.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._timer >= 0:
            self._loop.add_reader(self._timer, self._take_all_due)

    def repeat(self, step: Step) -> None:
        """Take a step now, and one each gap, as long as it says that there is another one to take."""
        self._take(step, time.monotonic_ns())

    def _take(self, step: Step, due: int) -> None:
        if not step():
            return
        if not self._gap:
            self._loop.call_soon(self._take, step, due)
        elif self._timer < 0:
            self._loop.call_later(self._gap / _NANOSECONDS, self._take, step, due)
        else:
            # Who is late makes up for it, but never by two steps at once, which would be one to who reads.
            due += self._gap
            when = max(due, time.monotonic_ns() + self._gap // 4)
            heapq.heappush(self._waiting, (when, next(self._numbers), step, due))
            if self._waiting[0][2] is step:
                self._set()

    def _take_all_due(self) -> None:
        now = time.monotonic_ns()
        while self._waiting and self._waiting[0][0] <= now:
            *_, step, due = heapq.heappop(self._waiting)
            self._take(step, due)
        self._set()

    def _set(self) -> None:
        """Have the timer wake the loop when the next step is due, if there is one, and no more for those before."""
        next_due = self._waiting[0][0] if self._waiting else 0
        timer = _Timer(_Time(0, 0), _Time(*divmod(next_due, _NANOSECONDS)))
        if self._system.timerfd_settime(self._timer, _ABSOLUTE, ctypes.byref(timer), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
