"""A log with rows of every kind, as a running Kibitz writes them: reparsed it is as it was, and damaged it heals."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import brotli
import pytest
from yarl import URL

from tests.conftest import Running, StartKibitz
from tests.logs import chunks, custom, portkey, send
from tests.raw_client import Eventually, connect
from tests.test_reparse import opened, reparse
from tests.upstream import Connection, Upstream
from tests.websocket_bytes import TEXT, closing, event, frame, open_websocket, speaking, until_closed
from tests.wire.recordings import beside_the_repository, recordings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODERS: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("", bytes),
    ("gzip", gzip.compress),
    ("br", lambda data: brotli.compress(data, quality=3)),
    ("zstd", zstd.compress),
)
# What is asked of Kibitz of a call's bodies.
WISHES: tuple[dict[str, str], ...] = (
    {},
    {"Helicone-Omit-Request": "true"},
    {"Helicone-Omit-Response": "true"},
    {"x-portkey-debug": "false"},
    {"Helicone-User-Id": "ada", "Helicone-Model-Override": "gpt-4o"},
)
RESPONSE_COLUMNS = (
    *("response_model", "provider_response_id", "finish_reason", "cost"),
    *("prompt_tokens", "completion_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("prompt_audio_tokens", "completion_audio_tokens", "reasoning_tokens"),
)
# Where the bodies that they come from are there to be read again, all that was read from them.
DAMAGE = f"""
UPDATE calls SET request_model = 'nonsense' WHERE id IN (SELECT call_id FROM bodies WHERE NOT request_omitted);
UPDATE calls SET user_id = NULL WHERE user_id <> 'ada' AND id IN (SELECT call_id FROM bodies WHERE NOT request_omitted);
UPDATE calls SET {", ".join(f"{name} = NULL" for name in RESPONSE_COLUMNS)}
WHERE id IN (SELECT call_id FROM bodies WHERE NOT response_omitted);
UPDATE calls SET error_kind = NULL, error_message = NULL
WHERE error_kind LIKE 'upstream_error_%' AND id IN (SELECT call_id FROM bodies WHERE NOT response_omitted);
UPDATE calls SET is_stream = 0 WHERE session_id IS NOT 'told'
AND id IN (SELECT call_id FROM bodies WHERE NOT response_omitted AND NOT request_omitted);
"""


# Conditions that some row or other has to meet.
KINDS = (
    "request_omitted AND NOT response_omitted",
    "response_omitted AND NOT request_omitted",
    "request_omitted AND response_omitted",
    "request_truncated",
    "response_truncated",
    "request_packing LIKE '%pieces'",
    "request_content_type LIKE '%form%' AND request_model = 'whisper-1' AND user_id = 'lin'",
    "response_content_type LIKE '%frames%'",
    "response_content_encoding = 'gzip'",
    "response_content_encoding = 'br'",
    "response_content_encoding = 'zstd'",
    "session_id = 'told' AND is_stream",
    "is_stream AND cost > 0",
    "cache_read_tokens > 0",
    "reasoning_tokens > 0",
    "user_id = 'ada'",
    "status >= 400",
    "error_kind IS NULL",
    "error_kind = 'upstream_cut'",
    "error_kind = 'client_cancelled'",
    "error_kind = 'upstream_error_body'",
    "error_kind = 'upstream_error_event'",
    "error_kind = 'upstream_error_event' AND response_omitted",
)


def whole_answer(item: dict[str, Any], number: int) -> bytes:
    """A recording's answer as bytes on the wire, packed in turns in each of the encodings."""
    encoding, encode = ENCODERS[number % len(ENCODERS)]
    body = encode(item["body"])
    fields = f"Content-Type: {item['content_type']}\r\n" + (f"Content-Encoding: {encoding}\r\n" if encoding else "")
    return f"HTTP/1.1 {item['status']} Recorded\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def serve_recordings(connection: Connection) -> None:
    """Answers with the recording that the request names; breaks off in the middle where that is asked."""
    while True:
        received = await connection.read_request()
        number = int(received.values("X-Recording")[0])
        answer = whole_answer(recordings()[number], number)
        if received.values("X-Cut"):
            head = answer.index(b"\r\n\r\n") + 4
            await connection.send(answer[: head + (len(answer) - head) * 2 // 3])
            return
        await connection.send(answer)


async def replay(kibitz: Running, number: int, **fields: str) -> None:
    """Make a recorded call."""
    item = recordings()[number]
    headers = {"Content-Type": "application/json", "X-Recording": str(number), **fields}
    url = URL(f"{kibitz.url}/recorded{item['path']}", encoded=True)
    with contextlib.suppress(aiohttp.ClientError):  # of an answer that breaks off
        async with kibitz.client.request(
            item["method"], url, data=io.BytesIO(item["request"]), headers=headers
        ) as response:
            await response.read()


async def replay_all(kibitz: Running, short: Running) -> int:
    """Each recording as it is, broken off, beyond a small log's bound, and with a wish; gives how many calls."""
    for number in range(len(recordings())):
        wish = WISHES[number % len(WISHES)]
        await asyncio.gather(
            replay(kibitz, number),
            replay(kibitz, number, **{"X-Cut": "yes"}),
            replay(short, number),
            replay(kibitz, number, **wish),
        )
    return 4 * len(recordings())


async def upload(kibitz: Running) -> int:
    """Forms with a file, kept and omitted; gives how many."""
    for wish in WISHES:
        form = aiohttp.FormData({"model": "whisper-1", "user": "lin"})
        form.add_field("file", b"RIFF" * 100, filename="speech.wav", content_type="audio/wav")
        url = f"{kibitz.url}/recorded/v1/audio/transcriptions"
        async with kibitz.client.post(url, data=form, headers={"X-Recording": "0", **wish}) as response:
            await response.read()
    return len(WISHES)


async def tell(kibitz: Running) -> int:
    """Tell of calls that went another way, of a stream whose bodies don't show it too; gives how many."""
    streamed = {"body": chunks("Hel", "lo"), "streamingMode": True}
    answer = {"body": {"choices": [{"message": {"content": "Hello"}}]}, "streamingMode": True}
    logs = [portkey(), portkey(response=streamed), portkey(response=answer), portkey(response={"status": -3})]
    logs += [portkey(response={"body": {"error": {"message": "odd"}}}), portkey(request={"url": None})]
    timing = {**custom()["timing"], "timeToFirstToken": 300}
    told = [custom(), custom(timing=timing), custom(response={"textBody": "Hello\nthere.", "json": {}})]
    for path, log in [*(("/v1/logs", log) for log in logs), *(("/custom/v1/log", log) for log in told)]:
        for wish in ({}, {"Helicone_Omit_Request": "true"}, {"Helicone_Omit_Response": "true"}):
            reply, _ = await send(kibitz, path, log, Helicone_Session_Id="told", **wish)
            assert reply.status == 200, reply
    return 3 * (len(logs) + len(told))


async def talk(kibitz: Running, upstream: Upstream) -> int:
    """WebSockets that end well, badly and not at all; gives how many."""
    done = {"id": "resp_1", "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 4}}
    said = event("session.created", session={"model": "gpt-realtime-2025"}) + event("response.done", response=done)
    failed = event("error", error={"message": "odd"}) + frame(TEXT, b"x" * 500)
    endings = [said + closing(), said + closing(1011, "odd"), failed + closing(), said, b""]
    for ending in endings:
        for lines in ((), (b"x-portkey-debug: false",)):

            async def then(connection: Connection, ending: bytes = ending) -> None:
                await connection.send(ending)

            upstream.script = speaking(then, upstream)
            async with connect(kibitz.port) as client:
                await open_websocket(client, *lines)
                await until_closed(client)
    return 2 * len(endings)


Rows = list[dict[str, Any]]


def rows(database: Path) -> Rows:
    with opened(database) as db:
        cursor = db.execute("SELECT * FROM calls ORDER BY id")
        names = [name for name, *_ in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def different(before: Rows, after: Rows) -> Rows:
    return [new for old, new in zip(before, after, strict=True) if old != new]


async def everything(start_kibitz: StartKibitz, upstream: Upstream, database: Path, eventually: Eventually) -> Rows:
    """The rows of all of that; the Kibitz that wrote them still runs."""
    upstreams = {"recorded": {"base_url": upstream.origin}}
    kibitz = await start_kibitz(upstreams=upstreams)
    short = await start_kibitz(upstreams=upstreams, max_logged_body=300)
    count = await talk(kibitz, upstream) + await talk(short, upstream)
    upstream.script = serve_recordings
    count += await replay_all(kibitz, short) + await upload(kibitz) + await upload(short)
    count += await tell(kibitz) + await tell(short)

    async def logged() -> Rows:
        found = rows(database)
        assert len(found) == count
        return found

    found: Rows = await eventually(logged)
    return found


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


@beside_the_repository
async def test_reparsing_by_the_same_parser_changes_nothing_and_heals_what_was_damaged(
    start_kibitz: StartKibitz, upstream: Upstream, database: Path, eventually: Eventually
) -> None:
    before = await everything(start_kibitz, upstream, database, eventually)
    assert_of_every_kind(database)
    ended = await reparse(database.parent)
    assert different(before, rows(database)) == []
    assert (ended.returncode, ended.stdout) == (0, f"read {len(before)} rows, changed 0\n")

    with opened(database) as db:
        db.executescript(DAMAGE)
    damaged = len(different(before, rows(database)))
    assert damaged > len(before) / 2
    ended = await reparse(database.parent)
    assert different(before, rows(database)) == []
    assert (ended.returncode, ended.stdout) == (0, f"read {len(before)} rows, changed {damaged}\n")


def assert_of_every_kind(database: Path) -> None:
    """That the log holds what the test is about."""
    with opened(database) as db:
        found = {each: db.execute(f"SELECT 1 FROM calls JOIN bodies ON call_id = id WHERE {each}") for each in KINDS}
        assert [each for each, cursor in found.items() if not cursor.fetchone()] == []
