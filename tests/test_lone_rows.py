"""A call that comes alone has its row made and written in one go, by the store's thread; whatever fails of that is
done again in the way of all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from proxy.building import RowBuilder
from proxy.commit import Commit
from proxy.exchange import Exchange
from proxy.in_flight import InFlight
from proxy.recorder import Recorder
from proxy.redaction.redactor import Redactor
from proxy.redaction.rules import Rules
from storage import open_storage
from storage.records import Score
from tests.recording import ACME, LARGE, POISON, SLOW, Faulty, exchange, new_recorder, recording, slow_exchange

New = Callable[..., Recorder]
Submit = Callable[[Recorder, Exchange], Commit]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.recorder._RETRY_PAUSE", 0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Faulty]:
    real = await open_storage(str(path))
    faulty = Faulty(real)
    faulty.takes_lone_rows = True
    try:
        yield faulty
    finally:
        await real.close()


@pytest.fixture
def in_flight() -> InFlight:
    return InFlight()


@pytest.fixture
def new(store: Faulty, in_flight: InFlight) -> New:
    return partial(new_recorder, store, in_flight)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """While another process holds the database's lock."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture(params=[Recorder.submit, Recorder.submit_soon])
def submit(request: pytest.FixtureRequest, in_flight: InFlight) -> Submit:
    def add_and_submit(recorder: Recorder, ended: Exchange) -> Commit:
        in_flight.add(ended)
        committed: Commit = request.param(recorder, ended)
        return committed

    return add_and_submit


async def test_its_row_is_in_the_store_when_it_is_told_so(
    store: Faulty, new: New, in_flight: InFlight, submit: Submit
) -> None:
    async with recording(store, new()) as recorder:
        for number in range(50):
            ended = exchange(f"r{number}")
            committed = submit(recorder, ended)
            assert recorder.waiting == 1
            asked = asyncio.create_task(in_flight.landed(ACME, f"r{number}"))
            await recorder.settled(committed)
            await asked
            stored = await store.real.read_call(ACME, f"r{number}", None)
            assert stored is not None
            assert (stored.attempt, stored.call.response.data) == (1, bytes(10))
            assert (committed.done, recorder.waiting, bool(in_flight)) == (True, 0, False)
    assert (store.lone_rows, store.groups) == (50, [])
    snapshot = recorder.snapshot()
    assert snapshot["kibitz_rows_written_total"] == snapshot["kibitz_calls_total:ok:2xx"] == 50
    waits = [count for name, count in snapshot.items() if name.startswith("kibitz_commit_wait_seconds:")]
    assert sum(waits[:-1]) == 50  # the last is their sum in seconds
    assert snapshot["kibitz_rows_waiting_bytes"] == 0


async def test_calls_that_end_meanwhile_are_written_together_behind_it(store: Faulty, new: New, submit: Submit) -> None:
    async with recording(store, new()) as recorder:
        await asyncio.gather(*(submit(recorder, exchange("r")) for _ in range(9)))
        attempts = [await store.real.read_call(ACME, "r", number) for number in range(1, 10)]
    assert all(attempts)
    assert (store.lone_rows, store.groups) == (1, [8])


async def test_feedback_behind_it_finds_it(store: Faulty, new: New, submit: Submit) -> None:
    async with recording(store, new()) as recorder:
        _ = submit(recorder, exchange("r"))
        scores = (Score("quality", 1.0),)
        assert await store.real.merge_scores(ACME, "r", scores, known=False, updated_at=1) is not None
    assert store.lone_rows == 1


async def test_relaxed_rows_are_gathered(store: Faulty, new: New, submit: Submit) -> None:
    async with recording(store, new(strict=False)) as recorder:
        await submit(recorder, exchange("r"))
    assert (store.lone_rows, store.groups) == (0, [1])


async def test_with_more_than_a_few_calls_under_way_rows_come_in_groups(
    store: Faulty, new: New, in_flight: InFlight, submit: Submit
) -> None:
    for number in range(3):
        in_flight.add(exchange(f"other-{number}"))
    async with recording(store, new()) as recorder:
        await submit(recorder, exchange("r"))
    assert (store.lone_rows, store.groups) == (0, [1])


async def test_a_large_body_is_no_work_for_the_thread_that_writes(store: Faulty, new: New, submit: Submit) -> None:
    async with recording(store, new()) as recorder:
        await submit(recorder, exchange("r", size=LARGE))
        assert await store.request_ids("r") == ["r"]
    assert (store.lone_rows, store.groups) == (0, [1])


async def test_a_request_that_still_comes_is_read_by_nobody_else(store: Faulty, new: New, submit: Submit) -> None:
    ended = exchange("r")
    ended.request.is_whole = False
    async with recording(store, new()) as recorder:
        await submit(recorder, ended)
        assert await store.request_ids("r") == ["r"]
    assert (store.lone_rows, store.groups) == (0, [1])


