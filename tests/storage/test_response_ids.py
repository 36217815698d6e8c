"""Response ids are random: rows with them change as few pages of a long log as of a new one, and each id is found."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from storage.filters import All, Any, Condition, Field, Node, Not, OneOf, Operator
from storage.pruning import Pruning
from storage.queries import OLDEST_FIRST, GroupSort, Page
from storage.records import Call
from storage.sqlite import SqliteStorage, open_sqlite, sql
from tests.plans import Plans
from tests.storage import ACME, a_call, a_value, add_values
from tests.storage.test_busy_ids import steps

# Calls that stand together in the index.
PARTITION = 65_536
GROUP = 64
RESPONSE_ID = Field("provider_response_id")
UNKNOWN = "unknown"


def called(response_id: str) -> Node:
    return Condition(RESPONSE_ID, Operator.EQUALS, response_id)


FILTERS: dict[str, tuple[Node, list[str]]] = {
    "one": (called("mid"), ["r2"]),
    "several": (OneOf(RESPONSE_ID, ("first", "last", UNKNOWN)), ["r0", "r5"]),
    "what many have": (called("same"), ["r1", "r3", "r4"]),
    "either": (Any((called("first"), called("mid"))), ["r0", "r2"]),
    "a beginning": (Condition(RESPONSE_ID, Operator.LIKE, "mi%"), ["r2"]),
    "a pattern": (Condition(RESPONSE_ID, Operator.LIKE, "m_d%"), ["r2"]),
    "a pattern of any": (Condition(RESPONSE_ID, Operator.LIKE, "%st"), ["r0", "r5"]),
    "either pattern": (Any((called("first"), Condition(RESPONSE_ID, Operator.LIKE, "m%"))), ["r0", "r2"]),
    "or a request": (Any((called("first"), Condition(Field("request_id"), Operator.EQUALS, "r2"))), ["r0", "r2"]),
    "and a request": (All((called("same"), Condition(Field("request_id"), Operator.EQUALS, "r3"))), ["r3"]),
    "one of none": (OneOf(RESPONSE_ID, ()), []),
    "both": (All((called("same"), Condition(Field("method"), Operator.EQUALS, "GET"))), ["r4"]),
    "the others": (Not(called("same")), ["r0", "r2", "r5", "r6"]),
    "none": (called(UNKNOWN), []),
    "without": (Condition(RESPONSE_ID, Operator.EQUALS, None), ["r6"]),
}
SOME_CALLS = [
    a_call("r0", provider_response_id="first"),
    a_call("r1", provider_response_id="same"),
    a_call("r2", provider_response_id="mid"),
    a_call("r3", provider_response_id="same"),
    a_call("r4", provider_response_id="same", method="GET"),
    a_call("r5", provider_response_id="last"),
    a_call("r6"),
]


async def log_of(path: Path, calls: Sequence[Call], *, apart: int, first: int = 1) -> SqliteStorage:
    """A log of calls whose numbers are so far apart, as if others had stood between them and before the first."""
    store = await open_sqlite(str(path))
    await store.write_calls(calls)
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        numbers = [number for (number,) in db.execute("SELECT id FROM calls ORDER BY id")]
        # From the last on, or one would meet the next.
        for place, number in reversed([*enumerate(numbers)]):
            moved = (first + place * apart, number)
            db.execute("UPDATE calls SET id = ? WHERE id = ?", moved)
            db.execute("UPDATE bodies SET call_id = ? WHERE call_id = ?", moved)
    return await open_sqlite(str(path))


@pytest.mark.parametrize("most", [0, 1000])
@pytest.mark.parametrize("apart", [1, PARTITION // 3, 3 * PARTITION])
@pytest.mark.parametrize(("where", "wanted"), FILTERS.values(), ids=list(FILTERS))
async def test_a_filter_by_response_id_finds_its_calls_in_all_partitions(
    where: Node, wanted: list[str], apart: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.sqlite.candidates._MOST", most)
    store = await log_of(tmp_path / "kibitz.db", SOME_CALLS, apart=apart)
    found = await store.find_calls(ACME, where, OLDEST_FIRST, Page(limit=100))
    read = await store.read_calls(ACME, [position.number for position in found], most_bytes=2**20)
    assert sorted(one.call.request_id for one in read.values()) == wanted
    assert await store.count_matching(ACME, where) == len(wanted)
    groups, _ = await store.summarise(ACME, where, [], GroupSort(), limit=10)
    assert sum(group.figures.calls for group in groups) == len(wanted)
    await store.close()


@pytest.mark.parametrize("first", [1, PARTITION - 1, 40 * PARTITION + 5])
@pytest.mark.parametrize("apart", [1, PARTITION // 3, PARTITION, 3 * PARTITION])
async def test_a_response_id_means_its_latest_call_whichever_partition_that_is_in(
    apart: int, first: int, tmp_path: Path
) -> None:
    store = await log_of(tmp_path / "kibitz.db", SOME_CALLS, apart=apart, first=first)
    await store.write_calls([replace(call, organisation="others") for call in SOME_CALLS])
    for response_id, request_id in (("first", "r0"), ("mid", "r2"), ("last", "r5"), ("same", "r3"), (UNKNOWN, None)):
        found = await store.read_call(ACME, response_id, None)
        assert (found and found.call.request_id) == request_id
        await add_values(store, a_value(f"of {response_id}", response_id))
    said = await store.list_feedback(ACME)
    assert [one.request_id for one in said] == ["r0", "r2", "r5", "r3", None]
    await store.close()


async def test_an_empty_log_has_no_response_id(tmp_path: Path) -> None:
    store = await open_sqlite(str(tmp_path / "kibitz.db"))
    assert await store.read_call(ACME, UNKNOWN, None) is None
    assert await store.find_calls(ACME, called(UNKNOWN), OLDEST_FIRST, Page(limit=1)) == []
    await store.close()


async def test_a_recent_call_is_found_in_as_many_steps_however_long_the_log(tmp_path: Path) -> None:
    taken = []
    for apart in (1, 50 * PARTITION):
        path = tmp_path / f"{apart}.db"
        await (await log_of(path, SOME_CALLS[:-1], apart=apart)).close()
        taken.append(steps(path, [sql.FIND_REQUEST], {"organisation": ACME, "id": "last"}))
    assert taken[1] == pytest.approx(taken[0], abs=20)


NARROW: dict[str, Node] = {
    "a response": called("one"),
    "a response with more": All((Condition(Field("status"), Operator.GT, 1), called("one"))),
    "a request": Condition(Field("request_id"), Operator.EQUALS, "one"),
    "a trace": Condition(Field("trace_id"), Operator.EQUALS, "one"),
    "responses": OneOf(RESPONSE_ID, ("one", UNKNOWN)),
    "either response": Any((called(UNKNOWN), called("one"))),
    "a trace of several": Condition(Field("trace_id"), Operator.EQUALS, "together"),
    "a beginning": Condition(RESPONSE_ID, Operator.LIKE, "on%"),
    "a pattern without a sign": Condition(RESPONSE_ID, Operator.LIKE, "one"),
    "a response of many, and a request": All((called("many"), Condition(Field("request_id"), Operator.EQUALS, "two"))),
}


@pytest.mark.parametrize("where", NARROW.values(), ids=list(NARROW))
async def test_a_filter_by_an_id_goes_through_no_other_calls(
    where: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.sqlite.candidates._MOST", 10)
    taken = []
    for number in (100, 1000):
        path, plans = tmp_path / f"{number}.db", Plans()
        store = await open_sqlite(str(path))
        await store.write_calls(
            [a_call(f"r{place}", provider_response_id=f"id{place}", started_at=place) for place in range(number)]
        )
        await store.write_calls([a_call(f"m{place}", provider_response_id="many") for place in range(20)])
        await store.write_calls([a_call("two", provider_response_id="many")])
        await store.write_calls([a_call("one", provider_response_id="one", status=200)])
        await store.write_calls([a_call("three", trace_id="together", provider_response_id="three")])
        monkeypatch.setattr("storage.sqlite.opening.OBSERVERS", [plans.take])
        asking = await open_sqlite(str(path))
        assert len(await asking.find_calls(ACME, where, OLDEST_FIRST, Page(limit=10))) == 1
        assert await asking.count_matching(ACME, where) == 1
        assert len((await asking.summarise(ACME, where, [Field("user_id")], GroupSort(), limit=10))[0]) == 1
        await asking.close()
        await store.close()
        monkeypatch.setattr("storage.sqlite.opening.OBSERVERS", [])
        taken.append(steps(path, [statement for _, statement in plans.statements.values()]))
    assert taken[1] < 1.2 * taken[0]


async def test_a_page_of_calls_that_share_an_id_takes_as_many_steps_however_many_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.sqlite.candidates._MOST", 10)
    taken, a_few = [], {"most_calls": 10, "most_bytes": 2**20}
    for number in (600, 1200):
        path, plans = tmp_path / f"{number}.db", Plans()
        store = await open_sqlite(str(path))
        await store.write_calls([a_call(f"r{n}", provider_response_id="same", started_at=n) for n in range(number)])
        monkeypatch.setattr("storage.sqlite.opening.OBSERVERS", [plans.take])
        asking = await open_sqlite(str(path))
        assert len(await asking.find_calls(ACME, called("same"), OLDEST_FIRST, Page(limit=10))) == 10
        found = await asking.find_prunable(Pruning(organisation=ACME, where=called("same")), None, **a_few)
        assert len(found.sizes) == 10
        await asking.close()
        await store.close()
        monkeypatch.setattr("storage.sqlite.opening.OBSERVERS", [])
        taken.append(steps(path, [statement for _, statement in plans.statements.values()]))
    assert taken[1] < 1.2 * taken[0]


async def test_a_group_of_rows_changes_as_few_pages_of_a_long_log_as_of_a_new_one(tmp_path: Path) -> None:
    def group(first: int) -> list[Call]:
        places = range(first, first + GROUP)
        return [a_call(f"r{place:06}", started_at=place, provider_response_id=str(uuid.uuid4())) for place in places]

    pages = []
    for before in (0, 100 * GROUP):
        path = tmp_path / f"{before}.db"
        calls = [call for first in range(0, before, GROUP) for call in group(first)]
        store = await log_of(path, calls, apart=1, first=PARTITION - before)
        await store.write_calls(group(before))
        with closing(sqlite3.connect(path)) as db:
            pages.append(db.execute("PRAGMA wal_checkpoint").fetchone()[1])
        await store.close()
    assert pages[0] <= pages[1] < pages[0] + GROUP / 4
