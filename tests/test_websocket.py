"""Contract section 3: WebSockets are relayed both ways to the byte, and logged as one row when they close."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Launcher, Running, StartKibitz
from tests.raw_client import Eventually, connect, reset
from tests.test_guarantee import store_stalled
from tests.upstream import Connection, Upstream
from tests.websocket_bytes import (
    BINARY,
    PING,
    PONG,
    TEXT,
    closing,
    event,
    forever,
    frame,
    handshake,
    open_websocket,
    speaking,
    switching,
    until_closed,
)

NAME = b"Helicone-Request-Id: socket"
# Masked and not, in parts, controls between them, with bits and opcodes that nobody gave a meaning.
FROM_CLIENT = b"".join(
    [
        frame(TEXT, b'{"type": "response.create"}', masked=True),
        frame(TEXT, b"Hel", masked=True, final=False),
        frame(PING, b"1", masked=True),
        frame(0, b"lo", masked=True),
        frame(BINARY, bytes(200), masked=True),
        frame(TEXT, b"opaque", masked=True, reserved=0x20),
        frame(5, b"?", masked=True),
    ]
)
FROM_UPSTREAM = b"".join([frame(PONG, b"1"), frame(TEXT, b'{"type": "pong"}'), frame(BINARY, bytes(70_000))])


def exchanging(received: asyncio.Queue[bytes], *, end: bytes = b"") -> Callable[[Connection], Any]:
    """Reads what the client sends, answers, and closes."""

    async def then(connection: Connection) -> None:
        received.put_nowait(await connection.reader.readexactly(len(FROM_CLIENT)))
        await connection.send(FROM_UPSTREAM + end)
        received.put_nowait(await until_closed(connection))

    return then


async def test_every_byte_passes_both_ways_and_the_row_has_the_frames(kibitz: Running, upstream: Upstream) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()
    upstream.script = speaking(exchanging(received, end=closing(4001, "bye")), upstream)
    async with connect(kibitz.port) as client:
        await open_websocket(client, NAME)
        await client.send(FROM_CLIENT)
        expected = FROM_UPSTREAM + closing(4001, "bye")
        assert await client.reader.readexactly(len(expected)) == expected
        row = await kibitz.row("socket")
        await client.send(closing(4001, masked=True))
        client.writer.write_eof()
        assert await until_closed(client) == b""
    assert [await received.get(), await received.get()] == [FROM_CLIENT, closing(4001, masked=True)]
    assert without_times(row["request_body"]) == [
        {"direction": "client", "type": "text", "data": {"type": "response.create"}},
        {"direction": "client", "type": "ping", "size": 1},
        {"direction": "client", "type": "text", "data": "Hello"},
        {"direction": "client", "type": "binary", "size": 200},
        {"direction": "client", "type": "text", "size": 6},
    ]
    assert without_times(row["response_body"]) == [
        {"direction": "upstream", "type": "pong", "size": 1},
        {"direction": "upstream", "type": "text", "data": {"type": "pong"}},
        {"direction": "upstream", "type": "binary", "size": 70_000},
        {"direction": "upstream", "type": "close", "code": 4001, "reason": "bye"},
    ]
    assert (row["response_status"], row["is_stream"], row["request_model"]) == (101, True, "gpt-realtime")
    assert row["error"] == {
        "kind": "upstream_error_event",
        "message": "the upstream closed the WebSocket with code 4001",
    }
    assert 0 < row["time_to_first_token"] <= row["delay_ms"]


def without_times(body: Any) -> list[dict[str, Any]]:
    """A row's frames without their times, which have to rise."""
    times = [frame.pop("at") for frame in body["frames"]]
    assert times == sorted(times)
    assert set(body) == {"frames"}
    frames: list[dict[str, Any]] = body["frames"]
    return frames


