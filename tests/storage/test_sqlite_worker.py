"""A statement by itself, beside jobs of several: it is whole, and no part of theirs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from storage.base import RefusedRowError, StorageError
from storage.sqlite.place import Place
from storage.sqlite.worker import Work, Worker, in_transaction


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    path = tmp_path / "some.db"
    connection = await aiosqlite.connect(path, isolation_level=None, timeout=0.05)
    await connection.execute_fetchall("CREATE TABLE t (a INTEGER NOT NULL)")
    made = Worker(connection, Place(path))
    yield made
    await made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.db"


def adding(number: int | None) -> tuple[str, list[Any]]:
    return "INSERT INTO t VALUES (?)", [number]


def inserting(number: int | None) -> Callable[[], Work[Any]]:
    """A transaction by itself, made when it begins."""
    return lambda: lambda db: db.execute(*adding(number))


async def add(number: int, db: aiosqlite.Connection) -> None:
    await in_transaction(lambda db: db.execute_fetchall(*adding(number)))(db)


def stored(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT a FROM t ORDER BY rowid")]


async def test_a_statement_is_committed_when_it_returns(worker: Worker, path: Path) -> None:
    await worker.execute(inserting(1))
    assert stored(path) == [1]


async def test_a_statement_that_comes_within_a_transaction_outlives_its_rollback(worker: Worker, path: Path) -> None:
    is_open, may_fail = asyncio.Event(), asyncio.Event()

    async def job(db: aiosqlite.Connection) -> None:
        await db.execute_fetchall(*adding(1))
        is_open.set()
        await may_fail.wait()
        raise ValueError("no")

    failing = asyncio.ensure_future(worker.run(in_transaction(job)))
    await is_open.wait()
    statement = asyncio.ensure_future(worker.execute(inserting(2)))
    behind = asyncio.ensure_future(worker.run(partial(add, 3)))
    await asyncio.sleep(0)
    may_fail.set()
    with pytest.raises(ValueError, match="no"):
        await failing
    await asyncio.gather(statement, behind)
    assert stored(path) == [2, 3]


async def test_a_transaction_that_comes_behind_a_statement_has_no_part_of_it(worker: Worker, path: Path) -> None:
    async def job(db: aiosqlite.Connection) -> None:
        await db.execute_fetchall(*adding(2))
        raise ValueError("no")

    statement = asyncio.ensure_future(worker.execute(inserting(1)))
    failing = asyncio.ensure_future(worker.run(in_transaction(job)))
    await asyncio.gather(statement, failing, return_exceptions=True)
    assert stored(path) == [1]


async def test_statements_and_jobs_are_done_in_the_order_in_which_they_came(worker: Worker, path: Path) -> None:
    doing: list[asyncio.Future[Any]] = []
    for number in range(40):
        if number % 3:
            doing.append(asyncio.ensure_future(worker.execute(inserting(number))))
        else:
            doing.append(asyncio.ensure_future(worker.run(partial(add, number))))
        if number % 7 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*doing)
    assert stored(path) == list(range(40))


async def test_a_statement_whose_caller_was_cancelled_is_whole(worker: Worker, path: Path) -> None:
    for number in range(20):
        task = asyncio.ensure_future(worker.execute(inserting(number)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await worker.execute(inserting(20))
    assert stored(path) == list(range(21))


async def test_faults_of_a_statement_are_told_as_those_of_a_job(worker: Worker, path: Path) -> None:
    with pytest.raises(RefusedRowError, match="IntegrityError"):
        await worker.execute(inserting(None))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="locked"):
            await worker.execute(inserting(1))
        other.execute("ROLLBACK")
    await worker.close()
    with pytest.raises(StorageError, match="closed"):
        await worker.execute(inserting(1))
    assert stored(path) == []


async def test_a_lock_that_a_statement_met_is_told_to_all_that_waited_behind_it(worker: Worker, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        first = asyncio.ensure_future(worker.execute(inserting(1)))
        behind: list[asyncio.Future[Any]] = []
        for number in range(2, 6):
            behind.append(asyncio.ensure_future(worker.execute(inserting(number))))
            behind.append(asyncio.ensure_future(worker.run(partial(add, number))))
        with pytest.raises(StorageError, match="locked"):
            await first
        other.execute("ROLLBACK")  # whoever waited as long again would find this
        told = await asyncio.gather(*behind, return_exceptions=True)
    assert [str(error) for error in told] == ["OperationalError: database is locked"] * len(behind)
    await worker.execute(inserting(6))
    assert stored(path) == [6]


async def test_a_job_whose_caller_was_cancelled_behind_a_statement_is_done(worker: Worker, path: Path) -> None:
    statement = asyncio.ensure_future(worker.execute(inserting(1)))
    behind = asyncio.ensure_future(worker.run(partial(add, 2)))
    await asyncio.sleep(0)
    behind.cancel()
    await asyncio.gather(statement, behind, return_exceptions=True)
    await worker.execute(inserting(3))
    assert stored(path) == [1, 2, 3]


async def test_a_statement_finds_that_its_file_has_gone(worker: Worker, path: Path) -> None:
    await asyncio.to_thread(path.unlink)
    with pytest.raises(StorageError, match="removed"):
        await worker.execute(inserting(1))
