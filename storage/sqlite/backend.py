"""`SqliteStorage`: the `Storage` contract on one file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any

import aiosqlite

from storage.base import RefusedRowError, StorageError
from storage.records import Call, Feedback, Found, NumberedCall, Score, StoredCall, property_key
from storage.sqlite import rederive, sql
from storage.sqlite.adding_up import AddingUp
from storage.sqlite.amending import replace_response
from storage.sqlite.arrivals import Arrivals, has_large_body
from storage.sqlite.checkpoints import Checkpoints
from storage.sqlite.datasets import Datasets
from storage.sqlite.joining import stored_calls
from storage.sqlite.pruning import Prunings
from storage.sqlite.querying import Queries
from storage.sqlite.rows import feedback_from_row, feedback_parameters
from storage.sqlite.sharing import Sharing
from storage.sqlite.texts import TextIndexing
from storage.sqlite.worker import Worker, Workers, as_transaction, in_thread, in_transaction
from storage.texts import TextReader

__all__ = ["SqliteStorage"]

# A prepared statement a group size, so the largest group bounds their number and their memory.
_LARGEST_GROUP = 128
# Packing more than this, in bytes, would hold the event loop up for a millisecond and more.
_PACK_IN_THREAD = 256 * 1024


class SqliteStorage(Queries, Datasets, Prunings, Sharing, TextIndexing, AddingUp):
    """See `storage.base.Storage`."""

    def __init__(
        self,
        writer: Worker,
        reader: Worker,
        analyst: Workers,
        checkpoints: Checkpoints,
        query_timeout: float,
        texts: TextReader,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._analyst = analyst
        self._query_timeout = query_timeout
        self._texts = texts
        self._checkpoints = checkpoints
        self._arrivals = Arrivals()

    async def write_calls(self, calls: Sequence[Call]) -> None:
        """See `Storage.write_calls`."""
        if not calls:
            return
        size = sum(call.request.size + call.response.size for call in calls)
        if len(calls) <= _LARGEST_GROUP and not any(map(has_large_body, calls)):
            await self._write_group(calls, size)
        else:
            await self._writer.run(in_transaction(lambda db: self._insert_calls(db, calls)))
        self._checkpoints.note(size)

    def write_now(self, make: Callable[[], Call | None], then: Callable[[BaseException | None], None]) -> bool:
        """See `Storage.write_now`."""
        if not self._writer.is_free:
            return False

        def work(db: sqlite3.Connection) -> int | None:
            call = make()
            if call is None:
                return None
            if has_large_body(call):
                raise RefusedRowError("a body is too large to be written in one go")
            as_transaction(self._arrivals.group([call]).insert)(db)
            return call.request.size + call.response.size

        def tell(size: int | None, error: BaseException | None) -> None:
            then(error)
            if size is not None:
                self._checkpoints.note(size)

        try:
            self._writer.start(work, tell)
        except StorageError:
            return False
        return True

    async def _write_group(self, group: Sequence[Call], size: int) -> None:
        if size > _PACK_IN_THREAD:
            await self._writer.run(in_transaction(lambda db: self._insert_group(db, group)))
        else:
            await self._writer.execute(lambda: as_transaction(self._arrivals.group(group).insert))

    async def _insert_calls(self, db: aiosqlite.Connection, calls: Sequence[Call]) -> None:
        for are_large, some in groupby(calls, has_large_body):
            several = list(some)
            if are_large:
                for call in several:
                    await self._insert_large(db, call)
            else:
                for start in range(0, len(several), _LARGEST_GROUP):
                    await self._insert_group(db, several[start : start + _LARGEST_GROUP])

    async def _insert_group(self, db: aiosqlite.Connection, calls: Sequence[Call]) -> None:
        if sum(call.request.size + call.response.size for call in calls) > _PACK_IN_THREAD:
            await in_thread(db, (await asyncio.to_thread(self._arrivals.group, calls)).insert)
            await _let_go(db)
        else:
            await in_thread(db, self._arrivals.group(calls).insert)

    async def _insert_large(self, db: aiosqlite.Connection, call: Call) -> None:
        group, large = await asyncio.to_thread(self._arrivals.large, call)
        number = await in_thread(db, group.insert)
        # Packed in aiosqlite's thread, a piece at a time: a large body is not in memory twice.
        await db.executemany(sql.INSERT_PIECE, ((number, side, piece) for side, pieces in large for piece in pieces))
        await _let_go(db)

    async def replace_response(self, call: Call) -> bool:
        """See `Storage.replace_response`."""
        return await self._writer.run(in_transaction(lambda db: replace_response(db, call, self._texts)))

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

    async def tag_session(
        self, organisation: str, session_id: str, tag: str, *, known: bool, updated_at: int
    ) -> Found | None:
        """See `Storage.tag_session`."""
        row = {"organisation": organisation, "session_id": session_id, "tag": tag, "updated_at": updated_at}

        async def job(db: aiosqlite.Connection) -> Found | None:
            found = await _find(db, sql.FIND_SESSION, organisation, session_id)
            if found is None and not known:
                return None
            await db.execute_fetchall(sql.TAG_SESSION, row)
            return found or Found()

        return await self._writer.run(in_transaction(job))

    async def session_tag(self, organisation: str, session_id: str) -> str | None:
        """See `Storage.session_tag`."""
        key = {"organisation": organisation, "session_id": session_id}
        rows = await self._reader.run(lambda db: db.execute_fetchall(sql.READ_SESSION_TAG, key))
        return next((str(tag) for (tag,) in rows), None)

    async def read_call(self, organisation: str, call_id: str, attempt: int | None) -> StoredCall | None:
        """See `Storage.read_call`."""
        key = {"organisation": organisation, "id": call_id, "attempt": attempt}

        async def job(db: aiosqlite.Connection) -> StoredCall | None:
            rows = list(await db.execute_fetchall(sql.READ_CALL, key))
            return next(iter(await stored_calls(db, organisation, rows)), None)

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
        await self._analyst.abandon()
        await self._checkpoints.close()
        await self._writer.close()


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