async def test_what_comes_with_the_switch_is_not_lost(kibitz: Running, upstream: Upstream) -> None:
    early = event("session.created", session={"model": "gpt-realtime-2025"}) + closing()
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def then(connection: Connection) -> None:
        received.put_nowait(await until_closed(connection))

    upstream.script = speaking(then, upstream, answer=switching() + early)
    async with connect(kibitz.port) as client:
        too_soon = frame(TEXT, b"too soon", masked=True)
        await client.send(handshake(NAME) + too_soon)
        await client.read_head()
        assert await client.reader.readexactly(len(early)) == early
        client.writer.write_eof()
        await until_closed(client)
    assert await received.get() == too_soon
    row = await kibitz.row("socket")
    assert (row["model"], row["error"]) == ("gpt-realtime-2025", None)


Ending = Callable[[Connection, Connection], Any]


async def send_close(side: Connection, other: Connection) -> None:
    """A handshake of closing frames, then the end of the connection."""
    await side.send(closing(1001))
    assert await other.reader.readexactly(4) == closing(1001)
    await other.send(closing(1001))
    assert await side.reader.readexactly(4) == closing(1001)
    side.close()


async def send_close_and_leave(side: Connection, _: Connection) -> None:
    await side.send(closing())
    side.close()


async def leave(side: Connection, _: Connection) -> None:
    side.close()


async def crash(side: Connection, _: Connection) -> None:
    reset(side)


async def stop_in_a_close_frame(side: Connection, _: Connection) -> None:
    await side.send(closing()[:3])
    side.close()


@pytest.mark.parametrize(
    ("of_client", "end", "kind"),
    [
        (True, send_close, None),
        (True, send_close_and_leave, None),
        (True, leave, "client_cancelled"),
        (True, crash, "client_cancelled"),
        (True, stop_in_a_close_frame, "client_cancelled"),
        (False, send_close, None),
        (False, send_close_and_leave, None),
        (False, leave, "upstream_cut"),
        (False, crash, "upstream_cut"),
        (False, stop_in_a_close_frame, "upstream_cut"),
    ],
)
@pytest.mark.parametrize("on_disconnect", ["cancel", "drain"])
async def test_the_end_of_one_side_is_the_end_of_the_other_and_of_the_row(
    start_kibitz: StartKibitz,
    upstream: Upstream,
    eventually: Eventually,
    of_client: bool,
    end: Ending,
    kind: str | None,
    on_disconnect: str,
) -> None:
    kibitz = await start_kibitz(on_disconnect=on_disconnect)
    at_upstream: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def then(connection: Connection) -> None:
        at_upstream.set_result(connection)
        await seen

    upstream.script = speaking(then, upstream)
    async with connect(kibitz.port) as client:
        await open_websocket(client, NAME)
        sides = (client, await at_upstream) if of_client else (await at_upstream, client)
        await end(*sides)
        await until_closed(sides[1])
        row = await eventually(lambda: kibitz.row("socket"))
        seen.set_result(b"")
    assert (row["error"] and row["error"]["kind"], row["response_status"]) == (kind, 101)


