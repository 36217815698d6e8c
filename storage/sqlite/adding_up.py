"""Keeping what blocks of calls add up to: behind the calls, a dimension of a block at a time.

The rule it keeps: the figures of a block are those of all its calls, or it is not ready. Triggers discard a block once
one of its calls changes, also while it is being made.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

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
from storage.sqlite.worker import Worker, in_transaction

__all__ = ["AddingUp"]

# Rows of a transaction: a millisecond.
_ROWS: Final = 512
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
_SUM: Final = """
SELECT c.organisation, {day}, {value}, {name}, {sums} FROM calls AS c
WHERE c.id >= ? AND c.id < ? GROUP BY 1, 2, 3, 4
"""
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
    _building: _Building | None = None

    async def add_up(self) -> bool:
        """See `Storage.add_up`."""
        building = self._building
        if building is None:
            return await self.purge_sums() or await self._begin()
        try:
            if not building.todo and building.pairs is None:
                building.pairs, building.todo = [], list(_pairs(building))
            if building.todo:
                stands = await self._dimension(building, building.todo.pop(0))
            else:
                stands = False
                await self._writer.run(lambda db: _run(db, _END, _ready(building)))
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
            build = await self._writer.run(in_transaction(partial(_begin, number)))
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

    async def _dimension(self, building: _Building, dimension: str) -> bool:
        """Add one dimension; whether the block still stands."""
        statement, values = _sums(dimension)
        rows = await self._reader.run(lambda db: _rows(db, statement, [*values, *building.ids]))
        if dimension == EVERY_CALL:
            building.calls, building.days = sum(row[4] for row in rows), len({row[1] for row in rows})
        elif not _is_kept(building, dimension, len(rows)):
            return True
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            keyed = [(building.build, row[0], dimension, start + place, *row[1:]) for place, row in enumerate(some)]
            if not await self._writer.run(in_transaction(partial(_add, building, keyed))):
                return False
        return True

    async def purge_sums(self) -> bool:
        """See `Storage.purge_sums`."""
        leaving = await self._reader.run(lambda db: _rows(db, _LEAVING, []))
        for (build,) in leaving:
            await self._writer.run(in_transaction(partial(_leave, build)))
        return bool(leaving)


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


def _sums(dimension: str) -> Fragment:
    (value, values), (name, names) = _columns(dimension)
    sums = ", ".join(f"{many}({one})" for one, many in COLUMNS.values())
    return _SUM.format(day=day("c.started_at"), value=value, name=name, sums=sums), [*values, *names]


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


def _ready(building: _Building) -> list[Any]:
    return [json.dumps(building.lacking), json.dumps(building.pairs), building.number, building.build]


async def _run(db: aiosqlite.Connection, statement: str, values: Sequence[Any]) -> None:
    await db.execute_fetchall(statement, values)


async def _rows(db: aiosqlite.Connection, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await db.execute_fetchall(statement, values)]


async def _begin(number: int, db: aiosqlite.Connection) -> int | None:
    now = _now()
    await db.execute_fetchall(_GIVE_UP, [now, _GIVEN_UP])
    [(build,)] = await db.execute_fetchall(_NEW_BUILD)
    begun = await db.execute_fetchall(_BEGIN, [number, build, now])
    return int(build) if list(begun) else None


async def _add(building: _Building, rows: Sequence[tuple[Any, ...]], db: aiosqlite.Connection) -> bool:
    if not list(await db.execute_fetchall(_STANDS, [building.number, building.build])):
        return False
    await db.executemany(_INSERT, rows)
    return True


async def _leave(build: int, db: aiosqlite.Connection) -> None:
    async with db.execute(_LEAVE, [build, _ROWS]) as cursor:
        removed = cursor.rowcount
    if removed < _ROWS:
        await db.execute_fetchall(_LEFT, [build])
