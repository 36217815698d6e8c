"""Contract section 7: what the log keeps of a WebSocket's frames, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import Eventually, connect, stored_bytes
from tests.upstream import Connection, Upstream
from tests.websocket_bytes import TEXT, closing, event, frame, open_websocket, speaking, until_closed

NAME = b"Helicone-Request-Id: socket"


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ((), [b"QuietQuestion", b"QuietAnswer"]),
        ((b"Helicone-Omit-Request: true",), [b"QuietAnswer"]),
        ((b"Helicone-Omit-Response: true",), [b"QuietQuestion"]),
        ((b"x-portkey-debug: false",), []),
    ],
    ids=["plain", "request", "response", "debug"],
)
async def test_omitted_frames_are_not_in_the_database_file(
    kibitz: Running,
    upstream: Upstream,
    tmp_path: Path,
    eventually: Eventually,
    lines: tuple[bytes, ...],
    kept: list[bytes],
) -> None:
    asked, answered = frame(TEXT, b"QuietQuestion", masked=True), frame(TEXT, b"QuietAnswer")

    async def then(connection: Connection) -> None:
        await connection.reader.readexactly(len(asked))
        await connection.send(answered)  # and no more: what is short is stored unpacked
        await until_closed(connection)

    upstream.script = speaking(then, upstream)
    async with connect(kibitz.port) as client:
        await open_websocket(client, NAME, *lines)
        await client.send(asked)
        assert await client.reader.readexactly(len(answered)) == answered
    row = await eventually(lambda: kibitz.row("socket"))
    stored = stored_bytes(tmp_path)
    assert [marker for marker in (b"QuietQuestion", b"QuietAnswer") if marker in stored] == kept
    assert [row["request_body"] is None, row["response_body"] is None] == [
        b"QuietQuestion" not in kept,
        b"QuietAnswer" not in kept,
    ]


async def test_without_its_frames_a_websocket_keeps_its_figures(kibitz: Running, upstream: Upstream) -> None:
    done = {"id": "resp_1", "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 4}}

    async def then(connection: Connection) -> None:
        await connection.send(event("response.done", response=done) + closing(1011, "secret"))
        await until_closed(connection)

    upstream.script = speaking(then, upstream)
    async with connect(kibitz.port) as client:
        await open_websocket(client, NAME, b"x-portkey-debug: false")
        await until_closed_after(client, closing(1011, "secret"))
    row = await kibitz.row("socket")
    assert (row["prompt_tokens"], row["total_tokens"], row["provider_response_id"]) == (3, 7, "resp_1")
    assert row["error"] == {"kind": "upstream_error_event", "message": "the answer tells of an error"}


async def until_closed_after(client: Connection, last: bytes) -> None:
    """Read up to the last bytes, and leave."""
    received = b""
    while not received.endswith(last):
        piece = await client.reader.read(2**16)
        assert piece
        received += piece
    client.close()


async def test_the_log_is_bounded_and_keeps_what_the_figures_come_from(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start_kibitz(max_logged_body=4000)
    done = {"id": "resp_1", "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 4}}
    talk = b"".join(event("response.text.delta", delta="x" * 50) for _ in range(200))

    async def then(connection: Connection) -> None:
        await connection.send(talk + frame(TEXT, b"x" * 5000) + event("response.done", response=done) + closing())
        await until_closed(connection)

    upstream.script = speaking(then, upstream)
    async with connect(kibitz.port) as client:
        await open_websocket(client, NAME)
        await until_closed_after(client, closing())
    row = await kibitz.row("socket")
    assert (row["response_body_truncated"], row["request_body_truncated"]) == (True, False)
    assert row["response_body_size"] > len(talk)
    *_, last_but_one, last = row["response_body"]["frames"]
    assert (last_but_one["data"]["type"], last["code"]) == ("response.done", 1000)
    assert (row["total_tokens"], row["finish_reason"]) == (7, "completed")


async def test_audio_is_counted_and_not_kept(kibitz: Running, upstream: Upstream, tmp_path: Path) -> None:
    audio = "QUJD" * 100
    part = {"type": "input_audio", "audio": audio}
    told = [
        event("response.audio.delta", delta=audio),
        event("response.output_audio.delta", delta=audio + "QUI="),
        event("conversation.item.created", item={"type": "message", "content": [part]}),
        event("response.audio_transcript.delta", delta="Hello"),
    ]

    async def then(connection: Connection) -> None:
        await connection.send(b"".join(told) + closing())
        await until_closed(connection)

    upstream.script = speaking(then, upstream)
    async with connect(kibitz.port) as client:
        await open_websocket(client, NAME)
        await until_closed_after(client, closing())
    assert audio.encode() not in stored_bytes(tmp_path)
    row = await kibitz.row("socket")
    old, new, created, transcript, _ = [each.get("data") for each in row["response_body"]["frames"]]
    assert (old["delta"], new["delta"], transcript["delta"]) == ({"size": 300}, {"size": 302}, "Hello")
    assert created["item"]["content"] == [{"type": "input_audio", "audio": {"size": 300}}]
    assert (row["response_text"], row["finish_reason"]) == ("Hello", None)
