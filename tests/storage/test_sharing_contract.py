"""What every backend promises of bodies that repeat each other (`storage.base.Storage.share_bodies`)."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from storage import Storage
from storage.filters import Field, OneOf
from storage.pruning import Pruning
from storage.records import Body, Call
from tests.storage import ACME, a_call
from tests.storage.test_pruning_contract import found, prune

START = 1_700_000_000_000_000
LATER = START + 10**9
TURNS = 20
LETTERS = "abcdefghijklmnopqrstuvwxyz"
READ = {"most_calls": 10_000, "most_bytes": 2**40}


def words(random: Random, number: int) -> str:
    """Text without repetitions, which packs as badly as prose does at its worst."""
    return " ".join("".join(random.choices(LETTERS, k=random.randint(2, 9))) for _ in range(number))


def a_chat(random: Random, name: str, turns: int = TURNS, **fields: Any) -> list[Call]:
    """The calls of one chat, each of which sends all of it again."""
    messages = [{"role": "system", "content": words(random, 150)}]
    calls = []
    for turn in range(turns):
        messages.append({"role": "user", "content": words(random, 20)})
        data = json.dumps({"model": "gpt-4o-mini", "messages": messages}).encode()
        answer = words(random, 100)
        known = {"session_id": name, "started_at": START + turn, "request": Body(data, len(data)), **fields}
        reply = json.dumps({"id": f"chatcmpl-{name}-{turn}", "choices": [{"message": answer}]}).encode()
        calls.append(a_call(f"{name}.{turn}", response=Body(reply, len(reply)), **known))
        messages.append({"role": "assistant", "content": answer})
    return calls


async def share(store: Storage, before: int = LATER) -> None:
    while await store.share_bodies(before):
        pass


async def read_back(store: Storage) -> list[Call]:
    return [row.call for row in await store.read_batch(0, **READ)]


async def size_of(store: Storage) -> int:
    """Bytes of all bodies as the store keeps them."""
    return sum(sum(step.sizes.values()) for step in await found(store, Pruning()))


@pytest.mark.parametrize("fields", [{}, {"session_id": None, "trace_id": "one"}], ids=["session", "trace"])
async def test_requests_of_a_chat_take_a_fraction_and_read_as_before(store: Storage, fields: dict[str, Any]) -> None:
    calls = a_chat(Random(1), "s", **fields)
    await store.write_calls(calls)
    alone = await size_of(store)
    await share(store)
    assert await size_of(store) < 0.3 * alone
    assert await read_back(store) == calls
    stored = await store.read_call(ACME, "s.3", None)
    assert stored is not None
    assert stored.call == calls[3]
    numbers = [row.number for row in await store.read_batch(0, **READ)]
    several = await store.read_calls(ACME, numbers, most_bytes=2**40)
    assert [one.call for one in several.values()] == calls


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_goes_the_rest_reads_as_before(store: Storage, seed: int) -> None:
    random = Random(seed)
    calls = [call for name in ("s", "t") for call in a_chat(random, name, 8)]
    calls += a_chat(random, "s", 8, organisation="other")
    calls += [a_call(f"u.{turn}", session_id="u", request=Body(words(random, 300).encode(), 1)) for turn in range(5)]
    random.shuffle(calls)
    for start in range(0, len(calls), 7):
        await store.write_calls(calls[start : start + 7])
        if random.random() < 0.5:
            await share(store)
    await share(store)
    assert await read_back(store) == calls
    while calls:
        gone = {call.request_id for call in random.sample(calls, min(4, len(calls)))}
        where = OneOf(Field("request_id"), tuple(gone))
        bodies_only = random.random() < 0.3
        await prune(store, Pruning(where=where, bodies_only=bodies_only), random.randrange(1, 4))
        calls = [call for call in calls if call.request_id not in gone]
        assert [call for call in await read_back(store) if call.request_id not in gone] == calls
        await prune(store, Pruning(where=where))


async def test_calls_that_are_too_new_wait_for_their_turn(store: Storage) -> None:
    calls = a_chat(Random(2), "s")
    await store.write_calls(calls)
    alone = await size_of(store)
    await share(store, before=START)
    assert await size_of(store) == alone
    await share(store, before=START + 5)
    first = await size_of(store)
    await share(store)
    assert await size_of(store) < first < alone
    assert not await store.share_bodies(LATER)
    assert await read_back(store) == calls


async def test_a_chat_that_goes_on_is_shared_again(store: Storage) -> None:
    calls = a_chat(Random(3), "s", 3 * TURNS)
    for start in range(0, len(calls), TURNS):
        await store.write_calls(calls[start : start + TURNS])
        await share(store)
        assert await read_back(store) == calls[: start + TURNS]
    assert await prune(store, Pruning(before=START + 2 * TURNS)) == 2 * TURNS
    assert await read_back(store) == calls[2 * TURNS :]


async def test_a_log_that_began_anew_is_shared_too(store: Storage) -> None:
    calls = a_chat(Random(4), "s")
    for _ in range(2):
        await store.write_calls(calls)
        alone = await size_of(store)
        await share(store)
        assert await size_of(store) < 0.3 * alone
        assert await prune(store, Pruning()) == TURNS
