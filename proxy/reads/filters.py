"""Helicone's filter trees, read once into the store's own. Contract section 7.

A node is ``"all"`` or ``{}`` (everything), a leaf ``{table: {column: {operator: value}}}``, or a branch
``{"left": node, "operator": "and" | "or", "right": node}``. Columns of named things have a level more:
``{"properties": {name: {operator: value}}}``. The same columns answer under every table that Helicone has them in.
"""

from __future__ import annotations

import operator as comparing
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from proxy.dialects import Failed
from proxy.reads.columns import CALL_COLUMNS, CALLS, KEYED_TABLES, RATING, TABLES, Column, Constant
from storage.filters import (
    EVERYTHING,
    All,
    Condition,
    Field,
    Figure,
    FilterError,
    Kind,
    Node,
    Not,
    OneOf,
    Operator,
    Value,
    operators_of,
)
from storage.filters import Any as AnyOf
from storage.queries import Shuffled, Sort

__all__ = ["CALLS", "GroupFilter", "read_filter", "read_group_filter", "read_moment", "read_sort"]

_DEEPEST: Final = 100
_MOST_CONDITIONS: Final = 500
_EVERYTHING: Final[tuple[Any, ...]] = ("all", {}, None)
# What Helicone's clients write for a value that isn't there, and for one that is empty.
_UNKNOWN: Final = "null"
_EMPTY: Final = "__empty__"
# What is sorted by where a sample is wanted.
_SHUFFLED: Final = "random"
_BRANCH: Final = frozenset({"left", "operator", "right"})
_NOTHING: Final = AnyOf(())
# What is true of a value that nobody knows.
_TRUE_OF_UNKNOWN: Final = (Operator.EQUALS, Operator.NOT_EQUALS, Operator.NOT_CONTAINS)
_COMPARED: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    Operator.EQUALS: comparing.eq,
    Operator.GT: comparing.gt,
    Operator.GTE: comparing.ge,
    Operator.LT: comparing.lt,
    Operator.LTE: comparing.le,
}
# Eight digits are a date.
_MILLISECONDS_TEXT: Final = re.compile(r"[0-9]{9,15}")
# Beyond it lie no calls; further numbers not every database can compare with.
_FARTHEST: Final = 2**53


@dataclass(frozen=True, slots=True)
class GroupFilter:
    """Which calls groups are made of, and which of the groups are meant."""

    where: Node
    having: Node


def read_filter(node: Any, where: str = "filter") -> Node:
    """The tree that a body's filter means. Raises `Failed` (400), naming ``where`` and what is not known."""
    try:
        return _Reading().node(node, 0)
    except FilterError as error:
        raise Failed(400, "invalid_filter", f"{where}: {error}") from None


def read_group_filter(node: Any, groups: str) -> GroupFilter:
    """The same for a question about ``groups``, "session" or "user", where it may ask for what they add up to too."""
    try:
        return _split(_Reading(groups).node(node, 0))
    except FilterError as error:
        raise Failed(400, "invalid_filter", f"filter: {error}") from None


def _split(node: Node) -> GroupFilter:
    """Conditions on calls and those on groups, which have to meet in ``and`` alone: one comes before the other."""
    waiting, calls, groups = [node], list[Node](), list[Node]()
    while waiting:
        part = waiting.pop()
        fields = set(_fields(part))
        if not any(isinstance(field, Figure) for field in fields):
            calls.append(part)
        elif all(isinstance(field, Figure) for field in fields):
            groups.append(part)
        elif isinstance(part, All):
            waiting += part.parts
        else:
            raise FilterError('what calls are and what they add up to can be joined by "and" only')
    return GroupFilter(All(tuple(calls)), All(tuple(groups)))


def _fields(node: Node) -> Iterator[Field | Figure]:
    waiting = [node]
    while waiting:
        match waiting.pop():
            case Condition(field) | OneOf(field):
                yield field
            case Not(part):
                waiting.append(part)
            case All(parts) | AnyOf(parts):
                waiting += parts


