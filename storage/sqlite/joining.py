"""Rows of calls with what has joined them: properties, scores and feedback, read for all rows at once."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

import aiosqlite

from storage.records import Feedback, Score, StoredCall
from storage.sqlite import sql
from storage.sqlite.reading import whole_call
from storage.sqlite.rows import feedback_from_row, score_from_row

__all__ = ["stored_calls"]

_Numbered: TypeAlias = tuple[int, Feedback]

_PROPERTIES: Final = """
SELECT call_id, name, value FROM properties
WHERE call_id IN (SELECT value FROM json_each(?)) ORDER BY call_id, key
"""
# What is read in one go, in bytes of bodies, and what a row takes besides: together about a millisecond.
_MOST_AT_ONCE: Final = 512 * 1024
_OF_A_ROW: Final = 16 * 1024
# Items of feedback, some ten microseconds each, that are made without a thread.
_MOST_ITEMS_AT_ONCE: Final = 100
# The ids are bound one by one: as JSON they would end at a NUL.
_SCORES: Final = """
SELECT request_id, name, value, is_boolean FROM scores
WHERE organisation = ? AND request_id IN ({requests}) ORDER BY name
"""
# A value that names a trace speaks of all of its calls; one that turned out to name a request, of that one.
_FEEDBACK: Final = f"""
SELECT number, {", ".join(sql.FEEDBACK_FIELDS)} FROM feedback
WHERE organisation = ? AND request_id IN ({{requests}})
UNION ALL
SELECT number, {", ".join(sql.FEEDBACK_FIELDS)} FROM feedback
WHERE organisation = ? AND request_id IS NULL AND trace_id IN ({{traces}})
ORDER BY number
"""


async def stored_calls(db: aiosqlite.Connection, organisation: str, rows: Sequence[sqlite3.Row]) -> list[StoredCall]:
    """From rows of calls with their bodies, in their order; in the transaction that gave them."""
    if not rows:
        return []
    requests = list({row["request_id"] for row in rows})
    traces = list({row["trace_id"] for row in rows})
    marks = {"requests": _marks(requests), "traces": _marks(traces)}
    numbers = json.dumps([row["call_id"] for row in rows])
    properties: dict[int, dict[str, str]] = defaultdict(dict)
    for call_id, name, value in await db.execute_fetchall(_PROPERTIES, [numbers]):
        properties[call_id][name] = value
    scores: dict[str, list[Score]] = defaultdict(list)
    for request_id, *score in await db.execute_fetchall(_SCORES.format(**marks), [organisation, *requests]):
        scores[request_id].append(score_from_row(score))
    named = [organisation, *requests, organisation, *traces]
    feedback = list(await db.execute_fetchall(_FEEDBACK.format(**marks), named))
    said = _Said(feedback) if len(feedback) <= _MOST_ITEMS_AT_ONCE else await asyncio.to_thread(_Said, feedback)
    return [
        StoredCall(
            call=await whole_call(db, row, properties[row["call_id"]]),
            attempt=row["attempt"],
            scores=tuple(scores[row["request_id"]]),
            feedback=said.of(row),
        )
        async for row in _at_leisure(rows)
    ]


async def _at_leisure(rows: Sequence[sqlite3.Row]) -> AsyncIterator[sqlite3.Row]:
    """Now and then something else has its turn: a page of a thousand rows takes some 50 ms, a large body several."""
    behind = 0
    for row in rows:
        if behind >= _MOST_AT_ONCE:
            await asyncio.sleep(0)
            behind = 0
        yield row
        behind += _OF_A_ROW + row["request_size"] + row["response_size"]


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


class _Said:
    """Feedback, oldest first, by what it speaks of."""

    def __init__(self, rows: Sequence[sqlite3.Row]) -> None:
        self._of_request: dict[Any, list[_Numbered]] = defaultdict(list)
        self._of_trace: dict[Any, list[_Numbered]] = defaultdict(list)
        for number, *values in rows:
            one = feedback_from_row(values)
            if one.request_id is not None:
                self._of_request[one.request_id].append((number, one))
            else:
                self._of_trace[one.trace_id].append((number, one))

    def of(self, row: sqlite3.Row) -> tuple[Feedback, ...]:
        of_request, of_trace = self._of_request[row["request_id"]], self._of_trace[row["trace_id"]]
        found = of_request or of_trace
        if of_request and of_trace:
            found = sorted(of_request + of_trace, key=itemgetter(0))
        return tuple(one for _, one in found)