async def test_two_silent_sides_are_parted_after_the_idle_timeout(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start_kibitz(upstream={"base_url": upstream.base_url, "idle_timeout": 0.05})
    upstream.script = speaking(forever, upstream)
    async with connect(kibitz.port) as client:
        await open_websocket(client, NAME)
        assert await until_closed(client) == b""
    assert (await kibitz.row("socket"))["error"]["kind"] == "upstream_timeout"


@pytest.mark.parametrize("of_client", [True, False], ids=["to-the-upstream", "to-the-client"])
async def test_a_side_that_does_not_read_makes_the_other_wait(
    kibitz: Running, upstream: Upstream, eventually: Eventually, of_client: bool
) -> None:
    """A sender can't get rid of more than the sockets on the way hold, until the receiver reads."""
    at_upstream: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def then(connection: Connection) -> None:
        at_upstream.set_result(connection)
        await done.wait()

    upstream.script = speaking(then, upstream)
    size = 64 * 2**20
    async with connect(kibitz.port) as client:
        await open_websocket(client, NAME)
        sender, receiver = (client, await at_upstream) if of_client else (await at_upstream, client)
        receiver.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sending = asyncio.create_task(sender.send(frame(BINARY, bytes(size))))
        await settle(sender)
        assert not sending.done()
        assert sender.writer.transport.get_write_buffer_size() > size // 2
        receiver.writer.transport.resume_reading()  # type: ignore[attr-defined]
        digest = hashlib.sha256()
        left = len(frame(BINARY, bytes(size)))
        while left:
            piece = await receiver.reader.read(min(left, 2**20))
            left -= len(piece)
            digest.update(piece)
        await sending
        assert digest.digest() == hashlib.sha256(frame(BINARY, bytes(size))).digest()
        done.set()


async def settle(sender: Connection) -> None:
    """Wait until no more of what it sends gets away."""
    before, waiting = -1, 0
    while before != waiting:
        await asyncio.sleep(0.1)
        before, waiting = waiting, sender.writer.transport.get_write_buffer_size()


TALK = frame(TEXT, b"last words")


@pytest.mark.parametrize(
    ("sent", "held"),
    [(TALK + closing() + b"behind it", closing() + b"behind it"), (TALK + closing()[:2], closing()[:2]), (TALK, b"")],
    ids=["close", "half-a-close", "cut"],
)
async def test_the_close_waits_for_the_row_and_only_the_close_does(
    start_kibitz: StartKibitz, upstream: Upstream, tmp_path: Path, sent: bytes, held: bytes
) -> None:
    async def then(connection: Connection) -> None:
        await connection.send(sent)

    upstream.script = speaking(then, upstream)
    kibitz = await start_kibitz(commit_wait=60)
    async with connect(kibitz.port) as client:
        with store_stalled(tmp_path / "kibitz.db"):
            await open_websocket(client, NAME)
            assert await client.reader.readexactly(len(TALK)) == TALK
            end = asyncio.create_task(until_closed(client))
            done, _ = await asyncio.wait([end], timeout=0.1)
            assert not done
        assert await end == held
        await kibitz.row("socket")


@pytest.mark.parametrize("grace", ["0.2", "20"], ids=["cut", "finished"])
async def test_a_kibitz_process_that_is_stopped_lets_websockets_end_and_logs_them(
    launch: Launcher, upstream: Upstream, tmp_path: Path, start_kibitz: StartKibitz, grace: str
) -> None:
    """It runs on uvloop, which has connections of its own."""
    echoed = frame(TEXT, b"still there?", masked=True)

    async def then(connection: Connection) -> None:
        await connection.send(await connection.reader.readexactly(len(echoed)))
        await until_closed(connection)

    upstream.script = speaking(then, upstream)
    flags = ("--upstream", upstream.base_url, "--database", str(tmp_path / "kibitz.db"))
    process = await asyncio.to_thread(launch, *flags, KIBITZ_SHUTDOWN_GRACE=grace)
    async with connect(process.port) as client:
        await open_websocket(client, NAME)
        stopping = asyncio.create_task(asyncio.to_thread(process.stop))
        if grace == "20":
            await until_refused(process.port)
            await client.send(echoed)
            assert await client.reader.readexactly(len(echoed)) == echoed
            await client.send(closing(masked=True))
            client.close()
        else:
            assert await until_closed(client) == b""
        assert await stopping == 0
    row = await (await start_kibitz()).row("socket")
    assert (row["error"] and row["error"]["kind"]) == (None if grace == "20" else "server_shutdown")


async def until_refused(port: int) -> None:
    """Wait until nobody listens any more."""
    while True:
        try:
            async with connect(port):
                await asyncio.sleep(0.01)
        except ConnectionRefusedError:
            return
