"""Keeping what blocks of calls add up to: behind the calls, a dimension of a block at a time.

The rule it keeps: the figures of a block are those of all its calls, or it is not ready. Triggers discard a block once
one of its calls changes, also while it is being made.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import aiosqlite

from storage.filters import Field
from storage.sqlite.figures import (
    BLOCK,
    COLUMNS,
    EVERY_CALL,
    FIELDS,
    MODEL,
    PROPERTY,
    QUARTER,
    bucket,
    day,
    pair_columns,
    pair_of,
)
from storage.sqlite.filtering import Fragment, expression
from storage.sqlite.gently import gently
from storage.sqlite.worker import Work, Worker, Workers, as_transaction, in_thread

__all__ = ["AddingUp"]

T = TypeVar("T")

# Rows of a transaction: a millisecond.
_ROWS: Final = 512
# Calls that are sorted at a time, which SQLite does in one go: some tenths of a millisecond. What they come to is
# sorted once more, and is as much only where each call has a value of its own.
_PART: Final = 1024
# Microseconds after which nobody is at a block any more that was begun.
_GIVEN_UP: Final = 600_000_000
# Values of a dimension that are kept at most, as a part of the calls; and properties.
_MOST_VALUES: Final = 0.75
_MOST_PROPERTIES: Final = 24
# Rows of a pair that are kept at most; and pairs.
_MOST_OF_PAIR: Final = 256
_MOST_PAIRS: Final = 32

_NEXT: Final = """
WITH RECURSIVE whole (number) AS (
    SELECT (max(id) + 1) / :block - 1 FROM calls
    UNION ALL SELECT number - 1 FROM whole WHERE number > 0
)
SELECT number FROM whole WHERE number >= 0 AND NOT EXISTS (
    SELECT 1 FROM figure_blocks AS made
    WHERE made.number = whole.number AND (ready = 1 OR abs(begun - :now) < :given_up)
) LIMIT 1
"""
_GIVE_UP: Final = "DELETE FROM figure_blocks WHERE ready = 0 AND abs(begun - ?) >= ?"
_NEW_BUILD: Final = "UPDATE figure_builds SET last = last + 1 RETURNING last"
_BEGIN: Final = "INSERT OR IGNORE INTO figure_blocks VALUES (?, ?, ?, 0, '[]', '[]') RETURNING build"
_STANDS: Final = "SELECT 1 FROM figure_blocks WHERE number = ? AND build = ?"
_END: Final = "UPDATE figure_blocks SET ready = 1, lacking = ?, pairs = ? WHERE number = ? AND build = ?"
_INSERT: Final = f"""
INSERT INTO figures (build, organisation, dimension, place, day, value, name, {", ".join(COLUMNS)})
VALUES ({", ".join("?" * (7 + len(COLUMNS)))})
"""
_SUMS_OF_PART: Final = """
SELECT c.organisation AS organisation, {day} AS day, {value} AS value, {name} AS name, {sums} FROM calls AS c
WHERE c.id >= ? AND c.id < ? GROUP BY 1, 2, 3, 4
"""
_SUMS: Final = "SELECT organisation, day, value, name, {sums} FROM ({parts}) GROUP BY 1, 2, 3, 4"
_PROPERTY_NAME: Final = "(SELECT p.name FROM properties AS p WHERE p.call_id = c.id AND p.key = ?)"
_PROPERTIES: Final = "SELECT DISTINCT key FROM properties WHERE call_id >= ? AND call_id < ? LIMIT ?"
_LEAVING: Final = "SELECT build FROM figure_leavings LIMIT 1"
_LEAVE: Final = """
DELETE FROM figures WHERE (build, organisation, dimension, place) IN (
    SELECT build, organisation, dimension, place FROM figures WHERE build = ? LIMIT ?
)
"""
_LEFT: Final = "DELETE FROM figure_leavings WHERE build = ?"


@dataclass(slots=True)
class _Building:
    """A block that is being made: the dimensions still to come, how many rows those have that are kept, and the others.

    ``pairs`` are those of two dimensions; None while they are still to be chosen.
    """

    number: int
    build: int
    todo: list[str]
    kept: dict[str, int] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    pairs: list[str] | None = None
    calls: int = 0
    days: int = 0

    @property
    def ids(self) -> tuple[int, int]:
        return self.number * BLOCK, (self.number + 1) * BLOCK


class AddingUp:
    """The part of `storage.base.Storage` that keeps sums."""

    _writer: Worker
    _reader: Worker
    _analyst: Workers
    _building: _Building | None = None

    async def add_up(self, *, beside_calls: bool) -> bool:
        """See `Storage.add_up`."""
        building = self._building
        if building is None:
            return await self.purge_sums() or await self._begin()
        try:
            if not building.todo and building.pairs is None:
                building.pairs, building.todo = [], list(_pairs(building))
            if building.todo:
                stands = await self._dimension(building, building.todo.pop(0), beside_calls=beside_calls)
            else:
                stands = False
                await self._write(partial(_end, building))
        except BaseException:
            self._building = None
            raise
        if not stands:
            self._building = None
        return True

    async def _begin(self) -> bool:
        """Begin with the newest block that is not there; whether there is one."""
        values = {"block": BLOCK, "now": _now(), "given_up": _GIVEN_UP}
        missing = await self._reader.run(lambda db: db.execute_fetchall(_NEXT, values))
        for (number,) in missing:
            build = await self._write(partial(_begin, number))
            if build is not None:  # nobody was quicker
                self._building = await self._planned(number, build)
        return self._building is not None

    async def _planned(self, number: int, build: int) -> _Building:
        building = _Building(number, build, [EVERY_CALL, *FIELDS])
        ids = [*building.ids, _MOST_PROPERTIES + 1]
        keys = await self._reader.run(lambda db: _rows(db, _PROPERTIES, ids))
        if len(keys) > _MOST_PROPERTIES:
            building.lacking.append(PROPERTY)
        else:
            building.todo += [f"{PROPERTY}:{key}" for (key,) in keys]
        return building

    async def _dimension(self, building: _Building, dimension: str, *, beside_calls: bool) -> bool:
        """Add one dimension; whether the block still stands."""
        adding = _adding(building, dimension)
        if beside_calls:
            adding = gently(adding)
        # Not by who reads single calls, which would wait as long.
        rows = await self._analyst.run(lambda db: in_thread(db, adding))
        if dimension == EVERY_CALL:
            building.calls, building.days = sum(row[4] for row in rows), len({row[1] for row in rows})
        elif not _is_kept(building, dimension, len(rows)):
            return True
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            keyed = [(building.build, row[0], dimension, start + place, *row[1:]) for place, row in enumerate(some)]
            if not await self._write(partial(_add, building, keyed)):
                return False
        return True

    async def purge_sums(self) -> bool:
        """See `Storage.purge_sums`."""
        leaving = await self._reader.run(lambda db: _rows(db, _LEAVING, []))
        for (build,) in leaving:
            await self._write(partial(_leave, build))
        return bool(leaving)

    async def _write(self, work: Work[T]) -> T:
        """Do all of it in the writer's thread: with turns of the event loop between, rows would wait for as many."""
        return await self._writer.execute(lambda: as_transaction(work))


