"""What is SQLite's own: the file, its versions, its locks, and what a killed process leaves of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import aiosqlite
import pytest

from storage import IncompatibleStoreError, StorageError, open_storage
from storage.base import RefusedRowError
from storage.records import Body, NumberedCall
from storage.sqlite import SqliteStorage, open_sqlite
from storage.sqlite.schema import APPLICATION_ID, migrate, migrations
from tests.storage import ACME, a_call, a_rating, a_value, add_values, listed, row

ROOT = Path(__file__).parent.parent.parent
FIRST = (1, "CREATE TABLE a (x);")
SECOND = (2, "CREATE TABLE b (x); INSERT INTO b VALUES (7);")
BROKEN = (2, "CREATE TABLE b (x); INSERT INTO b VALUES (7); INSERT INTO nowhere VALUES (1);")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStorage]:
    opened = await open_sqlite(str(path))
    yield opened
    await opened.close()


@pytest.fixture
async def empty(path: Path) -> AsyncIterator[aiosqlite.Connection]:
    """A connection as the backend uses it, to a file of nothing."""
    async with aiosqlite.connect(path, isolation_level=None) as db:
        yield db


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as another program sees it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


def files(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def number(path: Path, query: str) -> int:
    with opened(path) as db:
        return int(db.execute(query).fetchone()[0])


async def tables(db: aiosqlite.Connection) -> list[str]:
    return [name for (name,) in await db.execute_fetchall("SELECT name FROM sqlite_schema ORDER BY name")]


async def version(db: aiosqlite.Connection) -> tuple[int, int]:
    [(known,)] = await db.execute_fetchall("PRAGMA user_version")
    [(owner,)] = await db.execute_fetchall("PRAGMA application_id")
    return known, owner


async def test_scripts_run_once_and_in_order(empty: aiosqlite.Connection) -> None:
    await migrate(empty, [FIRST])
    assert (await tables(empty), await version(empty)) == (["a"], (1, APPLICATION_ID))
    for _ in range(2):
        await migrate(empty, [FIRST, SECOND])
        assert (await tables(empty), await version(empty)) == (["a", "b"], (2, APPLICATION_ID))
    assert list(await empty.execute_fetchall("SELECT x FROM b")) == [(7,)]


async def test_a_script_that_fails_leaves_schema_and_version_as_they_were(empty: aiosqlite.Connection) -> None:
    with pytest.raises(sqlite3.Error):
        await migrate(empty, [FIRST, BROKEN])
    assert (await tables(empty), await version(empty)) == (["a"], (1, APPLICATION_ID))
    await migrate(empty, [FIRST, SECOND])
    assert (await tables(empty), await version(empty)) == (["a", "b"], (2, APPLICATION_ID))


async def test_a_first_script_that_fails_leaves_an_empty_file(empty: aiosqlite.Connection) -> None:
    with pytest.raises(sqlite3.Error):
        await migrate(empty, [(1, BROKEN[1])])
    assert (await tables(empty), await version(empty)) == ([], (0, 0))


async def test_a_script_that_breaks_off_in_a_statement_is_not_taken_for_done(empty: aiosqlite.Connection) -> None:
    with contextlib.suppress(Exception):
        await migrate(empty, [(1, "CREATE TABLE a (x);\nCREATE TABLE b (x)")])
    assert (await tables(empty), (await version(empty))[0]) in ((["a", "b"], 1), ([], 0))


def test_the_scripts_are_numbered_from_one_without_gaps() -> None:
    assert [known for known, _ in migrations()] == list(range(1, len(migrations()) + 1))


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(store: SqliteStorage, path: Path) -> None:
    await store.write_calls([a_call()])
    newer = migrations()[-1][0] + 1
    with opened(path) as db:
        db.execute(f"PRAGMA user_version = {newer}")
    with pytest.raises(IncompatibleStoreError, match=r"version \d+, newer than"):
        await open_sqlite(str(path))
    assert number(path, "PRAGMA user_version") == newer
    assert (await row(store)).attempt == 1


def another_programs(path: Path) -> None:
    with opened(path) as db:
        db.executescript("CREATE TABLE accounts (x); INSERT INTO accounts VALUES (1);")


def another_programs_of_a_version(path: Path) -> None:
    with opened(path) as db:
        db.executescript("CREATE TABLE accounts (x); PRAGMA user_version = 1; PRAGMA application_id = 7;")


def no_database(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)


def cut_off(path: Path) -> None:
    another_programs(path)
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize("make", [another_programs, another_programs_of_a_version, no_database, cut_off])
async def test_a_file_that_is_not_ours_is_refused_and_left_as_it_was(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    before = files(path.parent)
    with pytest.raises(IncompatibleStoreError, match=r"kibitz\.db"):
        await open_sqlite(str(path))
    assert files(path.parent) == before


@pytest.mark.parametrize(
    "database", ["", ":memory:", "sqlite:///", "sqlite://:memory:", "oracle:///kibitz.db", "no/dir/k"]
)
async def test_what_cannot_be_a_store_is_a_storage_error(database: str) -> None:
    with pytest.raises(StorageError):
        await open_storage(database)


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"], ids=["path", "url"])
@pytest.mark.parametrize("name", ["kibitz.db", "a b%20c?d#e&f=ü'.db"])
async def test_a_database_is_named_by_its_path_or_a_url(tmp_path: Path, form: str, name: str) -> None:
    store = await open_storage(form.format(tmp_path / name))
    await store.write_calls([a_call()])
    assert (await row(store)).attempt == 1
    await store.close()
    assert {file.removesuffix("-wal").removesuffix("-shm") for file in files(tmp_path)} == {name}


async def test_a_closed_store_is_one_file_that_holds_everything(path: Path) -> None:
    """Whoever copies the file after Kibitz has ended has copied the log."""
    store = await open_sqlite(str(path))
    await store.write_calls([a_call()])
    assert (await row(store)).attempt == 1
    await store.close()
    assert list(files(path.parent)) == [path.name]


async def test_a_url_with_three_slashes_opens_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await (await open_storage("sqlite:///kibitz.db")).close()
    assert (tmp_path / "kibitz.db").exists()


async def test_the_file_is_in_wal_mode_and_can_be_made_smaller(store: SqliteStorage, path: Path) -> None:
    assert (await version_of(store, "journal_mode"), await version_of(store, "foreign_keys")) == ("wal", 1)
    assert number(path, "PRAGMA auto_vacuum") == 2  # incremental


@pytest.mark.parametrize(("sync", "level"), [("normal", 1), ("full", 2)])
async def test_sync_says_what_a_loss_of_power_may_cost(path: Path, sync: str, level: int) -> None:
    store = await open_storage(str(path), sync=sync)
    assert isinstance(store, SqliteStorage)
    assert await version_of(store, "synchronous") == level
    await store.close()


async def version_of(store: SqliteStorage, pragma: str) -> object:
    [(value,)] = await store._writer.run(lambda db: db.execute_fetchall(f"PRAGMA {pragma}"))
    return value


@pytest.mark.parametrize("size", [1, 2, 32])
async def test_a_group_of_calls_is_a_handful_of_statements(store: SqliteStorage, size: int) -> None:
    """The sqlite3 module lets go of the interpreter lock once a statement; many would starve behind a busy loop."""
    statements: list[str] = []
    await store._writer.run(lambda db: db.set_trace_callback(statements.append))
    await store.write_calls([a_call(f"r{n}", properties={"a": "b"}) for n in range(size)])
    await store._writer.run(lambda db: db.set_trace_callback(None))  # type: ignore[arg-type]
    begun = [text.split()[0] for text, _ in groupby(statements)]  # triggers repeat the text of what set them off
    assert begun == ["BEGIN", "INSERT", "INSERT", "SELECT", "INSERT", "COMMIT"]


async def test_nothing_of_a_body_that_packs_well_is_stored_at_length(store: SqliteStorage, path: Path) -> None:
    text = b'{"content": "hello hello hello"}' * 1000
    await store.write_calls([a_call(request=Body(text, len(text)), response=Body(os.urandom(1000), 1000))])
    assert number(path, "SELECT length(request) FROM bodies") < len(text) / 10
    assert number(path, "SELECT length(response) FROM bodies") == 1000


async def test_a_small_body_is_stored_as_it_is(store: SqliteStorage, path: Path) -> None:
    text = b'{"content": "hello hello hello"}' * 15
    await store.write_calls([a_call(request=Body(text, len(text)))])
    with opened(path) as db:
        assert db.execute("SELECT request, request_packing FROM bodies").fetchone() == (text, None)


@pytest.mark.parametrize("damage", ["response = x'00112233'", "response_packing = 'lz77'"])
async def test_a_damaged_body_leaves_the_rest_of_the_log_readable(
    store: SqliteStorage, path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = Body(b"hello " * 1000, 6000)
    await store.write_calls([a_call("damaged", request=text, response=text), a_call("behind", response=text)])
    with opened(path) as other:
        other.execute(f"UPDATE bodies SET {damage} WHERE call_id = 1")
    damaged, behind = [row.call for row in await store.read_batch(0, most_calls=9, most_bytes=2**20)]
    assert (damaged.request, damaged.response.data, behind.response) == (text, None, text)
    assert (await row(store, "damaged")).call.response.data is None
    assert len(caplog.records) == 2


async def test_a_write_waits_for_another_programs_lock(store: SqliteStorage, path: Path) -> None:
    with opened(path) as other:
        other.execute("BEGIN IMMEDIATE")
        writes = [asyncio.ensure_future(store.write_calls([a_call()])), asyncio.ensure_future(rate(store))]
        done, _ = await asyncio.wait(writes, timeout=0.1)
        assert not done
        assert await store.read_call(ACME, "r1", None) is None  # reading goes on
        other.execute("COMMIT")
        await asyncio.gather(*writes)
    assert len((await row(store)).feedback) == 1


async def rate(store: SqliteStorage) -> None:
    assert await store.add_rating(a_rating("f1"), known=True)


async def test_a_lock_that_lasts_is_a_storage_error_that_may_pass(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sqlite.opening._BUSY_TIMEOUT", 10)
    store = await open_sqlite(str(path))
    with opened(path) as other:
        other.execute("BEGIN IMMEDIATE")
        for write in (store.write_calls([a_call()]), add_values(store, a_value("v1", "t"))):
            with pytest.raises(StorageError, match="locked") as caught:
                await write
            assert not isinstance(caught.value, RefusedRowError)
        other.execute("COMMIT")
    await store.write_calls([a_call()])
    assert (await row(store)).attempt == 1
    assert await listed(store) == {}
    await store.close()


async def test_a_full_disk_is_a_storage_error_that_may_pass(store: SqliteStorage) -> None:
    pages = await version_of(store, "page_count")
    await version_of(store, f"max_page_count = {pages}")
    calls = [a_call(f"r{n}", request=Body(os.urandom(100_000), 100_000)) for n in range(40)]
    for group in (calls[:32], calls):
        with pytest.raises(StorageError, match="full") as caught:
            await store.write_calls(group)
        assert not isinstance(caught.value, RefusedRowError)
    await version_of(store, "max_page_count = 1000000")
    await store.write_calls(calls)
    assert [(await row(store, call.request_id)).attempt for call in calls] == [1] * 40


async def test_a_row_that_the_schema_refuses_is_refused_for_good(store: SqliteStorage) -> None:
    await add_values(store, a_value("v1", "t"))
    with pytest.raises(RefusedRowError):
        await add_values(store, a_value("v2", "t"), a_value("v1", "t"))
    assert await listed(store) == {"v1": True}


WRITER = """
import asyncio, sys
from storage import open_storage
from tests.storage import a_call, a_rating

