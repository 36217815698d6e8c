"""Which part of a sum over calls blocks have ready, and which has to be added up from the calls.

A question that goes by one dimension, or by a pair that is kept, and asks of calls nothing else but when they began, is
answered by the figures of whole days of all blocks. From the calls come the days that the span cuts, and what is in no
block: of other questions, everything.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from storage.filters import All, Condition, Field, Figure, Node, Not, OneOf, Operator
from storage.filters import Any as AnyOf
from storage.queries import Dimension, TimeBucket
from storage.sqlite.figures import (
    BLOCK,
    COLUMNS,
    DAY,
    EVERY_CALL,
    PROPERTY,
    QUARTER,
    SESSION,
    dimension_of,
    pair_columns,
    pair_of,
)
from storage.sqlite.filtering import Fragment, condition

__all__ = ["BLOCKS", "Block", "Cover", "Goal", "cover", "goal_of", "property_names", "sessions_of", "span_of"]

BLOCKS: Final = """
SELECT number, build, lacking, EXISTS (SELECT 1 FROM json_each(pairs) WHERE value = ?)
FROM figure_blocks WHERE ready = 1 ORDER BY number
"""
_LEAST, _LARGEST = -(2**63), 2**63 - 1
_STARTED: Final = "started_at"
_OF_PAIR: Final = 2
# With fewer of all blocks than this part the calls are the quicker way.
_ENOUGH: Final = 0.5

_FIGURES: Final = f"""
SELECT f.day, f.value, f.name, {", ".join(f"f.{column}" for column in COLUMNS)}
FROM json_each(?) AS ready CROSS JOIN figures AS f ON f.build = ready.value
WHERE f.organisation = ? AND f.dimension = ?
"""
# Of a block in which no call of the organisation has a property, all calls are without it.
_WITHOUT: Final = f"""
UNION ALL
SELECT f.day, NULL, NULL, {", ".join(f"f.{column}" for column in COLUMNS)}
FROM json_each(?) AS ready CROSS JOIN figures AS f ON f.build = ready.value
WHERE f.organisation = ? AND f.dimension = '{EVERY_CALL}' AND NOT EXISTS (
    SELECT 1 FROM figures AS p WHERE p.build = f.build AND p.organisation = f.organisation AND p.dimension = ?
)
"""
_IN_GAPS: Final = """
json_each(?) AS gap CROSS JOIN calls AS c NOT INDEXED
ON c.id BETWEEN json_extract(gap.value, '$[0]') AND json_extract(gap.value, '$[1]')
"""
# Their dimensions, which stand behind each other in the order of their text.
_OF_PROPERTIES: Final = f"f.dimension >= '{PROPERTY}:' AND f.dimension < '{PROPERTY};'"
_PROPERTY_NAMES: Final = f"""
SELECT min(name) FROM (
    SELECT substr(f.dimension, {len(PROPERTY) + 2}) AS key, min(f.name) AS name
    FROM json_each(?) AS ready CROSS JOIN figures AS f ON f.build = ready.value
    WHERE f.organisation = ? AND {_OF_PROPERTIES} AND f.name IS NOT NULL GROUP BY f.dimension
    UNION ALL
    SELECT p.key, min(p.name) FROM {_IN_GAPS} CROSS JOIN properties AS p ON p.call_id = c.id
    WHERE c.organisation = ? GROUP BY p.key
) GROUP BY key ORDER BY key
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A row of `BLOCKS`, which is asked for one pair."""

    number: int
    build: int
    lacking: frozenset[str]
    has_pair: bool

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Block:
        """See `BLOCKS`."""
        return cls(row[0], row[1], frozenset(json.loads(row[2])), bool(row[3]))

    def has(self, dimension: str) -> bool:
        """Whether the sums of all its calls are there."""
        if pair_columns(dimension):
            return self.has_pair
        is_property = dimension.startswith(f"{PROPERTY}:")
        return dimension not in self.lacking and not (is_property and PROPERTY in self.lacking)


@dataclass(frozen=True, slots=True)
class Goal:
    """What has to be ready: a dimension, in whose ``columns`` the fields stand that are asked for.

    ``parts`` are the conditions on these; ``span`` is the time in which calls begin: its begin, and its end beyond it.
    """

    dimension: str
    columns: Mapping[Field, str]
    parts: tuple[Node, ...]
    span: tuple[int, int]

    def expression(self, field: Field | Figure) -> Fragment:
        """A field's value in the row ``r`` of the dimension's figures."""
        assert isinstance(field, Field)
        return f"r.{self.columns[field]}", []


@dataclass(frozen=True, slots=True)
class Cover:
    """What is ready, and what is not.

    ``ready`` gives rows ``r`` of figures; its columns ``value``, ``name`` and ``day`` are those of `figures.FIELDS`, or
    the values of a pair. ``live`` are sources of rows ``c`` of calls with conditions of their own, each a FROM clause
    and a condition.
    """

    goal: Goal
    ready: Fragment
    meant: Fragment
    live: tuple[tuple[Fragment, Fragment], ...]


def cover(blocks: Sequence[Block], organisation: str, goal: Goal) -> Cover | None:
    """How a question is answered by blocks; None where that is no quicker."""
    dimension, span = goal.dimension, goal.span
    first, last = -(-span[0] // DAY), span[1] // DAY
    usable = [one for one in blocks if one.has(dimension)]
    if first >= last or not usable or len(usable) < _ENOUGH * (usable[-1].number + 1):
        return None
    builds = json.dumps([one.build for one in usable])
    text, values = _FIGURES, [builds, organisation, dimension]
    if dimension.startswith(f"{PROPERTY}:"):
        text, values = text + _WITHOUT, [*values, builds, organisation, dimension]
    meant, meant_values = condition(All(goal.parts), goal.expression)
    whole = [max(first, _LEAST // DAY), min(last, _LARGEST // DAY)]
    return Cover(
        goal,
        (f"({text}) AS r", values),
        (f"r.day >= ? AND r.day < ? AND {meant}", [*whole, *meant_values]),
        tuple(_live(span, first, last, usable)),
    )


def property_names(blocks: Sequence[Block], organisation: str) -> Fragment:
    """The statement for the names of all properties, one of each key, in the order of the keys."""
    usable = [one for one in blocks if not any(name.startswith(PROPERTY) for name in one.lacking)]
    builds, gaps = json.dumps([one.build for one in usable]), json.dumps(_gaps(usable))
    return _PROPERTY_NAMES, [builds, organisation, gaps, organisation]


def goal_of(where: Node, by: Sequence[Dimension], *, sessions: bool) -> Goal | None:
    """What a question needs ready; None where nothing is of use. ``sessions``: whether they are to be counted."""
    span, parts = [_LEAST, _LARGEST], list[Node]()
    for part in _parts(where):
        if not _narrows(part, span):
            parts.append(part)
    fields = {field for part in parts for field in _fields(part)}
    found = _dimension({*fields, *(one for one in by if isinstance(one, Field))})
    if found is None or (sessions and found[0] != SESSION):
        return None
    width = QUARTER if found[0] == EVERY_CALL else DAY
    buckets = [one for one in by if isinstance(one, TimeBucket)]
    if any(one.width % width or one.offset % width for one in buckets):
        return None
    return Goal(*found, tuple(parts), (span[0], span[1]))


def _dimension(fields: Collection[Field]) -> tuple[str, dict[Field, str]] | None:
    """The dimension that tells of all of them, and in which column of each."""
    found = {field: known for field in fields if (known := dimension_of(field)) is not None}
    dimensions = {dimension for dimension, _ in found.values()}
    if len(found) < len(fields) or len(dimensions) > _OF_PAIR:
        return None
    if len(dimensions) < _OF_PAIR:
        return next(iter(dimensions), EVERY_CALL), {field: column for field, (_, column) in found.items()}
    pair = pair_of(*dimensions)
    columns = pair_columns(pair) or {}
    if any(column != "value" for _, column in found.values()):
        return None
    return pair, {field: columns[dimension] for field, (dimension, _) in found.items()}


def span_of(where: Node) -> list[int]:
    """The span of time in which calls have to begin: from, and before when."""
    span = [_LEAST, _LARGEST]
    for part in _parts(where):
        _narrows(part, span)
    return span


def sessions_of(where: Node) -> Iterator[Node]:
    """The conditions by which calls have to be of certain sessions."""
    for part in _parts(where):
        match part:
            case Condition(Field("session_id"), Operator.EQUALS, str()) | OneOf(Field("session_id")):
                yield part


def _parts(node: Node) -> Iterator[Node]:
    """What all has to hold."""
    if isinstance(node, All):
        for part in node.parts:
            yield from _parts(part)
    else:
        yield node


def _narrows(part: Node, span: list[int]) -> bool:
    """Whether it is a bound on the time at which calls began; then the span is narrowed to it."""
    if not isinstance(part, Condition) or part.field != Field(_STARTED) or not isinstance(part.value, int):
        return False
    match part.operator:
        case Operator.GTE:
            span[0] = max(span[0], part.value)
        case Operator.GT:
            span[0] = max(span[0], part.value + 1)
        case Operator.LT:
            span[1] = min(span[1], part.value)
        case Operator.LTE:
            span[1] = min(span[1], part.value + 1)
        case _:
            return False
    return True


def _fields(node: Node) -> Iterator[Field]:
    match node:
        case Condition(Field() as field) | OneOf(field):
            yield field
        case Not(part):
            yield from _fields(part)
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from _fields(part)


def _live(span: tuple[int, int], first: int, last: int, usable: Sequence[Block]) -> Iterator[tuple[Fragment, Fragment]]:
    """The days that are cut at either end, and of the whole ones between them what is in no block."""
    begin, end = first * DAY, last * DAY
    if span[0] > _LEAST and span[0] < begin:
        yield ("calls AS c INDEXED BY calls_by_time", []), ("c.started_at >= ? AND c.started_at < ?", [span[0], begin])
    if span[1] < _LARGEST and end < span[1]:
        yield ("calls AS c INDEXED BY calls_by_time", []), ("c.started_at >= ? AND c.started_at < ?", [end, span[1]])
    bounds = [("c.started_at >= ?", begin)] if span[0] > _LEAST else []
    bounds += [("c.started_at < ?", end)] if span[1] < _LARGEST else []
    within = " AND ".join(["1", *(text for text, _ in bounds)])
    yield (_IN_GAPS, [json.dumps(_gaps(usable))]), (within, [value for _, value in bounds])


def _gaps(usable: Sequence[Block]) -> list[tuple[int, int]]:
    """The ids that are in none of the blocks, as ranges."""
    reached, gaps = _LEAST, list[tuple[int, int]]()
    for block in usable:
        first = block.number * BLOCK
        if reached < first:
            gaps.append((reached, first - 1))
        reached = first + BLOCK
    return [*gaps, (reached, _LARGEST)]
