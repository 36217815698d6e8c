"""What befalls the log while Kibitz serves: a full disk, a file that is taken away. Calls pass, and rows wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import Launcher, Process
from tests.raw_client import Eventually, ask, request
from tests.upstream import Upstream, json_answer

MiB = 2**20


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


@pytest.fixture
async def kibitz(launch: Launcher, upstream: Upstream, database: Path) -> Process:
    """A process whose memory for waiting rows is as small as can be."""
    variables = {"KIBITZ_COMMIT_WAIT": "0.01", "KIBITZ_MAX_WAITING_BYTES": str(MiB)}
    flags = ("--upstream", upstream.base_url, "--database", str(database))
    return await asyncio.to_thread(lambda: launch(*flags, **variables))


async def call(kibitz: Process, request_id: str) -> None:
    """A call that has to go through, whatever befalls the log."""
    named = b"Helicone-Request-Id: " + request_id.encode()
    answer = await ask(kibitz.port, request("POST", "/v1/chat/completions", named))
    assert answer.request_line == b"HTTP/1.1 200 OK"


async def readiness(kibitz: Process, status: int) -> dict[str, Any]:
    """What /readyz says, which has to have that status."""
    answer = await ask(kibitz.port, request("GET", "/readyz"))
    assert answer.request_line.split(b" ")[1] == b"%d" % status
    told: dict[str, Any] = orjson.loads(answer.body)
    return told


async def written(kibitz: Process) -> None:
    """That it is ready, and no row waits."""
    assert (await readiness(kibitz, 200))["rows_waiting"] == 0


async def rate(kibitz: Process, request_id: str) -> bytes:
    """The status of a rating."""
    answer = await ask(kibitz.port, request("POST", f"/v1/request/{request_id}/feedback", body=b'{"rating": true}'))
    return answer.request_line.split(b" ")[1]


def rows(database: Path) -> list[str]:
    """The ids of the requests in the log, in their order, as another process sees them."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader:
        return [request_id for (request_id,) in reader.execute("SELECT request_id FROM calls ORDER BY id")]


def log_of(kibitz: Process) -> str:
    """What the process said until it was stopped."""
    assert kibitz.stop() == 0
    assert kibitz.process.stderr is not None
    return kibitz.process.stderr.read()


@pytest.mark.skipif(sys.platform != "linux", reason="sets another process's limits")
async def test_while_the_disk_is_full_calls_pass_and_rows_wait_until_there_is_space(
    kibitz: Process, upstream: Upstream, database: Path, eventually: Eventually
) -> None:
    """Writes to files fail in the kernel, as they do on a full disk."""
    await call(kibitz, "before")
    resource.prlimit(kibitz.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    await call(kibitz, "first")
    assert (await readiness(kibitz, 200))["rows_waiting"] == 1
    assert await rate(kibitz, "before") == b"503"
    upstream.answer = json_answer(b'"%b"' % os.urandom(100_000).hex().encode())
    for number in range(9):
        await call(kibitz, f"large-{number}")
    unready = await readiness(kibitz, 503)
    assert (unready["rows_waiting"], unready["rows_dropped"]) == (7, 3)
    assert rows(database) == ["before"]

    resource.prlimit(kibitz.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await eventually(lambda: written(kibitz))
    await call(kibitz, "after")
    await eventually(lambda: written(kibitz))
    kept = [f"large-{number}" for number in range(6)]
    assert rows(database) == ["before", "first", *kept, "after"]
    assert await readiness(kibitz, 200) == {**unready, "status": "ready", "rows_waiting": 0}
    assert await rate(kibitz, "before") == b"200"
    said = await asyncio.to_thread(log_of, kibitz)
    assert said.count("the store is back") == 1
    assert "the store is back; 3 rows were dropped meanwhile" in said


def moved_away(database: Path) -> Path:
    """As who makes room for a new log does; the write-ahead log stays where it is."""
    return database.rename(database.with_name("archive"))


def replaced(database: Path) -> Path:
    """As who restores a backup does."""
    kept = moved_away(database)
    database.write_bytes(kept.read_bytes())
    return kept


@pytest.mark.parametrize("take_away", [moved_away, replaced])
async def test_rows_wait_for_a_file_that_was_taken_away_and_are_in_it_once_it_is_put_back(
    kibitz: Process, database: Path, eventually: Eventually, take_away: Callable[[Path], Path]
) -> None:
    await call(kibitz, "before")
    archive = take_away(database)
    await call(kibitz, "meanwhile")
    unready = await readiness(kibitz, 503)
    assert "removed or replaced" in unready["store"]
    assert unready["rows_waiting"] == 1
    assert await rate(kibitz, "before") == b"503"
    archive.rename(database)
    await eventually(lambda: written(kibitz))
    await call(kibitz, "after")
    await eventually(lambda: written(kibitz))
    assert rows(database) == ["before", "meanwhile", "after"]
    assert await rate(kibitz, "meanwhile") == b"200"
    assert "removed or replaced" in await asyncio.to_thread(log_of, kibitz)


async def test_a_removed_file_costs_the_rows_that_wait_and_says_so_at_the_end(
    kibitz: Process, launch: Launcher, upstream: Upstream, database: Path
) -> None:
    await call(kibitz, "before")
    for file in database.parent.glob("kibitz.db*"):
        file.unlink()
    await call(kibitz, "meanwhile")
    assert (await readiness(kibitz, 503))["rows_waiting"] == 1
    said = await asyncio.to_thread(log_of, kibitz)
    assert "lost 1 row" in said
    assert "the database's file was removed or replaced" in said
    assert list(database.parent.iterdir()) == []
    anew = await asyncio.to_thread(launch, "--upstream", upstream.base_url, "--database", str(database))
    await call(anew, "anew")
    assert rows(database) == ["anew"]