async def write(store, worker):
    for number in range(1_000_000):
        id = f"{worker}.{number}"
        if worker % 2:
            await store.write_calls([a_call(id), a_call(f"{id}-twin")])
        else:
            await store.add_rating(a_rating(id, id), known=True)
        print(id, flush=True)

async def main():
    store = await open_storage(sys.argv[1])
    await asyncio.gather(*(write(store, worker) for worker in range(8)))

asyncio.run(main())
"""


def acknowledged_before_death(path: Path) -> list[str]:
    """What a process that writes to ``path`` had said to be written when it was killed in the middle of it."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    return [line.strip() for line in lines if line.endswith("\n")]


async def test_a_killed_process_loses_nothing_that_it_had_acknowledged(path: Path) -> None:
    acknowledged = await asyncio.to_thread(acknowledged_before_death, path)
    store = await open_sqlite(str(path))
    rated = await listed(store)
    for id in acknowledged:
        if int(id[0]) % 2:
            assert [(await row(store, name)).attempt for name in (id, f"{id}-twin")] == [1, 1]
        else:
            assert rated[id]
    await store.close()
    assert len(acknowledged) >= 300
    assert number(path, "SELECT count(*) FROM calls") % 2 == 0, "a group is written as a whole"


async def test_a_row_that_took_the_number_of_one_that_has_gone_is_not_rewritten_as_that_one(
    store: SqliteStorage, path: Path
) -> None:
    await store.write_calls([a_call("old"), a_call("again", started_at=1)])
    batch = await store.read_batch(0, most_calls=2, most_bytes=1)
    batch = [*batch, *await store.read_batch(batch[-1].number, most_calls=2, most_bytes=1)]
    with opened(path) as db:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("DELETE FROM calls")
    await store.write_calls([a_call("new"), a_call("again", started_at=2)])
    assert [row.number for row in batch] == [
        row.number for row in await store.read_batch(0, most_calls=9, most_bytes=9)
    ]
    changed = [NumberedCall(each.number, replace(each.call, user_id="ada")) for each in batch]
    assert await store.rewrite_derived(changed) == 0
    assert number(path, "SELECT count(*) FROM calls WHERE user_id IS NOT NULL") == 0


def nothing_at_all(path: Path) -> None:
    pass


def an_empty_file(path: Path) -> None:
    path.touch()


def an_empty_database(path: Path) -> None:
    with opened(path) as db:
        db.execute("PRAGMA user_version = 0")
        db.execute("VACUUM")


@pytest.mark.parametrize("make", [nothing_at_all, an_empty_file, an_empty_database, another_programs, no_database])
async def test_what_is_not_there_is_not_made_where_it_has_to_be(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    before = files(path.parent)
    with pytest.raises(StorageError, match=r"kibitz\.db"):
        await open_storage(str(path), create=False)
    assert files(path.parent) == before


async def test_what_has_to_be_there_is_opened_if_it_is(store: SqliteStorage, path: Path) -> None:
    await store.write_calls([a_call()])
    other = await open_storage(str(path), create=False)
    assert (await row(other)).attempt == 1
    await other.close()
