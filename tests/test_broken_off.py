"""Contract section 3: either side may break off; the other side sees it, and one row tells of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Launcher, Running, StartKibitz
from tests.raw_client import Eventually, connect, request, reset
from tests.upstream import Connection, Script, Upstream, chat_events

NAMED = b"Helicone-Request-Id: broken"
EVENTS = chat_events("Hello", " there.")
ARRIVED = b"".join(EVENTS[:2])
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
OF_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
END_CHUNK = b"0\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def call(*lines: bytes, version: str = "1.1") -> bytes:
    return request("POST", "/v1/chat/completions", NAMED, *lines, body=b'{"stream": true}', version=version)


def last_call(version: str) -> bytes:
    """After it the connection ends, however the answer does."""
    return call(b"Connection: close", version=version)


def framed(head: bytes, events: list[bytes]) -> bytes:
    """A response's beginning, with the framing that its head announces."""
    if head is CHUNKED:
        events = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    return head + b"".join(events)


End = Callable[[Connection], None]


def breaking(head: bytes, end: End, *, after: asyncio.Event | None = None) -> Script:
    """Sends the beginning of a stream, then ends the connection."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(framed(head, EVENTS[:2]))
        if after is not None:
            await after.wait()
        end(connection)

    return script


def read_to_the_end(port: int, message: bytes) -> tuple[bytes, bool]:
    """All that comes, and whether the connection was reset after it."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(message)
        try:
            while piece := client.recv(65536):
                received += piece
        except ConnectionResetError:
            return received, True
    return received, False


def body_of(received: bytes) -> bytes:
    """The bytes of a response's body; the end of a chunked one has to be missing."""
    head, _, body = received.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    assert not body.endswith(END_CHUNK)
    return b"".join(body.split(b"\r\n")[1::2])


CUTS = pytest.mark.parametrize(
    ("head", "version", "end"),
    [
        pytest.param(CHUNKED, "1.1", Connection.close, id="chunked"),
        pytest.param(CHUNKED, "1.1", reset, id="chunked-reset"),
        pytest.param(OF_LENGTH, "1.1", Connection.close, id="length"),
        pytest.param(OF_LENGTH, "1.1", reset, id="length-reset"),
        pytest.param(OF_LENGTH, "1.0", Connection.close, id="length-to-http-1.0"),
        pytest.param(CHUNKED, "1.0", Connection.close, id="chunked-to-http-1.0"),
        pytest.param(CHUNKED, "1.0", reset, id="chunked-reset-to-http-1.0"),
        pytest.param(UNTIL_CLOSED, "1.1", reset, id="until-closed-reset"),
        pytest.param(UNTIL_CLOSED, "1.0", reset, id="until-closed-reset-to-http-1.0"),
    ],
)


def assert_incomplete(head: bytes, version: str, received: bytes, was_reset: bool) -> None:
    """What arrived is all there, and the client can tell that it isn't the whole."""
    assert body_of(received) == ARRIVED
    if version == "1.0" and head is not OF_LENGTH:
        assert was_reset  # nothing but the connection's end tells such a client of the body's


def assert_logged_as_cut(row: dict[str, Any]) -> None:
    assert row["error"]["kind"] == "upstream_cut"
    assert row["response_status"] == 200
    assert (row["response_text"], row["response_body_size"]) == ("Hello", len(ARRIVED))


@CUTS
async def test_a_client_sees_that_the_upstream_broke_off_and_the_row_tells(
    kibitz: Running, upstream: Upstream, eventually: Eventually, head: bytes, version: str, end: End
) -> None:
    cut = asyncio.Event()
    upstream.script = breaking(head, end, after=cut)
    reading = asyncio.create_task(asyncio.to_thread(read_to_the_end, kibitz.port, last_call(version)))
    await asyncio.sleep(0.03)  # the beginning may arrive before the end does; the next test has them together
    cut.set()
    assert_incomplete(head, version, *await reading)
    assert_logged_as_cut(await eventually(lambda: kibitz.row("broken")))


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("head", [CHUNKED, OF_LENGTH], ids=["chunked", "length"])
async def test_what_arrives_together_with_the_break_is_delivered(
    kibitz: Running, upstream: Upstream, head: bytes, version: str
) -> None:
    upstream.script = breaking(head, Connection.close)
    received, was_reset = await asyncio.to_thread(read_to_the_end, kibitz.port, last_call(version))
    assert_incomplete(head, version, received, was_reset)
    assert_logged_as_cut(await kibitz.row("broken"))


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_kibitz_process_lets_a_client_see_the_break_too(
    launch: Launcher, upstream: Upstream, tmp_path: Path, version: str
) -> None:
    """It runs on uvloop, whose connections end in other ways than asyncio's."""
    upstream.script = breaking(CHUNKED, Connection.close)
    flags = ("--upstream", upstream.base_url, "--database", str(tmp_path / "kibitz.db"))
    process = await asyncio.to_thread(launch, *flags)
    assert_incomplete(CHUNKED, version, *await asyncio.to_thread(read_to_the_end, process.port, last_call(version)))


