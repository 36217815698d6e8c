"""Calls that are written together are joined with what was said before as those that are written one by one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from storage import Storage, open_storage
from storage.records import Call
from tests.storage import ACME, VERDICT, a_call, a_rating, a_session_rating, a_value, add_values, feedback_of, forget


async def say(store: Storage, chance: random.Random) -> None:
    """Something of requests, responses, traces and sessions."""
    for number in range(chance.randrange(8)):
        text = chance.choice(["r1", "r2", "p1", "p2"])
        name = f"f{chance.random()}"
        match chance.randrange(4):
            case 0:
                await store.add_rating(a_rating(name, text), known=True)
            case 1:
                await store.set_property(ACME, text, "Stage", str(number), known=True, updated_at=number)
            case 2:
                await add_values(store, a_value(name, chance.choice([text, "t1", "t2"])))
            case 3:
                session = chance.choice(["s1", "s2"])
                await store.add_session_rating(a_session_rating(name, session, chance.randrange(2)), known=True)


def calls_of(chance: random.Random) -> list[Call]:
    """Some with ids and sessions that others have too.

    A request's attempts are of one trace. Else it is no matter of chance which of two is in the store first when a
    value is to join either a trace or a request of its text, and together they are both.
    """

    def one() -> Call:
        more: dict[str, Any] = {"started_at": chance.randrange(100)}
        for name, values in {"session_id": ["s1", "s2", None], "provider_response_id": ["p1", "p2", None]}.items():
            more[name] = chance.choice(values)
        request_id, trace_id = chance.choice([("r1", "r1"), ("r2", "t1"), (f"r{chance.random()}", "t2")])
        if chance.random() < 0.5:
            more["properties"] = {"stage": "own", "Other": "x\0y"}
        if chance.random() < 0.1:
            more["properties"] = {VERDICT: "its own"}
        return a_call(request_id, trace_id=trace_id, **more)

    return [one() for _ in range(chance.randrange(1, 9))]


async def all_that_is_known(store: Storage, calls: Sequence[Call]) -> list[Any]:
    found: list[Any] = []
    for request_id in sorted({call.request_id for call in calls}):
        attempts = sum(call.request_id == request_id for call in calls)
        for attempt in (None, *range(1, attempts + 1)):
            known = await store.read_call(ACME, request_id, attempt)
            found.append(known and (known.call, known.attempt, feedback_of(known)))
    return found


@pytest.mark.parametrize("seed", range(40))
async def test_calls_of_one_group_are_joined_as_those_of_many(tmp_path: Path, seed: int) -> None:
    results: list[list[Any]] = []
    for together in (True, False):
        chance = random.Random(seed)
        store = await open_storage(f"sqlite:///{tmp_path}/{together}.db")
        try:
            written: list[Call] = []
            for _ in range(3):
                await say(store, chance)
                await forget(store, chance.choice([0, 0, 50]))
                calls = calls_of(chance)
                for group in [calls] if together else [[call] for call in calls]:
                    await store.write_calls(group)
                written += calls
            results.append(await all_that_is_known(store, written))
        finally:
            await store.close()
    assert results[0] == results[1]
