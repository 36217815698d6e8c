"""`kibitz prune` as a process: what it says, how it ends, and that it leaves a log whole. Contract section 1."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.texts import TEXTS
from storage import open_storage
from storage.records import Body, Call, Score
from tests.conftest import Launcher, StartKibitz
from tests.raw_client import Eventually
from tests.storage import NOW, a_call, a_rating, a_session_rating
from tests.storage.test_texts import index_bytes
from tests.test_cli import MODULE, assert_refused, contents, environment, run
from tests.test_guarantee import store_stalled
from tests.test_reparse import opened, reparse

PRUNE = [*MODULE, "prune"]
# As many rows as a step has at most.
STEP = 100
DAY = 86400
# Makes each deleted row take milliseconds, so that there is time to come between.
SLOW = """
CREATE TRIGGER slow AFTER DELETE ON calls BEGIN
    SELECT count(*) FROM (WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 20000) SELECT x FROM n);
END
"""
SAID = re.compile(r"pruned (\d+) rows with (\S+) of bodies; the file went from (\S+) to (\S+)\n")
SECRET = b"the lady in the lake"
# Too short to be packed.
ASKED = b'{"model": "gpt-4o-mini", "user": "ada", "messages": [{"role": "user", "content": "' + SECRET + b'"}]}'


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


def days_ago(days: float) -> int:
    return int((time.time() - days * DAY) * 1_000_000)


def old(number: int, size: int = 0, **fields: object) -> Call:
    """A call of a hundred days ago."""
    data = ASKED + os.urandom(size)
    known = {"started_at": days_ago(100) + number, "request": Body(data, len(data)), "user_id": SECRET.decode()}
    return a_call(f"r{number}", **{**known, **fields})


def new(number: int) -> Call:
    """A call of yesterday."""
    return old(number, started_at=days_ago(1), request=Body(b"new", 3), user_id="lin")


async def fill(database: Path, *calls: Call) -> None:
    storage = await open_storage(str(database))
    for start in range(0, len(calls), STEP):
        await storage.write_calls(calls[start : start + STEP])
    await storage.close()


async def prune(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run, [*PRUNE, *flags], folder)


@contextlib.contextmanager
def pruning(folder: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """The command under way."""
    process = subprocess.Popen(
        [*PRUNE, *flags], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ids(database: Path) -> list[str]:
    with opened(database) as db:
        return [id for (id,) in db.execute("SELECT request_id FROM calls ORDER BY id")]


def everything_in(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """The rows of all tables, but for virtual ones: what these hold lies in tables too."""
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
    with opened(database) as db:
        return {name: db.execute(f"SELECT * FROM {name}").fetchall() for (name,) in db.execute(tables).fetchall()}


def size_of(database: Path) -> int:
    return database.stat().st_size


def left(database: Path) -> int:
    with opened(database) as db:
        return int(db.execute("SELECT count(*) FROM calls").fetchone()[0])


def assert_whole(database: Path) -> None:
    """That nothing of a call is there without the rest of it."""
    with opened(database) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute(
            "SELECT count(*) FROM calls LEFT JOIN bodies ON call_id = id WHERE call_id IS NULL"
        ).fetchall()
        lost = "SELECT * FROM feedback WHERE request_id NOT IN (SELECT request_id FROM calls)"
        assert db.execute(lost).fetchall() == []


async def test_it_deletes_by_age_and_says_what_became_of_the_file(database: Path) -> None:
    await fill(database, *(old(number, 20_000) for number in range(150)), new(150), new(151))
    before = size_of(database)
    ended = await prune(database.parent, "--older-than", "90d")
    told = SAID.fullmatch(ended.stdout)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert told
    assert (told[1], told[2], told[3]) == ("150", "3.02MB", f"{before / 10**6:.2f}MB")
    assert size_of(database) < before / 10
    assert ids(database) == ["r150", "r151"]
    assert list(contents(database.parent)) == ["kibitz.db"]


async def test_a_dry_run_tells_the_same_and_leaves_every_row(database: Path) -> None:
    await fill(database, *(old(number, 1000) for number in range(250)), new(250))
    before = everything_in(database)
    ended = await prune(database.parent, "--older-than", "13w", "--dry-run")
    assert (ended.returncode, ended.stdout) == (0, "would prune 250 rows with 276kB of bodies\n")
    assert everything_in(database) == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "would prune 1 row with 1.11kB of bodies\n"),
        (("--bodies-only",), "would prune the bodies of 1 row, 1.11kB of bodies\n"),
    ],
)
async def test_one_row_is_told_of_as_one(database: Path, flags: tuple[str, ...], said: str) -> None:
    await fill(database, old(0, 1000), new(1))
    assert (await prune(database.parent, "--older-than", "13w", "--dry-run", *flags)).stdout == said


async def test_the_oldest_go_until_the_file_fits(database: Path) -> None:
    await fill(database, *(old(number, 20_000) for number in range(200)), new(200))
    told = await prune(database.parent, "--max-size", "2MB", "--dry-run")
    ended = await prune(database.parent, "--max-size", "2MB")
    rest = left(database)
    assert ids(database) == [f"r{number}" for number in range(201 - rest, 201)]
    assert 1.3 * 10**6 < size_of(database) <= 2 * 10**6
    assert ended.stdout.startswith(f"pruned {201 - rest} rows with ")
    estimated = int(told.stdout.removeprefix("would prune about ").partition(" ")[0])
    assert abs(estimated - (201 - rest)) < 30
    assert (await prune(database.parent, "--max-size", "2MB")).stdout.startswith("pruned 0 rows with ")


async def test_what_is_rated_stays_where_that_is_asked(database: Path) -> None:
    await fill(database, *(old(number, session_id=f"s{number}") for number in range(5)))
    storage = await open_storage(str(database))
    await storage.add_rating(a_rating("f", "r1"), known=False)
    await storage.add_session_rating(a_session_rating("g", "s2"), known=False)
    await storage.merge_scores("acme", "r4", [Score("accuracy", 1)], **NOW)
    await storage.close()
    assert (await prune(database.parent, "--older-than", "90d", "--keep", "rated")).returncode == 0
    assert ids(database) == ["r1", "r2", "r4"]
    assert (await prune(database.parent, "--older-than", "90d")).returncode == 0
    assert left(database) == 0


async def test_only_those_of_an_organisation_and_a_filter_go(database: Path) -> None:
    calls = [old(number, user_id=f"u{number % 2}") for number in range(4)]
    await fill(database, *calls, old(4, user_id="u1", organisation="other"))
    tree = '{"request_response_rmt": {"user_id": {"equals": "u1"}}}'
    ended = await prune(database.parent, "--organisation", "acme", "--filter", tree)
    assert ended.stdout.startswith("pruned 2 rows ")
    assert ids(database) == ["r0", "r2", "r4"]
    assert (await prune(database.parent, "--filter", "all")).stdout.startswith("pruned 3 rows ")


async def test_a_deleted_text_is_in_no_file_any_more_while_a_server_has_the_log_open(
    database: Path, launch: Launcher
) -> None:
    calls = [old(number, properties={"who": SECRET.decode()}, error_message=SECRET.decode()) for number in range(50)]
    large = old(50, 3 * 2**20)
    await fill(database, *calls, large, new(51))
    storage = await open_storage(str(database))
    for number in range(0, 51, 5):
        await storage.add_rating(a_rating(f"f{number}", f"r{number}", comment=SECRET.decode()), known=False)
        await storage.set_property("acme", f"r{number}", "who", SECRET.decode(), **NOW)
    await storage.close()
    launch()
    assert SECRET in contents(database.parent)["kibitz.db"]
    assert (await prune(database.parent, "--older-than", "90d")).returncode == 0
    files = contents(database.parent)
    assert {"kibitz.db", "kibitz.db-wal"} < files.keys()
    assert [name for name, data in files.items() if SECRET in data] == []
    assert ids(database) == ["r51"]
    assert_whole(database)


async def test_rows_without_their_bodies_are_as_they_were_to_reparse_too(database: Path) -> None:
    answer = b'{"id": "chatcmpl-9", "model": "gpt-4o-mini", "choices": [], "usage": {"prompt_tokens": 3}}'
    await fill(database, *(old(number, response=Body(answer, len(answer)), status=200) for number in range(3)))
    await reparse(database.parent)
    with opened(database) as db:
        figures = db.execute("SELECT * FROM calls").fetchall()
    ended = await prune(database.parent, "--older-than", "90d", "--bodies-only")
    assert ended.stdout.startswith("pruned the bodies of 3 rows, 588B of bodies; ")
    assert (await reparse(database.parent)).stdout == "read 3 rows, changed 0\n"
    with opened(database) as db:
        assert db.execute("SELECT * FROM calls").fetchall() == figures
    assert [name for name, data in contents(database.parent).items() if b"messages" in data] == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "say what is to go"),
        (("--keep", "rated", "--dry-run"), "say what is to go"),
        (("--older-than", "90"), "--older-than: '90' is no duration"),
        (("--max-size", "many"), "--max-size: 'many' is no size"),
        (("--filter", "{"), "--filter: "),
        (("--filter", '{"request_response_rmt": {"mood": {"equals": "good"}}}'), "mood"),
        (("--keep", "all"), "--keep"),
    ],
)
async def test_a_mistake_is_one_line_and_status_2_and_nothing_goes(
    database: Path, flags: tuple[str, ...], said: str
) -> None:
    await fill(database, old(1))
    ended = await prune(database.parent, *flags)
    assert_refused(ended.returncode, ended.stdout, ended.stderr, said)
    assert left(database) == 1


async def test_without_a_log_it_is_one_line_and_status_2_and_nothing_is_made(tmp_path: Path) -> None:
    ended = await prune(tmp_path, "--older-than", "1d", "--database", "there-is-none.db")
    assert_refused(ended.returncode, ended.stdout, ended.stderr, "there-is-none.db")
    assert contents(tmp_path) == {}


async def test_a_log_that_stays_locked_is_one_line_and_status_2(database: Path) -> None:
    await fill(database, old(1))
    with store_stalled(database):
        ended = await prune(database.parent, "--older-than", "90d")
    assert_refused(ended.returncode, ended.stdout, ended.stderr, "kibitz.db: database is locked")
    assert left(database) == 1


async def until_some_have_gone(database: Path, rows: int, eventually: Eventually) -> None:
    async def look() -> None:
        assert left(database) < rows

    await eventually(look)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
async def test_a_run_that_is_stopped_has_done_whole_steps_and_the_next_one_does_the_rest(
    database: Path, eventually: Eventually, number: signal.Signals
) -> None:
    await fill(database, *(old(number) for number in range(10 * STEP)))
    storage = await open_storage(str(database))
    for rated in range(0, 10 * STEP, STEP // 2):
        await storage.add_rating(a_rating(f"f{rated}", f"r{rated}"), known=False)
    await storage.close()
    with opened(database) as db:
        db.execute(SLOW)
    with pruning(database.parent, "--older-than", "90d") as process:
        await until_some_have_gone(database, 10 * STEP, eventually)
        process.send_signal(number)
        out, err = await asyncio.to_thread(process.communicate, timeout=20)
    rest = left(database)
    assert rest in range(STEP, 10 * STEP, STEP)
    assert "Traceback" not in err
    assert_whole(database)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert out.startswith(f"pruned {10 * STEP - rest} rows with ")
    with opened(database) as db:
        db.execute("DROP TRIGGER slow")
        assert db.execute("SELECT count(*) FROM feedback").fetchone() == (rest // (STEP // 2),)
    assert (await prune(database.parent, "--older-than", "90d")).stdout.startswith(f"pruned {rest} rows with ")
    assert left(database) == 0


async def test_a_server_logs_on_meanwhile(database: Path, start_kibitz: StartKibitz, eventually: Eventually) -> None:
    await fill(database, *(old(number) for number in range(5 * STEP)))
    with opened(database) as db:
        db.execute(SLOW)
    kibitz = await start_kibitz(commit_wait=60)
    passed: list[str] = []
    with pruning(database.parent, "--older-than", "90d") as process:
        await until_some_have_gone(database, 5 * STEP, eventually)
        while process.poll() is None:
            passed.append((await kibitz.chat()).headers["Helicone-Id"])
        out, _ = process.communicate()
    assert (process.returncode, out.partition(" with ")[0]) == (0, f"pruned {5 * STEP} rows")
    assert passed
    assert kibitz.kibitz.recorder.metrics.dropped == 0
    assert ids(database) == passed


async def test_progress_is_shown_on_a_terminal(database: Path) -> None:
    await fill(database, *(old(number) for number in range(3 * STEP)))
    with opened(database) as db:
        db.execute(SLOW)
    status, shown = await asyncio.to_thread(run_on_a_terminal, database.parent)
    assert status == 0
    assert re.search(r"300 rows \[", shown)
    assert shown.rpartition("\r\n")[0].rpartition("\r\n")[2].startswith("pruned 300 rows")


def run_on_a_terminal(folder: Path) -> tuple[int, str]:
    """The exit status, and what the terminal got."""
    terminal, inner = os.openpty()
    termios.tcsetwinsize(inner, (24, 100))
    command = [*PRUNE, "--older-than", "90d"]
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=inner, stderr=inner) as process:
        os.close(inner)
        shown = b""
        with contextlib.suppress(OSError):  # so a terminal tells that nobody writes to it any more
            while piece := os.read(terminal, 2**16):
                shown += piece
    os.close(terminal)
    return process.returncode, shown.decode()


async def test_what_has_gone_is_in_no_page_of_the_index_of_texts(database: Path) -> None:
    storage = await open_storage(str(database), texts=TEXTS)
    for number in range(3):
        await storage.write_calls([old(number), new(number + 10)])
        await storage.index_texts(most_calls=10, most_bytes=2**20)
    await storage.close()
    group = SECRET[6:9]  # the only one that begins so: none before it spares FTS5 its first character
    assert group in index_bytes(database)
    assert (await prune(database.parent, "--older-than", "90d")).returncode == 0
    assert group not in index_bytes(database)
    with opened(database) as db:
        [indexed] = db.execute("SELECT count(*) FROM call_texts WHERE call_texts MATCH 'new'").fetchone()
    assert indexed == 3
