"""What goes wrong on the wire in odd places, and must cost nobody else a row or a wait."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import Launcher, Running, StartKibitz
from tests.raw_client import connect
from tests.upstream import Connection, Upstream, chat_events, json_answer, sse_answer

CHUNKED = b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("value", [r"a\u0000b", r"\u0000", "\\", r"\\u0000", '"}', "[1]"])
async def test_what_looks_like_an_escape_is_stored_as_it_is_and_stops_nothing(kibitz: Running, value: str) -> None:
    await kibitz.chat(
        Helicone_Request_Id="odd", Helicone_Property_X=value, x_portkey_metadata=orjson.dumps({"m": value}).decode()
    )
    assert (await kibitz.row("odd"))["properties"] == {"X": value, "m": value}
    await kibitz.chat(Helicone_Request_Id="next")
    assert (await kibitz.row("next"))["response_text"] == "Hello there."


async def test_a_chunk_that_the_upstream_frames_wrongly_is_a_cut(kibitz: Running, upstream: Upstream) -> None:
    sent = asyncio.Event()

    async def go_wrong(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await sent.wait()
        await connection.send(b"ZZ\r\n")
        await connection.closed_by_peer()

    upstream.script = go_wrong
    async with connect(kibitz.port) as client:
        await client.send(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nHelicone-Request-Id: wrong\r\n\r\n")
        await client.read_head()
        assert await client.read_chunk() == b"abc"
        sent.set()
        assert await client.closed_by_peer()
    row = await kibitz.row("wrong")
    assert (row["error"]["kind"], row["response_body"]) == ("upstream_cut", "abc")


@pytest.mark.parametrize("target", ["/v1/feedback", "/v1/request/x/feedback", "/v1/chat/completions"])
async def test_a_chunk_that_the_client_frames_wrongly_is_400_at_once(kibitz: Running, target: str) -> None:
    async with connect(kibitz.port) as client:
        head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nHelicone-Request-Id: wrong\r\n".encode()
        await client.send(head + CHUNKED + b'\r\n5\r\n{"tra\r\n')
        await asyncio.sleep(0.05)  # the handler waits for the rest by then
        await client.send(b"ZZ\r\n")
        status_line, _ = await client.read_head()
    assert status_line.split(b" ")[1] == b"400"
    if target.endswith("completions"):
        assert (await kibitz.row("wrong"))["error"]["kind"] == "client_broke_off"


@pytest.mark.parametrize("line", [b"Helicone-Property-My Prop: s3cr3t", b"X-A: s3cr3t\x01"])
async def test_a_request_that_is_no_http_is_refused_in_our_shape_and_not_quoted(kibitz: Running, line: bytes) -> None:
    async with connect(kibitz.port) as client:
        await client.send(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + line + b"\r\n\r\n")
        status_line, fields = await client.read_head()
        body = await client.reader.read()
    assert status_line.split(b" ")[1] == b"400"
    assert len([value for name, value in fields if name.lower() == b"x-portkey-trace-id"]) == 1
    assert orjson.loads(body)["error"]["code"] == "invalid_http"
    assert b"s3cr3t" not in body


async def test_fetching_a_response_again_does_not_take_its_rating_over(kibitz: Running, upstream: Upstream) -> None:
    await kibitz.chat(Helicone_Request_Id="made")
    fields = {"Helicone-Request-Id": "fetched"}
    async with kibitz.client.get(f"{kibitz.base_url}/chat/completions/chatcmpl-1", headers=fields) as response:
        await response.read()
    async with kibitz.client.post(f"{kibitz.base_url}/request/chatcmpl-1/feedback", json={"rating": True}) as response:
        assert response.status == 200
    assert (await kibitz.row("made"))["feedback"]["rating"] is True
    assert (await kibitz.row("fetched"))["feedback"]["rating"] is None
    assert (await kibitz.row("chatcmpl-1"))["request_id"] == "made"


async def test_an_upstream_s_key_stands_in_for_a_bearer_of_nothing(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start_kibitz(upstream={"base_url": upstream.base_url, "api_key": "sk-own"})
    await kibitz.chat(Authorization="Bearer ")
    assert upstream.received[-1].values("Authorization") == [b"Bearer sk-own"]


async def test_more_feedback_than_one_transaction_should_hold_is_refused(kibitz: Running) -> None:
    items = [{"trace_id": "t", "value": 1}] * 1001
    async with kibitz.client.post(f"{kibitz.base_url}/feedback", json=items) as response:
        assert response.status == 400
    async with kibitz.client.post(f"{kibitz.base_url}/feedback", json=items[1:]) as response:
        assert response.status == 200


async def test_a_large_stream_is_there_for_who_stops_at_its_last_event(kibitz: Running, upstream: Upstream) -> None:
    """It is understood in a thread, and whoever asks meanwhile waits for it."""
    upstream.answer = sse_answer(*chat_events(*["word "] * 5000))
    body: dict[str, Any] = {"model": "m", "stream": True}
    fields = {"Helicone-Request-Id": "large"}
    async with kibitz.client.post(f"{kibitz.base_url}/chat/completions", json=body, headers=fields) as response:
        async for line in response.content:
            if line.startswith(b"data: [DONE]"):
                break
        assert (await kibitz.row("large"))["response_text"] == "word " * 5000


async def drained_call(process_port: int, upstream: Upstream, arrived: asyncio.Event) -> None:
    async with connect(process_port) as client:
        await client.send(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nHelicone-Request-Id: drained\r\n\r\n")
        await arrived.wait()


async def test_a_call_whose_client_has_left_is_logged_when_the_server_is_stopped(
    launch: Launcher, upstream: Upstream, tmp_path: Path
) -> None:
    arrived = asyncio.Event()

    async def never_answer(connection: Connection) -> None:
        await connection.read_request()
        arrived.set()
        await connection.closed_by_peer()

    upstream.script = never_answer
    database = tmp_path / "kibitz.db"
    process = await asyncio.to_thread(
        lambda: launch(
            "--upstream",
            upstream.base_url,
            "--database",
            str(database),
            KIBITZ_ON_DISCONNECT="drain",
            KIBITZ_SHUTDOWN_GRACE="0.3",
        )
    )
    await drained_call(process.port, upstream, arrived)
    assert await asyncio.to_thread(process.stop) == 0
    with closing(sqlite3.connect(database)) as reader:
        [(request_id, kind)] = reader.execute("SELECT request_id, error_kind FROM calls")
    assert (request_id, kind) == ("drained", "server_shutdown")


async def test_an_early_refusal_in_json_still_arrives(kibitz: Running, upstream: Upstream) -> None:
    async def refuse(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(json_answer(b'{"error": {}}', status="413 Content Too Large"))
        await connection.reader.read()

    upstream.script = refuse
    async with kibitz.client.post(f"{kibitz.base_url}/files", data=b"x" * 300_000) as response:
        assert response.status == 413


async def test_the_response_id_of_a_stream_under_way_takes_a_rating(kibitz: Running, upstream: Upstream) -> None:
    """A front end often holds no other id, and the stream has told it with its first event."""
    events, go_on = chat_events("Hello"), asyncio.Event()

    async def pause(connection: Connection) -> None:
        await connection.read_request()
        whole = sse_answer(*events)
        first = whole.index(events[1]) - 8
        await connection.send(whole[:first])
        await go_on.wait()
        await connection.send(whole[first:])

    upstream.script = pause
    fields = {"Helicone-Request-Id": "live"}
    rate = f"{kibitz.base_url}/request/chatcmpl-2/feedback"
    async with kibitz.client.post(f"{kibitz.base_url}/chat/completions", json={}, headers=fields) as response:
        assert await response.content.readany()
        async with kibitz.client.post(rate, json={"rating": False}) as rated:
            assert rated.status == 200
        go_on.set()
        await response.read()
    assert (await kibitz.row("live"))["feedback"]["rating"] is False
    async with kibitz.client.post(f"{kibitz.base_url}/request/elsewhere/feedback", json={"rating": True}) as unknown:
        assert unknown.status == 404
