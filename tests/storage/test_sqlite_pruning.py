"""How the SQLite backend makes the log smaller: never by going through a table in one statement."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from random import Random

import aiosqlite
import pytest

from storage.pruning import Pruning
from storage.sqlite import SqliteStorage, open_sqlite
from tests.storage import a_rating
from tests.storage.test_pruning_contract import prune
from tests.storage.test_sharing_contract import LATER, START, a_chat

STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE)", re.IGNORECASE)
# What holds one step's rows, or one row in all.
SMALL = {"going", "moved", "sharing", "text_index", "json_each", "looked", "s"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    opened = await open_sqlite(str(tmp_path / "kibitz.db"))
    yield opened
    await opened.close()


async def details(explain: str, db: aiosqlite.Connection) -> list[str]:
    return [detail for *_, detail in await db.execute_fetchall(explain)]


async def plans(store: SqliteStorage, statements: list[str]) -> dict[str, list[str]]:
    """The steps of each statement's plan."""
    found = {}
    for statement in filter(STATEMENT.match, statements):
        explain = f"EXPLAIN QUERY PLAN {statement}"
        found[statement] = await store._writer.run(partial(details, explain))
    return found


@pytest.mark.parametrize(
    "what",
    [
        Pruning(keep_rated=True),
        Pruning(before=START + 5, keep_rated=True),
        Pruning(before=START + 5, organisation="acme"),
        Pruning(bodies_only=True),
    ],
    ids=["all", "old", "old ones of one organisation", "bodies"],
)
async def test_no_step_goes_through_a_table(store: SqliteStorage, what: Pruning) -> None:
    await store.write_calls([*a_chat(Random(1), "s"), *a_chat(Random(2), "t", session_id=None, trace_id="t")])
    await store.add_rating(a_rating("f", "s.1"), known=False)
    statements: list[str] = []
    for worker in (store._writer, store._analyst):
        await worker.run(lambda db: db.set_trace_callback(statements.append))
    while await store.share_bodies(LATER):
        pass
    await store.index_texts(most_calls=100, most_bytes=2**30)
    statements.clear()
    assert await prune(store, what, most_calls=7) > 4
    for worker in (store._writer, store._analyst):
        await worker.run(lambda db: db.set_trace_callback(None))  # type: ignore[arg-type]
    steps = await plans(store, statements)
    assert len({text[:60] for text in steps}) > 12
    scans = {(step, text) for text, found in steps.items() for step in found if step.startswith("SCAN")}
    assert {(step, text) for step, text in scans if step.split()[1] not in SMALL} == set()
