"""Files that an older version made: they are brought up to date with all that is in them."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from storage.records import Score
from storage.sqlite import SqliteStorage, open_sqlite, sql
from storage.sqlite.schema import migrate, migrations
from tests.storage import ACME, VERDICT, a_call, a_value, add_values, feedback_of, listed, row

CALL: dict[str, Any] = {"organisation": ACME, "method": "POST", "path": "/v1/chat/completions", "latency": 1500}
CALL |= {"target_url": "https://api.openai.com/v1/chat/completions", "provider": "openai", "is_stream": 0}
CALL |= {"request_size": 0, "request_truncated": 0, "request_omitted": 0}
CALL |= {"response_size": 0, "response_truncated": 0, "response_omitted": 0}
FEEDBACK: dict[str, Any] = {"organisation": ACME, "weight": 1.0, "effective": 1, "created_at": 1, "updated_at": 1}
RATING = {**FEEDBACK, "kind": "rating", "value": 1, "source": "helicone"}
VALUE = {**FEEDBACK, "kind": "value", "value": 5, "source": "portkey"}
# Something said of each of five calls that are not there yet, in tables that have not changed since the first version.
SAID: list[tuple[str, dict[str, Any]]] = [
    ("feedback", {**RATING, "id": "rating", "request_id": "resp-1"}),
    ("feedback", {**VALUE, "id": "value", "trace_id": "r2"}),
    ("feedback", {**RATING, "id": "verdict", "session_id": "s"}),
    ("scores", {"name": "a", "value": 1.0, "is_boolean": 0, "organisation": ACME, "request_id": "resp-4"}),
    ("request_properties", {"key": "k", "name": "K", "value": "v", "organisation": ACME, "request_id": "r5"}),
]


def arrival(request_id: str, trace_id: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A call as older versions inserted it."""
    return "call_arrivals", {**CALL, "request_id": request_id, "trace_id": trace_id, "started_at": 10, **fields}


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStorage]:
    """The store in that file, closed even where a test fails: its threads would outlive the run."""
    store = await open_sqlite(str(path))
    try:
        yield store
    finally:
        await store.close()


async def make(path: Path, version: int, rows: list[tuple[str, dict[str, Any]]]) -> None:
    """A file of that version with these rows."""
    async with aiosqlite.connect(path, isolation_level=None) as db:
        await migrate(db, migrations()[:version])
        for table, columns in rows:
            stamp = {} if table in ("call_arrivals", "feedback") else {"updated_at": 1}
            values = {**columns, **stamp}
            places = ", ".join(f":{name}" for name in values)
            await db.execute_fetchall(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", values)


# Since then calls arrive without the view that `arrival` names.
DIRECT = 11
versions = pytest.mark.parametrize("version", range(1, DIRECT))


@versions
async def test_calls_of_an_older_file_are_all_there(tmp_path: Path, version: int) -> None:
    path = tmp_path / "kibitz.db"
    old = [
        arrival("r1", "r1", request=b"asked", request_size=5, user_id="ada", properties='{"a": ["A", "b"]}'),
        arrival("r1", "r1", status=200, is_stream=1),
        arrival("r2", "t", provider_response_id="resp-2"),
    ]
    await make(path, version, old)
    async with opened(path) as store:
        await store.write_calls([a_call("r1"), a_call("r3", trace_id="t")])
        first, second, third = [await row(store, attempt=number) for number in (1, 2, 3)]
        assert (first.call.request.data, first.call.user_id, first.call.properties) == (b"asked", "ada", {"A": "b"})
        assert (second.call.status, second.call.is_stream) == (200, True)
        assert third.call == a_call("r1")
        await add_values(store, *(a_value(text, text) for text in ("t", "r1", "resp-2", "nowhere")))
        found = [feedback_of(await row(store, id)) for id in ("r1", "r2", "r3")]
        assert found == [{"r1": True}, {"t": True, "resp-2": True}, {"t": True}]
        assert await listed(store, unmatched=True) == {"nowhere": True}


@versions
async def test_what_was_said_to_an_older_file_joins_calls_that_land_now(tmp_path: Path, version: int) -> None:
    path = tmp_path / "kibitz.db"
    await make(path, version, [arrival("later", "later", session_id="s", started_at=20), *SAID])
    async with opened(path) as store:
        ids: list[dict[str, Any]] = [{"provider_response_id": "resp-1"}, {"trace_id": "t"}, {"session_id": "s"}]
        ids += [{"provider_response_id": "resp-4"}, {}]
        await store.write_calls([a_call(f"r{n}", **{"started_at": 1, **named}) for n, named in enumerate(ids, 1)])
        rated, valued, first, scored, labelled = [await row(store, f"r{n}") for n in range(1, 6)]
        assert (feedback_of(rated), feedback_of(valued)) == ({"rating": True}, {"value": True})
        assert (first.call.properties, labelled.call.properties) == ({VERDICT: "1"}, {"K": "v"})
        assert scored.scores == (Score("a", 1.0),)
        assert await listed(store, unmatched=True) == {}


async def test_sums_that_an_older_version_kept_are_given_up(tmp_path: Path) -> None:
    """They are none by two fields."""
    path = tmp_path / "kibitz.db"
    await make(path, 9, [arrival("r1", "r1")])
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO figure_blocks VALUES (0, 1, 0, 1, '[]')")
    async with opened(path) as store:
        while await store.add_up(beside_calls=False):
            pass
    with contextlib.closing(sqlite3.connect(path)) as db:
        left = "SELECT (SELECT count(*) FROM figure_blocks), (SELECT count(*) FROM figure_leavings)"
        assert db.execute(left).fetchone() == (0, 0)


async def test_no_question_of_a_trace_goes_through_all_calls(tmp_path: Path) -> None:
    """Most calls are traces of their own, and stand in no index of traces."""
    await make(tmp_path / "kibitz.db", len(migrations()), [])
    with contextlib.closing(sqlite3.connect(tmp_path / "kibitz.db")) as db:
        for statement in (sql.FIND_TRACE, sql.list_feedback(("trace_id",), unmatched=True)):
            names = dict.fromkeys(re.findall(r":(\w+)", statement))
            steps = [detail for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {statement}", names)]
            assert any("calls_by_trace" in step for step in steps)
            assert [step for step in steps if step.startswith("SCAN")] == []
