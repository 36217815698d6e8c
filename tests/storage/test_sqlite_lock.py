"""Another process holds the file's lock for longer than SQLite waits."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import aiosqlite
import pytest

from storage.base import StorageError
from storage.sqlite.place import Place
from storage.sqlite.worker import Worker, in_transaction


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    """A worker on a connection that hardly waits for a lock."""
    path = tmp_path / "some.db"
    connection = await aiosqlite.connect(path, isolation_level=None, timeout=0.05)
    made = Worker(connection, Place(path))
    yield made
    await made.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "some.db", isolation_level=None)) as connection:
        yield connection


async def test_who_waits_behind_a_job_that_met_a_lock_does_not_wait_for_it_again(
    worker: Worker, other: sqlite3.Connection
) -> None:
    tried: list[int] = []

    def job(number: int) -> asyncio.Future[None]:
        async def write(db: aiosqlite.Connection) -> None:
            await in_transaction(done)(db)

        async def done(db: aiosqlite.Connection) -> None:
            tried.append(number)

        async def try_it(db: aiosqlite.Connection) -> None:
            tried.append(-number)
            await write(db)

        return asyncio.ensure_future(worker.run(try_it))

    other.execute("BEGIN EXCLUSIVE")
    refused = await asyncio.gather(*map(job, range(1, 6)), return_exceptions=True)
    assert [type(error) for error in refused] == [StorageError] * 5
    assert tried == [-1]
    other.execute("ROLLBACK")
    await asyncio.gather(*map(job, range(6, 8)))
    assert tried == [-1, -6, 6, -7, 7]


async def test_closing_ends_a_worker_whose_jobs_met_a_lock(worker: Worker, other: sqlite3.Connection) -> None:
    async def write(db: aiosqlite.Connection) -> None:
        await db.execute_fetchall("CREATE TABLE t (a)")

    other.execute("BEGIN EXCLUSIVE")
    jobs = [asyncio.ensure_future(worker.run(write)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.wait_for(worker.close(), 10)
    assert [type(error) for error in await asyncio.gather(*jobs, return_exceptions=True)] == [StorageError] * 2
