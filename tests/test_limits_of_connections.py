"""Contract section 8: what connections, calls and bodies are held to, and that nobody suffers for others."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import orjson
import pytest

from tests.conftest import Running, StartKibitz
from tests.limits import CALL, Busy, KiB, MiB, busy, dribble, error, metrics, status
from tests.raw_client import Eventually, ask, connect, one_value, request
from tests.upstream import Connection, Upstream, json_answer


async def test_requests_that_wait_for_their_turn_are_read_no_further_than_one_may_be_large(
    kibitz: Running, upstream: Upstream, eventually: Eventually
) -> None:
    upstream.script = slow = Busy()
    async with connect(kibitz.port) as client:
        large = request("GET", "/v1/models", b"X-A: " + bytes(60_000).replace(b"\0", b"a"))
        sending = asyncio.create_task(client.send(large * 30))
        await eventually(lambda: slow.has(1))
        [connection] = kibitz.kibitz.server.connections

        async def paused() -> None:
            assert connection._buffer_paused

        await eventually(paused)
        assert len(connection._messages) < 12
        slow.end.set()
        for _ in range(30):
            assert (await client.read_request()).body == b"done"
        await sending


TOO_LARGE_A_BODY = [
    pytest.param("/v1/feedback", {"max_feedback_body": 1 * KiB}, "max_feedback_body", id="feedback"),
    pytest.param("/v1/logs", {"max_log_body": 1 * KiB}, "max_log_body", id="log"),
    pytest.param("/v1/files", {"max_request_body": 1 * KiB}, "max_request_body", id="call"),
]


@pytest.mark.parametrize(("path", "limits", "setting"), TOO_LARGE_A_BODY)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_that_is_too_large_is_413_by_its_limit_while_it_still_comes(
    start_kibitz: StartKibitz, upstream: Upstream, path: str, limits: dict[str, int], setting: str, chunked: bool
) -> None:
    async def read_all(connection: Connection) -> None:
        await connection.reader.read()

    upstream.script = read_all
    kibitz = await start_kibitz(limits=limits)
    pieces = [bytes(1024) for _ in range(1024)]
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % 2**20
    for _ in range(2):
        async with connect(kibitz.port) as client:
            await client.send(request("POST", path, framing))
            for piece in pieces:
                await client.send(b"400\r\n" + piece + b"\r\n" if chunked else piece)
            await client.send(b"0\r\n\r\n" if chunked else b"")
            answer = await client.read_request()
            assert status(answer) == 413
            assert f"(limits.{setting})".encode() in answer.body
            assert answer.values("Connection") == ([b"close"] if chunked else [])
            if not chunked:
                upstream.script = None
                await client.send(CALL)
                assert status(await client.read_request()) == 200
                upstream.script = read_all


@pytest.mark.parametrize("begin", [b"", CALL], ids=["first", "second"])
async def test_a_head_that_dribbles_is_408(start_kibitz: StartKibitz, begin: bytes) -> None:
    kibitz = await start_kibitz(limits={"header_timeout": 0.3})
    async with connect(kibitz.port) as client:
        if begin:
            await client.send(begin)
            await client.read_request()
        dribbling = asyncio.create_task(dribble(client, CALL[:-2]))
        answer = await client.read_request()
        dribbling.cancel()
        assert await client.closed_by_peer()
    assert (status(answer), error(answer)["code"]) == (408, "request_timeout")
    assert error(answer)["message"].endswith("(limits.header_timeout).")


def dribble_past_the_answer(port: int) -> tuple[bytes, int]:
    """What a client gets that goes on sending its head, and the error of its connection then."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(CALL[:-2])
        answer = b""
        while piece := client.recv(2**16):
            answer += piece
        client.sendall(b"X-A: 1")
        return answer, client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


async def test_a_client_that_dribbles_on_is_heard_out_so_that_it_gets_the_answer(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits={"header_timeout": 0.2})
    answer, error_of_connection = await asyncio.to_thread(dribble_past_the_answer, kibitz.port)
    assert b" 408 " in answer[:14]
    assert error_of_connection == 0  # a connection that is closed is reset by what comes, and the answer with it


async def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits={"header_timeout": 0.2})
    async with connect(kibitz.port) as client:
        assert await client.closed_by_peer()


async def test_a_connection_may_rest_between_requests_for_as_long_as_is_set(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits={"header_timeout": 0.1, "keep_alive_timeout": 0.5})
    async with connect(kibitz.port) as client:
        for _ in range(3):
            await client.send(CALL)
            assert status(await client.read_request()) == 200
            await asyncio.sleep(0.2)
        assert await client.closed_by_peer()


