"""Contract section 3: an upload ends with its call, whatever has become of either."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import Eventually, ask, connect, request, reset
from tests.upstream import Connection, Script, Upstream

NAMED = b"Helicone-Request-Id: upload"
CHUNKED = b"Transfer-Encoding: chunked"
BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n"
MiB = 2**20


def upload(*fields: bytes) -> bytes:
    return request("POST", "/v1/files", NAMED, *fields)


def taking_nothing(over: asyncio.Event) -> Script:
    """Reads no more than a socket does by itself."""

    async def script(connection: Connection) -> None:
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()

    return script


@pytest.mark.parametrize(
    ("rest", "kind"),
    [(b"no chunk", "client_broke_off"), (b"40\r\n" + bytes(64), "request_too_large")],
    ids=["broken", "too-large"],
)
async def test_an_upload_that_fails_after_the_answer_has_begun_ends_both(
    start_kibitz: StartKibitz, upstream: Upstream, rest: bytes, kind: str
) -> None:
    kibitz = await start_kibitz(limits={"max_request_body": 50})
    cut = asyncio.Event()

    async def answer_early(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(BEGUN)
        with contextlib.suppress(ConnectionError):
            await connection.reader.read()
        cut.set()

    upstream.script = answer_early
    async with connect(kibitz.port) as client:
        await client.send(upload(CHUNKED) + b"4\r\nsome\r\n")
        await client.reader.readuntil(b"early\r\n")
        await client.send(rest)
        assert await client.reader.read() == b""
    await cut.wait()
    row = await kibitz.row("upload")
    assert (row["error"]["kind"], row["response_status"]) == (kind, 200)
    assert row["response_body"] == "early"


async def test_an_upstream_that_takes_nothing_of_an_upload_is_given_up(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start_kibitz(upstream={"base_url": upstream.base_url, "idle_timeout": 0.1})

    over = asyncio.Event()
    upstream.script = taking_nothing(over)
    async with connect(kibitz.port) as client:
        sending = asyncio.create_task(client.send(upload(b"Content-Length: %d" % (64 * MiB)) + bytes(32 * MiB)))
        answer = await client.read_request()
        sending.cancel()
    over.set()
    assert answer.request_line.startswith(b"HTTP/1.1 504 ")
    assert (await kibitz.row("upload"))["error"]["kind"] == "upstream_timeout"


async def test_a_client_that_leaves_an_upload_which_the_upstream_does_not_take_is_noticed(
    kibitz: Running, upstream: Upstream, eventually: Eventually
) -> None:
    """Nothing is read of it then, so nobody is told."""

    over = asyncio.Event()
    upstream.script = taking_nothing(over)
    async with connect(kibitz.port) as client:
        sending = asyncio.create_task(client.send(upload(b"Content-Length: %d" % (64 * MiB)) + bytes(32 * MiB)))
        await asyncio.sleep(0.2)  # for it to come to a standstill; the row comes in any case
        sending.cancel()
        reset(client)
        row = await eventually(lambda: kibitz.row("upload"))
    over.set()
    assert row["error"]["kind"] == "client_cancelled"


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
async def test_an_answer_that_comes_before_the_upload_is_done_reaches_who_uploads(
    start_kibitz: StartKibitz, upstream: Upstream, durability: str, caplog: pytest.LogCaptureFixture
) -> None:
    kibitz = await start_kibitz(durability=durability)

    async def refuse(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

    upstream.script = refuse
    for _ in range(5):
        async with connect(kibitz.port) as client:
            await client.send(upload(b"Content-Length: 1000000") + bytes(1000))
            answer = await client.read_request()
            assert (answer.request_line, answer.body) == (b"HTTP/1.1 413 Too Large", b"big")
            await client.send(bytes(1000))
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("hint", [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_the_time_for_an_answer_goes_on_after_an_informational_one(
    start_kibitz: StartKibitz, upstream: Upstream, hint: bytes
) -> None:
    kibitz = await start_kibitz(upstream={"base_url": upstream.base_url, "first_byte_timeout": 0.1})

    async def hint_and_fall_silent(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(hint)
        await connection.closed_by_peer()

    upstream.script = hint_and_fall_silent
    answer = await ask(kibitz.port, request("POST", "/v1/chat/completions", NAMED, body=b"{}"))
    assert answer.request_line.startswith(b"HTTP/1.1 504 ")
