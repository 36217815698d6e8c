from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.building import RowBuilder
from proxy.commit import Commit
from proxy.exchange import Exchange
from proxy.in_flight import InFlight
from proxy.recorder import Recorder
from proxy.redaction.redactor import Redactor
from proxy.redaction.rules import Rules
from storage import StorageError, open_storage
from tests.recording import ACME, LARGE, POISON, SLOW, Faulty, exchange, new_recorder, recording, slow_exchange

Eventually = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
New = Callable[..., Recorder]
Submit = Callable[[Recorder, Exchange], Commit]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.recorder._RETRY_PAUSE", 0.005)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Faulty]:
    real = await open_storage(str(tmp_path / "kibitz.db"))
    yield Faulty(real)
    await real.close()


@pytest.fixture
def in_flight() -> InFlight:
    return InFlight()


@pytest.fixture
def new(store: Faulty, in_flight: InFlight) -> New:
    return partial(new_recorder, store, in_flight)


async def settled(task: asyncio.Task[None]) -> bool:
    """Whether a task has ended once everything that can go on has gone on."""
    done, _ = await asyncio.wait([task], timeout=0.05)
    return bool(done)


@pytest.mark.parametrize("size", [0, 10, LARGE])
async def test_what_is_committed_is_in_the_store(store: Faulty, new: New, size: int) -> None:
    async with recording(store, new()) as recorder:
        await recorder.settled(recorder.submit(exchange(size=size)))
        stored = await store.real.read_call(ACME, "r1", None)
    assert stored is not None
    assert (stored.call.response.data, stored.call.response.size) == (bytes(size), size)
    assert (recorder.metrics.late, recorder.metrics.dropped, recorder.waiting, recorder.healthy) == (0, 0, 0, True)


@pytest.mark.parametrize("size", [10, LARGE])
async def test_a_strict_commit_waits_for_the_store(store: Faulty, new: New, size: int) -> None:
    store.gate.clear()
    async with recording(store, new()) as recorder:
        task = asyncio.create_task(recorder.settled(recorder.submit(exchange(size=size))))
        assert not await settled(task)
        assert await store.request_ids("r1") == []
        store.gate.set()
        await task
        assert await store.request_ids("r1") == ["r1"]
    assert recorder.metrics.late == 0


async def test_a_relaxed_commit_waits_for_nothing(store: Faulty, new: New, eventually: Eventually) -> None:
    store.gate.clear()
    async with recording(store, new(strict=False)) as recorder:
        await recorder.settled(recorder.submit(exchange()))
        assert await store.request_ids("r1") == []
        store.gate.set()
        await written(store, eventually, "r1")
    assert recorder.metrics.late == 0


async def written(store: Faulty, eventually: Eventually, *request_ids: str) -> None:
    async def attempt() -> None:
        assert await store.request_ids(*request_ids) == list(request_ids)

    await eventually(attempt)


@pytest.mark.parametrize("others", [0, 1])
async def test_a_row_waits_for_others_only_while_calls_run_that_may_bring_them(
    store: Faulty, new: New, in_flight: InFlight, others: int
) -> None:
    async with recording(store, new()) as recorder:
        for number in range(others):
            in_flight.add(exchange(f"other-{number}"))
        ended = exchange()
        in_flight.add(ended)
        committed = recorder.submit(ended)
        turns = 0
        while not store.groups:
            turns += 1
            await asyncio.sleep(0)
        await committed
        assert turns == 1 + others
        assert in_flight.running == others


async def test_a_commit_that_takes_too_long_is_counted_and_still_happens(
    store: Faulty, new: New, in_flight: InFlight, eventually: Eventually
) -> None:
    store.gate.clear()
    async with recording(store, new(commit_wait=0.01)) as recorder:
        ended = exchange()
        in_flight.add(ended)
        await recorder.settled(recorder.submit(ended))
        assert (recorder.metrics.late, recorder.metrics.dropped) == (1, 0)
        assert in_flight.which("request", ACME, {"r1"}), "it may be rated before its row is there"
        store.gate.set()
        await written(store, eventually, "r1")
    assert not in_flight.which("request", ACME, {"r1"})
    assert (recorder.metrics.late, recorder.metrics.dropped, recorder.waiting) == (1, 0, 0)


