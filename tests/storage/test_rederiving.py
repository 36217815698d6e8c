"""What every backend promises of going over the whole log (`storage.base.Storage`), to write derived fields anew."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, cast

import pytest

from storage import Storage
from storage.base import RefusedRowError
from storage.records import Body, Call, Derived, NumberedCall, Score, Usage
from tests.storage import ACME, UNSTORABLE, a_call, a_rating, a_value, add_values, feedback_of, listed, row

NEW: Derived = {
    "user_id": "ada",
    "is_stream": True,
    "request_model": "gpt-4o",
    "response_model": "gpt-4o-2024-08-06",
    "provider_response_id": "resp",
    "finish_reason": "stop",
    "error_kind": "upstream_error_body",
    "error_message": "odd",
    "cost": 0.1 + 0.2,
    "cut": "user_id",
    "usage": Usage(1, 2, 3, 4, 5, 6, 7, 2**62),
}
MIB = 2**20


async def whole_log(store: Storage, most_calls: int = 100, most_bytes: int = 100 * MIB) -> list[list[NumberedCall]]:
    """Every batch up to the end."""
    batches: list[list[NumberedCall]] = []
    last = 0
    while batch := await store.read_batch(last, most_calls=most_calls, most_bytes=most_bytes):
        batches.append(list(batch))
        last = batch[-1].number
    return batches


async def rewrite(store: Storage, **fields: Any) -> int:
    """Every row with these fields in the place of its own."""
    batches = await whole_log(store)
    changed = [NumberedCall(row.number, replace(row.call, **fields)) for batch in batches for row in batch]
    return await store.rewrite_derived(changed)


def sized(request_id: str, size: int) -> Call:
    return a_call(request_id, request=Body(os.urandom(size), size))


async def test_the_calls_of_all_organisations_come_in_the_order_in_which_they_landed(store: Storage) -> None:
    names = [("b", "acme"), ("a", "other"), ("b", "other"), ("b", "acme")]
    await store.write_calls([a_call(id, organisation=owner) for id, owner in names])
    batches = await whole_log(store, most_calls=3)
    assert [[(row.call.request_id, row.call.organisation) for row in batch] for batch in batches] == [
        names[:3],
        names[3:],
    ]
    numbers = [row.number for batch in batches for row in batch]
    assert numbers == sorted(set(numbers))
    assert numbers[0] >= 1
    assert await store.count_calls() == 4


async def test_an_empty_log_has_no_calls_to_go_over(store: Storage) -> None:
    assert (await store.count_calls(), await whole_log(store)) == (0, [])


async def test_a_batch_ends_with_the_call_whose_bodies_reach_the_bound(store: Storage) -> None:
    await store.write_calls([sized("a", 400), sized("b", 600), sized("c", 5000), sized("d", 0), sized("e", 1)])
    batches = await whole_log(store, most_bytes=1000)
    assert ["".join(row.call.request_id for row in batch) for batch in batches] == ["ab", "c", "de"]


async def test_calls_come_with_their_bodies_and_all_but_their_properties(store: Storage) -> None:
    large = Body(os.urandom(3 * MIB), 3 * MIB, content_encoding="br")
    omitted = Body(None, 17, omitted=True, content_type="application/json")
    calls = [
        a_call("large", request=large, response=Body(b"x" * 2 * MIB, 9 * MIB, truncated=True), status=200),
        a_call("omitted", request=omitted, response=Body(b"", 0), properties={"a": "b"}, **NEW),
    ]
    await store.write_calls(calls)
    [batch] = await whole_log(store)
    assert [row.call for row in batch] == [calls[0], replace(calls[1], properties={})]


async def test_the_derived_fields_are_rewritten_and_no_others(store: Storage) -> None:
    before = a_call(session_id="s", properties={"a": "b"}, request=Body(b"asked", 5), time_to_first_token=7)
    await store.write_calls([before, a_call("other")])
    others = replace(before, trace_id="no", path="/no", latency=0, session_id=None, request=Body(), status=1)
    [[first, _]] = await whole_log(store)
    assert await store.rewrite_derived([NumberedCall(first.number, replace(others, **NEW))]) == 1
    assert (await row(store)).call == replace(before, **NEW)
    assert (await row(store, "other")).call == a_call("other")
    nothing = cast(Derived, {**dict.fromkeys(NEW), "is_stream": False, "usage": Usage()})
    assert await rewrite(store, **nothing) == 2
    assert (await row(store)).call == before


async def test_a_batch_is_rewritten_as_a_whole_or_not_at_all(store: Storage) -> None:
    await store.write_calls([a_call("r1"), a_call("r2")])
    [batch] = await whole_log(store)
    users = ("ada", UNSTORABLE)
    changed = [
        NumberedCall(row.number, replace(row.call, user_id=user)) for row, user in zip(batch, users, strict=True)
    ]
    with pytest.raises(RefusedRowError):
        await store.rewrite_derived(changed)
    assert (await row(store)).call == a_call("r1")


@pytest.mark.parametrize("known", [None, "mistaken"])
async def test_what_was_said_under_a_response_id_joins_the_row_that_turns_out_to_carry_it(
    store: Storage, known: str | None
) -> None:
    """As it does when a call lands whose response id is known."""
    await store.add_rating(a_rating("f1", "resp"), known=True)
    await store.merge_scores(ACME, "resp", [Score("accuracy", 95)], known=True, updated_at=2)
    await store.set_property(ACME, "resp", "Stage", "late", known=True, updated_at=2)
    await add_values(store, a_value("v1", "resp"))
    await store.write_calls([a_call(provider_response_id=known)])
    await store.add_rating(a_rating("f2", "r1", value=0), known=False)
    assert await listed(store, unmatched=True) == {"f1": True, "v1": True}
    assert await rewrite(store, **NEW) == 1
    assert await listed(store, unmatched=True) == {}
    stored = await row(store)
    assert feedback_of(stored) == {"f1": False, "v1": True, "f2": True}
    assert stored.scores == (Score("accuracy", 95),)
    assert stored.call.properties == {"Stage": "late"}


async def test_a_response_id_that_names_something_else_too_takes_nothing_away_from_it(store: Storage) -> None:
    await store.write_calls([a_call("r1"), a_call("resp", trace_id="t"), a_call("r2", trace_id="resp")])
    await store.add_rating(a_rating("f1", "resp"), known=False)
    await add_values(store, a_value("v1", "resp"))
    [[first, *_]] = await whole_log(store)
    await store.rewrite_derived([NumberedCall(first.number, replace(first.call, **NEW))])
    assert [feedback_of(await row(store, id)) for id in ("r1", "resp", "r2")] == [{}, {"f1": True}, {"v1": True}]


async def test_a_row_finds_its_response_id_gone_and_another_one_there(store: Storage) -> None:
    await store.write_calls([a_call(provider_response_id="mistaken")])
    await rewrite(store, **NEW)
    assert (await row(store, "resp")).call.request_id == "r1"
    assert await store.read_call(ACME, "mistaken", None) is None
