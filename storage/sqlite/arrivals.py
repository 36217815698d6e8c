"""Calls on their way in: a group of them to two statements and their parameters.

The rule it keeps: nearly every parameter is a str, an int, a float or a bytearray. Of anything else, None, bool and
bytes among it, the sqlite3 module first looks for an adapter, and that takes ten times as long as to bind it; while
most columns of most calls are None or False.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any, Final

from storage.records import Call, property_key
from storage.sqlite import sql
from storage.sqlite.packing import LARGE, pack, pack_in_pieces

__all__ = ["Arrivals", "Group", "LargeBodies", "has_large_body"]

LargeBodies = list[tuple[str, Iterator[bytes | memoryview]]]
"""The sides of a call whose bodies are large, each with its pieces."""

_Packed = tuple[bytes | None, str | None]
_Reader = Callable[[Call], tuple[Any, ...]]
_Statement = Callable[[tuple[str, ...], int], str]

# As many as groups may have sizes.
_MOST_STATEMENTS: Final = 128

_BARE = Call(
    organisation="", request_id="", trace_id="", method="", path="", target_url="", provider="", started_at=0, latency=0
)


def has_large_body(call: Call) -> bool:
    """Whether a call is for `Arrivals.large`."""
    sent, received = call.request.data, call.response.data
    return (sent is not None and len(sent) >= LARGE) or (received is not None and len(received) >= LARGE)


@dataclass(slots=True)
class Group:
    """Calls that are inserted together: both statements, and the parameters for each but those that follow from where
    it comes to lie.
    """

    calls: Sequence[Call]
    into_calls: str
    of_calls: list[Any]
    into_bodies: str
    of_bodies: list[Any]

    def insert(self, db: sqlite3.Connection) -> int:
        """Insert them, within a transaction and in the connection's thread; gives the first one's number.

        Their numbers follow each other. Nearly every call is its request's first attempt, and as such all are put in;
        if one is not, all of them once more.
        """
        try:
            first = self._insert(db)
            is_numbered_wrongly, landing = db.execute(sql.LOOK_AT_ARRIVALS, {"first": first}).fetchone()
        except sqlite3.IntegrityError:  # the first attempt is there; or a row is refused, which it will be again
            first = self._insert_numbered(db)
            landing = _next_landing(db, first)
        else:
            if is_numbered_wrongly:  # the first attempt has been deleted, and a later one is there
                db.execute(sql.TAKE_BACK, (first,))
                first = self._insert_numbered(db)
                landing = _next_landing(db, first)
        if properties := self._properties():
            db.execute(sql.ADD_PROPERTIES, {"first": first, "properties": json.dumps(properties, ensure_ascii=False)})
        while landing is not None:
            # One after the other: by what one is joined with something may turn out to be said of a later one.
            db.execute(sql.LAND, (landing,))
            landing = _next_landing(db, landing + 1)
        return first

    def _insert_numbered(self, db: sqlite3.Connection) -> int:
        self._number_attempts(db)
        return self._insert(db)

    def _insert(self, db: sqlite3.Connection) -> int:
        """Insert them as they are numbered; gives the first one's number."""
        last = db.execute(self.into_calls, self.of_calls).lastrowid
        assert last is not None
        first = last - len(self.calls) + 1
        self.of_bodies[:: len(self.of_bodies) // len(self.calls)] = range(first, first + len(self.calls))
        db.execute(self.into_bodies, self.of_bodies)
        return first

    def _number_attempts(self, db: sqlite3.Connection) -> None:
        ids = [(call.organisation, call.request_id) for call in self.calls]
        attempts = Counter({one: db.execute(sql.COUNT_ATTEMPTS, one).fetchone()[0] for one in {*ids}})
        numbers: list[int] = []
        for one in ids:
            attempts[one] += 1
            numbers.append(attempts[one])
        self.of_calls[:: len(self.of_calls) // len(ids)] = numbers

    def _properties(self) -> list[tuple[int, str, str, str]]:
        """The parameter of `sql.ADD_PROPERTIES`."""
        found: list[tuple[int, str, str, str]] = []
        for place, call in enumerate(self.calls):
            if not call.properties:
                continue
            # SQLite's JSON functions end a text at a NUL. Surrogates stay what they are, for SQLite to refuse.
            texts = ((name.replace("\0", ""), value.replace("\0", "")) for name, value in call.properties.items())
            named = {property_key(name): (name, value) for name, value in texts}
            found += ((place, key, name, value) for key, (name, value) in named.items())
        return found


def _next_landing(db: sqlite3.Connection, number: int) -> int | None:
    """The first call from that number on which may have to be joined with what was said before."""
    found: int | None = db.execute(sql.FIND_LANDING, (number,)).fetchone()[0]
    return found


class Arrivals:
    """Makes the statements of one connection.

    A column that no call has filled so far is left out of them. One that a call has filled stays: a set of columns
    for each group would be a prepared statement for each.
    """

    def __init__(self) -> None:
        self._of_call = _Columns(sql.CALL_PATHS, sql.insert_calls)
        self._of_bodies = _Columns(sql.BODY_PATHS, sql.insert_bodies)

    def group(self, calls: Sequence[Call]) -> Group:
        """``calls``, none of which has a large body."""
        return self._group(calls, [(pack(call.request.data), pack(call.response.data)) for call in calls])

    def large(self, call: Call) -> tuple[Group, LargeBodies]:
        """A call with large bodies, which are left out, and these."""
        packed: list[_Packed] = []
        large: LargeBodies = []
        for side, data in (("request", call.request.data), ("response", call.response.data)):
            if data is None or len(data) < LARGE:
                packed.append(pack(data))
            else:
                pieces, packing = pack_in_pieces(data)
                packed.append((None, packing))
                large.append((side, pieces))
        request, response = packed
        return self._group([call], [(request, response)]), large

    def _group(self, calls: Sequence[Call], packed: Sequence[tuple[_Packed, _Packed]]) -> Group:
        self._of_call.take_note_of(calls)
        self._of_bodies.take_note_of(calls)
        of_calls: list[Any] = []
        of_bodies: list[Any] = []
        for call, ((request, request_packing), (response, response_packing)) in zip(calls, packed, strict=True):
            of_calls += 1, 1 if call.is_stream else 0
            of_calls += self._of_call.read(call)
            of_bodies += 0, _blob(request), request_packing or "", _blob(response), response_packing or ""
            of_bodies += self._of_bodies.read(call)
        into_calls, into_bodies = self._of_call.statement(len(calls)), self._of_bodies.statement(len(calls))
        return Group(calls, into_calls, of_calls, into_bodies, of_bodies)


class _Columns:
    """The columns of one table: those to put in, and how their values are read of a call."""

    def __init__(self, paths: dict[str, str], insert: _Statement) -> None:
        self._paths = paths
        self._insert = insert
        self._leave_out([column for column in paths if _is_unset(self._reader([column])(_BARE)[0])])

    def take_note_of(self, calls: Sequence[Call]) -> None:
        """Leave out no column that one of these fills."""
        for call in calls:
            if (found := self._read_left_out(call)) != self._unset:
                pairs = zip(self._left_out, found, strict=True)
                self._leave_out([column for column, value in pairs if _is_unset(value)])

    def _leave_out(self, columns: Sequence[str]) -> None:
        self._left_out = columns
        self._read_left_out = self._reader(columns)
        self._unset = self._read_left_out(_BARE)
        put_in = tuple(column for column in self._paths if column not in columns)
        self.read = self._reader(put_in)
        # By its rows alone: to look one up by all its columns takes as long as to read them.
        self.statement = lru_cache(_MOST_STATEMENTS)(partial(self._insert, put_in))

    def _reader(self, columns: Sequence[str]) -> _Reader:
        """The values of columns: an attrgetter, which takes one or none of them for something else."""
        if len(columns) > 1:
            return attrgetter(*(self._paths[column] for column in columns))
        getters = [attrgetter(self._paths[column]) for column in columns]
        return lambda call: tuple(get(call) for get in getters)


def _is_unset(value: object) -> bool:
    return value is None or value is False


def _blob(data: bytes | None) -> bytearray | None:
    return None if data is None else bytearray(data)
