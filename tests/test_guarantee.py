"""Contract section 5: a completed response is a logged response, and the store never holds one up for long."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.download import Download
from tests.conftest import Launcher, Running, StartKibitz
from tests.raw_client import Eventually, ask, connect, request
from tests.upstream import CHAT_BODY, Connection, Upstream, chat_answer, chat_events, json_answer, sse_answer

NAMED = b"Helicone-Request-Id: promised"
EVENTS = chat_events("Hello", " there.")
MESSAGE_STOP = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
# Long enough for a fault to show, short enough not to be noticed.
A_WHILE = 0.1
FOREVER = 60


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


@contextlib.contextmanager
def store_stalled(database: Path) -> Iterator[None]:
    """Nobody else can write in the meantime."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def committed(database: Path, request_id: str = "promised") -> int:
    """How many rows of a request another process can see."""
    with contextlib.closing(sqlite3.connect(database)) as reader:
        [(count,)] = reader.execute("SELECT count(*) FROM calls WHERE request_id = ?", (request_id,))
        return int(count)


def call(method: str = "POST", path: str = "/v1/chat/completions", *lines: bytes, version: str = "1.1") -> bytes:
    return request(method, path, NAMED, *lines, version=version)


async def still_waits(reading: asyncio.Future[bytes]) -> bool:
    await asyncio.sleep(A_WHILE)
    return not reading.done()


@pytest.mark.parametrize("events", [EVENTS, EVENTS[:-1], [MESSAGE_STOP]], ids=["openai", "unended", "anthropic"])
async def test_the_end_of_a_stream_waits_for_its_row_and_only_the_end_does(
    start_kibitz: StartKibitz, upstream: Upstream, database: Path, events: list[bytes]
) -> None:
    upstream.answer = sse_answer(*events)
    kibitz = await start_kibitz(commit_wait=FOREVER)
    async with connect(kibitz.port) as connection:
        with store_stalled(database):
            await connection.send(call())
            await connection.read_head()
            assert [await connection.read_chunk() for _ in events] == events
            end = asyncio.ensure_future(connection.read_chunk())
            assert await still_waits(end)
        assert await end == b""
        assert committed(database) == 1


