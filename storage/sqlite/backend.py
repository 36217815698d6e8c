"""`SqliteStorage`: the `Storage` contract on one file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiosqlite

from storage.base import IncompatibleStoreError, StorageError
from storage.records import Call, Feedback, Found, NumberedCall, Score, StoredCall, property_key
from storage.sqlite import rederive, sql
from storage.sqlite.amending import replace_response
from storage.sqlite.arrivals import Arrivals, has_large_body
from storage.sqlite.checkpoints import LONGEST_WAL, Checkpoints
from storage.sqlite.place import Place
from storage.sqlite.reading import whole_call
from storage.sqlite.rows import feedback_from_row, feedback_parameters, score_from_row
from storage.sqlite.schema import check_identity, migrate, migrations
from storage.sqlite.worker import Worker, in_transaction

__all__ = ["SqliteStorage", "open_sqlite"]

# How long a statement waits for another process's lock, in milliseconds.
_BUSY_TIMEOUT = 5_000
_WAL_PAUSE = 20
# A prepared statement a group size, so the largest group bounds their number and their memory.
_LARGEST_GROUP = 128
# Packing more than this, in bytes, would hold the event loop up for a millisecond and more.
_PACK_IN_THREAD = 256 * 1024
_JOURNAL_SIZE_LIMIT = 64 * 1024 * 1024
_SYNC_LEVELS = {"normal": "NORMAL", "full": "FULL"}


async def open_sqlite(path: str, *, sync: str = "normal", create: bool = True) -> SqliteStorage:
    """Open the file at ``path``, or make it. Arguments and errors as in `storage.open_storage`."""
    if not path or path == ":memory:":
        raise StorageError("SQLite needs the path of a file: the log has to outlive the process")
    try:
        await asyncio.to_thread(_touch, path, create)
        return await _open(Path(path), _SYNC_LEVELS[sync], may_be_new=create)
    except sqlite3.OperationalError as error:
        raise StorageError(f"can't open {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise IncompatibleStoreError(f"can't use {path}: {error}") from error
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


async def _open(path: Path, synchronous: str, *, may_be_new: bool) -> SqliteStorage:
    scripts = migrations()
    async with contextlib.AsyncExitStack() as opened:
        writer = await aiosqlite.connect(path, isolation_level=None)
        opened.push_async_callback(writer.close)
        await _set(writer, busy_timeout=_BUSY_TIMEOUT, foreign_keys="ON", synchronous=synchronous)
        await check_identity(writer, scripts, may_be_new=may_be_new)
        # Before the first table, or it has no effect.
        await _set(writer, auto_vacuum="INCREMENTAL", journal_size_limit=_JOURNAL_SIZE_LIMIT)
        await _enter_wal_mode(writer)
        await migrate(writer, scripts)
        await _set(writer, wal_autocheckpoint=LONGEST_WAL)
        checkpoints = await aiosqlite.connect(path, isolation_level=None)
        opened.push_async_callback(checkpoints.close)
        await _set(checkpoints, synchronous=synchronous)
        reader = await aiosqlite.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT / 1000
        )
        opened.pop_all()
    reader.row_factory = sqlite3.Row
    place = Place(path)
    return SqliteStorage(Worker(writer, place), Worker(reader, place), Checkpoints(checkpoints))


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


class SqliteStorage:
    """See `storage.base.Storage`."""

    def __init__(self, writer: Worker, reader: Worker, checkpoints: Checkpoints) -> None:
        self._writer = writer
        self._reader = reader
        self._checkpoints = checkpoints
        self._arrivals = Arrivals()

    async def write_calls(self, calls: Sequence[Call]) -> None:
        """See `Storage.write_calls`."""
        if not calls:
            return
        if len(calls) <= _LARGEST_GROUP and not any(map(has_large_body, calls)):
            await self._writer.run(lambda db: self._insert_group(db, calls))  # one statement: a transaction of its own
        else:
            await self._writer.run(in_transaction(lambda db: self._insert_calls(db, calls)))
        self._checkpoints.note(sum(call.request.size + call.response.size for call in calls))

    async def _insert_calls(self, db: aiosqlite.Connection, calls: Sequence[Call]) -> None:
        for are_large, some in groupby(calls, has_large_body):
            several = list(some)
            if are_large:
                for call in several:
                    await self._insert_large(db, call)
            else:
                for start in range(0, len(several), _LARGEST_GROUP):
                    await self._insert_group(db, several[start : start + _LARGEST_GROUP])

    async def _insert_group(self, db: aiosqlite.Connection, group: Sequence[Call]) -> None:
        if sum(call.request.size + call.response.size for call in group) > _PACK_IN_THREAD:
            await db.execute_fetchall(*await asyncio.to_thread(self._arrivals.group, group))
            await _let_go(db)
        else:
            await db.execute_fetchall(*self._arrivals.group(group))

    async def _insert_large(self, db: aiosqlite.Connection, call: Call) -> None:
        statement, parameters, large = await asyncio.to_thread(self._arrivals.large, call)
        await db.execute_fetchall(statement, parameters)
        key = {"organisation": call.organisation, "request_id": call.request_id}
        for (call_id,) in await db.execute_fetchall(sql.FIND_LATEST_ATTEMPT, key):
            # Packed in aiosqlite's thread, a piece at a time: a large body is not in memory twice.
            rows = ((call_id, side, piece) for side, pieces in large for piece in pieces)
            await db.executemany(sql.INSERT_PIECE, rows)
        await _let_go(db)

    async def replace_response(self, call: Call) -> bool:
        """See `Storage.replace_response`."""
        return await self._writer.run(in_transaction(lambda db: replace_response(db, call)))

    async def add_rating(self, rating: Feedback, *, known: bool) -> Found | None:
        """See `Storage.add_rating`."""

        async def job(db: aiosqlite.Connection) -> Found | None:
            target = await _find_request(db, rating.organisation, rating.request_id, known=known)
            if target is None:
                return None
            request_id, found = target
            await _add_effective(db, replace(rating, request_id=request_id))
            return found

        return await self._writer.run(in_transaction(job))

    async def add_session_rating(self, rating: Feedback, *, known: bool) -> Found | None:
        """See `Storage.add_session_rating`."""
        session = {"organisation": rating.organisation, "session_id": rating.session_id}

        async def job(db: aiosqlite.Connection) -> Found | None:
            found = await _find(db, sql.FIND_SESSION, rating.organisation, rating.session_id)
            if found is None and not known:
                return None
            await _add_effective(db, rating)
            await db.execute_fetchall(sql.MARK_EARLIEST_OF_SESSION, session)
            return found or Found()

        return await self._writer.run(in_transaction(job))

    async def add_values(self, values: Sequence[Feedback], *, traces_in_flight: frozenset[str]) -> None:
        """See `Storage.add_values`."""

        async def job(db: aiosqlite.Connection) -> None:
            for value in values:
                is_trace = value.trace_id in traces_in_flight
                is_trace = is_trace or await _find(db, sql.FIND_TRACE, value.organisation, value.trace_id) is not None
                target = None if is_trace else await _find_request(db, value.organisation, value.trace_id)
                row = feedback_parameters(replace(value, request_id=target[0] if target else None))
                await db.execute_fetchall(sql.ADD_FEEDBACK, row)

        await self._writer.run(in_transaction(job))

    async def update_value(
        self,
        organisation: str,
        feedback_id: str,
        *,
        value: int,
        weight: float | None,
        metadata: str | None,
        updated_at: int,
    ) -> Found | None:
        """See `Storage.update_value`."""
        changes = {
            "organisation": organisation,
            "id": feedback_id,
            "value": value,
            "weight": weight,
            "metadata": metadata,
            "updated_at": updated_at,
        }
        for (trace_id,) in await self._writer.run(lambda db: db.execute_fetchall(sql.UPDATE_VALUE, changes)):
            return Found(trace_id)
        return None

    async def delete_feedback(self, organisation: str, feedback_id: str) -> Found | None:
        """See `Storage.delete_feedback`."""
        key = {"organisation": organisation, "id": feedback_id}

        async def job(db: aiosqlite.Connection) -> Found | None:
            for kind, request_id, trace_id, session_id in await db.execute_fetchall(sql.DELETE_FEEDBACK, key):
                if kind == "rating":
                    await _restore_effective(db, organisation, request_id, session_id)
                return Found(trace_id)
            return None

        return await self._writer.run(in_transaction(job))

    async def list_feedback(
        self,
        organisation: str,
        *,
        trace_id: str | None = None,
        request_id: str | None = None,
        session_id: str | None = None,
        unmatched: bool = False,
    ) -> Sequence[Feedback]:
        """See `Storage.list_feedback`."""
        named = {"trace_id": trace_id, "request_id": request_id, "session_id": session_id}
        given = {name: value for name, value in named.items() if value is not None}
        query = sql.list_feedback(tuple(given), unmatched=unmatched)

        async def job(db: aiosqlite.Connection) -> list[Feedback]:
            if request_id is not None and (target := await _find_request(db, organisation, request_id)):
                given["request_id"] = target[0]
            rows = await db.execute_fetchall(query, {"organisation": organisation, **given})
            return [feedback_from_row(row) for row in rows]

        return await self._reader.run(in_transaction(job, begin="BEGIN"))

    async def merge_scores(
        self, organisation: str, request_id: str, scores: Sequence[Score], *, known: bool, updated_at: int
    ) -> Found | None:
        """See `Storage.merge_scores`."""

        async def job(db: aiosqlite.Connection) -> Found | None:
            target = await _find_request(db, organisation, request_id, known=known)
            if target is None:
                return None
            for score in scores:
                row = {"organisation": organisation, "request_id": target[0], "updated_at": updated_at}
                await db.execute_fetchall(sql.MERGE_SCORE, {**row, **asdict(score)})
            return target[1]

        return await self._writer.run(in_transaction(job))

    async def set_property(
        self, organisation: str, request_id: str, name: str, value: str, *, known: bool, updated_at: int
    ) -> Found | None:
        """See `Storage.set_property`."""

        async def job(db: aiosqlite.Connection) -> Found | None:
            target = await _find_request(db, organisation, request_id, known=known)
            if target is None:
                return None
            row = {"organisation": organisation, "request_id": target[0], "name": name, "value": value}
            row["key"] = property_key(name)
            await db.execute_fetchall(sql.SET_PROPERTY_FOR_LATER, {**row, "updated_at": updated_at})
            await db.execute_fetchall(sql.SET_PROPERTY_ON_ATTEMPTS, row)
            return target[1]

        return await self._writer.run(in_transaction(job))

    async def read_call(self, organisation: str, call_id: str, attempt: int | None) -> StoredCall | None:
        """See `Storage.read_call`."""
        key = {"organisation": organisation, "id": call_id, "attempt": attempt}

        async def job(db: aiosqlite.Connection) -> StoredCall | None:
            for row in await db.execute_fetchall(sql.READ_CALL, key):
                return await _with_what_joined(db, row)
            return None

        return await self._reader.run(in_transaction(job, begin="BEGIN"))

    async def count_calls(self) -> int:
        """See `Storage.count_calls`."""
        return await self._reader.run(rederive.count_calls)

    async def read_batch(self, after: int, *, most_calls: int, most_bytes: int) -> Sequence[NumberedCall]:
        """See `Storage.read_batch`."""

        async def job(db: aiosqlite.Connection) -> list[NumberedCall]:
            return await rederive.read_batch(db, after, most_calls, most_bytes)

        return await self._reader.run(in_transaction(job, begin="BEGIN"))

    async def rewrite_derived(self, calls: Sequence[NumberedCall]) -> int:
        """See `Storage.rewrite_derived`."""
        return await self._writer.run(in_transaction(lambda db: rederive.rewrite_derived(db, calls)))

    async def check(self) -> None:
        """See `Storage.check`."""
        await self._reader.run(lambda db: db.execute_fetchall("SELECT 1 FROM calls LIMIT 1"))

    async def close(self) -> None:
        """See `Storage.close`."""
        # The writer last: the last connection to go tidies the WAL away, and a reader may not.
        await self._reader.close()
        await self._checkpoints.close()
        await self._writer.close()


async def _with_what_joined(db: aiosqlite.Connection, row: sqlite3.Row) -> StoredCall:
    key = {name: row[name] for name in ("organisation", "request_id", "trace_id", "call_id")}
    properties = await db.execute_fetchall(sql.READ_PROPERTIES, key)
    scores = await db.execute_fetchall(sql.READ_SCORES, key)
    feedback = await db.execute_fetchall(sql.READ_FEEDBACK, key)
    return StoredCall(
        call=await whole_call(db, row, {row["name"]: row["value"] for row in properties}),
        attempt=row["attempt"],
        scores=tuple(score_from_row(values) for values in scores),
        feedback=tuple(feedback_from_row(values) for values in feedback),
    )


async def _let_go(db: aiosqlite.Connection) -> None:
    # aiosqlite's thread keeps the last thing it did until it is given another.
    await db.execute_fetchall("SELECT 1")


async def _find(db: aiosqlite.Connection, query: str, organisation: str, text: str | None) -> Found | None:
    """By a query that gives the trace."""
    for row in await db.execute_fetchall(query, {"organisation": organisation, "id": text}):
        return Found(row[0])
    return None


async def _find_request(
    db: aiosqlite.Connection, organisation: str, text: str | None, *, known: bool = False
) -> tuple[str, Found] | None:
    """The request id that ``text`` stands for; itself if nothing has it but it is ``known``."""
    query = {"organisation": organisation, "id": text}
    for request_id, trace_id in await db.execute_fetchall(sql.FIND_REQUEST, query):
        return request_id, Found(trace_id)
    return (text, Found()) if known and text is not None else None


async def _add_effective(db: aiosqlite.Connection, rating: Feedback) -> None:
    row = feedback_parameters(rating)
    await db.execute_fetchall(sql.REPLACE_RATINGS, _only(row, "organisation", "request_id", "session_id"))
    await db.execute_fetchall(sql.ADD_FEEDBACK, row)


async def _restore_effective(
    db: aiosqlite.Connection, organisation: str, request_id: str | None, session_id: str | None
) -> None:
    row = {"organisation": organisation, "request_id": request_id, "session_id": session_id}
    await db.execute_fetchall(sql.PROMOTE_LATEST_RATING, row)
    if session_id is not None:
        session = _only(row, "organisation", "session_id")
        await db.execute_fetchall(sql.UNMARK_SESSION, session)
        await db.execute_fetchall(sql.MARK_EARLIEST_OF_SESSION, session)


def _only(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}
