"""A connection, and the one task that uses it.

A connection is one transaction for everybody who holds it, and a request handler can be cancelled between BEGIN
and COMMIT. So handlers hand their work over: a cancelled one loses its reply and nothing else.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import aiosqlite

from storage.base import QueryTooSlowError, RefusedRowError, StorageError
from storage.sqlite.bell import Bell
from storage.sqlite.place import Place

__all__ = ["Then", "Work", "Worker", "Workers", "as_transaction", "in_thread", "in_transaction"]

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

# What SQLite or its module says of a row that is wrong in itself. Everything else may pass: a lock, a full disk.
_REFUSALS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeEncodeError,
)

# A statement that can't be done, and one that was told to end; every other fault of the file's may pass.
_KINDS = {sqlite3.SQLITE_ERROR: RefusedRowError, sqlite3.SQLITE_INTERRUPT: QueryTooSlowError}

# The part of an error code that says what kind it is; the rest goes into detail.
_PRIMARY = 0xFF

Job = Callable[[aiosqlite.Connection], Awaitable[T]]
Work = Callable[[sqlite3.Connection], T]
"""What is done in the connection's thread, without anything of anybody else's between its statements."""
Then = Callable[[T | None, BaseException | None], None]
"""What is told of work's end: its result, or what it failed by. It must not raise."""


class Worker:
    """Runs jobs on its connection one after another, in the order they came."""

    def __init__(self, connection: aiosqlite.Connection, place: Place) -> None:
        self._connection = connection
        self._place = place
        self._bell = Bell()
        self._closed = False
        self._works = False
        self._passing: asyncio.Future[None] | None = None
        self._taken: asyncio.Future[Any] | None = None
        self._load = 0
        self._jobs: asyncio.Queue[tuple[Job[Any], asyncio.Future[Any]] | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._work(), name="sqlite-worker")

    @property
    def load(self) -> int:
        """The jobs that were handed over and have not ended."""
        return self._load

    async def run(self, job: Job[T]) -> T:
        """The job's result, once it has ended. Raises `StorageError` for any fault of SQLite's, and for a file gone."""
        if self._closed:
            raise StorageError("the store is closed")
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait((job, reply))
        self._load += 1
        reply.add_done_callback(self._ended)
        return await reply

    @property
    def is_free(self) -> bool:
        """Whether nothing else is to be done."""
        return not self._closed and not self._works and self._passing is None and self._jobs.empty()

    async def execute(self, make: Callable[[], Work[T]]) -> T:
        """The result of work that is a transaction by itself, and is made once it can begin; errors as of `run`.

        If nothing else is to be done it goes to the connection's thread at once: a row that its response waits for
        would spend two more turns of the event loop on the way. What comes later waits for its end, as for a job's.
        """
        if not self.is_free:
            return await self.run(lambda db: in_thread(db, make()))
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def tell(result: T | None, error: BaseException | None) -> None:
            if error is not None:
                _settle(reply, error)
            elif not reply.done():
                reply.set_result(cast(T, result))

        try:
            self.start(make(), tell)
        except Exception as error:  # in making it, or since the file has gone
            if (told := self._told(error)) is error:
                raise
            raise told from error
        return await reply

    def start(self, work: Work[T], then: Then[T]) -> None:
        """Have work that is a transaction by itself done in the connection's thread, which `is_free`.

        ``then`` is called in the event loop, in the turn that learns of the end: a task that waited for it would have
        to be woken first. Raises `StorageError` if the file has gone; nothing is done then.
        """
        self._place.check()
        connection = self._connection._conn
        self._passing = asyncio.get_running_loop().create_future()

        def do() -> None:
            result = error = None
            try:
                result = work(connection)
            except BaseException as caught:  # of whatever kind: everybody waits for this one's end
                error = caught
            self._bell.ring(partial(self._has_passed, then, result, error))

        self._connection._tx.put_nowait((None, do))

    def _has_passed(self, then: Then[T], result: T | None, error: BaseException | None) -> None:
        passing, self._passing = self._passing, None
        try:
            then(result, None if error is None else self._told(error))
        finally:
            if passing is not None and not passing.done():  # else who waited was cancelled, with the whole event loop
                passing.set_result(None)

    def _ended(self, _: asyncio.Future[Any]) -> None:
        self._load -= 1

    async def close(self) -> None:
        """Do what was handed over, then close the connection. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            self._jobs.put_nowait(None)
            await self._task
            await self._connection.close()
            self._bell.close()

    async def abandon(self) -> None:
        """End the job that runs, refuse those that wait, and close the connection."""
        self._refuse_waiting("the store is closing")
        await self._connection.interrupt()
        await self.close()

    async def _work(self) -> None:
        while await self._do_next():
            pass

    async def _do_next(self) -> bool:
        """Do one job; False where there will be no more. A job's rows are let go of before the next one is there."""
        item = await self._jobs.get()
        if item is None:
            return False
        job, reply = item
        self._works = True
        try:
            if self._passing is not None:
                await self._passed(self._passing, reply)
            self._place.check()
            result = await job(self._connection)
        except Exception as error:
            _settle(reply, self._told(error))
        else:
            if not reply.done():
                reply.set_result(result)
        finally:
            self._works = False
        return True

    async def _passed(self, passing: asyncio.Future[None], reply: asyncio.Future[Any]) -> None:
        """Wait for a statement that went past the queue. Raises what it has told of a lock to who waits behind it."""
        self._taken = reply
        await passing
        self._taken = None
        if reply.done() and (error := None if reply.cancelled() else reply.exception()):
            raise error

    def _told(self, error: E) -> E | StorageError:
        """What to tell of a job's error. Of a lock those that wait behind it are told as well."""
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, _REFUSALS):
            return RefusedRowError(reason)
        if not isinstance(error, sqlite3.Error):
            return error
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)  # what the module itself raises may have none
        if code & _PRIMARY == sqlite3.SQLITE_BUSY:
            self._refuse_waiting(reason)
        return _KINDS.get(code, StorageError)(reason)

    def _refuse_waiting(self, reason: str) -> None:
        """Fail the jobs that have waited behind one that met a lock: they would wait as long again, each in turn."""
        if self._taken is not None:
            _settle(self._taken, StorageError(reason))
        for _ in range(self._jobs.qsize()):
            item = self._jobs.get_nowait()
            if item is None:
                self._jobs.put_nowait(None)
            else:
                _settle(item[1], StorageError(reason))


