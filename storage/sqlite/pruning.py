"""Calls that leave the log: found by a reader, deleted by the writer, a few at a time.

The rule it keeps: no transaction is long, so that whoever writes calls meanwhile waits for milliseconds. A deletion
looks again whether each call still is to go, because somebody may have rated it since it was found.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

import aiosqlite

from storage.pruning import Prunable, Pruning, Reached, Space
from storage.sqlite import sql
from storage.sqlite.checkpoints import Checkpoints
from storage.sqlite.filtering import Fragment, condition
from storage.sqlite.moving import change_bodies
from storage.sqlite.packing import PRUNED
from storage.sqlite.sharing import stand_alone
from storage.sqlite.texts import forget_texts, most_forgotten
from storage.sqlite.worker import Job, Worker, Workers, in_transaction
from storage.texts import TextReader

__all__ = ["Prunings"]

# Rows that are looked at in one step, whether they are to go or not.
_LOOKED_AT: Final = 250
_LEAST: Final = -(2**63)
# Milliseconds that a checkpoint may keep writers waiting for readers.
_CHECKPOINT_WAIT: Final = 50
# Bytes of a call's bodies from which they go in several transactions, each of so many pieces.
_LARGE: Final = 1024 * 1024
_PIECES: Final = 2

_RATED: Final = """
EXISTS (SELECT 1 FROM feedback
        WHERE organisation = c.organisation AND request_id = c.request_id AND effective = 1)
OR EXISTS (SELECT 1 FROM feedback
           WHERE organisation = c.organisation AND trace_id = c.trace_id AND request_id IS NULL AND effective = 1)
OR EXISTS (SELECT 1 FROM feedback
           WHERE organisation = c.organisation AND session_id = c.session_id AND effective = 1)
OR EXISTS (SELECT 1 FROM scores WHERE organisation = c.organisation AND request_id = c.request_id)
"""
# The sizes are those of the bytes in the file, which length() takes from a row's head without reading them.
_LOOK: Final = """
SELECT organisation, started_at, id, CASE WHEN goes THEN
    coalesce((SELECT length(request) FROM bodies WHERE call_id = looked.id), 0)
    + coalesce((SELECT length(response) FROM bodies WHERE call_id = looked.id), 0)
    + coalesce((SELECT sum(length(data)) FROM body_pieces WHERE call_id = looked.id), 0)
END
FROM (SELECT c.organisation, c.started_at, c.id, {goes} AS goes FROM calls AS c WHERE {ahead} LIMIT {most}) AS looked
"""
_AHEAD_IN_TIME: Final = """
c.organisation = ? AND c.started_at < ? AND (c.started_at, c.id) > (?, ?) ORDER BY c.started_at, c.id
"""
_AHEAD_BY_ARRIVAL: Final = "c.id > ? ORDER BY c.id"
_NEXT_ORGANISATION: Final = "SELECT min(organisation) FROM calls WHERE organisation > ?"
_HAS_BODIES: Final = f"""
(EXISTS (SELECT 1 FROM bodies WHERE call_id = c.id AND request_packing IS NOT '{PRUNED}')
 OR EXISTS (SELECT 1 FROM body_pieces WHERE call_id = c.id))
"""

# The ids of what goes, in memory: as JSON they would end at a NUL.
_MAKE_GOING: Final = """
CREATE TEMP TABLE IF NOT EXISTS going (
    id INTEGER PRIMARY KEY, organisation TEXT, request_id TEXT, trace_id TEXT, session_id TEXT, response_id TEXT
)
"""
_FILL_GOING: Final = """
INSERT INTO going
SELECT c.id, c.organisation, c.request_id, c.trace_id, c.session_id, c.provider_response_id
FROM calls AS c WHERE c.id IN (SELECT value FROM json_each(?)) AND {goes}
"""
_GOING: Final = "SELECT id FROM going"
_EMPTY_GOING: Final = "DELETE FROM going"

_DELETE_PIECES: Final = "DELETE FROM body_pieces WHERE call_id IN (SELECT id FROM going)"
# A body that there never was is not one that was left out.
_REMOVE_BODIES: Final = f"""
UPDATE moved SET
    request = NULL, request_packing = '{PRUNED}', request_truncated = 0,
    request_omitted = max(request_omitted, request_size > 0),
    response = NULL, response_packing = '{PRUNED}', response_truncated = 0,
    response_omitted = max(response_omitted, response_size > 0)
