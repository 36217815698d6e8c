"""The store goes away and comes back: a lock that another process holds, a disk that takes no more.

Contract section 5: calls go on, what fits into memory is written afterwards, the rest is counted, `/readyz` tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import Launcher, Process
from tests.raw_client import Eventually, ask, request
from tests.upstream import CHAT_BODY, Received, Upstream, chat_events, json_answer, sse_answer

CLIENTS, CALLS = 8, 5
EVENTS = chat_events("Hello", " there.")
LARGE = json_answer(b'"%b"' % (b"x" * 200_000))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


async def start(launch: Launcher, upstream: Upstream, database: Path, **settings: str) -> Process:
    flags = ("--upstream", upstream.base_url, "--database", str(database))
    return await asyncio.to_thread(launch, *flags, **settings)


def rows(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(database)) as reader:
        return {str(request_id) for (request_id,) in reader.execute("SELECT request_id FROM calls")}


async def call(process: Process, request_id: str) -> Received:
    return await ask(
        process.port, request("POST", "/v1/chat/completions", b"Helicone-Request-Id: " + request_id.encode())
    )


async def rate(process: Process, request_id: str) -> Received:
    return await ask(process.port, request("POST", f"/v1/request/{request_id}/feedback", body=b'{"rating": true}'))


async def ready(process: Process) -> tuple[bytes, dict[str, Any]]:
    answer = await ask(process.port, request("GET", "/readyz"))
    body: dict[str, Any] = orjson.loads(answer.body)
    return answer.request_line.split(b" ")[1], body


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def disk_full(process: Process) -> Iterator[None]:
    """No file may grow beyond nothing: every write of the process fails, while what it holds open stays open."""
    pid, limit = process.process.pid, resource.RLIMIT_FSIZE
    soft, hard = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (0, hard))
    yield
    resource.prlimit(pid, limit, (soft, hard))


@pytest.mark.parametrize("answer", [json_answer(CHAT_BODY), sse_answer(*EVENTS)], ids=["whole", "streamed"])
async def test_calls_go_on_while_another_process_holds_the_store_and_all_their_rows_follow(
    launch: Launcher, upstream: Upstream, database: Path, answer: bytes
) -> None:
    upstream.answer = answer
    process = await start(launch, upstream, database, KIBITZ_COMMIT_WAIT="0.05")

    async def client(name: str) -> list[str]:
        ids = [f"{name}-{number}" for number in range(CALLS)]
        for id in ids:
            received = await call(process, id)
            assert received.request_line == b"HTTP/1.1 200 OK"
        return ids

    with locked(database):
        made = await asyncio.gather(*(client(f"c{number}") for number in range(CLIENTS)))
        assert rows(database) == set()
        assert (await ready(process))[1]["rows_waiting"] == CLIENTS * CALLS
        rating = asyncio.ensure_future(rate(process, "c0-0"))
        await asyncio.sleep(0)
    assert (await rating).body == b'{"data":null,"error":null}'
    assert await asyncio.to_thread(process.stop) == 0
    assert rows(database) == {id for ids in made for id in ids}


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
async def test_while_the_disk_is_full_calls_go_on_losses_are_counted_and_readiness_returns_with_the_store(
    launch: Launcher, upstream: Upstream, database: Path, eventually: Eventually
) -> None:
    process = await start(launch, upstream, database, KIBITZ_COMMIT_WAIT="0.05", KIBITZ_MAX_WAITING_BYTES=str(2**20))
    await call(process, "before")
    upstream.answer = LARGE
    with disk_full(process):
        for number in range(8):
            assert (await call(process, f"during-{number}")).request_line == b"HTTP/1.1 200 OK"
        status, told = await ready(process)
        assert (status, told["rows_waiting"], told["rows_dropped"]) == (b"503", 6, 2)
        refused = await rate(process, "before")
        assert refused.request_line == b"HTTP/1.1 503 Service Unavailable"
        assert refused.values("Retry-After") == [b"1"]
        assert orjson.loads(refused.body)["error"] == "The store does not answer; nothing was written."
        assert rows(database) == {"before"}

    async def back() -> None:
        status, told = await ready(process)
        assert (status, told["rows_waiting"]) == (b"200", 0)

    await eventually(back)
    assert (await rate(process, "before")).body == b'{"data":null,"error":null}'
    await call(process, "after")
    assert rows(database) == {"before", "after", *(f"during-{number}" for number in range(6))}
