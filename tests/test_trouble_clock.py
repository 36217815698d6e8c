"""The wall clock is set, forward or back, while calls are under way: durations and order don't come from it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.exchange import Capture, Exchange
from proxy.headers import read_request_fields
from proxy.identity import identify
from proxy.pricing import Pricer
from proxy.row import build_call
from storage import Storage, open_storage
from tests.storage import ACME, VERDICT, a_call, a_rating, a_session_rating, feedback_of, listed, row
from tests.upstream import chat_events

HOUR = 3600
NOON = 1_700_000_000_000_000  # microseconds
BEFORE_NOON = NOON - HOUR * 1_000_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Storage]:
    opened = await open_storage(str(tmp_path / "kibitz.db"))
    yield opened
    await opened.close()


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["set back", "set forward"])
def test_durations_are_right_though_the_clock_was_set_meanwhile(ahead: int) -> None:
    began, started_at = time.perf_counter(), time.time() + ahead
    exchange = Exchange(
        organisation=ACME,
        identity=identify(read_request_fields([])),
        method="POST",
        path="/v1/chat/completions",
        target_url="http://upstream/v1/chat/completions",
        provider="test",
        request=Capture(limit=100),
        response=Capture(limit=10_000, content_type="text/event-stream"),
        started_at=started_at,
        status=200,
    )
    exchange.on_response_bytes(b"".join(chat_events("Hello")))
    exchange.end()
    most = (time.perf_counter() - began) * 1_000_000 + 1
    call = build_call(exchange, Pricer({}))
    assert call.time_to_first_token is not None
    assert 0 < call.time_to_first_token <= call.latency <= most
    assert call.started_at == round(started_at * 1_000_000)


async def test_the_attempt_that_came_last_is_the_latest_though_its_clock_was_set_back(store: Storage) -> None:
    await store.write_calls([a_call(started_at=NOON, provider_response_id="chatcmpl-1", status=429)])
    await store.write_calls([a_call(started_at=BEFORE_NOON, provider_response_id="chatcmpl-1", status=200)])
    for id in ("r1", "chatcmpl-1"):
        latest = await row(store, id)
        assert (latest.attempt, latest.call.status, latest.call.started_at) == (2, 200, BEFORE_NOON)
    assert (await row(store, "r1", 1)).call.started_at == NOON


async def test_the_rating_that_was_given_last_stands_though_its_clock_was_set_back(store: Storage) -> None:
    await store.write_calls([a_call()])
    for id, at in (("first", NOON), ("second", BEFORE_NOON), ("third", BEFORE_NOON)):
        assert await store.add_rating(a_rating(id, created_at=at, updated_at=at), known=False)
    assert feedback_of(await row(store)) == {"first": False, "second": False, "third": True}
    await store.delete_feedback(ACME, "third")
    assert await listed(store, request_id="r1") == {"first": False, "second": True}
    assert [item.id for item in await store.list_feedback(ACME, request_id="r1")] == ["first", "second"]


async def test_one_call_of_a_session_has_its_verdict_however_the_clock_was_set(store: Storage) -> None:
    times = {"noon": NOON, "earlier": BEFORE_NOON, "as early": BEFORE_NOON}
    for id, at in times.items():
        await store.write_calls([a_call(id, session_id="s", started_at=at)])
        assert await store.add_session_rating(a_session_rating(f"of {id}", "s", created_at=at), known=False)
    marked = [id for id in times if VERDICT in (await row(store, id)).call.properties]
    assert marked == ["earlier"]
