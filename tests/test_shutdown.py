"""Ending: orderly at the first signal, at once at the second. Contract section 1."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from storage import open_storage
from storage.records import StoredCall
from tests.conftest import Launcher, Process
from tests.processes import needs_proc, runs, workers_of
from tests.raw_client import Eventually, ask, request
from tests.upstream import CHAT_BODY, Connection, Upstream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(CHAT_BODY)

Start = Callable[..., Awaitable[Process]]
one_or_two = pytest.mark.parametrize("workers", ["1", "2"], ids=["one worker", "two workers"])


@pytest.fixture
def start(launch: Launcher, upstream: Upstream) -> Start:
    async def start(workers: str, **environment: str) -> Process:
        flags = ("--workers", workers, "--upstream", upstream.base_url)
        return await asyncio.to_thread(launch, *flags, **environment)

    return start


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


def halting(until: Callable[[Connection], Awaitable[Any]]) -> Callable[[Connection], Awaitable[None]]:
    """An upstream's script: 20 bytes of an answer, then a wait, then the rest of it."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(HEAD + CHAT_BODY[:20])
        await until(connection)
        await connection.send(CHAT_BODY[20:])

    return script


async def call(session: aiohttp.ClientSession, running: Process) -> aiohttp.ClientResponse:
    """A call under the id `in-flight`, of which the response has begun."""
    url, body = f"{running.base_url}/chat/completions", {"model": "gpt-4o-mini", "messages": []}
    return await session.post(url, json=body, headers={"Helicone-Request-Id": "in-flight"})


def keeping_session() -> aiohttp.ClientSession:
    """A client that keeps its connections for longer than any test."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(keepalive_timeout=3600))


async def assert_closed(port: int) -> None:
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


async def stored(database: Path, request_id: str) -> StoredCall | None:
    storage = await open_storage(str(database))
    try:
        return await storage.read_call("default", request_id, None)
    finally:
        await storage.close()


async def assert_ends_well(running: Process, database: Path, response: aiohttp.ClientResponse) -> None:
    """Its call in flight is answered to its end and logged."""
    assert await response.read() == CHAT_BODY
    assert await asyncio.to_thread(running.process.wait, 20) == 0
    row = await stored(database, "in-flight")
    assert row is not None
    assert (row.call.status, row.call.error_kind, row.call.response.data) == (200, None, CHAT_BODY)


@one_or_two
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_lets_a_call_in_flight_finish_and_commits_it(
    number: signal.Signals, workers: str, database: Path, upstream: Upstream, start: Start, eventually: Eventually
) -> None:
    release = asyncio.Event()
    upstream.script = halting(lambda _: release.wait())
    running = await start(workers)
    async with keeping_session() as session:
        response = await call(session, running)
        running.process.send_signal(number)
        await eventually(lambda: assert_closed(running.port))
        release.set()
        await assert_ends_well(running, database, response)


@one_or_two
async def test_connections_that_clients_keep_open_hold_up_no_end(
    workers: str, upstream: Upstream, start: Start, eventually: Eventually
) -> None:
    running = await start(workers, KIBITZ_SHUTDOWN_GRACE="3600")
    async with keeping_session() as session:
        unused = socket.create_connection(("127.0.0.1", running.port))
        await (await call(session, running)).read()
        idle = socket.create_connection(("127.0.0.1", running.port))
        idle.sendall(request("GET", "/healthz"))
        assert await asyncio.to_thread(idle.recv, 12) == b"HTTP/1.1 200"
        assert await asyncio.to_thread(running.stop) == 0
        unused.close()
        idle.close()


@needs_proc
async def test_a_signal_to_the_whole_group_is_one_signal(
    database: Path, upstream: Upstream, start: Start, eventually: Eventually
) -> None:
    """As a terminal and a service manager send it: to the workers, too."""
    release = asyncio.Event()
    upstream.script = halting(lambda _: release.wait())
    running = await start("2")
    async with keeping_session() as session:
        response = await call(session, running)
        for pid in (*workers_of(running.process.pid), running.process.pid):
            os.kill(pid, signal.SIGINT)
        await eventually(lambda: assert_closed(running.port))
        release.set()
        await assert_ends_well(running, database, response)


@one_or_two
async def test_a_call_that_outlasts_the_grace_is_logged_with_what_had_come(
    workers: str, database: Path, upstream: Upstream, start: Start
) -> None:
    upstream.script = halting(Connection.closed_by_peer)
    running = await start(workers, KIBITZ_SHUTDOWN_GRACE="0.1")
    async with keeping_session() as session:
        response = await call(session, running)
        assert await response.content.readexactly(20) == CHAT_BODY[:20]
        assert await asyncio.to_thread(running.stop) == 0
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    row = await stored(database, "in-flight")
    assert row is not None
    assert row.call.error_kind is not None
    assert row.call.response.data == CHAT_BODY[:20]


@needs_proc
@one_or_two
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_second_signal_ends_at_once_and_leaves_whole_rows_of_all_completed_calls(
    number: signal.Signals, workers: str, database: Path, upstream: Upstream, start: Start, eventually: Eventually
) -> None:
    running = await start(workers, KIBITZ_COMMIT_WAIT="60")
    children = workers_of(running.process.pid)
    completed: set[str] = set()

    async def keep_calling(lane: int) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            for count in range(100_000):
                name = f"{lane}-{count}"
                message = request("POST", "/v1/chat/completions", b"Helicone-Request-Id: %b" % name.encode())
                if (await ask(running.port, message)).body == CHAT_BODY:
                    completed.add(name)

    async def enough_are_completed() -> None:
        assert len(completed) > 20

    upstream_of_others, upstream.script = upstream.script, halting(Connection.closed_by_peer)
    async with keeping_session() as session:
        response = await call(session, running)
        upstream.script = upstream_of_others
        lanes = [asyncio.create_task(keep_calling(lane)) for lane in range(8)]
        await eventually(enough_are_completed)
        running.process.send_signal(number)
        await eventually(lambda: assert_closed(running.port))
        assert running.process.poll() is None, "a call is in flight"
        running.process.send_signal(number)
        assert await asyncio.to_thread(running.process.wait, 20) == -number
        with pytest.raises(aiohttp.ClientError):
            await response.read()
        await asyncio.gather(*lanes)
    assert [pid for pid in children if runs(pid)] == []
    with contextlib.closing(sqlite3.connect(database)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = {name for (name,) in reader.execute("SELECT request_id FROM calls JOIN bodies ON call_id = calls.id")}
        assert [(len(rows),)] == reader.execute("SELECT count(*) FROM calls").fetchall()
    assert completed - rows == set()
    assert "in-flight" not in rows


@needs_proc
async def test_a_worker_that_was_told_to_stop_by_itself_is_replaced(start: Start, eventually: Eventually) -> None:
    running = await start("2")
    before = workers_of(running.process.pid)
    os.kill(before[0], signal.SIGTERM)

    async def another_serves() -> None:
        now = workers_of(running.process.pid)
        assert len(now) == 2
        assert before[0] not in now

    await eventually(another_serves)
    assert await asyncio.to_thread(running.stop) == 0
