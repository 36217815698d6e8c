"""The index of texts: kept behind the calls, in small steps, and without what has gone.

It is no truth of its own: which calls have all groups of three characters that a search has. The search itself reads
the bodies of these, and of all calls that the index has not come to (`searching`).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiosqlite

from storage.records import Call, NumberedCall
from storage.sqlite.reading import whole_call
from storage.sqlite.rederive import read_batch
from storage.sqlite.worker import Worker, in_transaction
from storage.texts import TextReader, fold

__all__ = ["TextIndexing", "forget_texts", "most_forgotten", "note_change"]

_STATE: Final = "SELECT version, last, changes FROM text_index"
_SET_STATE: Final = "UPDATE text_index SET version = ?, last = ?, changes = ?"
_INSERT: Final = "INSERT INTO call_texts (rowid, text) VALUES (?, ?)"
_DELETE: Final = "INSERT INTO call_texts (call_texts, rowid, text) VALUES ('delete', ?, ?)"
_DELETE_ALL: Final = "INSERT INTO call_texts (call_texts) VALUES ('delete-all')"
_MERGE: Final = "INSERT INTO call_texts (call_texts, rank) VALUES ('merge', ?)"
# So many pages a row are more than a step writes, so merging keeps up.
_MERGED_PAGES: Final = 2
# Of a transaction, each of them a millisecond or two.
_MOST_FORGOTTEN: Final = 8
# Of a step that merges all there is: some milliseconds.
_PURGED_PAGES: Final = 200
_CHANGES: Final = "SELECT total_changes()"
_PENDING: Final = "SELECT call_id FROM text_pending ORDER BY call_id LIMIT ?"
_READ: Final = "SELECT c.*, b.* FROM calls AS c JOIN bodies AS b ON b.call_id = c.id WHERE c.id = ?"
_NOT_PENDING: Final = "DELETE FROM text_pending WHERE call_id = ?"
_PENDING_AMONG: Final = "SELECT call_id FROM text_pending WHERE call_id IN (SELECT value FROM json_each(?))"
_NEWEST_BUT: Final = """
SELECT coalesce(max(id), 0) FROM (SELECT id FROM calls WHERE id <= :last ORDER BY id DESC LIMIT :most) AS newest
WHERE id NOT IN (SELECT value FROM json_each(:numbers))
"""


@dataclass(frozen=True, slots=True)
class _State:
    """A row of ``text_index``."""

    version: int
    last: int
    changes: int


@dataclass(frozen=True, slots=True)
class _Step:
    """What is to be indexed next, as it was when the index stood so."""

    state: _State
    pending: Sequence[int]
    calls: Sequence[NumberedCall]


class TextIndexing:
    """The part of `storage.base.Storage` that keeps the index of texts."""

    _writer: Worker
    _reader: Worker
    _texts: TextReader

    async def index_texts(self, *, most_calls: int, most_bytes: int) -> int:
        """See `Storage.index_texts`."""
        reading = in_transaction(lambda db: self._next_step(db, most_calls, most_bytes), begin="BEGIN")
        step = await self._reader.run(reading)
        if not step.calls and not step.pending:
            return 0
        rows = await asyncio.to_thread(_rows, self._texts, step.calls)
        await self._writer.run(in_transaction(lambda db: self._take(db, step, rows)))
        return len(step.calls) or 1

    async def purge_texts(self, *, begin: bool) -> bool:
        """See `Storage.purge_texts`. Until FTS5 has merged its pages, what it was told to delete is only crossed out.

        It writes the whole index anew, unless nothing was added or taken out since the last time.
        """
        pages = -_PURGED_PAGES if begin else _PURGED_PAGES  # negative: all there is becomes one
        return await self._writer.run(in_transaction(lambda db: _merged(db, pages)))

    async def _next_step(self, db: aiosqlite.Connection, most_calls: int, most_bytes: int) -> _Step:
        state = await _state(db)
        if state.version != self._texts.version:
            return _Step(state, (), await read_batch(db, 0, most_calls, most_bytes))
        pending = [number for (number,) in await db.execute_fetchall(_PENDING, [most_calls])]
        if not pending:
            return _Step(state, (), await read_batch(db, state.last, most_calls, most_bytes))
        found = [await _numbered(db, number) for number in pending]
        return _Step(state, pending, [call for call in found if call is not None])

    async def _take(self, db: aiosqlite.Connection, step: _Step, rows: Sequence[tuple[int, str]]) -> None:
        state = await _state(db)
        if state != step.state:
            return  # another step came first, or one of these calls may have changed: read it again
        last = state.last
        if state.version != self._texts.version:
            await _empty(db)
            last = 0
        await db.executemany(_INSERT, rows)
        await db.executemany(_NOT_PENDING, [(number,) for number in step.pending])
        last = max([last, *(call.number for call in step.calls)])
        await db.execute_fetchall(_SET_STATE, (self._texts.version, last, state.changes))
        await db.execute_fetchall(_MERGE, [_MERGED_PAGES * len(rows)])


async def most_forgotten(db: aiosqlite.Connection) -> int | None:
    """How many calls one transaction may take out of the index and be short; ``None`` where nothing is indexed."""
    return _MOST_FORGOTTEN if (await _state(db)).last else None


async def forget_texts(db: aiosqlite.Connection, numbers: Sequence[int], texts: TextReader) -> None:
    """Take calls out of the index; to be called before they are deleted, in the same transaction.

    It reads their bodies and writes about as much as indexing them did: a millisecond or two each.
    """
    state = await _state(db)
    last = await _newest_but(db, numbers, state.last)  # a number that has gone may be another call's one day
    if state.last and state.version != texts.version:
        await _empty(db)  # what stands in it can't be told
        last = 0
    elif state.last:
        pending = {number for (number,) in await db.execute_fetchall(_PENDING_AMONG, [json.dumps(numbers)])}
        indexed = [number for number in numbers if number <= state.last and number not in pending]
        calls = [await _numbered(db, number) for number in indexed]
        rows = await asyncio.to_thread(_rows, texts, [call for call in calls if call is not None])
        await db.executemany(_DELETE, rows)
        await db.execute_fetchall(_MERGE, [_MERGED_PAGES * len(rows)])
    await db.executemany(_NOT_PENDING, [(number,) for number in numbers])
    await db.execute_fetchall(_SET_STATE, (state.version, last, state.changes + 1))


async def note_change(db: aiosqlite.Connection, number: int, texts: TextReader) -> None:
    """A call's bodies are about to change, in this transaction: it has to be indexed anew."""
    await forget_texts(db, [number], texts)
    await db.execute_fetchall(
        "INSERT OR IGNORE INTO text_pending SELECT :number FROM text_index WHERE last >= :number", {"number": number}
    )


