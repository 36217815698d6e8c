"""`kibitz reparse` as a process: what it says, how it ends, and that it leaves a log whole. Contract section 1."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.pricing import Pricer
from proxy.row import derive_again
from storage import open_storage
from storage.records import Body, Call
from tests.conftest import StartKibitz
from tests.raw_client import Eventually
from tests.storage import a_call
from tests.test_cli import MODULE, SCRIPT, assert_refused, contents, environment, run
from tests.test_guarantee import store_stalled
from tests.upstream import CHAT_BODY

REPARSE = [*MODULE, "reparse"]
ASKED = b'{"model": "gpt-4o-mini", "user": "ada", "messages": []}'
# As many rows as a batch has at most.
BATCH = 200
DERIVED = "user_id, request_model, response_model, provider_response_id, finish_reason, cost, prompt_tokens"
# Makes each rewritten row take milliseconds, so that there is time to come between.
SLOW = """
CREATE TRIGGER slow AFTER UPDATE ON calls BEGIN
    SELECT count(*) FROM (WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 10000) SELECT x FROM n);
END
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


def unread(number: int) -> Call:
    """A row as a parser that understands nothing would leave it."""
    request = Body(ASKED, len(ASKED), content_type="application/json")
    response = Body(CHAT_BODY, len(CHAT_BODY), content_type="application/json")
    return a_call(f"r{number}", status=200, request=request, response=response)


async def fill(database: Path, rows: int) -> None:
    """A log of so many such rows."""
    storage = await open_storage(str(database))
    await storage.write_calls([unread(number) for number in range(rows)])
    await storage.close()


@contextlib.contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=20)) as db:
        yield db


def healed(database: Path) -> int:
    """How many rows have what their bodies give."""
    with opened(database) as db:
        rows = db.execute(f"SELECT {DERIVED} FROM calls").fetchall()
    call = derive_again(unread(0), Pricer({}))
    known = (call.user_id, call.request_model, call.response_model, call.provider_response_id, call.finish_reason)
    assert set(rows) <= {(*known, call.cost, call.usage.prompt_tokens), (None,) * 7}
    return sum(user is not None for user, *_ in rows)


async def reparse(folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run, [*REPARSE, *flags], folder, **variables)


