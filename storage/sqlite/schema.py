"""Opening a file: is it ours, is it of our version, and if it is older, bring it up to date."""

from __future__ import annotations

from importlib import resources
from typing import Final

import aiosqlite

from storage.base import IncompatibleStoreError

__all__ = ["migrate", "migrations"]

# "Kbtz", in the field that SQLite keeps for telling one program's files from another's.
APPLICATION_ID: Final = 0x4B62747A


def migrations() -> list[tuple[int, str]]:
    """(version, script) of every ``NNNN_name.sql``, in order."""
    folder = resources.files("storage.sqlite") / "migrations"
    scripts = (file for file in folder.iterdir() if file.name.endswith(".sql"))
    return sorted((int(file.name[:4]), file.read_text(encoding="utf-8")) for file in scripts)


async def migrate(db: aiosqlite.Connection, scripts: list[tuple[int, str]]) -> None:
    """Run the scripts that the file has not seen, each with its version in one transaction.

    Raises `IncompatibleStoreError` for another program's file, and for one that a newer Kibitz has migrated.
    """
    current = await _number(db, "PRAGMA user_version")
    newest = scripts[-1][0]
    if current > newest:
        raise IncompatibleStoreError(f"it is of version {current}, newer than this Kibitz knows ({newest})")
    empty = not await _number(db, "SELECT count(*) FROM sqlite_schema")
    if not empty and await _number(db, "PRAGMA application_id") != APPLICATION_ID:
        raise IncompatibleStoreError("it is a SQLite file, but not one of Kibitz")
    for version, script in scripts:
        if version > current:
            await _apply(db, version, script)


async def _apply(db: aiosqlite.Connection, version: int, script: str) -> None:
    # executescript() commits what is open before it starts, so the transaction belongs inside the text.
    try:
        await db.executescript(
            f"BEGIN IMMEDIATE;\n{script}\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {version};\nCOMMIT;"
        )
    except BaseException:
        await db.rollback()
        raise


async def _number(db: aiosqlite.Connection, query: str) -> int:
    [(number,)] = await db.execute_fetchall(query)
    return int(number)