async def test_while_the_store_is_away_rows_wait_and_once_it_is_back_they_are_written_in_order(
    store: Faulty, new: New, eventually: Eventually
) -> None:
    store.fault = StorageError("away")
    async with recording(store, new(commit_wait=0.01)) as recorder:
        await asyncio.gather(*(recorder.settled(recorder.submit(exchange(status=500 + n))) for n in range(10)))
        assert (recorder.metrics.late, recorder.metrics.dropped, recorder.healthy) == (10, 0, True)
        store.fault = None
        await written(store, eventually, "r1")
    attempts = [await store.real.read_call(ACME, "r1", n) for n in range(1, 11)]
    assert [attempt and attempt.call.status for attempt in attempts] == [500 + n for n in range(10)]
    assert recorder.metrics.dropped == 0


async def test_every_row_that_is_not_written_yet_counts_as_waiting(store: Faulty, new: New) -> None:
    store.fault = StorageError("away")
    async with recording(store, new(commit_wait=0.01)) as recorder:
        for number in range(1, 4):
            await recorder.settled(recorder.submit(exchange(f"r{number}")))
            assert recorder.waiting == number
        store.fault = None
    assert recorder.waiting == 0


async def test_rows_that_wait_to_be_redacted_are_bounded_as_those_that_wait_for_the_store(
    store: Faulty, new: New, in_flight: InFlight
) -> None:
    redactor = Redactor(Rules((), ["[^0]"]))
    async with recording(store, new(max_waiting_bytes=20_000, redactor=redactor)) as recorder:
        submitted = [recorder.submit(exchange(f"r{number}", size=10_000)) for number in range(5)]
        assert (recorder.metrics.dropped, recorder.healthy) == (3, False)
        assert recorder.metrics.calls["ok", "2xx"] == 3
        for committed in submitted:
            await recorder.settled(committed)
        assert recorder.healthy
    assert await store.request_ids("r0", "r1", "r2", "r3", "r4") == ["r0", "r1"]
    assert not in_flight.which("request", ACME, {"r4"})


async def test_an_exchange_that_grows_while_its_row_is_made_leaves_the_bound_where_it_is(
    store: Faulty, new: New
) -> None:
    growing, next_one = exchange("r1", size=LARGE), exchange("r2", size=LARGE)
    async with recording(store, new(max_waiting_bytes=next_one.weight)) as recorder:
        committed = recorder.submit(growing)
        growing.continue_gist()
        await recorder.settled(committed)
        assert recorder.healthy
        committed = recorder.submit(next_one)
        assert not recorder.healthy
        await recorder.settled(committed)


@pytest.mark.parametrize("submit", [Recorder.submit, Recorder.submit_soon])
async def test_a_response_waits_for_its_row_to_be_made_whatever_commit_wait_is(
    store: Faulty, new: New, submit: Submit
) -> None:
    """Only a store that stalls is an excuse."""
    async with recording(store, new(commit_wait=0.2, redactor=Redactor(Rules((), SLOW)))) as recorder:
        await recorder.settled(submit(recorder, slow_exchange("r1")))
        assert await store.request_ids("r1") == ["r1"]
    assert recorder.metrics.late == 0
    assert recorder.snapshot()["kibitz_commit_wait_seconds:sum"] > 0.2


async def test_once_a_row_is_made_a_response_waits_no_longer_than_commit_wait(store: Faulty, new: New) -> None:
    store.gate.clear()
    async with recording(store, new(commit_wait=0.01, redactor=Redactor(Rules((), SLOW)))) as recorder:
        await recorder.settled(recorder.submit(slow_exchange("r1")))
        assert recorder.metrics.late == 1
        store.gate.set()


