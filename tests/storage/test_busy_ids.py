"""Ids that many calls share: what is asked of them takes no more steps than it has to.

A client may give every call the same trace, and a test's upstream every answer the same id.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storage.filters import EVERYTHING, Condition, Field, Node, Operator
from storage.queries import GroupSort
from storage.sqlite import SqliteStorage, open_sqlite, sql
from tests.plans import Plans
from tests.storage import ACME, a_call, a_value, add_values

LATEST = 1_700_000_000_000_000
Question = Callable[[SqliteStorage, Node], Awaitable[object]]

# The others ask for fewer calls than there is feedback, so these are looked for first.
SOME_CALLS: dict[str, Node] = {
    "all calls": EVERYTHING,
    "a user's": Condition(Field("user_id"), Operator.EQUALS, "ada"),
    "none": Condition(Field("user_id"), Operator.EQUALS, "nobody"),
}
SUMS: dict[str, Question] = {
    "in all": lambda store, where: store.summarise(ACME, where, [], GroupSort(), limit=10),
    "by user": lambda store, where: store.summarise(ACME, where, [Field("user_id")], GroupSort(), limit=10),
    "by feedback": lambda store, where: store.summarise(
        ACME, where, [Field("user_id")], GroupSort("mean_product"), limit=10
    ),
}
QUESTIONS: dict[str, Question] = {"values": lambda store, where: store.count_values(ACME, where), **SUMS}


def steps(path: Path, statements: Iterable[str], values: Mapping[str, Any] | None = None) -> int:
    """What SQLite does for statements."""
    done = 0

    def step() -> None:
        nonlocal done
        done += 1

    with closing(sqlite3.connect(path)) as db:
        db.set_progress_handler(step, 1)
        for statement in statements:
            db.execute(statement, values or {}).fetchall()
    return done


async def steps_of(
    question: Question, where: Node, path: Path, calls: int, items: int, monkeypatch: pytest.MonkeyPatch
) -> int:
    """The same for a question, of a trace with so many calls, half of them ada's, and so many items of feedback."""
    store = await open_sqlite(str(path))
    plans = Plans()
    monkeypatch.setattr("storage.sqlite.opening.OBSERVERS", [plans.take])
    asking = await open_sqlite(str(path))
    for place, user in enumerate(["ada", "bob"] * (calls // 2)):
        call = a_call(f"r{place}", trace_id="busy", user_id=user, started_at=LATEST - place)
        await store.write_calls([call])
    await add_values(store, *(a_value(f"v{place}", "busy") for place in range(items)))
    await question(asking, where)
    await asking.close()
    await store.close()
    return steps(path, [statement for _, statement in plans.statements.values()])


@pytest.mark.parametrize("where", SOME_CALLS.values(), ids=list(SOME_CALLS))
@pytest.mark.parametrize("question", QUESTIONS.values(), ids=list(QUESTIONS))
async def test_twice_the_calls_and_the_feedback_of_a_trace_are_twice_the_steps(
    question: Question, where: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = await steps_of(question, where, tmp_path / "once.db", 200, 201, monkeypatch)
    twice = await steps_of(question, where, tmp_path / "twice.db", 400, 401, monkeypatch)
    assert once <= twice < 2.5 * once


@pytest.mark.parametrize("question", SUMS.values(), ids=list(SUMS))
async def test_of_a_few_calls_of_a_long_trace_it_takes_no_more_steps_than_of_a_short_one(
    question: Question, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    five = Condition(Field("started_at"), Operator.GT, LATEST - 5)
    short = await steps_of(question, five, tmp_path / "short.db", 200, 10, monkeypatch)
    long = await steps_of(question, five, tmp_path / "long.db", 400, 10, monkeypatch)
    assert long < 1.2 * short


@pytest.mark.parametrize("statement", [sql.FIND_REQUEST, sql.READ_CALL], ids=["to speak of", "to read"])
@pytest.mark.parametrize(
    "fields", [{"provider_response_id": "one"}, {"request_id": "one"}], ids=["response", "request"]
)
async def test_a_call_is_found_at_once_by_an_id_that_many_have(
    fields: dict[str, str], statement: str, tmp_path: Path
) -> None:
    path, named = tmp_path / "kibitz.db", {"organisation": ACME, "id": "one", "attempt": None}
    store = await open_sqlite(str(path))
    taken = []
    for _ in range(2):
        await store.write_calls([a_call(**{"request_id": f"r{place}", **fields}) for place in range(300)])
        taken.append(steps(path, [statement], named))
    await store.close()
    assert taken[0] == pytest.approx(taken[1], abs=20)