class Workers:
    """Several, each with a connection of its own: a job that takes long leaves the others to those that don't."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers

    async def run(self, job: Job[T]) -> T:
        """The job's result; errors as of `Worker.run`."""
        return await min(self._workers, key=lambda one: one.load).run(job)

    async def abandon(self) -> None:
        """See `Worker.abandon`."""
        for worker in self._workers:
            await worker.abandon()


def _settle(reply: asyncio.Future[Any], error: BaseException) -> None:
    if not reply.done():  # else the caller was cancelled
        reply.set_exception(error)


async def in_thread(connection: aiosqlite.Connection, work: Work[T]) -> T:
    """Work done in the connection's thread; a caller that is cancelled loses the result and nothing else."""
    result: T = await connection._execute(work, connection._conn)  # type: ignore[no-untyped-call]
    return result


def as_transaction(work: Work[T]) -> Work[T]:
    """The work between BEGIN and COMMIT: all of it or none."""

    def run(db: sqlite3.Connection) -> T:
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            db.rollback()
            raise
        return result

    return run


def in_transaction(job: Job[T], *, begin: str = "BEGIN IMMEDIATE") -> Job[T]:
    """The same of a job, which has turns of the event loop between its statements."""

    async def run(connection: aiosqlite.Connection) -> T:
        await connection.execute_fetchall(begin)
        try:
            result = await job(connection)
            await connection.execute_fetchall("COMMIT")
        except BaseException:
            await connection.rollback()
            raise
        return result

    return run
