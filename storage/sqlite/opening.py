"""Opening a log: made if there is none, checked, brought up to date; and its connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aiosqlite

from storage.base import IncompatibleStoreError, StorageError
from storage.sqlite.backend import SqliteStorage
from storage.sqlite.checkpoints import LONGEST_WAL, Checkpoints
from storage.sqlite.place import Place
from storage.sqlite.schema import check_identity, migrate, migrations
from storage.sqlite.searching import SearchingConnection
from storage.sqlite.worker import Worker, Workers
from storage.texts import PLAIN_TEXTS, TextReader

__all__ = ["OBSERVERS", "open_sqlite"]

OBSERVERS: Final[list[Callable[[str, str], None]]] = []
"""Told of each statement that is put to a reader which is opened from now on: the file's path, and the text."""

# How long a statement waits for another process's lock, in milliseconds.
_BUSY_TIMEOUT = 5_000
_WAL_PAUSE = 20
# Seconds that a question about many calls may take.
QUERY_TIMEOUT = 30.0
# Connections for these.
_ANALYSTS = 3
_JOURNAL_SIZE_LIMIT = 64 * 1024 * 1024
_SYNC_LEVELS = {"normal": "NORMAL", "full": "FULL"}


async def open_sqlite(
    path: str,
    *,
    sync: str = "normal",
    create: bool = True,
    texts: TextReader = PLAIN_TEXTS,
    query_timeout: float = QUERY_TIMEOUT,
) -> SqliteStorage:
    """Open the file at ``path``, or make it. Arguments and errors as in `storage.open_storage`."""
    if not path or path == ":memory:":
        raise StorageError("SQLite needs the path of a file: the log has to outlive the process")
    try:
        await asyncio.to_thread(_touch, path, create)
        return await _open(Path(path), _SYNC_LEVELS[sync], query_timeout, texts, may_be_new=create)
    except sqlite3.OperationalError as error:
        raise StorageError(f"can't open {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise IncompatibleStoreError(f"can't use {path}: {error}") from error
    except UnicodeDecodeError as error:  # in the sqlite3 module, over the message about a spoilt schema
        raise IncompatibleStoreError(f"can't use {path}: its schema is damaged") from error
    except IncompatibleStoreError as error:
        raise IncompatibleStoreError(f"can't use {path}: {error}") from error


def _touch(path: str, create: bool) -> None:
    if not create and not Path(path).exists():
        raise StorageError(f"can't open {path}: there is no such file")
    if create:
        # Nobody else's to read, whatever the umask; SQLite gives the files beside it the same mode. What is wrong
        # with the path, SQLite tells better.
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    # aiosqlite's thread outlives a connection that could not be made, and the loop with it.
    sqlite3.connect(path).close()


async def _open(
    path: Path, synchronous: str, query_timeout: float, texts: TextReader, *, may_be_new: bool
) -> SqliteStorage:
    scripts = migrations()
    async with contextlib.AsyncExitStack() as opened:
        searching = partial(SearchingConnection, texts=texts)  # what is to be deleted may be asked for by its texts
        writer = await aiosqlite.connect(path, isolation_level=None, factory=searching)
        opened.push_async_callback(writer.close)
        await _set(writer, busy_timeout=_BUSY_TIMEOUT, foreign_keys="ON", synchronous=synchronous)
        # What is deleted is to be gone, from a log of prompts. Deletions take half as long again, inserts no longer.
        await _set(writer, secure_delete="ON", temp_store="MEMORY")
        await check_identity(writer, scripts, may_be_new=may_be_new)
        # Before the first table, or it has no effect.
        await _set(writer, auto_vacuum="INCREMENTAL", journal_size_limit=_JOURNAL_SIZE_LIMIT)
        await _enter_wal_mode(writer)
        await migrate(writer, scripts)
        await _set(writer, wal_autocheckpoint=LONGEST_WAL)
        checkpoints = await aiosqlite.connect(path, isolation_level=None)
        opened.push_async_callback(checkpoints.close)
        await _set(checkpoints, synchronous=synchronous)
        reader = await _read_only(path)
        opened.push_async_callback(reader.close)
        analysts: list[aiosqlite.Connection] = []
        for _ in range(_ANALYSTS):
            analysts.append(await _read_only(path, searching))
            opened.push_async_callback(analysts[-1].close)
        place = Place(path)
        storage = SqliteStorage(
            Worker(writer, place),
            Worker(reader, place),
            Workers([Worker(analyst, place) for analyst in analysts]),
            Checkpoints(checkpoints),
            query_timeout,
            texts,
        )
        opened.pop_all()
    return storage


async def _read_only(
    path: Path, factory: Callable[..., sqlite3.Connection] = sqlite3.Connection
) -> aiosqlite.Connection:
    address = f"file:{quote(str(path))}?mode=ro"
    db = await aiosqlite.connect(address, uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT / 1000, factory=factory)
    db.row_factory = sqlite3.Row
    for observer in OBSERVERS:
        await db.set_trace_callback(partial(observer, str(path)))
    return db


async def _enter_wal_mode(db: aiosqlite.Connection) -> None:
    # The one statement that does not wait for another process's lock: two that make a new file at once meet here.
    for _ in range(_BUSY_TIMEOUT // _WAL_PAUSE):
        try:
            return await _set(db, journal_mode="WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            await asyncio.sleep(_WAL_PAUSE / 1000)
    await _set(db, journal_mode="WAL")


async def _set(db: aiosqlite.Connection, **pragmas: object) -> None:
    for name, value in pragmas.items():
        # Fetched, because a PRAGMA left unread keeps its statement, and a lock, open.
        await db.execute_fetchall(f"PRAGMA {name} = {value}")
