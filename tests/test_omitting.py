"""Contract section 4: bodies that a call's fields keep out of the store, from the first byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Running
from tests.raw_client import Eventually, ask, connect, request, stored_bytes
from tests.upstream import CHAT_BODY, Connection, Upstream, chat_answer, chat_events, sse_answer

# Short, because what is short is stored unpacked: a marker that is stored can be seen.
ASKED, ANSWERED = b"QuietQuestion", b"QuietAnswer"
BODY = b'{"model": "gpt-4o-mini", "messages": "%b"}' % ASKED
ANSWER = b'{"id": "c-1", "choices": [{"message": {"content": "%b"}}], "usage": {"completion_tokens": 3}}' % ANSWERED
NAME = b"Helicone-Request-Id: quiet"
NEITHER = (b"Helicone-Omit-Request: true", b"Helicone-Omit-Response: true")


def chat(*lines: bytes, body: bytes = BODY) -> bytes:
    return request("POST", "/v1/chat/completions", NAME, *lines, body=body)


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ((), [ASKED, ANSWERED]),
        ((b"Helicone-Omit-Request: false", b"x-portkey-debug: true"), [ASKED, ANSWERED]),
        ((b"Helicone-Omit-Request: true",), [ANSWERED]),
        ((b"helicone-omit-response: true",), [ASKED]),
        (NEITHER, []),
        ((b"x-portkey-debug: false",), []),
        ((b"x-portkey-debug: False",), []),
    ],
    ids=["plain", "declined", "request", "response", "both", "debug", "debug-python"],
)
async def test_an_omitted_body_is_not_in_the_database_file(
    kibitz: Running, upstream: Upstream, tmp_path: Path, lines: tuple[bytes, ...], kept: list[bytes]
) -> None:
    upstream.answer = chat_answer(ANSWER)
    answer = await ask(kibitz.port, chat(*lines))
    assert (answer.body, upstream.received[0].body) == (ANSWER, BODY)
    assert [marker for marker in (ASKED, ANSWERED) if marker in stored_bytes(tmp_path)] == kept
    row = await kibitz.row("quiet")
    assert [row["request_body"] is not None, row["response_body"] is not None] == [ASKED in kept, ANSWERED in kept]


async def test_without_its_bodies_a_call_keeps_its_figures(kibitz: Running) -> None:
    await ask(kibitz.port, chat(*NEITHER, b"Helicone-User-Id: u"))
    row = await kibitz.row("quiet")
    assert (row["model"], row["finish_reason"], row["response_status"]) == ("gpt-4o-mini-2024-07-18", "stop", 200)
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (9, 3, 12)
    assert (row["request_body_size"], row["response_body_size"]) == (len(BODY), len(CHAT_BODY))
    assert (row["request_user_id"], row["provider_response_id"]) == ("u", "chatcmpl-1")
    assert (row["request_body"], row["response_body"], row["response_text"]) == (None, None, None)
    assert row["delay_ms"] > 0


async def test_an_omitted_stream_keeps_its_figures_and_none_of_its_text(
    kibitz: Running, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answer = sse_answer(*chat_events(ANSWERED.decode()))
    await ask(kibitz.port, chat(*NEITHER))
    row = await kibitz.row("quiet")
    assert (row["is_stream"], row["completion_tokens"], row["response_text"]) == (True, 1, None)
    assert row["time_to_first_token"] is not None
    assert ANSWERED not in stored_bytes(tmp_path)


async def test_an_omitted_stream_s_error_event_is_not_quoted(
    kibitz: Running, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answer = sse_answer(b'data: {"error": {"message": "about %b", "type": "x"}}\n\n' % ANSWERED)
    await ask(kibitz.port, chat(*NEITHER))
    assert (await kibitz.row("quiet"))["error"]["kind"] == "upstream_error_event"
    assert ANSWERED not in stored_bytes(tmp_path)


async def test_a_call_that_the_upstream_broke_off_leaves_no_omitted_body(
    kibitz: Running, upstream: Upstream, tmp_path: Path
) -> None:
    async def break_off(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + ANSWERED)

    upstream.script = break_off
    async with connect(kibitz.port) as connection:
        await connection.send(chat(*NEITHER))
        assert ANSWERED in await connection.reader.read()
    row = await kibitz.row("quiet")
    assert (row["error"]["kind"], row["response_body_size"]) == ("upstream_cut", len(ANSWERED))
    assert not [marker for marker in (ASKED, ANSWERED) if marker in stored_bytes(tmp_path)]


async def test_a_call_that_the_client_broke_off_leaves_no_omitted_body(
    kibitz: Running, upstream: Upstream, tmp_path: Path, eventually: Eventually
) -> None:
    async def answer_slowly(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + ANSWERED)
        await connection.closed_by_peer()

    upstream.script = answer_slowly
    async with connect(kibitz.port) as connection:
        await connection.send(chat(*NEITHER))
        await connection.reader.readuntil(ANSWERED)
    row = await eventually(lambda: kibitz.row("quiet"))
    assert row["error"]["kind"] == "client_cancelled"
    assert not [marker for marker in (ASKED, ANSWERED) if marker in stored_bytes(tmp_path)]
