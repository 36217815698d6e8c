"""Questions about many calls, on a connection of their own and within a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import aiosqlite

from storage.filters import EVERYTHING, All, Node
from storage.queries import FIGURES, Dimension, Group, GroupSort, Page, Position, Shuffled, Sort
from storage.records import StoredCall
from storage.sqlite.candidates import candidates
from storage.sqlite.covering import BLOCKS, Block, cover, goal_of, property_names, sessions_of, span_of
from storage.sqlite.filtering import Fragment, condition, expression
from storage.sqlite.grouping import (
    Asked,
    feedback_from_rows,
    feedback_of_groups,
    groups_from_rows,
    keys_of,
    measures,
    summary,
)
from storage.sqlite.joining import stored_calls
from storage.sqlite.parts import SESSIONS, Way
from storage.sqlite.spoken import value_counts
from storage.sqlite.worker import Job, Workers, in_transaction

__all__ = ["Queries"]

T = TypeVar("T")
Row: TypeAlias = Sequence[Any]

# Seconds between two attempts to interrupt what takes too long.
_AGAIN: Final = 0.05

# Fields that every call has: their order needs no look at what is unknown, and can come from an index.
_ALWAYS_KNOWN: Final = frozenset(
    {"request_id", "trace_id", "method", "path", "target_url", "provider", "attempt", "latency", "started_at"}
)
# Which of the rows asked for, by their sizes alone: the bodies of no more than these are read.
_READ_CALLS: Final = """
SELECT c.*, b.* FROM (
    SELECT place, call_id, sum(size) OVER (ORDER BY place) - size AS ahead FROM (
        SELECT asked.key AS place, call_id, request_size + response_size AS size
        FROM json_each(:numbers) AS asked JOIN bodies ON call_id = asked.value
    )
) AS batch JOIN calls AS c ON c.id = batch.call_id JOIN bodies AS b ON b.call_id = batch.call_id
WHERE c.organisation = :organisation AND ahead < :most_bytes ORDER BY place
"""
# A step in the index from each to the next: DISTINCT would go over every call.
_ORGANISATIONS: Final = """
WITH RECURSIVE named (organisation) AS (
    SELECT min(organisation) FROM calls
    UNION ALL
    SELECT (SELECT min(organisation) FROM calls WHERE organisation > named.organisation) FROM named
    WHERE organisation IS NOT NULL
)
SELECT organisation FROM named WHERE organisation IS NOT NULL
UNION SELECT organisation FROM datasets ORDER BY organisation
"""
# Rows that are made groups of without a thread.
_MOST_AT_ONCE: Final = 200
_COUNT_SAID: Final = "SELECT count(*) FROM feedback WHERE organisation = ?"
_COUNT_CALLS: Final = """
SELECT count(*) FROM (
    SELECT 1 FROM calls AS c WHERE c.organisation = ? AND c.started_at >= ? AND c.started_at < ? AND {sessions} LIMIT ?
)
"""


class Queries:
    """The part of `storage.base.Storage` that asks about many calls."""

    _analyst: Workers
    _query_timeout: float
    """Seconds."""

    async def find_calls(self, organisation: str, where: Node, sort: Sort | Shuffled, page: Page) -> Sequence[Position]:
        """See `Storage.find_calls`."""

        async def job(db: aiosqlite.Connection) -> list[Position]:
            calls = await candidates(db, organisation, where)
            statement = _sample(calls, where, page) if isinstance(sort, Shuffled) else _find(calls, where, sort, page)
            return [Position(*row) for row in await db.execute_fetchall(*statement)]

        return await self._ask(job)

    async def read_calls(
        self, organisation: str, numbers: Sequence[int], *, most_bytes: int
    ) -> Mapping[int, StoredCall]:
        """See `Storage.read_calls`."""
        key = {"organisation": organisation, "numbers": json.dumps(list(numbers)), "most_bytes": most_bytes}

        async def job(db: aiosqlite.Connection) -> dict[int, StoredCall]:
            rows = list(await db.execute_fetchall(_READ_CALLS, key))
            return dict(zip([row["call_id"] for row in rows], await stored_calls(db, organisation, rows), strict=True))

        return await self._ask(job)

    async def count_matching(self, organisation: str, where: Node) -> int:
        """See `Storage.count_matching`."""
        wanted, values = condition(where)

        async def job(db: aiosqlite.Connection) -> int:
            calls, calls_values = await candidates(db, organisation, where)
            statement = f"SELECT count(*) FROM calls AS c WHERE {calls} AND {wanted}"
            [(number,)] = await db.execute_fetchall(statement, [*calls_values, *values])
            return int(number)

        return await self._ask(job)

    async def summarise(
        self,
        organisation: str,
        where: Node,
        by: Sequence[Dimension],
        sort: GroupSort,
        *,
        limit: int,
        offset: int = 0,
        having: Node = EVERYTHING,
        wanted: Collection[str] = FIGURES,
    ) -> tuple[Sequence[Group], int]:
        """See `Storage.summarise`."""
        asked = Asked(organisation, where, by, sort, having, wanted)

        async def job(db: aiosqlite.Connection) -> tuple[list[Group], int]:
            later = asked.later
            rows, number = await _page(db, asked.without(later), limit, offset)
            said = later and await _rows(db, feedback_of_groups, later.of([keys_of(row) for row in rows]))
            return await _groups(rows, by, said or []), number

        return await self._ask(job)

    async def measure(
        self,
        organisation: str,
        where: Node,
        by: Sequence[Dimension],
        sort: GroupSort,
        figures: Sequence[str],
        *,
        limit: int,
        having: Node = EVERYTHING,
    ) -> Sequence[Sequence[Any]]:
        """See `Storage.measure`."""
        asked = Asked(organisation, where, by, sort, having, figures)
        return await self._ask(lambda db: _rows(db, partial(measures, figures=figures, limit=limit), asked))

    async def count_values(self, organisation: str, where: Node) -> Mapping[int, int]:
        """See `Storage.count_values`."""
        statement = value_counts(organisation, where)

        async def job(db: aiosqlite.Connection) -> dict[int, int]:
            return {row[0]: row[1] for row in await db.execute_fetchall(*statement)}

        return await self._ask(job)

    async def organisations(self) -> Sequence[str]:
        """See `Storage.organisations`."""

        async def job(db: aiosqlite.Connection) -> list[str]:
            return [name for (name,) in await db.execute_fetchall(_ORGANISATIONS)]

        return await self._ask(job)

    async def property_names(self, organisation: str) -> Sequence[str]:
        """See `Storage.property_names`."""

        async def job(db: aiosqlite.Connection) -> list[str]:
            statement = property_names(await _blocks(db), organisation)
            return [name for (name,) in await db.execute_fetchall(*statement)]

        return await self._ask(job)

    async def _ask(self, job: Job[T]) -> T:
        return await self._analyst.run(_within(self._query_timeout, in_transaction(job, begin="BEGIN")))


def _within(seconds: float, job: Job[T]) -> Job[T]:
    """The job, interrupted once it takes longer than this."""

    async def run(db: aiosqlite.Connection) -> T:
        late = asyncio.create_task(_interrupt_after(seconds, db))
        try:
            return await job(db)
        finally:
            late.cancel()
            await asyncio.wait([late])  # or it might yet interrupt the next job

    return run


async def _page(db: aiosqlite.Connection, asked: Asked, limit: int, offset: int) -> tuple[list[Row], int]:
    """Rows of `summary`, and how many there are in all."""
    rows = await _rows(db, partial(summary, limit=limit, offset=offset), asked)
    if rows:
        return rows, rows[0][-1]
    first = await _rows(db, partial(summary, limit=1, offset=0), asked)
    return rows, first[0][-1] if first else 0


async def _rows(db: aiosqlite.Connection, statement: Callable[[Asked, Way], Fragment], asked: Asked) -> list[Row]:
    return list(await db.execute_fetchall(*statement(asked, await _way(db, asked))))


async def _groups(rows: Sequence[Row], by: Sequence[Dimension], said: Sequence[Row]) -> list[Group]:
    if len(rows) <= _MOST_AT_ONCE:
        return groups_from_rows(rows, by, feedback_from_rows(said))
    # Some microseconds each.
    return await asyncio.to_thread(lambda: groups_from_rows(rows, by, feedback_from_rows(said)))


async def _blocks(db: aiosqlite.Connection, dimension: str = "") -> list[Block]:
    return [Block.from_row(row) for row in await db.execute_fetchall(BLOCKS, [dimension])]


async def _way(db: aiosqlite.Connection, asked: Asked) -> Way:
    goal = goal_of(asked.where, asked.by, sessions=SESSIONS in asked.columns)
    ready = None if goal is None else cover(await _blocks(db, goal.dimension), asked.organisation, goal)
    calls = await candidates(db, asked.organisation, asked.where)
    return Way(calls, ready, await _is_more_than_said(db, asked) if asked.feedback else True)


async def _is_more_than_said(db: aiosqlite.Connection, asked: Asked) -> bool:
    """Whether the span of time and the sessions that are asked for have more calls than there is feedback."""
    [(said,)] = await db.execute_fetchall(_COUNT_SAID, [asked.organisation])
    text, values = condition(All(tuple(sessions_of(asked.where))))
    statement = _COUNT_CALLS.format(sessions=text)
    [(calls,)] = await db.execute_fetchall(statement, [asked.organisation, *span_of(asked.where), *values, said])
    return bool(calls >= said)


async def _interrupt_after(seconds: float, db: aiosqlite.Connection) -> None:
    await asyncio.sleep(seconds)
    while True:  # one that comes between two statements has no effect
        await db.interrupt()
        await asyncio.sleep(_AGAIN)


def _sample(calls: Fragment, where: Node, page: Page) -> Fragment:
    wanted, values = condition(where)
    text = f"""
        SELECT NULL, c.id FROM calls AS c WHERE {calls[0]} AND {wanted}
        ORDER BY random() LIMIT ? OFFSET ?
    """
    return text, [*calls[1], *values, page.limit, page.offset]


def _find(calls: Fragment, where: Node, sort: Sort, page: Page) -> Fragment:
    wanted, wanted_values = condition(where)
    sorted_by, sorted_values = expression(sort.field)
    direction = "DESC" if sort.descending else "ASC"
    unknown_last = "" if sort.field.name in _ALWAYS_KNOWN else "NULLS LAST"
    after, after_values = _behind(sort, page.after) if page.after else ("1", [])
    text = f"""
        SELECT {sorted_by} AS place, c.id FROM calls AS c WHERE {calls[0]} AND {wanted} AND {after}
        ORDER BY place {direction} {unknown_last}, c.id {direction} LIMIT ? OFFSET ?
    """
    values = [*sorted_values, *calls[1], *wanted_values, *after_values]
    return text, [*values, page.limit, page.offset]


def _behind(sort: Sort, position: Position) -> Fragment:
    """What stands behind a position in an order."""
    text, values = expression(sort.field)
    sign = "<" if sort.descending else ">"
    known: list[Any] = [*values, position.value, position.number]
    if sort.field.name in _ALWAYS_KNOWN:
        return f"({text}, c.id) {sign} (?, ?)", known
    if position.value is None:
        return f"({text} IS NULL AND c.id {sign} ?)", [*values, position.number]
    return f"({text} IS NULL OR ({text}, c.id) {sign} (?, ?))", [*values, *known]