async def test_who_stops_reading_at_a_stream_s_last_event_finds_the_row(kibitz: Running, upstream: Upstream) -> None:
    """As SDKs do, whether or not the upstream ever ends the message."""

    async def never_end(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(sse_answer(*EVENTS).removesuffix(b"0\r\n\r\n"))
        await connection.closed_by_peer()

    upstream.script = never_end
    async with connect(kibitz.port) as connection:
        await connection.send(call())
        await connection.reader.readuntil(EVENTS[-1])
        row = await kibitz.row("promised")
    assert (row["response_text"], row["error"]) == ("Hello there.", None)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_the_last_piece_of_a_known_length_waits_for_its_row(
    start_kibitz: StartKibitz, upstream: Upstream, database: Path, version: str
) -> None:
    arrived = asyncio.Event()

    async def in_two_pieces(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(json_answer(CHAT_BODY)[:-9])
        await arrived.wait()
        await connection.send(CHAT_BODY[-9:])

    upstream.script = in_two_pieces
    kibitz = await start_kibitz(commit_wait=FOREVER)
    async with connect(kibitz.port) as connection:
        with store_stalled(database):
            await connection.send(call(version=version))
            await connection.read_head()
            assert await connection.reader.readexactly(len(CHAT_BODY) - 9) == CHAT_BODY[:-9]
            arrived.set()
            end = asyncio.ensure_future(connection.reader.readexactly(9))
            assert await still_waits(end)
        assert await end == CHAT_BODY[-9:]
        assert committed(database) == 1


async def test_for_an_http_1_0_client_the_close_waits_for_the_row(
    start_kibitz: StartKibitz, upstream: Upstream, database: Path
) -> None:
    upstream.answer = sse_answer(*EVENTS)
    kibitz = await start_kibitz(commit_wait=FOREVER)
    async with connect(kibitz.port) as connection:
        with store_stalled(database):
            await connection.send(call(version="1.0"))
            await connection.reader.readuntil(EVENTS[-1])
            end = asyncio.ensure_future(connection.reader.read())
            assert await still_waits(end)
        assert await end == b""
        assert committed(database) == 1


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_a_response_without_a_body_waits_for_its_row(
    start_kibitz: StartKibitz, upstream: Upstream, database: Path, method: str, head: bytes
) -> None:
    upstream.answer = head
    kibitz = await start_kibitz(commit_wait=FOREVER)
    async with connect(kibitz.port) as connection:
        with store_stalled(database):
            await connection.send(call(method, "/v1/things/1"))
            end = asyncio.ensure_future(connection.reader.readuntil(b"\r\n\r\n"))
            assert await still_waits(end)
        await end
        assert committed(database) == 1


ANSWERS = {
    "whole": chat_answer(),
    "streamed": sse_answer(*EVENTS),
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no-content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "error": json_answer(b'{"error": {}}', status="429 Slow Down"),
    "garbage": b"SSH-2.0-OpenSSH\r\n",
    "large": json_answer(b'"%b"' % (b"x" * 2**20)),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_who_has_the_last_byte_finds_the_row(
    kibitz: Running, upstream: Upstream, database: Path, answer: bytes
) -> None:
    upstream.answer = answer
    for count in range(1, 6):
        await ask(kibitz.port, call())
        assert committed(database) == count


async def test_each_of_many_at_once_finds_its_row(kibitz: Running, database: Path) -> None:
    async def one(number: int) -> int:
        await ask(kibitz.port, request("POST", "/v1/chat/completions", b"Helicone-Request-Id: at-once-%d" % number))
        return committed(database, f"at-once-{number}")

    assert await asyncio.gather(*map(one, range(40))) == [1] * 40


@pytest.mark.parametrize("answer", ["whole", "streamed"])
async def test_the_row_outlives_a_kill_at_the_last_byte(
    launch: Launcher, upstream: Upstream, database: Path, answer: str
) -> None:
    upstream.answer = ANSWERS[answer]
    process = await asyncio.to_thread(launch, "--upstream", upstream.base_url, "--database", str(database))
    await ask(process.port, call())
    process.kill()
    assert committed(database) == 1


async def test_past_commit_wait_the_response_completes_and_its_row_follows(
    start_kibitz: StartKibitz, upstream: Upstream, database: Path, eventually: Eventually
) -> None:
    kibitz = await start_kibitz(commit_wait=0.01)
    with store_stalled(database):
        assert (await ask(kibitz.port, call())).body == CHAT_BODY
        assert committed(database) == 0
    row = await eventually(lambda: kibitz.row("promised"))
    assert (row["response_text"], row["attempt"]) == ("Hello there.", 1)


async def test_relaxed_durability_does_not_wait_and_writes_all_the_same(
    start_kibitz: StartKibitz, upstream: Upstream, database: Path, eventually: Eventually
) -> None:
    upstream.answer = sse_answer(*EVENTS)
    kibitz = await start_kibitz(durability="relaxed", commit_wait=FOREVER)
    with store_stalled(database):
        assert (await ask(kibitz.port, call())).chunks == EVENTS
        assert committed(database) == 0
    assert (await eventually(lambda: kibitz.row("promised")))["response_text"] == "Hello there."


async def test_rows_that_wait_are_written_when_the_server_stops(
    start_kibitz: StartKibitz, launch: Launcher, upstream: Upstream, database: Path
) -> None:
    flags = ("--upstream", upstream.base_url, "--database", str(database))
    process = await asyncio.to_thread(launch, *flags, KIBITZ_COMMIT_WAIT="0.01")
    with store_stalled(database):
        assert (await ask(process.port, call())).body == CHAT_BODY
    assert await asyncio.to_thread(process.stop) == 0
    assert committed(database) == 1


async def test_when_memory_for_waiting_rows_is_full_calls_pass_and_readiness_fails(
    start_kibitz: StartKibitz, upstream: Upstream, database: Path, eventually: Eventually
) -> None:
    upstream.answer = ANSWERS["large"]
    kibitz = await start_kibitz(commit_wait=0.01, max_waiting_bytes=2**20)

    async def readiness(status: bytes) -> None:
        answer = await ask(kibitz.port, request("GET", "/readyz"))
        assert answer.request_line.split(b" ")[1] == status

    await readiness(b"200")
    with store_stalled(database):
        for _ in range(3):
            assert (await ask(kibitz.port, call())).request_line == b"HTTP/1.1 200 OK"
        await eventually(lambda: readiness(b"503"))  # rows this large are built beside the loop
    await eventually(lambda: readiness(b"200"))
    await ask(kibitz.port, call())

    async def some_are_there() -> None:
        assert 2 <= committed(database) < 4

    await eventually(some_are_there)


async def test_behind_a_fault_of_ours_no_end_is_written(
    kibitz: Running, upstream: Upstream, database: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    take = Download._take

    def take_and_fail(self: Download, pieces: list[bytes]) -> None:
        take(self, pieces)
        raise RuntimeError("a fault")

    async def is_there() -> None:
        assert committed(database) == 1

    async with connect(kibitz.port) as client:
        with store_stalled(database), monkeypatch.context() as patch:
            patch.setattr(Download, "_take", take_and_fail)
            await client.send(call())
            assert (await client.read_request()).request_line.startswith(b"HTTP/1.1 500 ")
        await eventually(is_there)
        await client.send(call("GET", "/healthz"))
        assert (await client.read_request()).body != CHAT_BODY