"""
_FIND_PIECES: Final = f"""
SELECT id FROM body_pieces WHERE call_id IN (
    SELECT call_id FROM bodies WHERE call_id IN (SELECT value FROM json_each(?)) AND request_packing = '{PRUNED}'
) LIMIT ?
"""
_DELETE_SOME_PIECES: Final = "DELETE FROM body_pieces WHERE id = ?"
_DELETE_BASES: Final = "DELETE FROM body_bases WHERE call_id IN (SELECT id FROM going)"

_DELETE_SESSION_TAGS: Final = """
DELETE FROM session_tags AS t WHERE (organisation, session_id) IN (SELECT organisation, session_id FROM going)
AND NOT EXISTS (SELECT 1 FROM calls WHERE organisation = t.organisation AND session_id = t.session_id)
"""
_NO_CALL_LEFT: Final = """
NOT EXISTS (SELECT 1 FROM calls AS c WHERE c.organisation = {table}.organisation AND c.request_id = {table}.request_id)
"""
_SAID_OF_REQUESTS: Final = """
DELETE FROM {table} WHERE (organisation, request_id) IN (SELECT organisation, request_id FROM going) AND {no_call_left}
"""
# What was said of calls that are all gone goes with them. What waits for a call that never came is not among it.
_DELETE_FEEDBACK: Final = f"""
DELETE FROM feedback AS f WHERE number IN (
    SELECT number FROM going JOIN feedback USING (organisation, request_id)
    UNION SELECT number FROM going JOIN feedback USING (organisation, trace_id)
    UNION SELECT number FROM going JOIN feedback USING (organisation, session_id)
) AND NOT ({sql.MATCHED})
"""
# Not as one UNION, for which the whole table would be gone through.
_DELETE_NAMED_IDS: Final = """
DELETE FROM named_ids AS n WHERE (organisation, id) IN (SELECT organisation, {name} FROM going)
AND NOT EXISTS (SELECT 1 FROM feedback WHERE organisation = n.organisation AND request_id = n.id)
AND NOT EXISTS (SELECT 1 FROM feedback WHERE organisation = n.organisation AND trace_id = n.id)
AND NOT EXISTS (SELECT 1 FROM feedback WHERE organisation = n.organisation AND session_id = n.id)
AND NOT EXISTS (SELECT 1 FROM scores WHERE organisation = n.organisation AND request_id = n.id)
AND NOT EXISTS (SELECT 1 FROM request_properties WHERE organisation = n.organisation AND request_id = n.id)
"""
# Where a session's earliest call has gone, the verdict stands on the one that is the earliest now.
_MARK_SESSIONS: Final = """
INSERT OR REPLACE INTO properties
SELECT call_id, 'helicone-session-feedback', 'Helicone-Session-Feedback', value FROM (
    SELECT (SELECT c.id FROM calls AS c WHERE c.organisation = s.organisation AND c.session_id = s.session_id
            ORDER BY c.started_at, c.id LIMIT 1) AS call_id, CAST(f.value AS TEXT) AS value
    FROM (SELECT DISTINCT organisation, session_id FROM going) AS s
    JOIN feedback AS f ON f.organisation = s.organisation AND f.session_id = s.session_id AND f.effective = 1
) WHERE call_id IS NOT NULL
"""
_ROWS_GO: Final = (
    "DELETE FROM calls WHERE id IN (SELECT id FROM going)",  # bodies, pieces and properties go with them
    _DELETE_FEEDBACK,
    _DELETE_SESSION_TAGS,
    *(
        _SAID_OF_REQUESTS.format(table=table, no_call_left=_NO_CALL_LEFT.format(table=table))
        for table in ("scores", "request_properties")
    ),
    *(_DELETE_NAMED_IDS.format(name=name) for name in ("request_id", "trace_id", "session_id", "response_id")),
    _MARK_SESSIONS,
    "UPDATE sharing SET reached = min(reached, coalesce((SELECT max(id) FROM calls), 0))",
)


class Prunings:
    """The part of `storage.base.Storage` that makes the log smaller."""

    _writer: Worker
    _analyst: Workers
    _checkpoints: Checkpoints
    _texts: TextReader

    async def find_prunable(
        self, what: Pruning, after: Reached | None, *, most_calls: int, most_bytes: int
    ) -> Prunable:
        """See `Storage.find_prunable`."""

        async def job(db: aiosqlite.Connection) -> Prunable:
            rows, reached = await (_look_by_arrival if what.before is None else _look_in_time)(db, what, after)
            return _bounded(rows, reached, most_calls, most_bytes)

        return await self._analyst.run(in_transaction(job, begin="BEGIN"))

    async def prune(self, what: Pruning, found: Prunable) -> int:
        """See `Storage.prune`."""
        large = [number for number, size in found.sizes.items() if size >= _LARGE]
        emptied = await self._delete(what, large, _bodies_go) if large else 0
        if emptied:
            await self._delete_pieces(large)
        self._checkpoints.note(sum(found.sizes.values()))
        if what.bodies_only:
            return emptied + await self._delete(what, [n for n in found.sizes if n not in large], _whole_bodies_go)
        return await self._delete(what, list(found.sizes), _rows_go)

    async def _delete(self, what: Pruning, numbers: list[int], go: Job[None]) -> int:
        """Let ``go`` delete what it does of those of these calls that are to go; answers how many these are."""
        most = await self._analyst.run(most_forgotten) or max(1, len(numbers))
        deleted = 0
        for start in range(0, len(numbers), most):
            began = time.perf_counter()
            deleted += await self._delete_some(what, numbers[start : start + most], go)
            if start + most < len(numbers):
                await asyncio.sleep(time.perf_counter() - began)  # for another process to have its turn
        return deleted

    async def _delete_some(self, what: Pruning, numbers: list[int], go: Job[None]) -> int:
        fill, values = _fill_going(what, numbers)

        async def job(db: aiosqlite.Connection) -> int:
            await db.execute_fetchall(_MAKE_GOING)
            async with db.execute(fill, values) as cursor:
                number = cursor.rowcount
            going = [going for (going,) in await db.execute_fetchall(_GOING)]
            await forget_texts(db, going, self._texts)
            await stand_alone(db)
            await go(db)
            await db.execute_fetchall(_EMPTY_GOING)
            return number

        return await self._writer.run(in_transaction(job))

    async def _delete_pieces(self, numbers: list[int]) -> None:
        """Large bodies that their rows do not own to any more: a process that dies amid this leaves whole rows."""
        values = [json.dumps(numbers), _PIECES]

        async def job(db: aiosqlite.Connection) -> int:
            pieces = list(await db.execute_fetchall(_FIND_PIECES, values))
            await db.executemany(_DELETE_SOME_PIECES, pieces)
            return len(pieces)

        began = time.perf_counter()
        while await self._writer.run(in_transaction(job)):
            self._checkpoints.note(_LARGE)
            await asyncio.sleep(time.perf_counter() - began)  # for another process to have its turn
            began = time.perf_counter()

    async def space(self) -> Space:
        """See `Storage.space`."""
        return await self._analyst.run(in_transaction(_space, begin="BEGIN"))

    async def give_back(self, most_bytes: int) -> int:
        """See `Storage.give_back`."""

        async def job(db: aiosqlite.Connection) -> int:
            before = await _space(db)
            pages = most_bytes // await _number(db, "PRAGMA page_size")
            # As a script, which goes on to its end: as a statement the sqlite3 module lets it free one page.
            async with db.executescript(f"PRAGMA incremental_vacuum({max(pages, 1)})"):
                pass
            return before.total - (await _space(db)).total

        given = await self._writer.run(job)
        self._checkpoints.note(given)
        return given

    async def settle(self) -> None:
        """See `Storage.settle`."""
        await self._checkpoints.empty(_CHECKPOINT_WAIT)


async def _rows_go(db: aiosqlite.Connection) -> None:
    for statement in _ROWS_GO:
        await db.execute_fetchall(statement)


async def _whole_bodies_go(db: aiosqlite.Connection) -> None:
    await db.execute_fetchall(_DELETE_PIECES)
    await _bodies_go(db)


async def _bodies_go(db: aiosqlite.Connection) -> None:
    """Without the pieces of large ones, which nothing leads to any more then."""
    await db.execute_fetchall(_DELETE_BASES)
    numbers = [number for (number,) in await db.execute_fetchall(_GOING)]
    await change_bodies(db, numbers, _REMOVE_BODIES)


async def _look_in_time(
    db: aiosqlite.Connection, what: Pruning, after: Reached | None
) -> tuple[list[tuple[Reached, int | None]], Reached | None]:
    """Through one organisation after another, each from its oldest call: an index has them so."""
    owner, *place = after or Reached(what.organisation or "", _LEAST, _LEAST)
    goes, values = _goes(what)
    look = _LOOK.format(goes=goes, ahead=_AHEAD_IN_TIME, most=_LOOKED_AT)
    found = await _look(db, look, [*values, owner, what.before, *place])
    if len(found) == _LOOKED_AT:
        return found, found[-1][0]
    if what.organisation is not None:
        return found, None
    [(following,)] = await db.execute_fetchall(_NEXT_ORGANISATION, [owner])
    return found, None if following is None else Reached(following, _LEAST, _LEAST)


async def _look_by_arrival(
    db: aiosqlite.Connection, what: Pruning, after: Reached | None
) -> tuple[list[tuple[Reached, int | None]], Reached | None]:
    goes, values = _goes(what)
    look = _LOOK.format(goes=goes, ahead=_AHEAD_BY_ARRIVAL, most=_LOOKED_AT)
    found = await _look(db, look, [*values, after.number if after else _LEAST])
    return found, found[-1][0] if len(found) == _LOOKED_AT else None


async def _look(db: aiosqlite.Connection, look: str, values: list[Any]) -> list[tuple[Reached, int | None]]:
    return [(Reached(*place), size) for *place, size in await db.execute_fetchall(look, values)]


def _bounded(
    found: list[tuple[Reached, int | None]], reached: Reached | None, most_calls: int, most_bytes: int
) -> Prunable:
    """Of what was found, as many as one step may take; those without a size stay."""
    sizes: dict[int, int] = {}
    ahead = 0
    for place, size in found:
        if size is None:
            continue
        sizes[place.number] = size
        ahead += size
        if len(sizes) == most_calls or ahead >= most_bytes:
            return Prunable(sizes, place)
    return Prunable(sizes, reached)


def _fill_going(what: Pruning, numbers: list[int]) -> Fragment:
    goes, values = _goes(what)
    text, values = _FILL_GOING.format(goes=goes), [json.dumps(numbers), *values]
    return (text, values) if what.before is None else (f"{text} AND c.started_at < ?", [*values, what.before])


def _goes(what: Pruning) -> Fragment:
    """Whether the row ``c`` is to go, but for its age."""
    wanted, values = condition(what.where)
    conditions = [f"coalesce({wanted}, 0)"]
    if what.organisation is not None:
        conditions.append("c.organisation = ?")
        values = [*values, what.organisation]
    if what.keep_rated:
        conditions.append(f"NOT ({_RATED})")
    if what.bodies_only:
        conditions.append(_HAS_BODIES)
    return " AND ".join(conditions), values


async def _space(db: aiosqlite.Connection) -> Space:
    pages, size = await _number(db, "PRAGMA page_count"), await _number(db, "PRAGMA page_size")
    return Space(pages * size, (pages - await _number(db, "PRAGMA freelist_count")) * size)


async def _number(db: aiosqlite.Connection, query: str) -> int:
    [(number,)] = await db.execute_fetchall(query)
    return int(number)