async def test_an_upstream_that_falls_silent_is_broken_off(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    silent = {"base_url": upstream.base_url, "idle_timeout": 0.05}
    kibitz = await start_kibitz(upstream=silent)

    async def fall_silent(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(framed(CHUNKED, EVENTS[:2]))
        await connection.closed_by_peer()

    upstream.script = fall_silent
    received, _ = await asyncio.to_thread(read_to_the_end, kibitz.port, last_call("1.1"))
    assert body_of(received) == ARRIVED
    row = await kibitz.row("broken")
    assert (row["error"]["kind"], row["response_text"]) == ("upstream_timeout", "Hello")


@pytest.fixture
def left() -> asyncio.Event:
    """Set once the upstream has seen Kibitz leave."""
    return asyncio.Event()


def waiting(left: asyncio.Event, *parts: bytes, whole_request: bool = True) -> Script:
    """Sends something, then waits for Kibitz to leave."""

    async def script(connection: Connection) -> None:
        await (connection.read_request() if whole_request else connection.read_head())
        await connection.send(b"".join(parts))
        with contextlib.suppress(ConnectionError):
            await connection.reader.read()
        left.set()

    return script


LEAVING = pytest.mark.parametrize("how", [Connection.close, reset], ids=["close", "reset"])


@LEAVING
async def test_a_client_that_leaves_before_the_answer_ends_the_upstream_call(
    kibitz: Running, upstream: Upstream, left: asyncio.Event, eventually: Eventually, how: End
) -> None:
    upstream.script = waiting(left)
    async with connect(kibitz.port) as connection:
        await connection.send(call())
        await eventually(lambda: arrived(upstream))
        how(connection)
        await left.wait()
    row = await eventually(lambda: kibitz.row("broken"))
    assert (row["error"]["kind"], row["response_status"]) == ("client_cancelled", None)
    assert row["request_body"] == {"stream": True}
    assert row["response_body"] is None


async def arrived(upstream: Upstream) -> None:
    assert upstream.connections


@LEAVING
@pytest.mark.parametrize("head", [CHUNKED, OF_LENGTH], ids=["chunked", "length"])
async def test_a_client_that_leaves_during_the_answer_ends_the_upstream_call(
    kibitz: Running, upstream: Upstream, left: asyncio.Event, eventually: Eventually, how: End, head: bytes
) -> None:
    upstream.script = waiting(left, framed(head, EVENTS[:2]))
    async with connect(kibitz.port) as connection:
        await connection.send(call())
        await connection.reader.readuntil(EVENTS[1])
        how(connection)
        await left.wait()
    row = await eventually(lambda: kibitz.row("broken"))
    assert (row["error"]["kind"], row["response_status"]) == ("client_cancelled", 200)
    assert (row["response_text"], row["response_body_size"]) == ("Hello", len(ARRIVED))


async def test_a_client_that_leaves_with_a_stream_s_last_event_has_not_broken_off(
    kibitz: Running, upstream: Upstream, left: asyncio.Event, eventually: Eventually
) -> None:
    upstream.script = waiting(left, framed(CHUNKED, EVENTS))
    async with connect(kibitz.port) as connection:
        await connection.send(call())
        await connection.reader.readuntil(b"[DONE]\n\n")
        connection.close()
        await left.wait()
    row = await eventually(lambda: kibitz.row("broken"))
    assert (row["error"], row["response_text"], row["completion_tokens"]) == (None, "Hello there.", 2)


@pytest.mark.parametrize("on_disconnect", ["cancel", "drain"])
@pytest.mark.parametrize("framing", [b"Content-Length: 999", b"Transfer-Encoding: chunked"], ids=["length", "chunked"])
async def test_a_client_that_leaves_during_its_upload_ends_the_upstream_call(
    start_kibitz: StartKibitz,
    upstream: Upstream,
    left: asyncio.Event,
    eventually: Eventually,
    framing: bytes,
    on_disconnect: str,
) -> None:
    kibitz = await start_kibitz(on_disconnect=on_disconnect)
    upstream.script = waiting(left, whole_request=False)
    async with connect(kibitz.port) as connection:
        await connection.send(request("POST", "/v1/files", NAMED, framing) + b"5\r\nfirst\r\n")
        await eventually(lambda: arrived(upstream))
        connection.close()
        await left.wait()
    row = await eventually(lambda: kibitz.row("broken"))
    assert row["error"]["kind"] == "client_cancelled"
    assert row["request_body_size"] > 0


async def gone(kibitz: Running) -> None:
    """Kibitz has noticed that no client is there any more."""
    assert all(handler.transport is None for handler in kibitz.kibitz.server.connections)


@pytest.mark.parametrize("head", [CHUNKED, OF_LENGTH], ids=["chunked", "length"])
@pytest.mark.parametrize("sent_before", [0, 2], ids=["before-the-answer", "during-the-answer"])
async def test_drained_an_answer_is_read_to_its_end_without_the_client(
    start_kibitz: StartKibitz, upstream: Upstream, eventually: Eventually, sent_before: int, head: bytes
) -> None:
    left = asyncio.Event()
    length = b"%d" % len(b"".join(EVENTS))
    whole = framed(head, EVENTS).replace(b"9999", length) + (END_CHUNK if head is CHUNKED else b"")
    body = whole.partition(b"\r\n\r\n")[2]
    middle = body.index(EVENTS[1]) + len(EVENTS[1])
    parts = [whole.removesuffix(body), body[:middle], body[middle:-50], body[-50:]]

    async def go_on(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"".join(parts[:sent_before]))
        await left.wait()
        for part in parts[sent_before:]:
            await asyncio.sleep(0.01)  # so that each comes by itself, the head without any of the body
            await connection.send(part)
        await connection.closed_by_peer()

    upstream.script = go_on
    kibitz = await start_kibitz(on_disconnect="drain")
    async with connect(kibitz.port) as connection:
        await connection.send(call())
        await eventually(lambda: arrived(upstream))
        if sent_before:
            await connection.reader.readuntil(EVENTS[1])
        connection.close()
        await eventually(lambda: gone(kibitz))
        left.set()
    row = await eventually(lambda: kibitz.row("broken"))
    assert (row["response_text"], row["finish_reason"]) == ("Hello there.", "stop")
    assert (row["completion_tokens"], row["response_status"]) == (2, 200)