async def test_a_row_that_can_t_be_made_is_counted_and_holds_nobody_up(
    store: Faulty, new: New, in_flight: InFlight, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(RowBuilder, "quickly", lambda *_: 1 // 0)
    ended = exchange("r1")
    in_flight.add(ended)
    async with recording(store, new(commit_wait=1000)) as recorder:
        await recorder.settled(recorder.submit_soon(ended))
        await in_flight.landed(ACME, "r1")
        assert (recorder.metrics.dropped, recorder.waiting, bool(in_flight._calls)) == (1, 0, False)
    assert "making a row" in caplog.text


@pytest.mark.parametrize("size", [10, LARGE])
async def test_a_row_that_is_made_soon_is_on_its_way_at_once_and_written_though_the_end_has_come(
    store: Faulty, new: New, in_flight: InFlight, size: int
) -> None:
    ended = exchange("r1", size=size)
    in_flight.add(ended)
    async with recording(store, new()) as recorder:
        recorder.close()
        committed = recorder.submit_soon(ended)
        assert recorder.waiting == 0
        asked = asyncio.create_task(in_flight.landed(ACME, "r1"))
        await asyncio.sleep(0)
        assert not asked.done()
    assert committed.done
    assert await store.request_ids("r1") == ["r1"]
    await asked
    assert not in_flight._calls


async def test_no_row_waits_for_the_searches_of_others_that_take_long(store: Faulty, new: New) -> None:
    async with recording(store, new(redactor=Redactor(Rules((), SLOW)))) as recorder:
        slow = [recorder.submit(slow_exchange(f"s{number}")) for number in range(12)]
        large = exchange("large", size=0)
        large.on_response_bytes(b"x" * LARGE)
        for quick in (exchange("small"), large):
            await recorder.settled(recorder.submit(quick))
        assert await store.request_ids("small", "large") == ["small", "large"]
        assert not slow[-1].done
    assert len(await store.request_ids(*(f"s{number}" for number in range(12)))) == 12


async def test_past_the_bound_in_bytes_rows_are_dropped_until_the_store_is_back(
    store: Faulty, new: New, in_flight: InFlight, eventually: Eventually
) -> None:
    size = LARGE // 2  # one that no thread builds
    weight = exchange(size=size).weight
    store.fault = StorageError("away")
    async with recording(store, new(commit_wait=0.01, max_waiting_bytes=2 * weight)) as recorder:
        for number in range(5):
            ended = exchange(f"r{number}", size=size)
            in_flight.add(ended)
            await recorder.settled(recorder.submit(ended))
            assert recorder.healthy is (number == 0)
        assert (recorder.metrics.dropped, recorder.metrics.late) == (3, 2), (
            "a row that is dropped is waited for by nobody"
        )
        assert in_flight.which("request", ACME, {f"r{n}" for n in range(5)}) == {"r0", "r1"}
        store.fault = None
        await written(store, eventually, "r0", "r1")

        async def has_room() -> None:
            assert recorder.healthy

        await eventually(has_room)
        await recorder.settled(recorder.submit(exchange("r9")))
        assert await store.request_ids("r0", "r1", "r2", "r3", "r4", "r9") == ["r0", "r1", "r9"]
    assert recorder.metrics.dropped == 3


async def test_a_row_that_the_store_refuses_is_lost_alone(store: Faulty, new: New, in_flight: InFlight) -> None:
    exchanges = [exchange(f"r{n}", path=POISON if n == 3 else "/v1/x") for n in range(8)]
    for ended in exchanges:
        in_flight.add(ended)
    async with recording(store, new()) as recorder:
        await asyncio.gather(*(recorder.settled(recorder.submit(ended)) for ended in exchanges))
        assert recorder.metrics.dropped == 1
        assert await store.request_ids(*(f"r{n}" for n in range(8))) == ["r0", "r1", "r2", "r4", "r5", "r6", "r7"]
        assert not in_flight._calls
    assert recorder.metrics.late == 0


async def test_groups_form_while_one_is_committed_and_stay_small(store: Faulty, new: New) -> None:
    store.gate.clear()
    async with recording(store, new()) as recorder:
        commits = [asyncio.create_task(recorder.settled(recorder.submit(exchange(f"r{n}")))) for n in range(101)]
        await asyncio.sleep(0.01)
        store.gate.set()
        await asyncio.gather(*commits)
    assert sum(store.groups) == 101
    assert len(store.groups) < 10
    assert max(store.groups) <= 128


async def test_closing_writes_what_still_waits(store: Faulty, new: New) -> None:
    store.gate.clear()
    async with recording(store, new(commit_wait=0.001)) as recorder:
        await asyncio.gather(*(recorder.settled(recorder.submit(exchange(f"r{n}"))) for n in range(70)))
        asyncio.get_running_loop().call_later(0.02, store.gate.set)
    assert len(await store.request_ids(*(f"r{n}" for n in range(70)))) == 70
    assert (recorder.waiting, recorder.metrics.dropped) == (0, 0)


async def test_closing_does_not_wait_for_a_store_that_stays_away(store: Faulty, new: New) -> None:
    """Nor does it try with each group anew, however many wait: a store takes its time to say that it is away."""
    store.fault = StorageError("away")
    async with recording(store, new(commit_wait=0.001)) as recorder:
        await asyncio.gather(*(recorder.settled(recorder.submit(exchange(f"r{n}"))) for n in range(700)))
        tried = len(store.groups)
    assert (recorder.waiting, recorder.metrics.dropped) == (0, 700)
    assert len(store.groups) - tried <= 2


@pytest.mark.parametrize("size", [10, LARGE])
async def test_a_caller_that_is_cancelled_loses_only_its_wait(store: Faulty, new: New, size: int) -> None:
    store.gate.clear()
    async with recording(store, new()) as recorder:
        for turns in range(4):
            task = asyncio.create_task(recorder.settled(recorder.submit(exchange(f"r{turns}", size=size))))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        store.gate.set()
    assert await store.request_ids("r1", "r2", "r3") == ["r1", "r2", "r3"]


async def test_a_fault_that_nobody_thought_of_costs_its_rows_at_most(store: Faulty, new: New) -> None:
    store.fault = RuntimeError("can't start new thread")
    async with recording(store, new(commit_wait=0.05)) as recorder:
        await recorder.settled(recorder.submit(exchange("r1")))
        store.fault = None
        await recorder.settled(recorder.submit(exchange("r2")))
        assert await store.request_ids("r2") == ["r2"]


async def test_an_omitted_body_never_reaches_the_store_but_its_figures_do(store: Faulty, new: New) -> None:
    answer = b'{"id": "chatcmpl-1", "model": "m", "choices": [], "usage": {"prompt_tokens": 3}}'
    ended = exchange(size=0, path="/v1/chat/completions")
    ended.request.omitted = ended.response.omitted = True
    ended.response.content_type = "application/json"
    ended.request.feed(b'{"model": "asked", "messages": []}')
    ended.response.feed(answer)
    async with recording(store, new()) as recorder:
        await recorder.settled(recorder.submit(ended))
    stored = await store.real.read_call(ACME, "r1", None)
    assert stored is not None
    call = stored.call
    assert (call.request.data, call.response.data) == (None, None)
    assert (call.request.omitted, call.response.omitted, call.response.size) == (True, True, len(answer))
    assert (call.request_model, call.response_model, call.usage.prompt_tokens) == ("asked", "m", 3)


async def test_while_the_store_is_known_to_be_stalled_nobody_waits_for_it(
    store: Faulty, new: New, eventually: Eventually
) -> None:
    """The first calls have waited in vain; once it is back it is waited for again."""
    store.gate.clear()
    async with recording(store, new(commit_wait=0.05)) as recorder:

        async def waits(request_id: str) -> bool:
            task = asyncio.create_task(recorder.settled(recorder.submit(exchange(request_id))))
            await asyncio.sleep(0)
            tasks.append(task)
            return not task.done()

        async def stalled(expected: bool) -> None:
            assert recorder.stalled is expected

        tasks: list[asyncio.Task[None]] = []
        assert await waits("r0")
        await tasks[0]
        assert await waits("r0")
        await eventually(lambda: stalled(True))
        assert not await waits("r1")
        store.gate.set()
        await eventually(lambda: stalled(False))
        assert await waits("r2")
        await asyncio.gather(*tasks)
    assert await store.request_ids("r0", "r1", "r2") == ["r0", "r1", "r2"]
    assert recorder.metrics.late >= 3


async def test_a_row_is_amended_only_once_it_is_there(store: Faulty, new: New) -> None:
    """Else it would be written as a call of its own, and the row that it amends as the next attempt."""
    async with recording(store, new()) as recorder:
        early, whole = exchange(size=10), exchange(size=LARGE)
        whole.started_at = early.started_at
        written = Commit()
        task = asyncio.create_task(recorder.settled(recorder.amend(whole, after=written)))
        assert not await settled(task)
        await recorder.settled(recorder.submit(early))
        written.set()
        await task
    assert await store.request_ids("r1") == ["r1"]
    stored = await store.real.read_call(ACME, "r1", None)
    assert stored is not None
    assert (stored.attempt, stored.call.response.size) == (1, LARGE)
