"""Moving what was written from the WAL into the file, beside the writer instead of in its commits.

Left to itself SQLite does that in the commit that makes the WAL a thousand pages long, and all who wait for that
commit wait for two fsyncs besides: one call in a hundred under load. A PASSIVE checkpoint on a connection of its own
holds nobody up (https://www.sqlite.org/c3ref/wal_checkpoint_v2.html), but while writes go on it never comes to the
WAL's end, from which alone the WAL begins anew. So the writer still does it where the WAL has grown to
`LONGEST_WAL` pages; by then there is little left to move.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import Final

import aiosqlite

__all__ = ["LONGEST_WAL", "Checkpoints"]

logger = logging.getLogger(__name__)

LONGEST_WAL: Final = 8192
"""Pages of the WAL from which the writer moves them itself."""
# About what a thousand pages hold, in bytes; a commit's pages beside its rows count as `_PER_COMMIT`.
_ENOUGH: Final = 4 * 1024 * 1024
_PER_COMMIT: Final = 48 * 1024


class Checkpoints:
    """Checkpoints on a connection of their own, which they close at the end."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._written = 0
        self._running: asyncio.Task[None] | None = None

    def note(self, size: int) -> None:
        """Rows of about ``size`` bytes were committed."""
        self._written += size + _PER_COMMIT
        if self._written >= _ENOUGH and self._running is None:
            self._written = 0
            self._running = asyncio.create_task(self._move(), name="sqlite-checkpoint")

    async def _move(self) -> None:
        try:
            await self._connection.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            logger.debug("a checkpoint was put off: %s", error)  # the writer's own will do
        finally:
            self._running = None

    async def empty(self, wait: int) -> None:
        """Move all there is and cut the WAL's file; its end stays where readers are slower than ``wait`` milliseconds.

        For as long writers may have to wait too, so it is not for every commit.
        """
        try:
            await self._connection.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
            await self._connection.execute_fetchall(f"PRAGMA busy_timeout = {wait}")
            await self._connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            logger.debug("a checkpoint was put off: %s", error)

    async def close(self) -> None:
        """Let what runs come to its end, then close the connection."""
        if self._running is not None:
            await asyncio.wait([self._running])
        await self._connection.close()
