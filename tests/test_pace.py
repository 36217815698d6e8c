"""The benchmark's upstream sends all that it has, one event a gap, however many streams there are."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest

from tests.benchmarks.pace import Pace

GAP = 0.002


class Stream:
    """So many steps to take."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self.taken: list[float] = []
        self.over = asyncio.Event()

    def step(self) -> bool:
        self.taken.append(time.monotonic())
        self._left -= 1
        if not self._left:
            self.over.set()
        return self._left > 0


async def take(pace: Pace, *steps: int) -> list[Stream]:
    streams = [Stream(some) for some in steps]
    for stream in streams:
        pace.repeat(stream.step)
    for stream in streams:
        await asyncio.wait_for(stream.over.wait(), 10)
    return streams


@pytest.fixture(params=[True, False], ids=["system's timer", "loop's timers"])
async def pace(request: pytest.FixtureRequest) -> AsyncIterator[Pace]:
    made = Pace(GAP)
    timer = made._timer
    if not request.param:
        made._timer = -1
    yield made
    if timer >= 0:
        asyncio.get_running_loop().remove_reader(timer)
        os.close(timer)


async def test_each_stream_takes_its_steps_to_the_last_and_no_more(pace: Pace) -> None:
    for steps in ((1,), (5,), (3, 1, 7), (2,) * 50, (4,)):
        streams = await take(pace, *steps)
        await asyncio.sleep(2 * GAP)
        assert tuple(len(stream.taken) for stream in streams) == steps


async def test_one_that_begins_while_others_wait_holds_up_none(pace: Pace) -> None:
    early = asyncio.ensure_future(take(pace, 20))
    await asyncio.sleep(1.5 * GAP)
    (late,) = await take(pace, 3)
    ((first,), _) = await early, late
    assert (len(first.taken), len(late.taken)) == (20, 3)


async def test_no_two_steps_of_a_stream_come_at_once(pace: Pace) -> None:
    stream = Stream(6)
    pace.repeat(stream.step)
    time.sleep(5 * GAP)  # noqa: ASYNC251  # so that all are late
    await asyncio.wait_for(stream.over.wait(), 10)
    pauses = [later - sooner for sooner, later in zip(stream.taken, stream.taken[1:], strict=False)]
    assert min(pauses) >= GAP / 5


async def test_without_a_gap_each_step_is_a_turn_of_the_loop() -> None:
    one, other = await take(Pace(0), 3, 3)
    in_order = sorted([(taken, "one") for taken in one.taken] + [(taken, "other") for taken in other.taken])
    assert [name for _, name in in_order] == ["one", "other"] * 3
