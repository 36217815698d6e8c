"""A trace of many calls, of which many items of feedback speak: a question takes as many steps as there are of both.

From each item to each call it would be as many as their product, and a client may give every call the same trace.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from storage.filters import EVERYTHING, Condition, Field, Node, Operator
from storage.queries import GroupSort
from storage.sqlite import SqliteStorage, open_sqlite
from tests.plans import Plans
from tests.storage import ACME, a_call, a_value, add_values

Question = Callable[[SqliteStorage, Node], Awaitable[object]]

# The others ask for fewer calls than there is feedback, so these are looked for first.
SOME_CALLS: dict[str, Node] = {
    "all calls": EVERYTHING,
    "a user's": Condition(Field("user_id"), Operator.EQUALS, "ada"),
    "none": Condition(Field("user_id"), Operator.EQUALS, "nobody"),
}
QUESTIONS: dict[str, Question] = {
    "values": lambda store, where: store.count_values(ACME, where),
    "in all": lambda store, where: store.summarise(ACME, where, [], GroupSort(), limit=10),
    "by user": lambda store, where: store.summarise(ACME, where, [Field("user_id")], GroupSort(), limit=10),
    "by feedback": lambda store, where: store.summarise(
        ACME, where, [Field("user_id")], GroupSort("mean_product"), limit=10
    ),
}


async def steps(path: Path, number: int, question: Question, where: Node, monkeypatch: pytest.MonkeyPatch) -> int:
    """What SQLite does for a question, of a trace with so many calls, half of them ada's, and one item more."""
    store = await open_sqlite(str(path))
    plans = Plans()
    monkeypatch.setattr("storage.sqlite.opening.OBSERVERS", [plans.take])
    asking = await open_sqlite(str(path))
    users = ["ada", "bob"] * (number // 2)
    await store.write_calls([a_call(f"r{place}", trace_id="busy", user_id=user) for place, user in enumerate(users)])
    await add_values(store, *(a_value(f"v{place}", "busy") for place in range(number + 1)))
    await question(asking, where)
    await asking.close()
    await store.close()
    done = 0

    def step() -> None:
        nonlocal done
        done += 1

    with closing(sqlite3.connect(path)) as db:
        db.set_progress_handler(step, 1)
        for _, statement in plans.statements.values():
            db.execute(statement).fetchall()
    return done


@pytest.mark.parametrize("where", SOME_CALLS.values(), ids=list(SOME_CALLS))
@pytest.mark.parametrize("question", QUESTIONS.values(), ids=list(QUESTIONS))
async def test_twice_the_calls_and_the_feedback_of_a_trace_are_twice_the_steps(
    question: Question, where: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = await steps(tmp_path / "once.db", 200, question, where, monkeypatch)
    twice = await steps(tmp_path / "twice.db", 400, question, where, monkeypatch)
    assert once <= twice < 2.5 * once
