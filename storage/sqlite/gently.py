"""Reading much beside calls that are under way: what takes milliseconds steps aside again and again.

A thread that reckons for four milliseconds in a row has the processor for as long, if there is but one: all calls
that are under way wait, and the scheduler does not ask whose work is urgent.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Final, TypeVar

from storage.sqlite.worker import Work

__all__ = ["gently"]

T = TypeVar("T")

# Instructions of SQLite's virtual machine: some tenths of a millisecond.
_STRETCH: Final = 25_000
# Seconds.
_PAUSE: Final = 0.001


def gently(work: Work[T]) -> Work[T]:
    """The work, with pauses within its statements. It takes several times as long."""

    def run(db: sqlite3.Connection) -> T:
        db.set_progress_handler(_pause, _STRETCH)
        try:
            return work(db)
        finally:
            db.set_progress_handler(None, 0)

    return run


def _pause() -> None:
    time.sleep(_PAUSE)
