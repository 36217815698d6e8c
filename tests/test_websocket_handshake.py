"""Contract section 3: how a WebSocket is opened through Kibitz, and how it is not."""

from __future__ import annotations

import hashlib

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import ask, connect, one_value, request
from tests.upstream import Upstream, json_answer
from tests.websocket_bytes import forever, handshake, open_websocket, speaking, switching

NAME = b"Helicone-Request-Id: socket"
UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket")


async def test_the_handshake_travels_and_what_is_for_kibitz_does_not(kibitz: Running, upstream: Upstream) -> None:
    protocols = b"realtime, openai-insecure-api-key.sk-1, openai-beta.realtime-v1"
    extensions = b"permessage-deflate; client_max_window_bits"
    upstream.script = speaking(
        forever, upstream, answer=switching(b"Sec-WebSocket-Protocol: realtime", b"X-Request-Id: 7", b"Helicone-Id: no")
    )
    async with connect(kibitz.port) as client:
        answer = await open_websocket(
            client,
            NAME,
            b"Authorization: Bearer sk-1",
            b"OpenAI-Beta: realtime=v1",
            b"Sec-WebSocket-Protocol: " + protocols,
            b"sec-websocket-extensions: " + extensions,
            b"x-portkey-trace-id: trace",
        )
    [received] = upstream.received
    assert (received.method, received.target) == (b"GET", b"/v1/realtime?model=gpt-realtime")
    assert received.fields == [
        (b"Host", upstream.origin.removeprefix("http://").encode()),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Authorization", b"Bearer sk-1"),
        (b"OpenAI-Beta", b"realtime=v1"),
        (b"Sec-WebSocket-Protocol", protocols),
        (b"sec-websocket-extensions", extensions),
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
    ]
    assert answer.request_line == b"HTTP/1.1 101 Switching Protocols"
    assert sorted(answer.fields) == [
        (b"Connection", b"Upgrade"),
        (b"Helicone-Id", b"socket"),
        (b"Helicone-Request-Id", b"socket"),
        (b"Helicone-Status", b"success"),
        (b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        (b"Sec-WebSocket-Protocol", b"realtime"),
        (b"Upgrade", b"websocket"),
        (b"X-Request-Id", b"7"),
        (b"x-portkey-trace-id", b"trace"),
    ]


async def test_a_key_of_kibitz_is_replaced_and_one_is_needed(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    digest = hashlib.sha256(b"kbz_1").hexdigest()
    kibitz = await start_kibitz(
        upstream={"base_url": upstream.base_url, "api_key": "sk-real"},
        keys=[{"name": "k", "organisation": "acme", "sha256": digest, "scopes": ["proxy"]}],
    )
    upstream.script = speaking(forever, upstream)
    assert b"401" in (await ask(kibitz.port, handshake())).request_line
    async with connect(kibitz.port) as client:
        await open_websocket(client, b"Authorization: Bearer kbz_1")
    [received] = upstream.received
    assert received.values("Authorization") == [b"Bearer sk-real"]


async def test_a_refusal_to_switch_is_an_answer_like_any_other(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = json_answer(b'{"error": {"message": "no"}}', status="401 Unauthorized", fields=b"x-odd: 1\r\n")
    async with connect(kibitz.port) as client:
        for _ in range(2):  # on one connection, which stays what it was
            await client.send(handshake(NAME))
            answer = await client.read_request()
            assert (answer.request_line, answer.body) == (b"HTTP/1.1 401 Unauthorized", b'{"error": {"message": "no"}}')
            assert one_value(answer, "x-odd") == b"1"
            assert one_value(answer, "Helicone-Id") == b"socket"
    row = await kibitz.row("socket")
    assert (row["attempt"], row["response_status"], row["error"]) == (2, 401, None)
    assert row["response_body"] == {"error": {"message": "no"}}


async def test_an_upstream_that_is_not_there_is_a_502(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(upstream={"base_url": "http://127.0.0.1:1/v1"})
    answer = await ask(kibitz.port, handshake(NAME))
    assert b"502" in answer.request_line
    row = await kibitz.row("socket")
    assert (row["error"]["kind"], row["response_status"]) == ("upstream_unreachable", 502)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 101 Switching Protocols\r\n\r\n", switching()], ids=["to-nothing", "unasked"]
)
async def test_a_switch_that_makes_no_websocket_is_a_502(kibitz: Running, upstream: Upstream, answer: bytes) -> None:
    upstream.answer = answer
    asked = handshake(NAME) if b"Upgrade" not in answer else request("GET", "/v1/models", NAME)
    assert b"502" in (await ask(kibitz.port, asked)).request_line
    assert (await kibitz.row("socket"))["error"]["kind"] == "upstream_unreachable"


@pytest.mark.parametrize(
    "asked",
    [
        request("GET", "/v1/realtime", *UPGRADE, version="1.0"),
        request("POST", "/v1/realtime", *UPGRADE),
        request("GET", "/v1/realtime", UPGRADE[1]),
        request("GET", "/v1/realtime", UPGRADE[0], b"Upgrade: h2c"),
        request("GET", "/v1/realtime", *UPGRADE, body=b"1"),
    ],
    ids=["http-1.0", "post", "unconnected", "h2c", "body"],
)
async def test_what_opens_no_websocket_is_a_call_like_any_other(
    kibitz: Running, upstream: Upstream, asked: bytes
) -> None:
    assert b"200" in (await ask(kibitz.port, asked)).request_line
    [received] = upstream.received
    assert {b"connection", b"upgrade"}.isdisjoint(received.names)
