"""Sums over calls come out the same whether blocks have them ready, some of them, or none; and whatever has changed."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from storage.filters import EVERYTHING, All, Condition, Field, Node, Operator
from storage.pruning import Pruning
from storage.queries import FIGURES, Dimension, GroupSort, TimeBucket
from storage.records import Score
from storage.sqlite import SqliteStorage, open_sqlite
from storage.sqlite.figures import BLOCK, pair_of
from tests.storage import ACME, NOW, a_call, a_rating, a_session_rating, a_value, add_values
from tests.storage.population import DAY, START, Known, a_filter, everything_known, fill, meets
from tests.storage.reckoning import figures_of, reckoned

RELEASE, MODEL = Field("property", "release"), Field("model")
DIMENSIONS: list[tuple[Dimension, ...]] = [
    (),
    *((Field(name),) for name in ("user_id", "session_id", "model", "status", "path", "span_name", "prompt_id")),
    (RELEASE,),
    (Field("property", "none"),),
    (Field("session_name"), Field("session_id")),
    (TimeBucket(DAY),),
    (TimeBucket(DAY, 3_600_000_000),),
    (Field("user_id"), TimeBucket(7 * DAY, 4 * DAY)),
    (Field("user_id"), MODEL),
    (MODEL, RELEASE),
    (RELEASE, Field("status"), TimeBucket(DAY)),
    (Field("span_name"), RELEASE),
    (Field("path"), RELEASE),
]
FROM_CALLS: list[tuple[Dimension, ...]] = [
    (TimeBucket(900_000_000), MODEL),
    (RELEASE, MODEL, Field("status")),
    (Field("prompt_version"), RELEASE),
    (Field("session_name"), MODEL),
    (Field("trace_id"),),
]
DIMENSIONS += FROM_CALLS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStorage]:
    opened = await open_sqlite(str(path))
    yield opened
    await opened.close()


@pytest.mark.parametrize("seed", range(3))
async def test_groups_add_up_while_blocks_are_made_and_discarded(seed: int, store: SqliteStorage, path: Path) -> None:
    random = Random(seed)
    await fill(store, random, 240)
    spread(path, 80)
    made = set[int]()
    for _ in range(3):
        await some_steps(store, random.choice((40, 60, 10_000)))
        made |= blocks(path)
        await groups_are_right(store, random)
        await change(store, random)
        await groups_are_right(store, random)
    assert made


async def test_every_way_in_which_a_call_changes_discards_its_block(store: SqliteStorage, path: Path) -> None:
    await store.write_calls(
        [a_call(f"r{place}", session_id="s", provider_response_id=f"p{place}") for place in range(8)]
    )
    spread(path, 1)
    old = [row for row in await store.read_batch(0, most_calls=10, most_bytes=2**30) if row.call.request_id == "r3"]
    ways: list[tuple[Any, set[int]]] = [
        (lambda: store.set_property(ACME, "r1", "Team", "a", **NOW), {1}),
        (lambda: store.add_session_rating(a_session_rating("v", "s"), known=False), {0}),
        (lambda: store.delete_feedback(ACME, "v"), {0}),
        (lambda: store.replace_response(replace(a_call("r2"), session_id="s", status=500)), {2}),
        (lambda: store.rewrite_derived(old), {3}),
        (lambda: store.add_rating(a_rating("f", "r4"), known=False), set()),
        (lambda: store.write_calls([a_call("r5")]), set()),
    ]
    for way, gone in ways:
        await some_steps(store, 10_000)
        before = blocks(path)
        await way()
        assert before - blocks(path) == gone


async def test_blocks_are_what_sums_come_from(store: SqliteStorage, path: Path) -> None:
    await fill(store, Random(1), 160)
    spread(path, 80)
    await some_steps(store, 10_000)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE figures SET calls = calls + 1000")
    for by in DIMENSIONS:
        groups, _ = await store.summarise(ACME, EVERYTHING, by, GroupSort(), limit=1000, wanted={"calls"})
        assert (max(group.figures.calls for group in groups) > 1000) is (by not in FROM_CALLS), by


async def test_a_dimension_with_a_value_for_nearly_every_call_is_not_kept(store: SqliteStorage, path: Path) -> None:
    await store.write_calls(
        [a_call(f"r{place}", user_id=f"u{place}", properties={"Ticket": f"{place}"}) for place in range(40)]
    )
    spread(path, 20)
    await some_steps(store, 10_000)
    with closing(sqlite3.connect(path)) as db:
        kept = {name for (name,) in db.execute("SELECT DISTINCT dimension FROM figures")}
    assert "model" in kept
    assert not {"user", "property:ticket"} & kept
    for by in (Field("user_id"), Field("property", "ticket")):
        groups, number = await store.summarise(ACME, EVERYTHING, [by], GroupSort(), limit=1)
        assert (groups[0].figures.calls, number) == (1, 40)
    assert list(await store.property_names(ACME)) == ["Ticket"]


async def test_a_pair_of_dimensions_with_many_values_is_not_kept(store: SqliteStorage, path: Path) -> None:
    await store.write_calls(
        [a_call(f"r{place}", user_id=f"u{place % 200}", model_override=f"m{place % 3}") for place in range(600)]
    )
    spread(path, 600)
    await store.write_calls([a_call("last")])
    spread(path, 600)
    await some_steps(store, 10_000)
    with closing(sqlite3.connect(path)) as db:
        kept = {name for (name,) in db.execute("SELECT DISTINCT dimension FROM figures")}
    assert {"user", "model"} <= kept
    assert pair_of("user", "model") not in kept
    groups, number = await store.summarise(ACME, EVERYTHING, [Field("user_id"), MODEL], GroupSort(), limit=2)
    assert ([group.figures.calls for group in groups], number) == ([1, 1], 601)


async def test_pairs_are_kept_where_all_calls_of_a_block_are_alike(store: SqliteStorage, path: Path) -> None:
    """One release after the other, and one provider."""
    await store.write_calls(
        [
            a_call(f"r{place}", model_override=f"m{place % 3}", properties={"Release": f"2.{place // 20}"})
            for place in range(61)
        ]
    )
    spread(path, 20)
    await some_steps(store, 10_000)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE figures SET calls = calls + 1000")
    for by in ([RELEASE, MODEL], [MODEL, Field("provider")], [RELEASE, Field("path")]):
        groups, _ = await store.summarise(ACME, EVERYTHING, by, GroupSort("calls", True), limit=3, wanted={"calls"})
        assert [group.figures.calls > 1000 for group in groups] == [True] * 3, by


async def test_properties_beyond_bearing_are_added_up_from_the_calls(store: SqliteStorage, path: Path) -> None:
    await store.write_calls([a_call(f"r{place}", properties={f"P{place}": "x"}) for place in range(40)])
    spread(path, 20 * 40)
    await store.write_calls([a_call("last")])
    spread(path, 40)
    await some_steps(store, 10_000)
    assert blocks(path)
    groups, _ = await store.summarise(ACME, EVERYTHING, [Field("property", "p7")], GroupSort(), limit=10)
    assert [(group.keys, group.figures.calls) for group in groups] == [((None,), 40), (("x",), 1)]
    assert sorted(await store.property_names(ACME)) == sorted(f"P{place}" for place in range(40))


async def test_nothing_of_what_has_gone_is_left_in_sums(store: SqliteStorage, path: Path) -> None:
    await store.write_calls([a_call(f"r{place}", user_id="the walrus") for place in range(30)])
    spread(path)
    await some_steps(store, 10_000)
    await store.settle()
    assert b"the walrus" in content(path)
    what = Pruning(where=EVERYTHING)
    while True:
        found = await store.find_prunable(what, None, most_calls=100, most_bytes=2**30)
        if not await store.prune(what, found):
            break
    while await store.purge_sums():
        pass
    await store.settle()
    assert b"the walrus" not in content(path)


async def test_a_block_that_somebody_left_half_made_is_made_anew(store: SqliteStorage, path: Path) -> None:
    await store.write_calls([a_call(f"r{place}") for place in range(30)])
    spread(path)
    await some_steps(store, 4)
    other = await open_sqlite(str(path))
    await some_steps(other, 10_000)
    assert blocks(path) == {0}
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE figure_blocks SET begun = begun - 601000000")
    await some_steps(other, 10_000)
    await other.close()
    assert blocks(path) == {0, 1}


async def test_numbers_of_calls_that_went_are_given_out_again_to_no_block(store: SqliteStorage, path: Path) -> None:
    await store.write_calls([a_call(f"r{place}", started_at=START + place) for place in range(20)])
    spread(path)
    await some_steps(store, 10_000)
    newest = Pruning(where=Condition(Field("started_at"), Operator.GTE, START + 8))
    await store.prune(newest, await store.find_prunable(newest, None, most_calls=100, most_bytes=2**30))
    await store.write_calls([a_call(f"again{place}", started_at=START) for place in range(5)])
    [everything], _ = await store.summarise(ACME, EVERYTHING, [], GroupSort(), limit=1)
    assert everything.figures.calls == 13


def content(path: Path) -> bytes:
    return path.read_bytes()


def spread(path: Path, together: int = 10) -> None:
    """Give the calls other numbers, so that only so many neighbours stand in a block."""
    with closing(sqlite3.connect(path)) as db, db:
        for table, column in (
            ("calls", "id"),
            ("bodies", "call_id"),
            ("properties", "call_id"),
            ("body_pieces", "call_id"),
            ("text_pending", "call_id"),
        ):
            moved = f"{column} + (({column} - 1) / {together}) * ({BLOCK} - 1)"
            db.execute(f"UPDATE {table} SET {column} = -({moved})")
            db.execute(f"UPDATE {table} SET {column} = -{column}")


def blocks(path: Path) -> set[int]:
    with closing(sqlite3.connect(path)) as db:
        return {number for (number,) in db.execute("SELECT number FROM figure_blocks WHERE ready = 1")}


async def some_steps(store: SqliteStorage, most: int) -> None:
    for step in range(most):
        if not await store.add_up(beside_calls=step % 2 == 1):
            return


async def groups_are_right(store: SqliteStorage, random: Random) -> None:
    known = await everything_known(store)
    for by in DIMENSIONS:
        for where in (EVERYTHING, a_question(random, known, by)):
            # Most blocks can't tell how many sessions there are.
            for without in (frozenset[str](), frozenset({"sessions"})):
                wanted = FIGURES.keys() - without
                groups, number = await store.summarise(ACME, where, by, GroupSort(), limit=1000, wanted=wanted)
                right = reckoned([one for one in known if meets(one, where)], by)
                for figures in right.values():
                    figures.update(dict.fromkeys(without, 0))
                assert {group.keys: figures_of(group.figures) for group in groups} == right, (by, where)
                assert number == len(right)
    names = {name.casefold() for one in known for name in one.stored.call.properties}
    assert [name.casefold() for name in await store.property_names(ACME)] == sorted(names)


def a_question(random: Random, known: list[Known], by: tuple[Dimension, ...]) -> Node:
    """A span of time, conditions on what it goes by or on something else, both, or anything."""
    parts: list[Node] = []
    for operator in (Operator.GTE, Operator.GT, Operator.LT, Operator.LTE):
        if random.random() < 0.3:
            moment = START + random.choice((0, random.randrange(6) * DAY, random.randrange(6 * DAY)))
            parts.append(Condition(Field("started_at"), operator, moment))
    fields = [one for one in by if isinstance(one, Field)] or [RELEASE]
    for field in random.sample([*fields, MODEL, RELEASE], random.randrange(3)):
        operator = random.choice((Operator.EQUALS, Operator.NOT_EQUALS))
        parts.append(Condition(field, operator, random.choice(known).value(field)))
    return All(tuple(parts)) if random.random() < 0.8 else a_filter(random, known)


async def change(store: SqliteStorage, random: Random) -> None:
    """Several things that may happen to calls."""
    known = await everything_known(store)
    for one in random.sample(known, 3):
        request_id = one.stored.call.request_id
        await store.set_property(ACME, request_id, "Release", random.choice(("1", "2")), **NOW)
        await store.add_rating(a_rating(f"n{random.getrandbits(60)}", request_id, random.randrange(2)), known=False)
        await store.merge_scores(ACME, request_id, [Score("quality", random.randrange(10))], **NOW)
        await add_values(store, a_value(f"n{random.getrandbits(60)}", one.stored.call.trace_id, 3))
    one = random.choice(known)
    await store.replace_response(replace(one.stored.call, status=429, cost=2.5))
    await store.add_session_rating(a_session_rating(f"n{random.getrandbits(60)}", "s1"), known=False)
    goes = Pruning(where=Condition(Field("request_id"), Operator.EQUALS, random.choice(known).stored.call.request_id))
    await store.prune(goes, await store.find_prunable(goes, None, most_calls=100, most_bytes=2**30))
    late = START + random.randrange(5 * DAY)
    await store.write_calls([a_call(f"late{random.getrandbits(60)}", started_at=late, user_id="50%") for _ in range(3)])
