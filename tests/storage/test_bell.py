"""A thread's way to tell the event loop of something: told once, in order, in the loop's thread."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from storage.sqlite import bell
from storage.sqlite.bell import Bell


@pytest.fixture(params=[True, False], ids=["events", "no-events"])
async def ringing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bell]:
    monkeypatch.setattr(bell, "_HAS_EVENTS", request.param and bell._HAS_EVENTS)
    made = Bell()
    yield made
    made.close()


def in_threads(ringing: Bell, callbacks: list[list[Callable[[], None]]]) -> list[threading.Thread]:
    def ring(some: list[Callable[[], None]]) -> None:
        for callback in some:
            ringing.ring(callback)

    threads = [threading.Thread(target=ring, args=(some,)) for some in callbacks]
    for thread in threads:
        thread.start()
    return threads


async def test_all_that_is_rung_for_is_called_once_in_its_order_in_the_loop(ringing: Bell) -> None:
    each, called, over = 2000, list[tuple[int, int, int]](), asyncio.Event()

    def note(thread: int, number: int) -> None:
        called.append((thread, number, threading.get_ident()))
        if len(called) == 4 * each:
            over.set()

    threads = in_threads(ringing, [[lambda t=t, n=n: note(t, n) for n in range(each)] for t in range(4)])  # type: ignore[misc]  # defaults
    await asyncio.wait_for(over.wait(), 30)
    for thread in threads:
        thread.join()
    await asyncio.sleep(0)
    assert {ident for *_, ident in called} == {threading.get_ident()}
    for one in range(4):
        assert [number for thread, number, _ in called if thread == one] == [*range(each)]


async def test_a_callback_that_fails_is_told_of_and_holds_up_no_other(ringing: Bell) -> None:
    told, over = list[dict[str, Any]](), asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def fail() -> None:
        raise ValueError("no")

    (thread,) = in_threads(ringing, [[fail, over.set]])
    thread.join()  # so that both are there in the turn that hears of them
    await asyncio.wait_for(over.wait(), 5)
    assert [str(context["exception"]) for context in told] == ["no"]


async def test_what_was_rung_for_is_called_before_it_is_closed() -> None:
    made, called = Bell(), list[int]()
    (thread,) = in_threads(made, [[lambda: called.append(1), lambda: called.append(2)]])
    thread.join()
    made.close()
    made.close()
    await asyncio.sleep(0)
    assert called == [1, 2]


@pytest.mark.skipif(not bell._HAS_EVENTS, reason="the loop's own way is used here")
async def test_it_gives_back_its_descriptor_and_leaves_alone_whoever_gets_it_next() -> None:
    made = Bell()
    descriptor = made._event
    assert descriptor is not None
    made.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
    reading, writing = os.pipe()
    try:
        made.close()
        os.fstat(reading)
        os.fstat(writing)
    finally:
        os.close(reading)
        os.close(writing)
