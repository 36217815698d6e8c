"""What `[retention]` lets the log keep, held to while a server runs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from random import Random

import orjson
import pytest

from proxy.config import ConfigError, load_settings
from proxy.siblings import Siblings
from storage import open_storage
from tests.conftest import Launcher, StartKibitz
from tests.processes import needs_proc, workers_of
from tests.raw_client import Eventually, ask, request
from tests.storage import a_rating
from tests.storage.test_sharing_contract import a_chat
from tests.test_prune import DAY, fill, ids, left, new, old, size_of
from tests.test_reparse import opened, reparse

# Seconds between two passes.
OFTEN = 0.02
QUARTER = {"max_age": 90 * DAY, "interval": OFTEN}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


async def until_left(database: Path, rows: int, eventually: Eventually) -> None:
    async def look() -> None:
        assert left(database) == rows

    await eventually(look)


async def pruned(base_url: str) -> int:
    """What /metrics says of it."""
    answer = await ask(int(base_url.rsplit(":", 1)[1].partition("/")[0]), request("GET", "/metrics"))
    [line] = [line for line in answer.body.decode().splitlines() if line.startswith("kibitz_rows_pruned_total")]
    return int(float(line.split()[1]))


async def test_what_gets_too_old_goes_and_is_counted(
    database: Path, start_kibitz: StartKibitz, eventually: Eventually
) -> None:
    await fill(database, *(old(number) for number in range(250)), new(250))
    kibitz = await start_kibitz(retention=QUARTER)
    await until_left(database, 1, eventually)
    await fill(database, old(251))
    passed = (await kibitz.chat()).headers["Helicone-Id"]
    await until_left(database, 2, eventually)
    assert ids(database) == ["r250", passed]

    async def counted() -> None:
        assert await pruned(kibitz.base_url) == 251

    await eventually(counted)


async def test_what_is_rated_is_kept_where_that_is_said(
    database: Path, start_kibitz: StartKibitz, eventually: Eventually
) -> None:
    await fill(database, *(old(number) for number in range(5)))
    storage = await open_storage(str(database))
    await storage.add_rating(a_rating("f", "r3"), known=False)
    await storage.close()
    await start_kibitz(retention={**QUARTER, "keep": "rated"})
    await until_left(database, 1, eventually)
    assert ids(database) == ["r3"]


async def test_the_log_is_held_to_its_size_and_the_file_follows(
    database: Path, start_kibitz: StartKibitz, eventually: Eventually
) -> None:
    await fill(database, *(old(number, 20_000) for number in range(200)))
    assert size_of(database) > 4 * 10**6
    kibitz = await start_kibitz(retention={"max_size": 2**20, "interval": OFTEN})

    async def look() -> None:
        assert (await kibitz.kibitz.storage.space()).used <= 2**20

    await eventually(look)
    rest = left(database)
    assert ids(database) == [f"r{number}" for number in range(200 - rest, 200)]
    assert rest > 20

    async def given_back() -> None:
        assert (await kibitz.kibitz.storage.space()).total < 1.5 * 2**20

    await eventually(given_back)


async def test_without_a_bound_nothing_goes(database: Path, start_kibitz: StartKibitz) -> None:
    await fill(database, old(1))
    await start_kibitz(retention={"interval": OFTEN, "share_bodies": False})
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "retention"] == []
    assert left(database) == 1


def allow(database: Path) -> None:
    """Not in the loop, which the server that holds the lock needs to let it go."""
    with opened(database) as db:
        db.execute("DROP TRIGGER refuse")


async def test_a_fault_hurts_no_call_and_is_told_and_tried_again(
    database: Path, start_kibitz: StartKibitz, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(database, old(1))
    with opened(database) as db:
        db.execute("CREATE TRIGGER refuse BEFORE DELETE ON calls BEGIN SELECT RAISE(ABORT, 'not this one'); END")
    with caplog.at_level(logging.WARNING):
        kibitz = await start_kibitz(retention=QUARTER)

        async def told() -> None:
            assert "the log was not made as small as it should be" in caplog.text

        await eventually(told)
        passed = (await kibitz.chat()).headers["Helicone-Id"]
    assert "not this one" in caplog.text
    assert (await kibitz.row(passed))["response_status"] == 200
    async with kibitz.client.get(f"{kibitz.url}/readyz") as response:
        assert response.status == 200
    await asyncio.to_thread(allow, database)
    await until_left(database, 1, eventually)
    assert ids(database) == [passed]


async def test_what_a_chat_repeats_is_kept_once_and_reads_as_it_was(
    database: Path, start_kibitz: StartKibitz, eventually: Eventually
) -> None:
    calls = [replace(call, organisation="default") for call in a_chat(Random(1), "s")]
    await fill(database, *calls)
    with opened(database) as db:
        [(alone,)] = db.execute("SELECT sum(length(request)) FROM bodies")
    kibitz = await start_kibitz(retention={"interval": OFTEN})

    async def shared() -> None:
        with opened(database) as db:
            [(size,)] = db.execute("SELECT sum(length(request)) FROM bodies")
        assert size < 0.2 * alone

    await eventually(shared)
    for call in calls:
        row = await kibitz.row(call.request_id, includeBody="true")
        assert row["request_body"] == orjson.loads(call.request.data or b"")
    before = ids(database)
    assert (await reparse(database.parent)).returncode == 0
    assert ids(database) == before


def test_one_worker_does_it(tmp_path: Path) -> None:
    assert [Siblings.in_directory(tmp_path, number, 3).is_first for number in range(3)] == [True, False, False]
    assert Siblings().is_first


@needs_proc
async def test_several_workers_hold_the_log_to_it_also_after_one_of_them_died(
    database: Path, launch: Launcher, eventually: Eventually
) -> None:
    await fill(database, *(old(number) for number in range(150)))
    variables = {"KIBITZ_RETENTION__MAX_AGE": str(90 * DAY), "KIBITZ_RETENTION__INTERVAL": str(OFTEN)}
    process = await asyncio.to_thread(launch, "--workers", "2", **variables)
    await until_left(database, 0, eventually)
    for worker in workers_of(process.process.pid):
        before = set(workers_of(process.process.pid))
        os.kill(worker, signal.SIGKILL)

        async def replaced(before: set[int] = before) -> None:
            assert len(set(workers_of(process.process.pid)) - before) == 1

        await eventually(replaced)
    await fill(database, *(old(number) for number in range(5)))
    await until_left(database, 0, eventually)
    assert await asyncio.to_thread(process.stop) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_age = 0", "retention.max_age"),
        ('max_age = "90d"', "retention.max_age"),
        ("max_size = 1000", "retention.max_size"),
        ('keep = "some"', "retention.keep"),
        ("interval = -1", "retention.interval"),
        ("max_rows = 5", "retention.max_rows: unknown setting"),
    ],
)
def test_a_bad_bound_is_refused_by_its_name(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "kibitz.toml").write_text(f"[retention]\n{line}\n")
    with pytest.raises(ConfigError, match=said):
        load_settings({}, tmp_path / "kibitz.toml")
