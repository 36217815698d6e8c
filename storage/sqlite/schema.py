"""Opening a file: is it ours, is it of our version, and if it is older, bring it up to date."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from functools import partial
from importlib import resources
from typing import Final

import aiosqlite

from storage.base import IncompatibleStoreError
from storage.sqlite.worker import as_transaction, in_thread

__all__ = ["check_identity", "migrate", "migrations"]

# "Kbtz", in the field that SQLite keeps for telling one program's files from another's.
APPLICATION_ID: Final = 0x4B62747A

Migration = tuple[int, str]


def migrations() -> list[Migration]:
    """(version, script) of every ``NNNN_name.sql``, in order."""
    folder = resources.files("storage.sqlite") / "migrations"
    scripts = (file for file in folder.iterdir() if file.name.endswith(".sql"))
    return sorted((int(file.name[:4]), file.read_text(encoding="utf-8")) for file in scripts)


async def check_identity(db: aiosqlite.Connection, scripts: list[Migration], *, may_be_new: bool) -> None:
    """Look without touching. Raises `IncompatibleStoreError` for what isn't ours or is newer than we are.

    A file with nothing in it is ours if it ``may_be_new``.
    """
    current, newest = await _number(db, "PRAGMA user_version"), scripts[-1][0]
    if await _number(db, "SELECT count(*) FROM sqlite_schema"):
        if await _number(db, "PRAGMA application_id") != APPLICATION_ID:
            raise IncompatibleStoreError("it is a SQLite file, but not one of Kibitz")
        if current > newest:
            raise IncompatibleStoreError(f"it is of version {current}, newer than this Kibitz knows ({newest})")
    elif not may_be_new:
        raise IncompatibleStoreError("there is no log in it")


async def migrate(db: aiosqlite.Connection, scripts: list[Migration]) -> None:
    """Run the scripts that the file has not seen, each with its version in one transaction."""
    for version, script in scripts:
        if await _number(db, "PRAGMA user_version") < version:
            await in_thread(db, as_transaction(partial(_apply, version, script)))


def _apply(version: int, script: str, db: sqlite3.Connection) -> None:
    # Asked again, inside the transaction: another process may have been quicker.
    if db.execute("PRAGMA user_version").fetchone()[0] >= version:
        return
    for statement in _statements(script):
        db.execute(statement).fetchall()
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {version}")


def _statements(script: str) -> Iterator[str]:
    """A script's statements, one by one: executescript() would commit before it starts."""
    statement = ""
    *parts, rest = script.split(";")
    for part in parts:
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if re.sub(r"--.*", "", statement + rest).strip():
        yield statement + rest  # broken off: for SQLite to refuse


async def _number(db: aiosqlite.Connection, query: str) -> int:
    [(number,)] = await db.execute_fetchall(query)
    return int(number)