def read_sort(sort: Mapping[str, Any]) -> Sort | Shuffled:
    """The order that Helicone's ``{column: "asc" | "desc"}`` means; newest first where it is empty.

    Raises `Failed` (400), naming what is not known.
    """
    try:
        return _sort(sort)
    except FilterError as error:
        raise Failed(400, "invalid_sort", f"sort: {error}") from None


def _sort(sort: Mapping[str, Any]) -> Sort | Shuffled:
    if not sort:
        return Sort(Field("started_at"), descending=True)
    if len(sort) > 1:
        raise FilterError("one column can be sorted by")
    [(name, direction)] = sort.items()
    if name == _SHUFFLED:
        return Shuffled()
    column = CALL_COLUMNS.get(name)
    if column is None:
        raise FilterError(f"there is no column {name!r}; there are {', '.join([*CALL_COLUMNS, _SHUFFLED])}")
    key = None
    if column.is_keyed:
        [(key, direction), *more] = _object(direction, repr(name)).items()
        if more:
            raise FilterError("one column can be sorted by")
    if direction not in ("asc", "desc"):
        raise FilterError('the direction is "asc" or "desc"')
    return Sort(column.at(key), direction == "desc")


class _Reading:
    """One tree's, with what it may take; ``groups`` are those that a figure may be asked of."""

    def __init__(self, groups: str | None = None) -> None:
        self._groups = groups
        self._conditions = 0

    def node(self, node: Any, depth: int) -> Node:
        if node in _EVERYTHING:
            return EVERYTHING
        if not isinstance(node, dict):
            raise FilterError('a node is "all", {} or an object')
        if depth > _DEEPEST:
            raise FilterError(f"it is nested deeper than {_DEEPEST} levels")
        return self._branch(node, depth) if _BRANCH & node.keys() else self._leaf(node)

    def _branch(self, node: dict[str, Any], depth: int) -> Node:
        if node.keys() != _BRANCH or node["operator"] not in ("and", "or"):
            raise FilterError('a branch has "left", "right", and "operator", which is "and" or "or"')
        parts = self.node(node["left"], depth + 1), self.node(node["right"], depth + 1)
        return All(parts) if node["operator"] == "and" else AnyOf(parts)

    def _leaf(self, node: dict[str, Any]) -> Node:
        """Helicone heeds the first of a leaf's tables, columns and operators only; here all of them have to hold."""
        parts = [
            self._condition(column, key, name, value)
            for table, columns in node.items()
            for column, key, compared in _columns(table, columns)
            for name, value in _object(compared, f"the column below {table!r}").items()
        ]
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _condition(self, column: Column | Constant, key: str | None, name: str, value: Any) -> Node:
        self._conditions += 1
        if self._conditions > _MOST_CONDITIONS:
            raise FilterError(f"it has more than {_MOST_CONDITIONS} conditions")
        operator = _operator(name)
        if isinstance(column, Constant):
            return _of_all(column, operator, value)
        field = self._figure(column, column.figure_of) if column.figure_of else column.at(key)
        if column.field == "score" and isinstance(value, bool):
            value = int(value)  # as scores are kept
        if column.field == "score" and field == RATING:
            return _of_rating(operator, value)
        return Condition(field, operator, _READ[field.kind](value, column.unit))

    def _figure(self, column: Column, groups: str) -> Figure:
        if groups != self._groups:
            raise FilterError(f"{column.field!r} of a {groups} can be asked for where {groups}s are, and not here")
        return Figure(column.field)


def _operator(name: str) -> Operator:
    try:
        return Operator(name)
    except ValueError:
        known = ", ".join(operator.value for operator in Operator)
        raise FilterError(f"there is no operator {name!r}; there are {known}") from None


