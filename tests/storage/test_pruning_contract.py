"""What every backend promises of calls that are to go from the log (`storage.base.Storage`)."""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from storage import Storage
from storage.filters import EVERYTHING, Condition, Field, Node, Operator
from storage.pruning import Prunable, Pruning, Reached
from storage.queries import Page, Sort
from storage.records import Body, Call, Feedback, Score
from tests.storage import (
    ACME,
    NOW,
    VERDICT,
    a_call,
    a_rating,
    a_session_rating,
    a_value,
    add_values,
    feedback_of,
    listed,
    row,
)
from tests.storage.population import DAY, START, Known, a_filter, everything_known, fill, meets

MIB = 2**20
EVERY_CALL = Pruning()


async def found(store: Storage, what: Pruning, most_calls: int = 100, most_bytes: int = MIB) -> list[Prunable]:
    """All that is to go, step by step."""
    steps: list[Prunable] = []
    reached: Reached | None = None
    while not steps or reached is not None:
        step = await store.find_prunable(what, reached, most_calls=most_calls, most_bytes=most_bytes)
        steps.append(step)
        reached = step.reached
    return steps


async def prune(store: Storage, what: Pruning, most_calls: int = 100) -> int:
    """Everything that is to go, gone; answers how many calls that were."""
    return sum([await store.prune(what, step) for step in await found(store, what, most_calls)])


async def left(store: Storage) -> list[str]:
    """The request ids that are left, of every organisation, in the order in which they were logged."""
    return [one.call.request_id for one in await store.read_batch(0, most_calls=1000, most_bytes=2**40)]


async def numbers_left(store: Storage) -> set[int]:
    """The numbers of the calls of the organisation that are left."""
    page = await store.find_calls(ACME, EVERYTHING, Sort(Field("started_at"), descending=False), Page(1000))
    return {position.number for position in page}


def named(request_id: str) -> Node:
    """The calls of one request id."""
    return Condition(Field("request_id"), Operator.EQUALS, request_id)


def sized(request_id: str, size: int, **fields: Any) -> Call:
    return a_call(request_id, request=Body(os.urandom(size), size), **fields)


def said_of(one: Known) -> bool:
    """Whether somebody said something of a call that is in effect."""
    return bool(one.stored.scores) or one.session_rating is not None or any(f.effective for f in one.stored.feedback)


async def everything_said(store: Storage) -> dict[str, Feedback]:
    return {one.id: one for one in await store.list_feedback(ACME)}


@pytest.mark.parametrize("seed", range(12))
async def test_exactly_those_go_that_plain_python_means_and_what_was_said_of_them_with_them(
    store: Storage, seed: int
) -> None:
    random = Random(seed)
    await fill(store, random, 60)
    await store.add_rating(a_rating("kept", "yet to come"), known=True)
    known = await everything_known(store)
    said = await everything_said(store)
    where = a_filter(random, known) if seed % 3 else EVERYTHING
    before = START + random.randrange(1, 5) * DAY if seed % 2 else None
    what = Pruning(before, ACME, where, keep_rated=seed % 4 < 2)
    going = [
        one
        for one in known
        if meets(one, where)
        and (before is None or one.stored.call.started_at < before)
        and not (what.keep_rated and said_of(one))
    ]
    stay = [one for one in known if one not in going]
    unmatched = await listed(store, unmatched=True)
    assert await prune(store, what, random.randrange(1, 20)) == len(going)

    assert await numbers_left(store) == {one.number for one in stay}
    requests, traces, sessions = (
        {getattr(one.stored.call, name) for one in stay} for name in ("request_id", "trace_id", "session_id")
    )
    expected = {
        id: one
        for id, one in said.items()
        if id in unmatched
        or one.request_id in requests
        or one.trace_id in traces
        or (one.session_id is not None and one.session_id in sessions)
    }
    assert await everything_said(store) == expected
    assert await listed(store, unmatched=True) == unmatched


async def test_other_organisations_keep_theirs(store: Storage) -> None:
    for owner in ("b", ACME, "c"):
        await store.write_calls([a_call("r1", organisation=owner, session_id="s")])
        await store.add_rating(replace(a_rating(f"f.{owner}"), organisation=owner), known=False)
    assert await prune(store, Pruning(organisation=ACME)) == 1
    assert await listed(store) == {}
    for owner in ("b", "c"):
        stored = await store.read_call(owner, "r1", None)
        assert stored is not None
        assert feedback_of(stored) == {f"f.{owner}": True}


@pytest.mark.parametrize("before", [None, START + 10], ids=["by arrival", "in time"])
async def test_the_oldest_come_first_in_steps_of_a_bounded_number_of_calls_and_bytes(
    store: Storage, before: int | None
) -> None:
    sizes = {"a": 400, "b": 600, "c": 5000, "d": 0, "e": 1, "f": 2}
    await store.write_calls([sized(id, size, started_at=START + n) for n, (id, size) in enumerate(sizes.items())])
    numbers = {one.call.request_id: one.number for one in await store.read_batch(0, most_calls=9, most_bytes=MIB)}
    steps = await found(store, Pruning(before), most_calls=3, most_bytes=1000)
    expected = [{numbers[id]: sizes[id] for id in ids} for ids in ("ab", "c", "def")]
    assert [step.sizes for step in steps if step.sizes] == expected