@pytest.mark.parametrize("commit_wait", [0.01, 10])
async def test_a_row_whose_searches_take_long_is_made_elsewhere_and_waited_for(
    store: Faulty, new: New, submit: Submit, commit_wait: float
) -> None:
    async with recording(store, new(commit_wait=commit_wait, redactor=Redactor(Rules((), SLOW)))) as recorder:
        slow = submit(recorder, slow_exchange("slow"))
        await asyncio.sleep(0.1)
        assert not slow.done
        await asyncio.wait_for(submit(recorder, exchange("quick")), 5)
        await recorder.settled(slow)
        assert slow.done
        assert await store.request_ids("slow", "quick") == ["slow", "quick"]
    assert recorder.metrics.late == 0


async def test_a_row_that_can_t_be_made_is_counted_and_holds_nobody_up(
    store: Faulty,
    new: New,
    in_flight: InFlight,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with recording(store, new(commit_wait=1000)) as recorder:
        with monkeypatch.context() as patched:
            patched.setattr(RowBuilder, "at_once", lambda *_: 1 // 0)
            await recorder.settled(submit(recorder, exchange("lost")))
        assert (recorder.metrics.dropped, recorder.waiting, bool(in_flight)) == (1, 0, False)
        await submit(recorder, exchange("next"))
    assert "making a row" in caplog.text
    assert await store.request_ids("lost", "next") == ["next"]


async def test_a_row_that_the_store_refuses_is_lost_alone(store: Faulty, new: New, submit: Submit) -> None:
    async with recording(store, new()) as recorder:
        await recorder.settled(submit(recorder, exchange("bad", path=POISON)))
        await recorder.settled(submit(recorder, exchange("good")))
    assert await store.request_ids("bad", "good") == ["good"]
    assert (store.lone_rows, store.groups, recorder.metrics.dropped) == (2, [1], 1)


async def test_while_the_store_is_locked_it_waits_no_longer_than_commit_wait_and_its_row_is_there_later(
    store: Faulty, new: New, path: Path, in_flight: InFlight, submit: Submit
) -> None:
    async with recording(store, new(commit_wait=0.02)) as recorder:
        with locked(path):
            first = submit(recorder, exchange("first"))
            await recorder.settled(first)
            assert (recorder.metrics.late, first.done) == (1, False)
            assert in_flight.which("request", ACME, {"first"}), "it may be rated before its row is there"
            await asyncio.sleep(0.1)
            assert recorder.stalled
            second = submit(recorder, exchange("second"))
            await recorder.settled(second)
            assert recorder.metrics.late == 2
        await asyncio.gather(first, second)
        assert not recorder.stalled
        assert await store.request_ids("first", "second") == ["first", "second"]
    assert recorder.metrics.dropped == 0


async def test_a_lock_that_outlasts_the_store_s_patience_costs_no_row(
    store: Faulty, new: New, path: Path, submit: Submit
) -> None:
    await store.real._writer._connection.execute_fetchall("PRAGMA busy_timeout = 20")  # type: ignore[attr-defined]
    async with recording(store, new(commit_wait=0.01)) as recorder:
        with locked(path):
            first = submit(recorder, exchange("first"))
            await asyncio.sleep(0.3)
            assert (first.done, recorder.waiting) == (False, 1)
        await first
        assert await store.request_ids("first") == ["first"]
    assert recorder.metrics.store_failures > 0


async def test_a_file_that_has_gone_is_written_to_by_nobody(
    store: Faulty, new: New, path: Path, submit: Submit
) -> None:
    async with recording(store, new(commit_wait=0.05)) as recorder:
        away = path.with_suffix(".away")
        os.rename(path, away)
        ended = submit(recorder, exchange("r"))
        await recorder.settled(ended)
        assert (ended.done, recorder.metrics.late, recorder.waiting) == (False, 1, 1)
        os.rename(away, path)
        await ended
        assert await store.request_ids("r") == ["r"]


async def test_the_end_waits_for_a_row_that_is_with_the_store(store: Faulty, new: New, submit: Submit) -> None:
    async with recording(store, new()) as recorder:
        committed = submit(recorder, exchange("r"))
        recorder.close()
        assert not committed.done
    assert committed.done
    assert await store.request_ids("r") == ["r"]
    assert store.lone_rows == 1


async def test_past_the_bound_in_bytes_rows_are_dropped(store: Faulty, new: New, path: Path, submit: Submit) -> None:
    async with recording(store, new(commit_wait=0.01, max_waiting_bytes=2000)) as recorder:
        with locked(path):
            kept = submit(recorder, exchange("kept"))
            assert not recorder.healthy
            dropped = submit(recorder, exchange("dropped"))
            await recorder.settled(dropped)
            assert (dropped.done, recorder.metrics.dropped) == (True, 1)
        await kept
        assert recorder.healthy
    assert await store.request_ids("kept", "dropped") == ["kept"]


async def test_what_is_written_anew_comes_behind_it(store: Faulty, new: New, submit: Submit) -> None:
    async with recording(store, new()) as recorder:
        ended = exchange("r")
        first = submit(recorder, ended)
        ended.response.feed(b"more")
        await recorder.amend(ended, after=first)
        stored = await store.real.read_call(ACME, "r", None)
    assert stored is not None
    assert (stored.attempt, stored.call.response.data) == (1, bytes(10) + b"more")