def _of_all(column: Constant, operator: Operator, value: Any) -> Node:
    """Everything or nothing, since all calls are alike in it."""
    kind = Kind.TEXT if column.value is None else Kind.BOOLEAN
    if operator.value not in operators_of(kind):
        raise FilterError(f"{column.name!r} can't be compared by {operator.value!r}")
    is_equal = _READ[kind](value, 1) == column.value
    is_met = operator in _TRUE_OF_UNKNOWN and is_equal == (operator is Operator.EQUALS)
    return EVERYTHING if is_met else _NOTHING


def _of_rating(operator: Operator, value: Any) -> Node:
    """The rating as Helicone has it among the scores: 1, 0 or none."""
    asked = Condition(Field("score", RATING.name), operator, _number(value, 1))
    if asked.value is None:
        return Condition(RATING, operator, None)
    if operator is Operator.NOT_EQUALS:
        return Not(_of_rating(Operator.EQUALS, value))
    met = (rating for rating in (True, False) if _COMPARED[operator](rating, asked.value))
    return AnyOf(tuple(Condition(RATING, Operator.EQUALS, rating) for rating in met))


def _columns(table: str, columns: Any) -> list[tuple[Column | Constant, str | None, Any]]:
    """The columns of a leaf's table: what each is, of named ones the name, and what it is compared with."""
    given = _object(columns, repr(table))
    if keyed := KEYED_TABLES.get(table):
        return [(keyed, name, compared) for name, compared in given.items()]
    known = TABLES.get(table)
    if known is None:
        raise FilterError(f"there is no table {table!r}; there are {', '.join([*TABLES, *KEYED_TABLES])}")
    found: list[tuple[Column | Constant, str | None, Any]] = []
    for name, below in given.items():
        column = known.get(name)
        if column is None:
            raise FilterError(f"{table!r} has no column {name!r}; it has {', '.join(known)}")
        if isinstance(column, Column) and column.is_keyed:
            found += [(column, key, compared) for key, compared in _object(below, repr(name)).items()]
        else:
            found.append((column, None, below))
    return found


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise FilterError(f"below {what} an object with at least one member is wanted")
    return value


def _text(value: Any, _: int) -> Value:
    return {_UNKNOWN: None, _EMPTY: ""}.get(value, value) if isinstance(value, str) else value


def _document(value: Any, _: int) -> Value:
    return value  # type: ignore[no-any-return]  # to be told of where it is no text


def _number(value: Any, unit: int) -> Value:
    if isinstance(value, str):
        if value == _UNKNOWN:
            return None
        try:
            value = float(value) if "." in value or "e" in value.lower() else int(value)
        except ValueError:
            return str(value)  # to be told of
    return value * unit if isinstance(value, int | float) and not isinstance(value, bool) else value


def _boolean(value: Any, _: int) -> Value:
    return {"true": True, "false": False, _UNKNOWN: None}.get(value.lower(), value) if isinstance(value, str) else value


def _time(value: Any, _: int) -> Value:
    return None if value in (None, _UNKNOWN) else read_moment(value)


_READ: Final[Mapping[Kind, Callable[[Any, int], Value]]] = {
    Kind.TEXT: _text,
    Kind.NUMBER: _number,
    Kind.BOOLEAN: _boolean,
    Kind.TIME: _time,
    Kind.DOCUMENT: _document,
}


def read_moment(value: Any) -> int:
    """Microseconds since the epoch, of ISO 8601 text (UTC unless it says) or of milliseconds. Raises `FilterError`.

    What lies farther off than any call is brought to where that begins.
    """
    return max(-_FARTHEST, min(_FARTHEST, _moment(value)))


def _moment(value: Any) -> int:
    if isinstance(value, str) and _MILLISECONDS_TEXT.fullmatch(value):
        value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e14:
        return round(value * 1000)
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise FilterError(f"{value!r:.80} is no time: ISO 8601, or milliseconds since the epoch") from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000_000)
