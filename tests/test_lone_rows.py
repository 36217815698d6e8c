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
from proxy.exchange import Capture, Exchange
from proxy.in_flight import InFlight
from proxy.recorder import Recorder
from proxy.redaction.redactor import Redactor
from proxy.redaction.rules import Rules
from storage import open_storage
from storage.records import Call, Score
from tests.raw_client import Eventually
from tests.recording import ACME, LARGE, POISON, SLOW, Faulty, exchange, new_recorder, recording, slow_exchange
from tests.upstream import CHAT_BODY

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
        ended.response_id = "told"
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
            assert (committed.done, recorder.waiting, bool(in_flight._calls)) == (True, 0, False)
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


async def test_a_packed_body_is_no_work_for_it_either(store: Faulty, new: New, submit: Submit) -> None:
    ended = exchange("r")
    ended.response.content_encoding = "gzip"
    async with recording(store, new()) as recorder:
        await submit(recorder, ended)
        assert await store.request_ids("r") == ["r"]
    assert (store.lone_rows, store.groups) == (0, [1])


async def test_a_row_without_bodies_brings_the_next_checkpoint_nearer(store: Faulty, new: New, submit: Submit) -> None:
    checkpoints = store.real._checkpoints  # type: ignore[attr-defined]
    async with recording(store, new()) as recorder:
        before = checkpoints._written
        await submit(recorder, exchange("r", size=0))
        await asyncio.sleep(0)
        assert checkpoints._written > before
    assert store.lone_rows == 1


async def test_a_request_that_still_comes_is_read_by_nobody_else(store: Faulty, new: New, submit: Submit) -> None:
    ended = exchange("r")
    ended.request.is_whole = False
    async with recording(store, new()) as recorder:
        await submit(recorder, ended)
        assert await store.request_ids("r") == ["r"]
    assert (store.lone_rows, store.groups) == (0, [1])


async def test_a_row_that_is_to_be_redacted_is_made_elsewhere(store: Faulty, new: New, submit: Submit) -> None:
    async with recording(store, new(commit_wait=0.2, redactor=Redactor(Rules((), SLOW)))) as recorder:
        slow = submit(recorder, slow_exchange("slow"))
        await recorder.settled(submit(recorder, exchange("quick")))
        await recorder.settled(slow)
        assert await store.request_ids("slow", "quick") == ["slow", "quick"]
    assert (store.lone_rows, recorder.metrics.late) == (0, 0)


async def test_a_stream_whose_id_only_its_row_tells_is_known_by_it_before_anybody_can_ask(
    store: Faulty, new: New, in_flight: InFlight
) -> None:
    ended = exchange("r", path="/v1/chat/completions")
    ended.response = Capture(2**20, "application/json")
    ended.response.feed(CHAT_BODY)
    in_flight.add(ended)
    async with recording(store, new()) as recorder:
        committed = recorder.submit_soon(ended)
        asked = asyncio.create_task(in_flight.landed(ACME, "chatcmpl-1"))
        await asyncio.sleep(0)
        assert not asked.done()
        await asked
        assert committed.done
    assert store.lone_rows == 0


async def test_who_asks_by_a_response_id_that_only_the_row_tells_waits_for_it(
    store: Faulty, new: New, path: Path, in_flight: InFlight, eventually: Eventually
) -> None:
    ended = exchange("r", path="/v1/chat/completions")
    ended.response = Capture(2**20, "application/json")
    ended.response.feed(CHAT_BODY)
    in_flight.add(ended)
    async with recording(store, new(commit_wait=0.01)) as recorder:
        with locked(path):
            committed = recorder.submit(ended)
            await recorder.settled(committed)

            async def row_is_made() -> None:
                assert ended.response_id_of_row == "chatcmpl-1"

            await eventually(row_is_made)
            asked = asyncio.create_task(in_flight.landed(ACME, "chatcmpl-1"))
            await asyncio.sleep(0.05)
            assert not asked.done()
        await asked
        assert committed.done
    assert store.lone_rows == 1


@pytest.mark.parametrize("commit_wait", [0.01, 0.5])
async def test_a_row_that_turns_out_to_take_long_is_made_elsewhere_and_waited_for_from_then_on(
    store: Faulty, new: New, path: Path, submit: Submit, commit_wait: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowBuilder, "quickly", lambda *_: None)
    real = RowBuilder.aside

    async def aside(builder: RowBuilder, ended: Exchange) -> Call:
        await asyncio.sleep(0.4)
        return await real(builder, ended)

    monkeypatch.setattr(RowBuilder, "aside", aside)
    async with recording(store, new(commit_wait=commit_wait)) as recorder:
        committed = submit(recorder, exchange("r"))
        settled = asyncio.create_task(recorder.settled(committed))
        await asyncio.sleep(0.3)
        assert not settled.done()
        with locked(path):
            await asyncio.sleep(0.3)
            assert settled.done() == (commit_wait < 0.1)
        await settled
        await committed
        assert recorder.metrics.late == (commit_wait < 0.1)
    assert await store.request_ids("r") == ["r"]


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
            patched.setattr(RowBuilder, "quickly", lambda *_: 1 // 0)
            await recorder.settled(submit(recorder, exchange("lost")))
        assert (recorder.metrics.dropped, recorder.waiting, bool(in_flight._calls)) == (1, 0, False)
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


async def test_a_lock_that_outlasts_the_store_s_patience_costs_no_row_nor_its_place(
    store: Faulty, new: New, path: Path, submit: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    await store.real._writer._connection.execute_fetchall("PRAGMA busy_timeout = 20")  # type: ignore[attr-defined]
    async with recording(store, new(commit_wait=0.01, max_waiting_bytes=6000)) as recorder:
        with locked(path):
            sent = [submit(recorder, exchange("r", size=size)) for size in (1, 2, 3)]
            await asyncio.sleep(0)
            assert not recorder.healthy
            was_stalled = []
            for _ in range(30):
                await asyncio.sleep(0.01)
                was_stalled.append(recorder.stalled)
            assert was_stalled == sorted(was_stalled), "it remembers that it is"
            assert was_stalled[-1]
            assert (any(one.done for one in sent), recorder.waiting) == (False, 3)
            assert recorder.metrics.store_failures > 1
        await asyncio.gather(*sent)
        stored = [await store.real.read_call(ACME, "r", attempt) for attempt in (1, 2, 3)]
    assert [one.call.response.size for one in stored if one] == [1, 2, 3]
    assert (recorder.metrics.dropped, recorder.waiting, recorder.healthy) == (0, 0, True)
    assert recorder.snapshot()["kibitz_calls_total:ok:2xx"] == 3
    told = [record.getMessage() for record in caplog.records if record.name == "proxy.recorder"]
    assert [line.partition(";")[0].partition(",")[0] for line in told] == ["the store is away", "the store is back"]


async def test_closing_does_not_wait_for_a_store_that_stays_away(
    store: Faulty, new: New, path: Path, submit: Submit
) -> None:
    await store.real._writer._connection.execute_fetchall("PRAGMA busy_timeout = 100")  # type: ignore[attr-defined]
    with locked(path):
        async with recording(store, new(commit_wait=0.01)) as recorder:
            committed = submit(recorder, exchange("r"))
            recorder.close()
    assert committed.done
    assert (recorder.metrics.store_failures, recorder.metrics.dropped) == (2, 1)


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