async def _merged(db: aiosqlite.Connection, pages: int) -> bool:
    """Whether there was anything to merge; FTS5 tells by a second change."""
    [(before,)] = await db.execute_fetchall(_CHANGES)
    await db.execute_fetchall(_MERGE, [pages])
    [(after,)] = await db.execute_fetchall(_CHANGES)
    return int(after) - int(before) > 1


async def _state(db: aiosqlite.Connection) -> _State:
    [row] = await db.execute_fetchall(_STATE)
    return _State(*row)


async def _empty(db: aiosqlite.Connection) -> None:
    await db.execute_fetchall(_DELETE_ALL)
    await db.execute_fetchall("DELETE FROM text_pending")


async def _newest_but(db: aiosqlite.Connection, numbers: Sequence[int], last: int) -> int:
    values = {"last": last, "most": len(numbers) + 1, "numbers": json.dumps(numbers)}
    [(newest,)] = await db.execute_fetchall(_NEWEST_BUT, values)
    return int(newest)


async def _numbered(db: aiosqlite.Connection, number: int) -> NumberedCall | None:
    before, db.row_factory = db.row_factory, sqlite3.Row  # the writer has none: nothing else reads rows there
    try:
        rows = await db.execute_fetchall(_READ, [number])
        return next(iter([NumberedCall(number, await whole_call(db, row, {})) for row in rows]), None)
    finally:
        db.row_factory = before


def _rows(texts: TextReader, calls: Sequence[NumberedCall]) -> list[tuple[int, str]]:
    rows = ((call.number, _text(texts, call.call)) for call in calls)
    return [row for row in rows if row[1]]


def _text(texts: TextReader, call: Call) -> str:
    both = texts.request(call.path, call.request), texts.response(call.path, call.response)
    return fold("\n".join(filter(None, both)))