@contextlib.contextmanager
def reparsing(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command under way."""
    process = subprocess.Popen(
        REPARSE, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_it_says_in_one_line_how_many_rows_it_read_and_changed(database: Path) -> None:
    await fill(database, 3)
    for changed in (3, 0):
        ended = await reparse(database.parent)
        assert (ended.returncode, ended.stdout) == (0, f"read 3 rows, changed {changed}\n")
        assert healed(database) == 3
    assert list(contents(database.parent)) == ["kibitz.db"]


async def test_an_empty_log_is_no_mistake(database: Path) -> None:
    await fill(database, 0)
    ended = await reparse(database.parent)
    assert (ended.returncode, ended.stdout) == (0, "read 0 rows, changed 0\n")


async def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    for rows, name in enumerate(("file.db", "variable.db", "flag.db"), start=1):
        await fill(tmp_path / name, rows)
    (tmp_path / "kibitz.toml").write_text('database = "file.db"\n')
    file, variable = ("--config", "kibitz.toml"), {"KIBITZ_DATABASE": "variable.db"}
    ended = [
        await reparse(tmp_path, *file),
        await reparse(tmp_path, *file, **variable),
        await reparse(tmp_path, *file, "--database", "flag.db", **variable),
    ]
    assert [each.stdout for each in ended] == [f"read {rows} rows, changed {rows}\n" for rows in (1, 2, 3)]


async def test_it_prices_by_the_configuration(database: Path) -> None:
    await fill(database, 1)
    config = database.parent / "kibitz.toml"
    config.write_text('[prices."gpt-4o-mini-2024-07-18"]\ninput = 1e6\noutput = 2e6\n')
    ended = await asyncio.to_thread(run, [*SCRIPT, "reparse", "--config", "kibitz.toml"], database.parent)
    assert ended.stdout == "read 1 rows, changed 1\n"
    with opened(database) as db:
        assert db.execute("SELECT cost FROM calls").fetchall() == [(15.0,)]


def draws(shown: str) -> list[str]:
    """How the progress bar looked, one after the other."""
    return re.findall(r"(\d+)/600 \[", shown)


async def test_progress_is_told_sparingly_where_nobody_watches(database: Path) -> None:
    await fill(database, 3 * BATCH)
    with opened(database) as db:
        db.execute(SLOW)
    ended = await reparse(database.parent)
    assert draws(ended.stderr) == ["0", "600"]


def run_on_a_terminal(folder: Path) -> tuple[int, str]:
    """The exit status, and what the terminal got."""
    terminal, inner = os.openpty()
    termios.tcsetwinsize(inner, (24, 100))
    with subprocess.Popen(REPARSE, cwd=folder, env=environment(), stdout=inner, stderr=inner) as process:
        os.close(inner)
        shown = b""
        with contextlib.suppress(OSError):  # so a terminal tells that nobody writes to it any more
            while piece := os.read(terminal, 2**16):
                shown += piece
    os.close(terminal)
    return process.returncode, shown.decode()


async def test_progress_is_shown_on_a_terminal(database: Path) -> None:
    await fill(database, 3 * BATCH)
    with opened(database) as db:
        db.execute(SLOW)
    status, shown = await asyncio.to_thread(run_on_a_terminal, database.parent)
    assert status == 0
    assert {"0", "600"} < set(draws(shown)) <= {"0", "200", "400", "600"}
    assert shown.endswith("read 600 rows, changed 600\r\n")


@pytest.mark.parametrize("name", ["there-is-none.db", "missing/kibitz.db", "empty.db", "foreign.db"])
async def test_without_a_log_it_is_one_line_and_status_2_and_nothing_is_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.db").touch()
    with opened(tmp_path / "foreign.db") as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    before = contents(tmp_path)
    ended = await reparse(tmp_path, "--database", name)
    assert_refused(ended.returncode, ended.stdout, ended.stderr, name)
    assert contents(tmp_path) == before


async def test_a_log_that_stays_locked_is_one_line_and_status_2(database: Path) -> None:
    await fill(database, 1)
    with store_stalled(database):
        ended = await reparse(database.parent)
    assert_refused(ended.returncode, ended.stdout, ended.stderr, "kibitz.db: database is locked")
    assert healed(database) == 0


async def test_a_fault_on_the_way_keeps_what_was_done_and_the_next_run_does_the_rest(database: Path) -> None:
    await fill(database, 2 * BATCH)
    with opened(database) as db:
        refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON calls WHEN NEW.request_id = 'r300'"
        db.execute(f"{refuse} BEGIN SELECT RAISE(ABORT, 'not this one'); END")
    ended = await reparse(database.parent)
    assert (ended.returncode, ended.stdout) == (2, "")
    *_, line = ended.stderr.splitlines()
    assert line.startswith("kibitz: kibitz.db: ")
    assert line.endswith("not this one; read 200 of 400 rows, changed 200")
    assert "Traceback" not in ended.stderr
    assert healed(database) == BATCH
    with opened(database) as db:
        db.execute("DROP TRIGGER refuse")
    assert (await reparse(database.parent)).stdout == "read 400 rows, changed 200\n"
    assert healed(database) == 2 * BATCH


async def until_some_are_healed(database: Path, eventually: Eventually) -> None:
    async def look() -> None:
        assert healed(database)

    await eventually(look)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
async def test_a_run_that_is_stopped_has_done_whole_batches_and_the_next_one_does_the_rest(
    database: Path, eventually: Eventually, number: signal.Signals
) -> None:
    await fill(database, 5 * BATCH)
    with opened(database) as db:
        db.execute(SLOW)
    with reparsing(database.parent) as process:
        await until_some_are_healed(database, eventually)
        process.send_signal(number)
        out, err = await asyncio.to_thread(process.communicate, timeout=20)
    done = healed(database)
    assert done in range(BATCH, 5 * BATCH, BATCH)
    assert "Traceback" not in err
    if number == signal.SIGINT:
        assert (process.returncode, out) == (130, f"read {done} of 1000 rows, changed {done}\n")
    with opened(database) as db:
        db.execute("DROP TRIGGER slow")
    ended = await reparse(database.parent)
    assert ended.stdout == f"read 1000 rows, changed {5 * BATCH - done}\n"
    assert healed(database) == 5 * BATCH


async def test_a_server_logs_on_meanwhile(database: Path, start_kibitz: StartKibitz, eventually: Eventually) -> None:
    await fill(database, 3 * BATCH)
    with opened(database) as db:
        db.execute(SLOW)
    kibitz = await start_kibitz(commit_wait=60)
    passed: list[str] = []
    with reparsing(database.parent) as process:
        await until_some_are_healed(database, eventually)
        while process.poll() is None:
            passed.append((await kibitz.chat()).headers["Helicone-Id"])
        out, _ = process.communicate()
    assert (process.returncode, out) == (0, f"read {3 * BATCH} rows, changed {3 * BATCH}\n")
    assert passed
    assert kibitz.kibitz.recorder.metrics.dropped == 0
    rows = [await kibitz.row(id) for id in passed]
    assert {(row["model"], row["finish_reason"], row["total_tokens"]) for row in rows} == {
        ("gpt-4o-mini-2024-07-18", "stop", 12)
    }
    with opened(database) as db:
        assert (
            db.execute("SELECT count(*), count(finish_reason) FROM calls").fetchone() == (3 * BATCH + len(passed),) * 2
        )


async def test_what_was_said_under_a_response_id_joins_its_row_once_that_is_found(
    database: Path, start_kibitz: StartKibitz
) -> None:
    await fill(database, 1)
    kibitz = await start_kibitz(feedback={"unknown_request": "keep"})
    url = f"{kibitz.base_url}/request/chatcmpl-1/feedback"
    async with kibitz.client.post(url, json={"rating": True}) as response:
        assert response.status == 200
    with opened(database) as db:
        db.execute("UPDATE calls SET organisation = 'default'")
        db.execute("UPDATE feedback SET organisation = 'default'")
    assert (await kibitz.row("r0"))["feedback"]["count"] == 0
    assert (await reparse(database.parent)).returncode == 0
    row: dict[str, Any] = await kibitz.row("r0")
    assert (row["provider_response_id"], row["feedback"]["rating"]) == ("chatcmpl-1", True)
