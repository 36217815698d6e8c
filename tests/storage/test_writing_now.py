"""A call that the store makes itself, and writes at once: like one that is handed to it, or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator

import pytest

from storage import Storage, StorageError, open_storage
from storage.base import RefusedRowError
from storage.records import Body, Call
from tests.storage import ACME, UNSTORABLE, a_call, a_rating, row
from tests.storage.test_contract import FULL


class Told:
    """What is told of calls that were to be written at once, in its order."""

    def __init__(self, store: Storage) -> None:
        self._store = store
        self._news: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self.threads: list[int] = []

    def write(self, call: Call | None) -> bool:
        def make() -> Call | None:
            self.threads.append(threading.get_ident())
            return call

        return self._store.write_now(make, self._tell)

    def _tell(self, error: BaseException | None) -> None:
        self.threads.append(threading.get_ident())
        self._news.put_nowait(error)

    async def next(self) -> BaseException | None:
        return await asyncio.wait_for(self._news.get(), 5)

    async def error_of(self, call: Call | None) -> BaseException | None:
        assert self.write(call)
        return await self.next()


@pytest.fixture
async def told(store: Storage) -> AsyncIterator[Told]:
    made = Told(store)
    if not made.write(None):
        pytest.skip("this backend never takes them")
    assert await made.next() is None
    yield made
    assert made._news.empty()


async def test_it_is_there_once_it_is_told_so_and_is_made_in_another_thread(store: Storage, told: Told) -> None:
    for attempt in range(1, 5):
        assert await told.error_of(FULL) is None
        stored = await row(store)
        assert (stored.attempt, stored.call) == (attempt, FULL)
    makers, tellers = {*told.threads[::2]}, {*told.threads[1::2]}
    assert tellers == {threading.get_ident()}
    assert not makers & tellers


async def test_while_anything_is_written_no_more_is_taken(store: Storage, told: Told) -> None:
    assert told.write(a_call("r1"))
    assert not told.write(a_call("r2"))
    behind = asyncio.ensure_future(store.write_calls([a_call("r3")]))
    rated = asyncio.ensure_future(store.add_rating(a_rating("f1", "r1"), known=False))
    await asyncio.sleep(0)
    assert await told.next() is None
    assert not told.write(a_call("r4"))
    await behind
    assert await rated is not None
    assert await told.error_of(a_call("r5")) is None
    found = [await store.read_call(ACME, f"r{number}", None) is not None for number in range(1, 6)]
    assert found == [True, False, True, False, True]


@pytest.mark.parametrize(
    "call",
    [
        a_call("bad", user_id=UNSTORABLE),
        a_call("bad", status=2**63),
        a_call("bad", properties={"a": UNSTORABLE}),
        a_call("bad", response=Body(bytes(2**20), 2**20)),
    ],
    ids=["text", "number", "property", "large"],
)
async def test_what_it_does_not_take_is_told_and_nothing_of_it_is_there(store: Storage, told: Told, call: Call) -> None:
    assert isinstance(await told.error_of(call), RefusedRowError)
    assert await store.read_call(ACME, "bad", None) is None
    assert await told.error_of(a_call("good")) is None
    await store.write_calls([a_call("good")])
    assert (await row(store, "good")).attempt == 2
    await store.check()


@pytest.mark.parametrize("fault", [ZeroDivisionError, sqlite3.OperationalError, KeyboardInterrupt])
async def test_a_fault_of_who_makes_it_is_told_and_holds_nobody_up(
    store: Storage, told: Told, fault: type[BaseException]
) -> None:
    ended: asyncio.Queue[BaseException | None] = asyncio.Queue()

    def make() -> Call:
        raise fault("no")

    assert store.write_now(make, ended.put_nowait)
    error = await asyncio.wait_for(ended.get(), 5)
    assert isinstance(error, fault) or (isinstance(error, StorageError) and "no" in str(error))
    await store.write_calls([a_call()])
    assert await told.error_of(a_call()) is None


async def test_one_that_is_under_way_is_written_before_the_store_closes(store: Storage, database: str) -> None:
    closing = await open_storage(database)
    told = Told(closing)
    assert told.write(a_call("last"))
    await closing.close()
    assert await told.next() is None
    assert not told.write(a_call("later"))
    assert (await row(store, "last")).attempt == 1


async def test_stores_of_one_database_take_turns(store: Storage, told: Told, database: str) -> None:
    other = await open_storage(database)
    tellers = [told, Told(other)]

    for number in range(0, 60, 2):
        errors = (who.error_of(a_call(user_id=str(number + place))) for place, who in enumerate(tellers))
        assert await asyncio.gather(*errors) == [None, None]
    await other.close()
    users = [(await row(store, attempt=number)).call.user_id for number in range(1, 61)]
    assert sorted(users, key=lambda user: int(user or 0)) == [str(number) for number in range(60)]
