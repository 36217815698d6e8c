"""Several workers on one port: from any of them everything looks the same. Contract sections 1, 5 and 6."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import Launcher, Process
from tests.processes import ask_on, connection_to_each, needs_proc, runs, workers_of
from tests.raw_client import Eventually, ask, request
from tests.upstream import CHAT_BODY, Connection, Received, Upstream, chat_events, sse_answer

pytestmark = needs_proc

TIMES = 1000
LANES = 8
EVENTS = chat_events("Hello", " there.")
STREAM = sse_answer(*EVENTS)
LAST_CHUNK = b"0\r\n\r\n"
RATING = orjson.dumps({"rating": True})
KNOWN, UNKNOWN = b"200", b"404"

Pair = tuple[Connection, Connection]
Ask = Callable[[Pair, str], Awaitable[None]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


@pytest.fixture
async def two(launch: Launcher, upstream: Upstream, database: Path) -> Process:
    """A Kibitz of two workers, whose responses wait for their rows however busy the machine is."""
    flags = ("--workers", "2", "--upstream", upstream.base_url, "--database", str(database))
    return await asyncio.to_thread(launch, *flags, KIBITZ_COMMIT_WAIT="60")


@contextlib.asynccontextmanager
async def pairs(process: Process, count: int) -> AsyncIterator[list[Pair]]:
    """Connections to both workers, in this order and in the other one by turns."""
    async with contextlib.AsyncExitStack() as stack:
        found: list[Pair] = []
        for number in range(count):
            each = await stack.enter_async_context(connection_to_each(process.process.pid, process.port))
            first, second = sorted(each)
            found.append((each[first], each[second]) if number % 2 else (each[second], each[first]))
        yield found


def call(request_id: str, *lines: bytes) -> bytes:
    return request("POST", "/v1/chat/completions", b"Helicone-Request-Id: " + request_id.encode(), *lines)


def read(request_id: str) -> bytes:
    return request("GET", f"/v1/request/{request_id}?includeBody=true")


def rate(request_id: str) -> bytes:
    return request("POST", f"/v1/request/{request_id}/feedback", body=RATING)


def status(answer: Received) -> bytes:
    return answer.request_line.split(b" ")[1]


def row_of(answer: Received) -> dict[str, Any]:
    row: dict[str, Any] = orjson.loads(answer.body)["data"]
    return row


def committed(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(database)) as reader:
        return {request_id for (request_id,) in reader.execute("SELECT request_id FROM calls")}


async def many_times(lanes: Iterable[Pair], once: Ask) -> int:
    """How many of a thousand attempts, some at once, there were without a fault."""
    numbers = iter(range(TIMES))

    async def run(pair: Pair) -> int:
        done = 0
        for number in numbers:
            await once(pair, f"call-{number}")
            done += 1
        return done

    return sum(await asyncio.gather(*map(run, lanes)))


async def test_calls_through_any_worker_land_in_one_database_under_ids_of_their_own(
    two: Process, database: Path
) -> None:
    message = request("POST", "/v1/chat/completions")
    async with pairs(two, 1) as [pair]:
        answers = [await ask_on(connection, message) for _ in range(50) for connection in pair]
    ids = {answer.values("Helicone-Id")[0].decode() for answer in answers}
    assert len(ids) == 100
    assert committed(database) == ids


async def test_a_call_through_one_worker_is_found_by_the_other_a_thousand_times_of_a_thousand(two: Process) -> None:
    async def once(pair: Pair, request_id: str) -> None:
        one, other = pair
        assert (await ask_on(one, call(request_id))).body == CHAT_BODY
        assert status(await ask_on(other, rate(request_id))) == KNOWN
        row = row_of(await ask_on(other, read(request_id)))
        assert (row["request_id"], row["feedback"]["rating"]) == (request_id, True)

    async with pairs(two, LANES) as lanes:
        assert await many_times(lanes, once) == TIMES


async def test_a_stream_read_to_its_last_event_is_found_by_the_other_worker_a_thousand_times_of_a_thousand(
    two: Process, upstream: Upstream
) -> None:
    """As SDKs do, which read no further: the row is still on its way then."""
    upstream.answer = STREAM

    async def once(pair: Pair, request_id: str) -> None:
        one, other = pair
        await one.send(call(request_id))
        await one.reader.readuntil(EVENTS[-1])
        row = row_of(await ask_on(other, read(request_id)))
        assert row["response_text"] == "Hello there."
        assert await one.reader.readexactly(len(b"\r\n" + LAST_CHUNK)) == b"\r\n" + LAST_CHUNK

    async with pairs(two, LANES) as lanes:
        assert await many_times(lanes, once) == TIMES


@contextlib.asynccontextmanager
async def streaming(upstream: Upstream, connection: Connection, *lines: bytes) -> AsyncIterator[None]:
    """A call `in-flight` through that connection, whose stream has begun; afterwards it has ended."""
    go_on = asyncio.Event()
    begun = sse_answer(*EVENTS[:2]).removesuffix(LAST_CHUNK)

    async def halt(to_kibitz: Connection) -> None:
        await to_kibitz.read_request()
        await to_kibitz.send(begun)
        await go_on.wait()
        await to_kibitz.send(STREAM.removeprefix(begun))

    upstream.script = halt
    await connection.send(call("in-flight", *lines))
    await connection.reader.readuntil(EVENTS[1])
    yield
    go_on.set()
    await connection.reader.readuntil(LAST_CHUNK)


IN_FLIGHT = [
    rate("in-flight"),
    rate("chatcmpl-2"),
    request("POST", "/v1/session/chat-7/feedback", body=RATING),
    request("POST", "/v1/request/in-flight/score", body=b'{"scores": {"accuracy": 95}}'),
    request("PUT", "/v1/request/in-flight/property", body=b'{"key": "Release", "value": "2.1"}'),
]


@pytest.mark.parametrize("message", IN_FLIGHT, ids=[message.split()[1].decode() for message in IN_FLIGHT])
async def test_a_call_in_flight_is_known_through_the_other_worker(
    two: Process, upstream: Upstream, message: bytes
) -> None:
    async with pairs(two, 1) as [(one, other)]:
        assert status(await ask_on(other, message)) == UNKNOWN
        async with streaming(upstream, one, b"Helicone-Session-Id: chat-7"):
            assert status(await ask_on(other, message)) == KNOWN
        row = row_of(await ask_on(other, read("in-flight")))
    said = (row["feedback"]["count"], row["scores"], row["properties"])
    assert said != (0, {}, {}), "what was said has joined the row"


async def test_a_trace_in_flight_through_the_other_worker_goes_before_a_request_id_of_that_text(
    two: Process, upstream: Upstream
) -> None:
    async with pairs(two, 1) as [(one, other)]:
        await ask_on(other, call("shared", b"x-portkey-trace-id: another"))
        async with streaming(upstream, one, b"x-portkey-trace-id: shared"):
            value = {"trace_id": "shared", "value": 5}
            assert status(await ask_on(other, request("POST", "/v1/feedback", body=orjson.dumps(value)))) == KNOWN
        rows = [row_of(await ask_on(other, read(request_id))) for request_id in ("shared", "in-flight")]
    assert [row["feedback"]["count"] for row in rows] == [0, 1]


async def test_an_id_that_no_worker_knows_is_unknown_to_all(two: Process) -> None:
    async with pairs(two, 1) as [pair]:
        for connection in pair:
            assert status(await ask_on(connection, rate("nobody"))) == UNKNOWN
            assert status(await ask_on(connection, read("nobody"))) == UNKNOWN


async def test_a_killed_worker_is_replaced_the_others_go_on_and_no_completed_response_lacks_its_row(
    two: Process, database: Path, eventually: Eventually
) -> None:
    supervisor = two.process.pid
    before = workers_of(supervisor)
    completed: set[str] = set()
    over = asyncio.Event()

    async def keep_calling(lane: int) -> None:
        for number in range(100_000):
            if over.is_set():
                return
            request_id = f"{lane}-{number}"
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # it was the killed one's
                if (await ask(two.port, call(request_id))).body == CHAT_BODY:
                    completed.add(request_id)

    async def count_beyond(count: int) -> None:
        assert len(completed) > count

    async def all_replaced() -> None:
        now = workers_of(supervisor)
        assert len(now) == 2
        assert not set(now) & set(before)

    lanes = [asyncio.create_task(keep_calling(lane)) for lane in range(LANES)]
    for victim in before:
        await eventually(partial(count_beyond, len(completed) + 20))
        os.kill(victim, signal.SIGKILL)
    await eventually(all_replaced)
    async with pairs(two, 1) as [pair]:
        for connection in pair:
            assert (await ask_on(connection, call("afterwards"))).body == CHAT_BODY
    over.set()
    await asyncio.gather(*lanes)
    assert completed - committed(database) == set()
    assert await asyncio.to_thread(two.stop) == 0


async def test_what_waits_for_a_dead_worker_is_served_by_its_successor(two: Process) -> None:
    supervisor = two.process.pid
    os.kill(supervisor, signal.SIGSTOP)
    for victim in workers_of(supervisor):
        os.kill(victim, signal.SIGKILL)
    answers = [asyncio.create_task(ask(two.port, call(f"early-{number}"))) for number in range(10)]
    done, _ = await asyncio.wait(answers, timeout=0.2)
    assert not done, "nobody is there to answer"
    os.kill(supervisor, signal.SIGCONT)
    assert [answer.body for answer in await asyncio.gather(*answers)] == [CHAT_BODY] * 10


async def test_the_workers_of_a_killed_supervisor_end_what_they_do_and_free_the_port(
    two: Process, upstream: Upstream, database: Path, eventually: Eventually
) -> None:
    workers = workers_of(two.process.pid)

    async def port_is_free() -> None:
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", two.port)) == errno.ECONNREFUSED

    async def have_ended() -> None:
        assert [pid for pid in workers if runs(pid)] == []

    async with pairs(two, 1) as [(one, _)], streaming(upstream, one):
        two.process.kill()  # it alone, not its workers
        await eventually(port_is_free)
    await eventually(have_ended)
    assert committed(database) == {"in-flight"}


def refused(folder: Path, *arguments: str) -> str:
    """What a command says that is refused in one line, with status 2."""
    command = [sys.executable, "-m", "proxy", "serve", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1), ended
    return ended.stderr


def test_a_store_that_cannot_be_used_is_told_of_once(tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_text("a letter that somebody wrote, and no database. " * 10)
    assert "letter.db" in refused(tmp_path, "--port", "0", "--workers", "3", "--database", "letter.db")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_another_kibitz_of_several_workers_has_is_in_use(
    launch: Launcher, tmp_path: Path, workers: str
) -> None:
    running = launch("--workers", "2")
    assert str(running.port) in refused(tmp_path, "--port", str(running.port), "--workers", workers)


def test_a_port_that_a_kibitz_of_one_worker_has_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in refused(tmp_path, "--port", port, "--workers", "2")
    assert list(tmp_path.iterdir()) == []
