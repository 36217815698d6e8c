"""Which calls a question can mean at most: those of an organisation, or few of them, looked up by their ids.

No comparison finds its way to them by itself: the index of response ids is partitioned (migration 12), that of traces
knows the calls that are no trace of their own, and rather than sort a page of few calls SQLite goes through all there
are in the order of their time. So what a question says of ids is looked up before it is put. Where that is more than
ten thousand calls, such as a test's upstream gives one id, they are looked for among all others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Final

import aiosqlite

from storage.filters import All, Condition, Field, Node, OneOf, Operator
from storage.filters import Any as AnyOf
from storage.sqlite.filtering import Fragment, condition

__all__ = ["candidates"]

# Where calls are found by these ids.
_TABLES: Final = {
    "request_id": "calls AS c INDEXED BY calls_by_request",
    "provider_response_id": "call_responses AS c",
    "trace_id": "call_traces AS c",
}
_FIND: Final = "SELECT c.id FROM {table} WHERE c.organisation = ? AND {about} LIMIT ?"
# Calls beside one for each of the ids.
_MOST: Final = 10_000
# A pattern that finds nothing on its way in an index but what it means.
_BEGINNING: Final = re.compile(r"[^\W_][^%_\\*?\[]*%?")
# SQLite takes an organisation for ten calls, and would go through all of it rather than look for these: the plus keeps
# it from that (https://www.sqlite.org/optoverview.html, "Unary +").
_AMONG: Final = "+c.organisation = ? AND c.id IN (SELECT value FROM json_each(?))"


async def candidates(db: aiosqlite.Connection, organisation: str, where: Node) -> Fragment:
    """The condition that the row ``c`` may be meant by a filter, beside the filter itself."""
    for about in _about_ids(where):
        text, values = condition(about)
        statement, most = _FIND.format(table=_TABLES[about.field.name], about=text), _MOST + len(values)
        found = list(await db.execute_fetchall(statement, [organisation, *values, most + 1]))
        if len(found) <= most:
            return _AMONG, [organisation, json.dumps([number for (number,) in found])]
    return "c.organisation = ?", [organisation]


def _about_ids(where: Node) -> Iterator[Condition | OneOf]:
    """What a filter asks of one of these ids that every call has to meet, as far as an index can tell of it."""
    match where:
        case All(parts):
            yield from chain.from_iterable(map(_about_ids, parts))
        case Condition(Field(name), Operator.LIKE, str(pattern)) if name in _TABLES and _BEGINNING.fullmatch(pattern):
            yield where
        case _:
            if (named := _named(where)) is not None:
                yield named


def _named(where: Node) -> OneOf | None:
    """The ids that a filter names, if it means no calls but those that have one of them."""
    match where:
        case Condition(Field(name) as field, Operator.EQUALS, str(value)) if name in _TABLES:
            return OneOf(field, (value,))
        case OneOf(Field(name)) if name in _TABLES:
            return where
        case AnyOf(parts):
            told = [_named(part) for part in parts]
            named = [one for one in told if one is not None]
            if named and len(named) == len(told) and len({one.field for one in named}) == 1:
                return OneOf(named[0].field, tuple(chain.from_iterable(one.values for one in named)))
    return None