async def test_a_walk_over_many_calls_of_many_organisations_misses_none(store: Storage) -> None:
    calls = [a_call(f"r{n}", organisation=f"o{n % 3}", started_at=START + n // 7) for n in range(900)]
    await store.write_calls(calls)
    assert await prune(store, Pruning(before=START + 100), most_calls=70) == 700
    assert await left(store) == [f"r{n}" for n in range(700, 900)]
    assert await prune(store, Pruning(where=named("r899"))) == 1
    assert await prune(store, EVERY_CALL) == 199
    assert (await left(store), await store.count_calls()) == ([], 0)


async def test_what_was_rated_since_it_was_found_stays(store: Storage) -> None:
    await store.write_calls([a_call("a"), a_call("b"), a_call("c", trace_id="t"), a_call("d", session_id="s")])
    what = Pruning(keep_rated=True)
    [step] = await found(store, what)
    assert len(step.sizes) == 4
    await store.add_rating(a_rating("f", "b"), known=False)
    await add_values(store, a_value("v", "t"))
    await store.add_session_rating(a_session_rating("g", "s"), known=False)
    assert await store.prune(what, step) == 1
    assert await left(store) == ["b", "c", "d"]


async def test_what_is_said_of_a_request_stays_while_one_attempt_of_it_does(store: Storage) -> None:
    await store.write_calls([a_call(started_at=START), a_call(started_at=START + 5)])
    await store.add_rating(a_rating("f"), known=False)
    await store.merge_scores(ACME, "r1", [Score("a", 1)], **NOW)
    await store.set_property(ACME, "r1", "stage", "late", **NOW)
    assert await prune(store, Pruning(before=START + 5)) == 1
    stored = await row(store)
    assert (stored.attempt, feedback_of(stored), stored.scores) == (2, {"f": True}, (Score("a", 1),))
    assert await prune(store, EVERY_CALL) == 1
    assert await listed(store) == {}
    await store.write_calls([a_call()])
    stored = await row(store)
    assert (stored.attempt, stored.feedback, stored.scores, stored.call.properties) == (1, (), (), {})


async def test_a_sessions_verdict_moves_to_the_earliest_call_that_is_left(store: Storage) -> None:
    await store.write_calls([a_call(f"r{n}", session_id="s", started_at=START + n) for n in range(3)])
    await store.add_session_rating(a_session_rating("f", "s", 0), known=False)
    await prune(store, Pruning(where=named("r0")))
    verdicts = [(await row(store, f"r{n}")).call.properties for n in (1, 2)]
    assert verdicts == [{VERDICT: "0"}, {}]
    assert await listed(store) == {"f": True}


async def test_a_sessions_tag_goes_with_its_last_call(store: Storage) -> None:
    await store.write_calls([a_call(f"r{n}", session_id="s") for n in range(2)])
    await store.write_calls([a_call("r2", session_id="other")])
    for session in ("s", "other", "yet to come"):
        assert await store.tag_session(ACME, session, "seen", known=True, updated_at=2)
    left = [await store.session_tag(ACME, "s")]
    for number in range(2):
        assert await prune(store, Pruning(where=named(f"r{number}"))) == 1
        left.append(await store.session_tag(ACME, "s"))
    assert left == ["seen", "seen", None]
    assert [await store.session_tag(ACME, session) for session in ("other", "yet to come")] == ["seen", "seen"]


async def test_a_row_whose_bodies_go_keeps_its_figures_and_says_that_they_are_left_out(store: Storage) -> None:
    large = os.urandom(2 * MIB)
    kept: dict[str, Any] = {"status": 200, "cost": 0.5, "properties": {"a": "b"}, "session_id": "s"}
    call = a_call(request=Body(large, len(large)), response=Body(b"said", 9, truncated=True), **kept)
    nothing = a_call("r2", request=Body(content_type="text/plain"), response=Body(b"x", 1))
    await store.write_calls([call, nothing])
    await store.add_rating(a_rating("f"), known=False)
    what = Pruning(bodies_only=True)
    assert [sum(step.sizes.values()) for step in await found(store, what)] == [2 * MIB + 4, 1]
    assert await prune(store, what) == 2
    gone = replace(call, request=Body(size=len(large), omitted=True), response=Body(size=9, omitted=True))
    assert ((await row(store)).call, feedback_of(await row(store))) == (gone, {"f": True})
    assert (await row(store, "r2")).call == replace(nothing, response=Body(size=1, omitted=True))
    assert await prune(store, what) == 0
    assert await store.prune(EVERY_CALL, (await found(store, EVERY_CALL))[0]) == 2


async def test_a_walk_by_a_cursor_goes_on_while_calls_go(store: Storage) -> None:
    await store.write_calls([a_call(f"r{n}", started_at=START + n) for n in range(10)])
    sort = Sort(Field("started_at"), descending=False)
    first = await store.find_calls(ACME, EVERYTHING, sort, Page(3))
    await prune(store, Pruning(before=START + 5))
    behind = await store.find_calls(ACME, EVERYTHING, sort, Page(10, after=first[-1]))
    assert [position.value for position in behind] == [START + n for n in range(5, 10)]
    assert await store.read_calls(ACME, [position.number for position in first], most_bytes=MIB) == {}


async def test_the_space_of_what_has_gone_is_given_back(store: Storage) -> None:
    await store.write_calls([sized(f"r{n}", 50_000) for n in range(40)])
    before = await store.space()
    assert before.used > 2 * 10**6
    await prune(store, EVERY_CALL)
    assert (await store.space()).total == before.total
    assert (await store.space()).used < 10**6
    given = await store.give_back(100_000)
    assert 50_000 < given <= 100_000
    while more := await store.give_back(MIB):
        given += more
    after = await store.space()
    assert after.total == after.used == before.total - given


async def test_bodies_that_go_alone_give_their_space_back_too(store: Storage) -> None:
    for group in range(10):
        await store.write_calls([sized(f"r{group}.{n}", 1500) for n in range(100)])
    before = await store.space()
    assert await prune(store, Pruning(bodies_only=True)) == 1000
    assert (await store.space()).used < before.used - 1_300_000
