"""What every backend promises of a row that is written anew once its response has ended (`storage.base.Storage`)."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from storage import Storage
from storage.records import Body, Call, Usage
from tests.storage import ACME, a_call, a_rating, row

MIB = 2**20


def ended(call: Call, data: bytes) -> Call:
    return replace(
        call,
        latency=call.latency + 5,
        error_kind="upstream_cut",
        error_message="cut",
        usage=Usage(1, 2, 3),
        provider_response_id="resp",
        response=Body(data, len(data), content_type="text/event-stream"),
    )


@pytest.mark.parametrize("before", [10, 2 * MIB])
@pytest.mark.parametrize("after", [20, 3 * MIB])
async def test_all_that_a_row_says_of_its_response_is_replaced(store: Storage, before: int, after: int) -> None:
    early = a_call("a", response=Body(os.urandom(before), before))
    await store.write_calls([a_call("a"), early, a_call("b")])
    whole = ended(early, os.urandom(after))
    assert await store.replace_response(whole)
    assert (await row(store, "a")).call == whole
    assert (await row(store, "a")).attempt == 2


async def test_only_the_row_of_that_start_is_replaced(store: Storage) -> None:
    early = a_call("a", started_at=1_000)
    later = a_call("a", started_at=2_000)
    await store.write_calls([early, later])
    whole = ended(early, b"more")
    assert await store.replace_response(whole)
    first, second = await store.read_call(ACME, "a", 1), await store.read_call(ACME, "a", 2)
    assert first is not None
    assert second is not None
    assert (first.call, second.call) == (whole, later)


async def test_a_call_without_a_row_is_not_replaced(store: Storage) -> None:
    await store.write_calls([a_call("a", organisation="other")])
    assert not await store.replace_response(a_call("a"))
    assert await store.read_call(ACME, "a", None) is None


async def test_a_rating_kept_for_the_response_s_id_joins_with_it(store: Storage) -> None:
    early = a_call("a", provider_response_id=None)
    await store.write_calls([early])
    await store.add_rating(a_rating("f1", "resp"), known=True)
    await store.replace_response(ended(early, b"more"))
    assert [one.request_id for one in (await row(store, "a")).feedback] == ["a"]
