"""`kibitz export` as a process: its files, its statuses, what it says, and how much memory it takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from storage import open_storage
from storage.records import Body, Dataset, DatasetRow
from tests.conftest import StartKibitz
from tests.export import a_chat, as_openai_takes_it
from tests.raw_client import Eventually
from tests.storage import a_rating
from tests.test_cli import MODULE, assert_refused, environment, run
from tests.upstream import Upstream, chat_answer

EXPORT = [*MODULE, "export"]
MiB = 2**20


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


async def fill(database: Path, number: int, size: int = 10, of: tuple[str, str] = ("acme", "beta")) -> None:
    """A log of so many chats of two organisations, whose answers have so many bytes; the first's are rated well."""
    store = await open_storage(str(database))
    for start in range(0, number, 500):
        places = range(start, min(start + 500, number))
        calls = [
            a_chat(f"r{place}", f"Number {place}?", "x" * size, organisation=of[place % 2], started_at=place)
            for place in places
        ]
        await store.write_calls(calls)
    for place in range(0, number, 2):
        await store.add_rating(a_rating(f"f{place}", f"r{place}", organisation=of[0]), known=False)
    await store.close()


async def export(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run, [*EXPORT, *flags], folder)


@contextlib.contextmanager
def exporting(folder: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command under way, to a pipe."""
    process = subprocess.Popen(
        [*EXPORT, *flags], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


async def test_answers_of_two_organisations_make_no_pair(database: Path) -> None:
    store = await open_storage(str(database))
    for name, rating in (("acme", 1), ("beta", 0)):
        await store.write_calls([a_chat(name, "Capital?", f"{name}'s", organisation=name)])
        await store.add_rating(a_rating(f"f{name}", name, rating, organisation=name), known=False)
    await store.close()
    ended = await export(database.parent, "--format", "preference")
    assert ended.stdout == ""
    assert ended.stderr == "read 2 calls, wrote 0; skipped 2 without a counterpart\n"


async def make_dataset(database: Path, organisation: str) -> None:
    store = await open_storage(str(database))
    await store.create_dataset(Dataset("d", organisation, "one", None, 1))
    stored = await store.read_call(organisation, "r1", None)
    assert stored is not None
    assert await store.add_to_dataset(organisation, "d", [DatasetRow("row", 1, stored)])
    await store.close()


async def test_a_dataset_is_exported_though_its_calls_are_gone(database: Path) -> None:
    await fill(database, 4)
    await make_dataset(database, "beta")
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("DELETE FROM calls")
        db.commit()
    ended = await export(database.parent, "--dataset", "d")
    assert (ended.returncode, ids(ended.stdout)) == (0, ["r1"])
    mistakes = {"'e'": ["e"], "other condition": ["d", "--rating", "true"], "'x'": ["d", "--organisation", "x"]}
    for said, flags in mistakes.items():
        ended = await export(database.parent, "--dataset", *flags)
        assert_refused(ended.returncode, ended.stdout, ended.stderr, said)


def ids(lines: str) -> list[str]:
    return [orjson.loads(line)["request_id"] for line in lines.splitlines()]


async def test_it_writes_all_organisations_or_the_one_that_is_named(database: Path) -> None:
    await fill(database, 4)
    everybody = await export(database.parent)
    assert (everybody.returncode, everybody.stderr) == (0, "read 4 calls, wrote 4\n")
    assert ids(everybody.stdout) == ["r0", "r2", "r1", "r3"]
    one = await export(database.parent, "--organisation", "beta")
    assert ids(one.stdout) == ["r1", "r3"]


async def test_flags_select_and_a_file_gets_its_name_once_it_is_whole(database: Path) -> None:
    await fill(database, 4)
    flags = ["--format", "chat", "--rating", "true", "--since", "1970-01-01", "--property", "Release=1"]
    ended = await export(database.parent, *flags[:-2], "--output", "good.jsonl")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "read 2 calls, wrote 2\n")
    written = database.parent / "good.jsonl"
    assert written.stat().st_mode & 0o777 == 0o600
    talks = [orjson.loads(line) for line in written.read_bytes().splitlines()]
    assert [as_openai_takes_it(talk)[0]["content"] for talk in talks] == ["Number 0?", "Number 2?"]
    again = await export(database.parent, *flags, "--output", "good.jsonl")
    assert (again.returncode, written.read_bytes()) == (0, b"")
    assert sorted(path.name for path in database.parent.iterdir()) == ["good.jsonl", "kibitz.db"]


MISTAKES: list[tuple[list[str], str]] = [
    (["--database", "missing.db"], "missing.db"),
    (["--format", "xml"], "xml"),
    (["--rating", "maybe"], "--rating"),
    (["--filter", "{"], "filter"),
    (["--filter", '{"colours": {"red": {"equals": 1}}}'], "colours"),
    (["--since", "yesterday"], "yesterday"),
    (["--property", "release"], "NAME=VALUE"),
    (["--organisation", "gamma"], "acme, beta"),
    (["--output", "nowhere/file"], "nowhere/file"),
]


@pytest.mark.parametrize(("flags", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
async def test_a_mistake_is_one_line_and_status_2(flags: list[str], said: str, database: Path) -> None:
    await fill(database, 2)
    ended = await export(database.parent, *flags)
    assert_refused(ended.returncode, ended.stdout, ended.stderr, said)


async def test_parquet_without_its_library_says_how_to_get_it(database: Path) -> None:
    await fill(database, 1)
    (database.parent / "hidden").mkdir()
    (database.parent / "hidden" / "pyarrow.py").write_text("raise ImportError\n")
    root = environment()["PYTHONPATH"]
    ended = await asyncio.to_thread(
        run, [*EXPORT, "--format", "parquet"], database.parent, PYTHONPATH=f"{database.parent / 'hidden'}:{root}"
    )
    assert_refused(ended.returncode, ended.stdout, ended.stderr, "pip install 'kibitz[parquet]'")


async def test_a_reader_that_leaves_ends_it_quietly(database: Path) -> None:
    await fill(database, 500, 10_000)
    with exporting(database.parent) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline)
        process.stdout.close()
        assert await asyncio.to_thread(process.wait, 20) == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_though_nobody_reads(number: signal.Signals, database: Path) -> None:
    await fill(database, 500, 10_000)
    with exporting(database.parent) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline)  # the pipe gets full, and stays so
        process.send_signal(number)
        assert await asyncio.to_thread(process.wait, 20) == 128 + number
        _, errors = process.communicate()
        assert errors == b""


async def test_a_signal_leaves_no_half_file_and_the_old_one_as_it_was(database: Path, eventually: Eventually) -> None:
    await fill(database, 2000, 10_000)
    (database.parent / "rows.jsonl").write_text("of yesterday")
    unfinished = database.parent / "rows.jsonl.unfinished"

    async def begun() -> None:
        assert unfinished.exists()

    with exporting(database.parent, "--output", "rows.jsonl") as process:
        await eventually(begun)
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 20) == 128 + signal.SIGINT
    assert (database.parent / "rows.jsonl").read_text() == "of yesterday"
    assert not unfinished.exists()


async def test_a_terminal_gets_a_progress_bar(database: Path) -> None:
    await fill(database, 10)
    terminal, ours = os.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    try:
        process = await asyncio.to_thread(
            subprocess.run,
            [*EXPORT, "--output", "rows.jsonl"],
            cwd=database.parent,
            env=environment(),
            stderr=ours,
            timeout=30,
        )
        assert process.returncode == 0
        shown = os.read(terminal, 65536).decode()
    finally:
        os.close(terminal)
        os.close(ours)
    assert "10/10" in shown
    assert "wrote 10" in shown


async def test_it_runs_beside_a_server_that_goes_on_logging(
    start_kibitz: StartKibitz, upstream: Upstream, database: Path, eventually: Eventually
) -> None:
    await fill(database, 500, 10_000, of=("default", "beta"))
    upstream.answer = chat_answer()
    kibitz = await start_kibitz(database=str(database))
    with exporting(database.parent) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline)  # in the middle of it, and standing still
        for number in range(20):
            assert (await kibitz.chat(Helicone_Request_Id=f"new{number}")).status == 200
            await kibitz.row(f"new{number}")
        rest, errors = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0
        assert len(rest.splitlines()) == 499
        assert errors == b"read 500 calls, wrote 500\n"


def most_memory(folder: Path, number: int, *flags: str) -> int:
    """The most bytes that an export of so many calls had in memory; its file goes nowhere."""
    command = [*EXPORT, *flags, "--output", os.devnull]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr as told:
        assert told.read().startswith(f"read {number} calls")
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss has another unit")
@pytest.mark.parametrize("format", ["rows", "chat", "preference", "csv"])
async def test_memory_stays_level_however_long_the_log_is(format: str, tmp_path: Path) -> None:
    """Of 80 MiB of bodies no more are in memory than of the 2 MiB of a short log, and of a batch."""
    sizes = {"short": 200, "long": 8000}
    for name, number in sizes.items():
        (tmp_path / name).mkdir()
        store = await open_storage(str(tmp_path / name / "kibitz.db"))
        text = orjson.dumps({"choices": [{"message": {"content": os.urandom(5000).hex()}}]})
        body = Body(text, len(text), content_type="application/json")
        for start in range(0, number, 200):
            await store.write_calls([a_chat(f"r{place}", response=body) for place in range(start, start + 200)])
        await store.add_rating(a_rating("f", "r0"), known=False)
        await store.close()
    short, long = [
        await asyncio.to_thread(most_memory, tmp_path / name, number, "--format", format)
        for name, number in sizes.items()
    ]
    assert long - short < 30 * MiB
