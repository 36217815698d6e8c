"""Going over the whole log to write derived columns anew: in small batches, so that no other writer waits for long."""

from __future__ import annotations

from collections.abc import Sequence

import aiosqlite

from storage.records import NumberedCall
from storage.sqlite import sql
from storage.sqlite.reading import whole_call
from storage.sqlite.rows import derived_parameters

__all__ = ["count_calls", "read_batch", "rewrite_derived"]


async def count_calls(db: aiosqlite.Connection) -> int:
    """See `storage.base.Storage.count_calls`."""
    [(count,)] = await db.execute_fetchall(sql.COUNT_CALLS)
    return int(count)


async def read_batch(db: aiosqlite.Connection, after: int, most_calls: int, most_bytes: int) -> list[NumberedCall]:
    """See `storage.base.Storage.read_batch`."""
    bounds = {"after": after, "most_calls": most_calls, "most_bytes": most_bytes}
    rows = await db.execute_fetchall(sql.READ_BATCH, bounds)
    return [NumberedCall(row["id"], await whole_call(db, row, {})) for row in rows]


async def rewrite_derived(db: aiosqlite.Connection, calls: Sequence[NumberedCall]) -> int:
    """See `storage.base.Storage.rewrite_derived`."""
    async with db.executemany(sql.REWRITE_DERIVED, [derived_parameters(row) for row in calls]) as cursor:
        return int(cursor.rowcount)
