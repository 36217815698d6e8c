"""Contract section 3: what a client gets where Kibitz itself has to fail, and which row tells of it."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import ask, connect, one_value, request
from tests.upstream import Connection, Received, Upstream

NAMED = (b"Helicone-Request-Id: failing-1", b"x-portkey-trace-id: trace-1")
BODY = b'{"model": "gpt-4o-mini", "messages": []}'
CALL = request("POST", "/v1/chat/completions", *NAMED, body=BODY)
HASH = hashlib.sha256(b"kbz_right").hexdigest()
KEYS = [{"name": "k", "organisation": "o", "sha256": HASH}]

Ask = Callable[[StartKibitz, Upstream], Awaitable[tuple[Running, Received]]]


async def unreachable(start_kibitz: StartKibitz, upstream: Upstream) -> tuple[Running, Received]:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and never listens
        kibitz = await start_kibitz(upstream={"base_url": f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"})
        return kibitz, await ask(kibitz.port, CALL)


async def timed_out(start_kibitz: StartKibitz, upstream: Upstream) -> tuple[Running, Received]:
    async def never_answer(connection: Connection) -> None:
        upstream.received.append(await connection.read_request())
        await connection.closed_by_peer()

    upstream.script = never_answer
    kibitz = await start_kibitz(upstream={"base_url": upstream.base_url, "first_byte_timeout": 0.05})
    return kibitz, await ask(kibitz.port, CALL)


async def not_allowed(start_kibitz: StartKibitz, upstream: Upstream) -> tuple[Running, Received]:
    kibitz = await start_kibitz()
    message = request("POST", "/v1/chat/completions", *NAMED, b"Helicone-Target-URL: http://10.0.0.1", body=BODY)
    return kibitz, await ask(kibitz.port, message)


async def unknown_route(start_kibitz: StartKibitz, upstream: Upstream) -> tuple[Running, Received]:
    kibitz = await start_kibitz()
    return kibitz, await ask(kibitz.port, request("POST", "/nowhere", *NAMED, body=BODY))


async def too_large(start_kibitz: StartKibitz, upstream: Upstream) -> tuple[Running, Received]:
    kibitz = await start_kibitz(limits={"max_request_body": len(BODY) - 1})
    return kibitz, await ask(kibitz.port, CALL)


async def unauthorized(start_kibitz: StartKibitz, upstream: Upstream) -> tuple[Running, Received]:
    kibitz = await start_kibitz(keys=KEYS)
    message = request("POST", "/v1/chat/completions", *NAMED, b"Authorization: Bearer kbz_wrong", body=BODY)
    return kibitz, await ask(kibitz.port, message)


REFUSALS = [
    pytest.param(not_allowed, 403, "target_not_allowed", id="403"),
    pytest.param(unknown_route, 404, "unknown_route", id="404"),
    pytest.param(too_large, 413, "request_too_large", id="413"),
    pytest.param(unauthorized, 401, "invalid_api_key", id="401"),
]
UPSTREAM_FAILURES = [
    pytest.param(unreachable, 502, "upstream_unreachable", id="502"),
    pytest.param(timed_out, 504, "upstream_timeout", id="504"),
]
FAILURES = pytest.mark.parametrize(("fail", "status", "code"), [*REFUSALS, *UPSTREAM_FAILURES])


@FAILURES
async def test_a_failure_has_its_status_and_the_openai_shape(
    start_kibitz: StartKibitz, upstream: Upstream, fail: Ask, status: int, code: str
) -> None:
    _, answer = await fail(start_kibitz, upstream)
    assert answer.request_line.startswith(b"HTTP/1.1 %d " % status)
    assert one_value(answer, "Content-Type") == b"application/json"
    error = orjson.loads(answer.body).pop("error")
    assert orjson.loads(answer.body).keys() == {"error"}
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, None)
    for name in ("message", "type"):
        assert isinstance(error[name], str)
        assert error[name]


@FAILURES
async def test_a_failure_carries_each_id_once(
    start_kibitz: StartKibitz, upstream: Upstream, fail: Ask, status: int, code: str
) -> None:
    _, answer = await fail(start_kibitz, upstream)
    assert one_value(answer, "Helicone-Id") == b"failing-1"
    assert one_value(answer, "Helicone-Request-Id") == b"failing-1"
    assert one_value(answer, "x-portkey-trace-id") == b"trace-1"
    assert one_value(answer, "Helicone-Status") == b"failed"


@pytest.mark.parametrize(("fail", "status", "kind"), UPSTREAM_FAILURES)
async def test_a_call_that_the_upstream_failed_makes_a_row(
    start_kibitz: StartKibitz, upstream: Upstream, fail: Ask, status: int, kind: str
) -> None:
    kibitz, _ = await fail(start_kibitz, upstream)
    row = await kibitz.row("failing-1")
    assert row["response_status"] == status
    assert row["error"]["kind"] == kind
    assert row["error"]["message"]
    assert row["request_body"] == {"model": "gpt-4o-mini", "messages": []}
    assert row["response_body"] is None
    assert row["completion_tokens"] is None


@pytest.mark.parametrize(("refuse", "status", "code"), REFUSALS)
async def test_a_call_that_was_refused_goes_nowhere_and_makes_no_row(
    start_kibitz: StartKibitz, upstream: Upstream, refuse: Ask, status: int, code: str
) -> None:
    kibitz, _ = await refuse(start_kibitz, upstream)
    read = request("GET", "/v1/request/failing-1", b"Authorization: Bearer kbz_right")
    assert (await ask(kibitz.port, read)).request_line.startswith(b"HTTP/1.1 404 ")
    assert upstream.connections == 0


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 OK 200\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"],
    ids=["nothing", "empty-line", "ssh", "status", "field"],
)
async def test_an_upstream_that_does_not_speak_http_counts_as_unreachable(
    kibitz: Running, upstream: Upstream, garbage: bytes
) -> None:
    async def answer_garbage(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(garbage)

    upstream.script = answer_garbage
    answer = await ask(kibitz.port, CALL)
    assert answer.request_line.startswith(b"HTTP/1.1 502 ")
    assert orjson.loads(answer.body)["error"]["code"] == "upstream_unreachable"
    assert (await kibitz.row("failing-1"))["error"]["kind"] == "upstream_unreachable"


async def test_a_failed_answer_to_head_has_no_body(kibitz: Running) -> None:
    async with connect(kibitz.port) as connection:
        await connection.send(request("HEAD", "/nowhere") + CALL)
        status, _ = await connection.read_head()
        assert status.startswith(b"HTTP/1.1 404 ")
        assert (await connection.read_request()).request_line == b"HTTP/1.1 200 OK"


async def test_a_connection_is_of_use_after_a_failure(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits={"max_request_body": len(BODY)})
    async with connect(kibitz.port) as connection:
        for message, status in ((request("POST", "/nowhere", body=BODY), b"404"), (CALL, b"200")):
            await connection.send(message)
            assert (await connection.read_request()).request_line.split(b" ")[1] == status


async def test_a_body_that_turns_out_too_large_is_refused_on_the_way(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    whole: list[Any] = []

    async def wait_for_the_whole(connection: Connection) -> None:
        whole.append(await connection.read_request())

    upstream.script = wait_for_the_whole
    kibitz = await start_kibitz(limits={"max_request_body": 8})
    async with connect(kibitz.port) as connection:
        await connection.send(request("POST", "/v1/files", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        await connection.send(b"5\r\nworld\r\n0\r\n\r\n")
        answer = await connection.read_request()
    assert answer.request_line.startswith(b"HTTP/1.1 413 ")
    assert orjson.loads(answer.body)["error"]["code"] == "request_too_large"
    assert whole == []


async def test_a_refused_client_is_not_told_to_send_its_body(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits={"max_request_body": 8})
    async with connect(kibitz.port) as connection:
        await connection.send(request("POST", "/v1/files", b"Expect: 100-continue", b"Content-Length: 9"))
        status, _ = await connection.read_head()
        assert status.startswith(b"HTTP/1.1 413 ")


async def test_a_client_whose_feedback_is_too_large_is_not_told_to_send_it(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits={"max_feedback_body": 1024})
    async with connect(kibitz.port) as connection:
        await connection.send(request("POST", "/v1/feedback", b"Expect: 100-continue", b"Content-Length: 1025"))
        status, _ = await connection.read_head()
        assert status.startswith(b"HTTP/1.1 413 ")
    async with connect(kibitz.port) as connection:
        await connection.send(request("POST", "/v1/feedback", b"Expect: 100-continue", b"Content-Length: 2"))
        assert (await connection.read_head())[0] == b"HTTP/1.1 100 Continue"
        await connection.send(b"{}")
        assert (await connection.read_head())[0].startswith(b"HTTP/1.1 400 ")