async def test_the_connection_that_has_waited_longest_gives_way_to_a_new_one(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits={"max_connections": 2})
    async with connect(kibitz.port) as oldest, connect(kibitz.port) as newer:
        for client in (newer, oldest, newer):
            await client.send(CALL)
            await client.read_request()
        async with connect(kibitz.port) as newest:
            assert await oldest.closed_by_peer()
            for client in (newest, newer):
                await client.send(CALL)
                assert status(await client.read_request()) == 200


async def test_where_all_connections_are_busy_a_call_is_503_and_routes_of_ours_answer(
    start_kibitz: StartKibitz, upstream: Upstream, eventually: Eventually
) -> None:
    kibitz = await start_kibitz(limits={"max_connections": 2})
    async with busy(kibitz, upstream, 2, eventually):
        answer = await ask(kibitz.port, CALL)
        assert (status(answer), error(answer)["code"]) == (503, "overloaded")
        assert error(answer)["message"].endswith("(limits.max_connections).")
        assert one_value(answer, "Retry-After") == b"1"
        assert one_value(answer, "Connection") == b"close"
        assert status(await ask(kibitz.port, request("GET", "/healthz"))) == 200
        assert (
            status(await ask(kibitz.port, request("POST", "/v1/feedback", body=b'{"trace_id":"t","value":1}'))) == 200
        )
    assert status(await ask(kibitz.port, CALL)) == 200


async def test_connections_far_beyond_the_limit_are_closed_and_disturb_no_call(
    start_kibitz: StartKibitz, upstream: Upstream, eventually: Eventually
) -> None:
    kibitz = await start_kibitz(limits={"max_connections": 2})
    async with busy(kibitz, upstream, 2, eventually), contextlib.AsyncExitStack() as stack:
        for _ in range(200):
            await stack.enter_async_context(connect(kibitz.port))
        assert status(await ask(kibitz.port, request("GET", "/healthz"))) == 200
    upstream.script = None
    assert status(await ask(kibitz.port, CALL)) == 200


DRIBBLED = [
    pytest.param(CALL[:-2], id="heads"),
    pytest.param(request("POST", "/v1/feedback", b"Content-Length: 1000") + b"[" * 100, id="bodies"),
    pytest.param(request("POST", "/nowhere", b"Content-Length: 1000") + b"[" * 100, id="refused"),
    pytest.param(CALL[:-2] + b"no field\r\n", id="broken"),
]


@pytest.mark.parametrize("message", DRIBBLED)
async def test_a_thousand_dribbling_connections_keep_nobody_out(start_kibitz: StartKibitz, message: bytes) -> None:
    kibitz = await start_kibitz(limits={"max_connections": 50})
    async with contextlib.AsyncExitStack() as stack:
        for number in range(1000):
            client = await stack.enter_async_context(connect(kibitz.port))
            client.writer.write(message[: len(message) - number % 10])
            if number % 100 == 99:
                assert status(await ask(kibitz.port, CALL)) == 200
        [shown] = [line for line in (await metrics(kibitz)).splitlines() if line.startswith("kibitz_connections ")]
        assert float(shown.split()[1]) <= 50


async def test_calls_beyond_those_that_may_be_under_way_are_503_and_routes_of_ours_answer(
    start_kibitz: StartKibitz, upstream: Upstream, eventually: Eventually
) -> None:
    kibitz = await start_kibitz(limits={"max_requests_in_flight": 2})
    async with busy(kibitz, upstream, 2, eventually), connect(kibitz.port) as client:
        await client.send(request("POST", "/v1/chat/completions", b"Helicone-Request-Id: much", body=b"{}"))
        answer = await client.read_request()
        assert (status(answer), error(answer)["code"]) == (503, "overloaded")
        assert error(answer)["message"].endswith("(limits.max_requests_in_flight).")
        assert one_value(answer, "Retry-After") == b"1"
        await client.send(request("GET", "/v1/request/much"))
        assert status(await client.read_request()) == 404
        await client.send(request("GET", "/readyz"))
        assert status(await client.read_request()) == 200
        assert 'kibitz_calls_refused_total{code="overloaded"} 1.0' in await metrics(kibitz)
    upstream.script = None
    assert status(await ask(kibitz.port, CALL)) == 200


