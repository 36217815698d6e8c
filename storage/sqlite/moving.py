"""Bodies made smaller so that the file gets smaller: taken out of their pages, changed, and put in again.

An UPDATE in place leaves a page as empty as it makes it: SQLite joins pages with their neighbours only where a row is
deleted. Of rows that lose nine tenths of their length most of the space would stay taken.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import aiosqlite

__all__ = ["change_bodies"]

_MAKE_MOVED: Final = "CREATE TEMP TABLE IF NOT EXISTS moved AS SELECT * FROM bodies WHERE 0"
_TAKE_OUT: Final = (
    "INSERT INTO moved SELECT * FROM bodies WHERE call_id IN (SELECT value FROM json_each(?))",
    "DELETE FROM bodies WHERE call_id IN (SELECT value FROM json_each(?))",
)
_PUT_IN: Final = ("INSERT INTO bodies SELECT * FROM moved ORDER BY call_id", "DELETE FROM moved")


async def change_bodies(
    db: aiosqlite.Connection, numbers: Sequence[int], change: str, parameters: Sequence[Sequence[Any]] = ((),)
) -> None:
    """Change the bodies of some calls by an UPDATE of ``moved``, once for each of ``parameters``; in a transaction.

    None of them may be the base of another call's.
    """
    named = json.dumps(list(numbers))
    await db.execute_fetchall(_MAKE_MOVED)
    for statement in _TAKE_OUT:
        await db.execute_fetchall(statement, (named,))
    await db.executemany(change, parameters)
    for statement in _PUT_IN:
        await db.execute_fetchall(statement)