def _adding(building: _Building, dimension: str) -> Work[list[tuple[Any, ...]]]:
    statement, values = _sums(dimension, *building.ids)
    return lambda db: [tuple(row) for row in db.execute(statement, values)]


def _is_kept(building: _Building, dimension: str, rows: int) -> bool:
    if building.pairs is not None:
        if rows > _MOST_OF_PAIR:
            return False
        building.pairs.append(dimension)
    elif rows > building.calls * _MOST_VALUES:
        building.lacking.append(dimension)
        return False
    else:
        building.kept[dimension] = rows
    return True


def _pairs(building: _Building) -> Iterator[str]:
    """What is compared, models and properties, by each other and by whatever else has few values.

    One value is few, too: a release is mostly the only one of its blocks, and is compared with that of other blocks.
    """
    pairs = [
        (_is_alike(building, one) or _is_alike(building, other), one_rows * other_rows, pair_of(one, other))
        for (one, one_rows), (other, other_rows) in itertools.combinations(building.kept.items(), 2)
        if _is_compared(one) or _is_compared(other)
    ]
    # About as many rows as there are where the two have nothing to do with each other.
    most = _MOST_OF_PAIR * building.days
    return (pair for _, rows, pair in sorted(pairs)[:_MOST_PAIRS] if rows <= most)


def _is_compared(dimension: str) -> bool:
    return dimension == MODEL or dimension.startswith(f"{PROPERTY}:")


def _is_alike(building: _Building, dimension: str) -> bool:
    """Whether it is what all calls have in common and nobody compares: pairs of such come last."""
    return not _is_compared(dimension) and building.kept[dimension] <= building.days


def _now() -> int:
    return int(time.time() * 1_000_000)


def _sums(dimension: str, first: int, end: int) -> Fragment:
    """Those of the calls from one number to another: of parts, and of what these add up to."""
    (value, values), (name, names) = _columns(dimension)
    sums = ", ".join(f"{many}({one}) AS {column}" for column, (one, many) in COLUMNS.items())
    part = _SUMS_OF_PART.format(day=day("c.started_at"), value=value, name=name, sums=sums)
    starts = range(first, end, _PART)
    statement = _SUMS.format(
        sums=", ".join(f"{many}({column})" for column, (_, many) in COLUMNS.items()),
        parts=" UNION ALL ".join([part] * len(starts)),
    )
    bound = [[*values, *names, start, min(start + _PART, end)] for start in starts]
    return statement, [*itertools.chain.from_iterable(bound)]


def _columns(dimension: str) -> tuple[Fragment, Fragment]:
    """A call's value and name in a dimension."""
    nothing: Fragment = "NULL", []
    if pair := pair_columns(dimension):
        first, second = (_columns(one)[0] for one in pair)
        return first, second
    if dimension.startswith(f"{PROPERTY}:"):
        key = dimension.removeprefix(f"{PROPERTY}:")
        return expression(Field(PROPERTY, key)), (_PROPERTY_NAME, [key])
    if dimension == EVERY_CALL:
        return (bucket("c.started_at", QUARTER), []), nothing
    value, name = FIELDS[dimension]
    return (f"c.{value}", []), (f"c.{name}", []) if name else nothing


async def _rows(db: aiosqlite.Connection, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await db.execute_fetchall(statement, values)]


def _begin(number: int, db: sqlite3.Connection) -> int | None:
    now = _now()
    db.execute(_GIVE_UP, [now, _GIVEN_UP])
    [(build,)] = db.execute(_NEW_BUILD)
    begun = db.execute(_BEGIN, [number, build, now]).fetchall()
    return int(build) if begun else None


def _add(building: _Building, rows: Sequence[tuple[Any, ...]], db: sqlite3.Connection) -> bool:
    if db.execute(_STANDS, [building.number, building.build]).fetchone() is None:
        return False
    db.executemany(_INSERT, rows)
    return True


def _end(building: _Building, db: sqlite3.Connection) -> None:
    db.execute(_END, [json.dumps(building.lacking), json.dumps(building.pairs), building.number, building.build])


def _leave(build: int, db: sqlite3.Connection) -> None:
    if db.execute(_LEAVE, [build, _ROWS]).rowcount < _ROWS:
        db.execute(_LEFT, [build])