@pytest.mark.parametrize(
    ("method", "path", "shape"),
    [
        ("POST", "/v1/feedback", {"status", "message", "error"}),
        ("POST", "/v1/request/r/feedback", {"data", "error"}),
        ("POST", "/v1/logs", {"status", "message", "error"}),
    ],
)
async def test_a_body_for_a_route_of_ours_that_dribbles_is_408_in_its_dialect(
    start_kibitz: StartKibitz, method: str, path: str, shape: set[str]
) -> None:
    kibitz = await start_kibitz(limits={"body_timeout": 0.3})
    async with connect(kibitz.port) as client:
        await client.send(request(method, path, b"Content-Length: 1000"))
        dribbling = asyncio.create_task(dribble(client, b"["))
        answer = await client.read_request()
        dribbling.cancel()
        assert await client.closed_by_peer()
    assert status(answer) == 408
    assert orjson.loads(answer.body).keys() == shape
    assert b"(limits.body_timeout)" in answer.body
    assert one_value(answer, "Connection") == b"close"


async def test_an_upload_that_stops_is_408_and_has_a_row(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(limits={"upload_idle_timeout": 0.3})
    over = asyncio.Event()

    async def wait_for_the_whole(connection: Connection) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await connection.read_request()
        over.set()

    upstream.script = wait_for_the_whole
    async with connect(kibitz.port) as client:
        await client.send(request("POST", "/v1/files", b"Helicone-Request-Id: stopped", b"Content-Length: 10"))
        for _ in range(4):
            await client.send(b"a")
            await asyncio.sleep(0.15)
        answer = await client.read_request()
        assert await client.closed_by_peer()
        await over.wait()
    assert (status(answer), error(answer)["code"]) == (408, "client_timeout")
    row = await kibitz.row("stopped")
    assert (row["error"]["kind"], row["response_status"], row["request_body"]) == ("client_timeout", 408, "aaaa")


@pytest.mark.parametrize("path", ["/v1/files/large/content", "/v1/request/large"])
async def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(
    start_kibitz: StartKibitz, upstream: Upstream, eventually: Eventually, path: str
) -> None:
    kibitz = await start_kibitz(limits={"download_idle_timeout": 0.3}, max_logged_body=64 * MiB)
    upstream.answer = json_answer(b'"' + b"x" * (32 * MiB) + b'"')
    if path == "/v1/request/large":
        await kibitz.chat(Helicone_Request_Id="large")
        path += "?includeBody=true"
    async with connect(kibitz.port) as client:
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(request("GET", path, b"Helicone-Request-Id: refused"))

        async def cut() -> None:
            assert kibitz.kibitz.recorder.metrics.connections == 1

        await eventually(cut)  # what is left is the fixture's own
    if "request" not in path:
        assert (await kibitz.row("refused"))["error"]["kind"] == "client_cancelled"


async def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start_kibitz(limits={"download_idle_timeout": 0.3}, max_logged_body=0)
    body = b'"' + b"x" * (16 * MiB) + b'"'
    upstream.answer = json_answer(body)
    async with connect(kibitz.port) as client:
        await client.send(CALL)
        await client.read_head()
        for _ in range(16):
            assert len(await client.reader.readexactly(MiB)) == MiB
            await asyncio.sleep(0.1)
        assert await client.reader.readexactly(2) == b'x"'


async def test_a_client_is_not_cut_off_while_the_systems_buffer_still_empties(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start_kibitz(limits={"download_idle_timeout": 0.3}, max_logged_body=0)
    upstream.answer = json_answer(b'"' + b"x" * (16 * MiB) + b'"')
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", kibitz.port)) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, CALL)
        received = 0
        while received < 16 * MiB:
            part = await loop.sock_recv(client, 64 * 1024 if received < MiB else MiB)
            assert part
            received += len(part)
            if received < MiB:
                await asyncio.sleep(0.1)


async def test_an_answer_may_have_larger_and_more_fields_than_a_request(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start_kibitz(limits={"max_header_field": 1024, "max_header_fields": 16})
    lines = [b"X-%d: y" % number for number in range(100)] + [b"X-Large: " + b"y" * 100_000]
    upstream.answer = json_answer(b"{}", fields=b"\r\n".join(lines) + b"\r\n")
    async with connect(kibitz.port) as client:
        await client.send(CALL)
        answer = await client.read_request()
    assert status(answer) == 200
    assert answer.values("X-Large") == [b"y" * 100_000]


async def test_a_408_of_the_upstream_ends_no_connection(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    async with connect(kibitz.port) as client:
        for _ in range(2):
            await client.send(CALL)
            assert status(await client.read_request()) == 408
