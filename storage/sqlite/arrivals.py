"""Calls on their way in: a group of them to one statement and its parameters.

The rule it keeps: nearly every parameter is a str, an int, a float or a bytearray. Of anything else, None, bool and
bytes among it, the sqlite3 module first looks for an adapter, and that takes ten times as long as to bind it; while
most columns of most calls are None or False.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from storage.records import Call, property_key
from storage.sqlite import sql
from storage.sqlite.packing import LARGE, pack, pack_in_pieces

__all__ = ["Arrivals", "LargeBodies", "has_large_body"]

LargeBodies = list[tuple[str, Iterator[bytes | memoryview]]]
"""The sides of a call whose bodies are large, each with its pieces."""

_Packed = tuple[bytes | None, str | None]
_Reader = Callable[[Call], tuple[Any, ...]]

_BARE = Call(
    organisation="", request_id="", trace_id="", method="", path="", target_url="", provider="", started_at=0, latency=0
)


def has_large_body(call: Call) -> bool:
    """Whether a call is for `Arrivals.large`."""
    sent, received = call.request.data, call.response.data
    return (sent is not None and len(sent) >= LARGE) or (received is not None and len(received) >= LARGE)


class Arrivals:
    """Makes the statements of one connection.

    A column that no call has filled so far is left out of them. One that a call has filled stays: a set of columns
    for each group would be a prepared statement for each.
    """

    def __init__(self) -> None:
        self._has_properties = False
        self._leave_out([column for column in sql.ARRIVAL_PATHS if _is_unset(_reader([column])(_BARE)[0])])

    def group(self, calls: Sequence[Call]) -> tuple[str, list[Any]]:
        """A statement that inserts ``calls``, none of which has a large body, and its parameters."""
        self._take_note_of(calls)
        values: list[Any] = []
        for call in calls:
            self._add(values, call, pack(call.request.data), pack(call.response.data))
        return sql.insert_calls(self._columns, len(calls)), values

    def large(self, call: Call) -> tuple[str, list[Any], LargeBodies]:
        """The same for a call with large bodies, which it leaves out, and these."""
        self._take_note_of([call])
        packed: list[_Packed] = []
        large: LargeBodies = []
        for side, data in (("request", call.request.data), ("response", call.response.data)):
            if data is None or len(data) < LARGE:
                packed.append(pack(data))
            else:
                pieces, packing = pack_in_pieces(data)
                packed.append((None, packing))
                large.append((side, pieces))
        values: list[Any] = []
        self._add(values, call, *packed)
        return sql.insert_calls(self._columns, 1), values, large

    def _take_note_of(self, calls: Sequence[Call]) -> None:
        for call in calls:
            if call.properties and not self._has_properties:
                self._has_properties = True
                self._leave_out(self._left_out)
            if (found := self._read_left_out(call)) != self._unset:
                pairs = zip(self._left_out, found, strict=True)
                self._leave_out([column for column, value in pairs if _is_unset(value)])

    def _leave_out(self, columns: Sequence[str]) -> None:
        self._left_out = columns
        self._read_left_out = _reader(columns)
        self._unset = self._read_left_out(_BARE)
        put_in = [column for column in sql.ARRIVAL_PATHS if column not in columns]
        self._read = _reader(put_in)
        bodies = ("request", "request_packing", "response", "response_packing")
        self._columns = (*put_in, *bodies, *(["properties"] if self._has_properties else []))

    def _add(self, values: list[Any], call: Call, request: _Packed, response: _Packed) -> None:
        """The values of ``self._columns``, in their order."""
        values += self._read(call)
        for data, packing in (request, response):
            values.append(None if data is None else bytearray(data))
            values.append(packing or "")
        if self._has_properties:
            values.append(_json_of(call.properties) if call.properties else None)


def _is_unset(value: object) -> bool:
    return value is None or value is False


def _reader(columns: Sequence[str]) -> _Reader:
    """The values of columns: an attrgetter, which takes one or none of them for something else."""
    getters = [attrgetter(sql.ARRIVAL_PATHS[column]) for column in columns]
    if len(getters) > 1:
        return attrgetter(*(sql.ARRIVAL_PATHS[column] for column in columns))
    return lambda call: tuple(get(call) for get in getters)


def _json_of(properties: Mapping[str, str]) -> str:
    # SQLite's JSON functions end a text at a NUL. Surrogates stay what they are, for SQLite to refuse.
    texts = ((name.replace("\0", ""), value.replace("\0", "")) for name, value in properties.items())
    return json.dumps({property_key(name): [name, value] for name, value in texts}, ensure_ascii=False)
