"""Helicone's filter trees, read once into the store's own. Contract section 7.

A node is ``"all"`` or ``{}`` (everything), a leaf ``{table: {column: {operator: value}}}``, or a branch
``{"left": node, "operator": "and" | "or", "right": node}``. Columns of named things have a level more:
``{"properties": {name: {operator: value}}}``. The same columns answer under every table that Helicone has them in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from proxy.dialects import Failed
from storage.filters import (
    EVERYTHING,
    FIELDS,
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
)
from storage.filters import Any as AnyOf
from storage.queries import Shuffled, Sort
from storage.records import property_key

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


@dataclass(frozen=True, slots=True)
class GroupFilter:
    """Which calls groups are made of, and which of the groups are meant."""

    where: Node
    having: Node


@dataclass(frozen=True, slots=True)
class _Column:
    """A column as it is asked for: the field, and how many of the field's units one of the column's is."""

    field: str
    unit: int = 1
    figure_of: str | None = None
    """Of what groups it is a figure, if it is one."""

    @property
    def is_keyed(self) -> bool:
        return self.field in ("property", "score")


_MILLISECONDS: Final = 1000
_CALL_COLUMNS: Final = {
    **{name: _Column(name) for name in FIELDS if name not in ("property", "score", "latency", "time_to_first_token")},
    "id": _Column("request_id"),
    "request_created_at": _Column("started_at"),
    "created_at": _Column("started_at"),
    "response_created_at": _Column("ended_at"),
    "latency": _Column("latency", _MILLISECONDS),
    "delay_ms": _Column("latency", _MILLISECONDS),
    "time_to_first_token": _Column("time_to_first_token", _MILLISECONDS),
    "organization_id": _Column("organisation"),
    "response_status": _Column("status"),
    "request_path": _Column("path"),
    "request_user_id": _Column("user_id"),
    "helicone_user": _Column("user_id"),
    "response_id": _Column("provider_response_id"),
    "body_model": _Column("model"),
    "costUSD": _Column("cost"),
    "prompt_cache_read_tokens": _Column("cache_read_tokens"),
    "prompt_cache_write_tokens": _Column("cache_write_tokens"),
    "helicone-score-feedback": _Column("rating"),
    "feedback_rating": _Column("rating"),
    "request_body": _Column("request_text"),
    "response_body": _Column("response_text"),
    "properties": _Column("property"),
    "search_properties": _Column("property"),
    "scores": _Column("score"),
}
_SESSION_COLUMNS: Final = {
    "session_session_id": _Column("session_id"),
    "session_session_name": _Column("session_name"),
    "session_session_tag": _Column("session_tag"),
    "session_rating": _Column("session_rating"),
    "session_created_at": _Column("first_started_at", figure_of="session"),
    "session_latest_request_created_at": _Column("last_started_at", figure_of="session"),
    "session_total_cost": _Column("cost", figure_of="session"),
    "session_total_tokens": _Column("total_tokens", figure_of="session"),
    "session_total_requests": _Column("calls", figure_of="session"),
    "session_prompt_tokens": _Column("prompt_tokens", figure_of="session"),
    "session_completion_tokens": _Column("completion_tokens", figure_of="session"),
    "session_avg_latency": _Column("latency_mean", _MILLISECONDS, figure_of="session"),
}
_USER_COLUMNS: Final = {
    "user_user_id": _Column("user_id"),
    "user_active_for": _Column("active_days", figure_of="user"),
    "user_first_active": _Column("first_started_at", figure_of="user"),
    "user_last_active": _Column("last_started_at", figure_of="user"),
    "user_total_requests": _Column("calls", figure_of="user"),
    "user_average_requests_per_day_active": _Column("calls_per_active_day", figure_of="user"),
    "user_average_tokens_per_request": _Column("tokens_per_call", figure_of="user"),
    "user_total_prompt_tokens": _Column("prompt_tokens", figure_of="user"),
    "user_total_completion_tokens": _Column("completion_tokens", figure_of="user"),
    "user_cost": _Column("cost", figure_of="user"),
}
CALLS: Final = "request_response_rmt"
"""Helicone's main table."""
_TABLES: Final[Mapping[str, Mapping[str, _Column]]] = {
    CALLS: _CALL_COLUMNS,
    "request_response": _CALL_COLUMNS,
    "request": _CALL_COLUMNS,
    "response": _CALL_COLUMNS,
    "request_response_search": {
        "request_body_vector": _Column("request_text"),
        "response_body_vector": _Column("response_text"),
    },
    "feedback": {"rating": _Column("rating")},
    "sessions_request_response_rmt": {**_CALL_COLUMNS, **_SESSION_COLUMNS},
    "users_view": {**_CALL_COLUMNS, **_USER_COLUMNS},
}
# Tables whose columns are names that people chose.
_KEYED_TABLES: Final = {"properties": _Column("property"), "values": _Column("property"), "scores": _Column("score")}


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
    column = _CALL_COLUMNS.get(name)
    if column is None:
        raise FilterError(f"there is no column {name!r}; there are {', '.join([*_CALL_COLUMNS, _SHUFFLED])}")
    key = None
    if column.is_keyed:
        [(key, direction), *more] = _object(direction, repr(name)).items()
        if more:
            raise FilterError("one column can be sorted by")
    if direction not in ("asc", "desc"):
        raise FilterError('the direction is "asc" or "desc"')
    return Sort(_field(column, key), direction == "desc")


def _field(column: _Column, key: str | None) -> Field:
    return Field(column.field, property_key(key) if column.field == "property" and key is not None else key)


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

    def _condition(self, column: _Column, key: str | None, name: str, value: Any) -> Condition:
        self._conditions += 1
        if self._conditions > _MOST_CONDITIONS:
            raise FilterError(f"it has more than {_MOST_CONDITIONS} conditions")
        field = self._figure(column, column.figure_of) if column.figure_of else _field(column, key)
        try:
            operator = Operator(name)
        except ValueError:
            known = ", ".join(operator.value for operator in Operator)
            raise FilterError(f"there is no operator {name!r}; there are {known}") from None
        return Condition(field, operator, _READ[field.kind](value, column.unit))

    def _figure(self, column: _Column, groups: str) -> Figure:
        if groups != self._groups:
            raise FilterError(f"{column.field!r} of a {groups} can be asked for where {groups}s are, and not here")
        return Figure(column.field)


def _columns(table: str, columns: Any) -> list[tuple[_Column, str | None, Any]]:
    """The columns of a leaf's table: what each is, of named ones the name, and what it is compared with."""
    given = _object(columns, repr(table))
    if keyed := _KEYED_TABLES.get(table):
        return [(keyed, name, compared) for name, compared in given.items()]
    known = _TABLES.get(table)
    if known is None:
        raise FilterError(f"there is no table {table!r}; there are {', '.join([*_TABLES, *_KEYED_TABLES])}")
    found: list[tuple[_Column, str | None, Any]] = []
    for name, below in given.items():
        column = known.get(name)
        if column is None:
            raise FilterError(f"{table!r} has no column {name!r}; it has {', '.join(known)}")
        if column.is_keyed:
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
    """Microseconds since the epoch, of ISO 8601 text (UTC unless it says) or of milliseconds. Raises `FilterError`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e14:
        return round(value * 1000)
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise FilterError(f"{value!r:.80} is no time: ISO 8601, or milliseconds since the epoch") from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000_000)
