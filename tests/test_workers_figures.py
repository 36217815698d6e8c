"""What Kibitz tells of itself is the same from any worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
from pathlib import Path

import orjson

from tests.conftest import Launcher, Process
from tests.processes import ask_on, connection_to_each, needs_proc, workers_of
from tests.raw_client import Eventually, request
from tests.upstream import CHAT_BODY, Connection, Upstream, json_answer

pytestmark = needs_proc

CALL = request("POST", "/v1/chat/completions")
# With one of these a worker that may hold a MiB has no room for another.
LARGE = json_answer(b'"%b"' % (b"x" * 2**20))


async def start(launch: Launcher, upstream: Upstream, **settings: str) -> Process:
    return await asyncio.to_thread(launch, "--workers", "3", "--upstream", upstream.base_url, **settings)


async def figures(connection: Connection) -> dict[str, float]:
    text = (await ask_on(connection, request("GET", "/metrics"))).body.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def fallen(before: dict[str, float], now: dict[str, float]) -> set[str]:
    """The counters that were higher before."""
    counters = {name for name in before if name.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum"))}
    return {name for name in counters if before[name] > now.get(name, 0)}


async def test_metrics_are_those_of_all_workers_from_any_of_them(launch: Launcher, upstream: Upstream) -> None:
    running = await start(launch, upstream)
    async with connection_to_each(running.process.pid, running.port) as each:
        for number, connection in enumerate(each.values()):
            for _ in range(number + 1):
                assert (await ask_on(connection, CALL)).body == CHAT_BODY
        told = [await figures(connection) for connection in each.values()]
    assert [one['kibitz_calls_total{outcome="ok",status="2xx"}'] for one in told] == [6] * 3
    assert [one["kibitz_rows_written_total"] for one in told] == [6] * 3
    assert [one["kibitz_workers"] for one in told] == [3] * 3


async def test_of_a_worker_that_does_not_answer_the_counters_stay(launch: Launcher, upstream: Upstream) -> None:
    running = await start(launch, upstream)
    async with connection_to_each(running.process.pid, running.port) as each:
        (silent, itself), (_, connection), *_ = each.items()
        assert (await ask_on(itself, CALL)).body == CHAT_BODY
        told = await figures(connection)
        os.kill(silent, signal.SIGSTOP)
        now = await figures(connection)
        assert (now["kibitz_workers"], now["kibitz_rows_written_total"], fallen(told, now)) == (2, 1, set())
        ready = await ask_on(connection, request("GET", "/readyz"))
        assert ready.request_line.split(b" ")[1] == b"200"
        os.kill(silent, signal.SIGCONT)
        assert (await figures(connection))["kibitz_workers"] == 3


async def test_no_counter_falls_when_a_worker_dies(
    launch: Launcher, upstream: Upstream, eventually: Eventually
) -> None:
    running = await start(launch, upstream)
    before = workers_of(running.process.pid)
    async with connection_to_each(running.process.pid, running.port) as each:
        for connection in each.values():
            await ask_on(connection, CALL)
        told = await figures(next(iter(each.values())))

    async def all_replaced() -> None:
        now = workers_of(running.process.pid)
        assert len(now) == 3
        assert not set(now) & set(before)

    for victim in before:
        os.kill(victim, signal.SIGKILL)
    await eventually(all_replaced)
    async with connection_to_each(running.process.pid, running.port) as each:
        for connection in each.values():
            await ask_on(connection, CALL)
        for connection in each.values():
            now = await figures(connection)
            assert fallen(told, now) == set()
            assert (now["kibitz_rows_written_total"], now["kibitz_workers"]) == (6, 3)
            assert now["kibitz_commit_wait_seconds_count"] == 6


async def test_a_worker_that_drops_rows_makes_all_of_them_unready(
    launch: Launcher, upstream: Upstream, tmp_path: Path, eventually: Eventually
) -> None:
    upstream.answer = LARGE
    small = {"KIBITZ_COMMIT_WAIT": "0.01", "KIBITZ_MAX_WAITING_BYTES": str(2**20)}
    running = await start(launch, upstream, **small)
    async with connection_to_each(running.process.pid, running.port) as each:

        async def all_tell(status: bytes, **said: int) -> None:
            for connection in each.values():
                answer = await ask_on(connection, request("GET", "/readyz"))
                assert answer.request_line.split(b" ")[1] == status
                assert orjson.loads(answer.body).items() >= said.items()

        await all_tell(b"200", rows_waiting=0)
        with contextlib.closing(sqlite3.connect(tmp_path / "kibitz.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                assert (await ask_on(next(iter(each.values())), CALL)).body.startswith(b'"xxx')
            await eventually(lambda: all_tell(b"503", rows_waiting=1, rows_dropped=2))
            other.execute("ROLLBACK")
        await eventually(lambda: all_tell(b"200", rows_waiting=0, rows_dropped=2))
