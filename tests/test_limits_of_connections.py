"""Contract section 8: what connections and heads of requests are held to, and that nobody suffers for others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import orjson
import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import Eventually, ask, connect, one_value, request
from tests.upstream import Connection, Received, Upstream, json_answer

CALL = request("GET", "/v1/models")
KiB = 1024
MiB = 1024 * KiB
LIMITS = {"max_header_field": 2 * KiB, "max_header_fields": 20, "max_header_bytes": 4 * KiB}
SECRET = b"s3cr3t"


def field(size: int) -> bytes:
    """A header field whose name and value are of so many bytes together."""
    name = b"X-Field"
    return name + b": " + SECRET + b"x" * (size - len(name) - len(SECRET))


def target(length: int) -> str:
    return "/v1/" + SECRET.decode() + "x" * (length - 4 - len(SECRET))


def status(answer: Received) -> int:
    return int(answer.request_line.split(b" ")[1])


def error(answer: Received) -> dict[str, str]:
    found: dict[str, str] = orjson.loads(answer.body)["error"]
    return found


TOO_LARGE = [
    pytest.param(request("GET", "/v1/models", field(2 * KiB + 1)), 431, "max_header_field", id="field"),
    pytest.param(request("GET", "/v1/models", *[b"X-A: " + SECRET] * 20), 431, "max_header_fields", id="fields"),
    pytest.param(request("GET", "/v1/models", *[field(1 * KiB)] * 4), 431, "max_header_bytes", id="section"),
    pytest.param(request("GET", target(2 * KiB + 1)), 414, "max_header_field", id="target"),
    pytest.param(b"GET " + target(5 * KiB).encode(), 414, "max_header_field", id="target-without-end"),
    pytest.param(
        b"GET / HTTP/1.1\r\nX-A: 1" + b"\r\nX-A: 1" * 20 + b"\r\nX-A: " + SECRET,
        431,
        "max_header_fields",
        id="open-end",
    ),
]
LARGE = [
    pytest.param(request("GET", "/v1/models", field(2 * KiB)), id="field"),
    pytest.param(request("GET", "/v1/models", *[b"X-A: 1"] * 19), id="fields"),
    pytest.param(request("GET", "/v1/models", *[field(1 * KiB)] * 3), id="section"),
    pytest.param(request("GET", target(2 * KiB)), id="target"),
]


@pytest.mark.parametrize(("message", "expected", "setting"), TOO_LARGE)
@pytest.mark.parametrize("size", [None, 700], ids=["at-once", "in-pieces"])
async def test_a_head_that_exceeds_a_limit_is_refused_by_its_name_and_not_quoted(
    start_kibitz: StartKibitz,
    upstream: Upstream,
    caplog: pytest.LogCaptureFixture,
    message: bytes,
    expected: int,
    setting: str,
    size: int | None,
) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    async with connect(kibitz.port) as client:
        for start in range(0, len(message), size or len(message)):
            await client.send(message[start : start + (size or len(message))])
            await asyncio.sleep(0.001)
        answer = await client.read_request()
        assert await client.closed_by_peer()
    assert (status(answer), error(answer)["type"]) == (expected, "invalid_request_error")
    assert error(answer)["message"].endswith(f"(limits.{setting}).")
    assert one_value(answer, "Connection") == b"close"
    assert one_value(answer, "x-portkey-trace-id")
    assert SECRET not in answer.body
    assert SECRET.decode() not in caplog.text
    assert upstream.connections == 0
    assert 'kibitz_calls_refused_total{code="' + error(answer)["code"] in await metrics(kibitz)


async def metrics(kibitz: Running) -> str:
    return (await ask(kibitz.port, request("GET", "/metrics"))).body.decode()


@pytest.mark.parametrize("message", LARGE)
async def test_a_head_at_its_limits_passes(start_kibitz: StartKibitz, message: bytes) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    async with connect(kibitz.port) as client:
        for _ in range(2):
            await client.send(message)
            assert status(await client.read_request()) == 200


async def test_a_head_behind_another_request_is_held_to_the_same(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    async with connect(kibitz.port) as client:
        await client.send(CALL + request("GET", target(2 * KiB + 1)) + CALL)
        assert [status(await client.read_request()) for _ in range(2)] == [200, 414]
        assert await client.closed_by_peer()


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
    async with connect(kibitz.port) as client:
        for _ in range(2):
            pieces = [bytes(1024) for _ in range(1024)]
            framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % 2**20
            await client.send(request("POST", path, framing))
            for piece in pieces:
                await client.send(b"400\r\n" + piece + b"\r\n" if chunked else piece)
            await client.send(b"0\r\n\r\n" if chunked else b"")
            answer = await client.read_request()
            assert status(answer) == 413
            assert f"(limits.{setting})".encode() in answer.body
        upstream.script = None
        await client.send(CALL)
        assert status(await client.read_request()) == 200


async def test_a_head_behind_an_upgrade_that_is_declined_is_held_to_the_same(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    upgrade = request("GET", "/v1/models", b"Connection: Upgrade", b"Upgrade: websocket")
    async with connect(kibitz.port) as client:
        await client.send(upgrade + CALL + request("GET", target(2 * KiB + 1)) + upgrade + CALL)
        assert [status(await client.read_request()) for _ in range(3)] == [200, 200, 414]
        assert await client.closed_by_peer()
    assert len(upstream.received) == 2


async def test_a_client_whose_body_broke_gets_to_read_so_though_it_goes_on_sending(
    kibitz: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(kibitz.port) as client:
        await client.send(request("POST", "/v1/feedback", b"Transfer-Encoding: chunked") + b"1\r\n[\r\n")
        client.writer.write(b"no chunk" * 500_000)
        await asyncio.sleep(0.1)  # for what a close would answer with a reset
        assert status(await client.read_request()) == 400
    assert "Traceback" not in caplog.text


async def test_a_refused_client_that_goes_on_sending_gets_to_read_why(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    async with connect(kibitz.port) as client:
        client.writer.write(b"GET / HTTP/1.1\r\n" + (field(1 * KiB) + b"\r\n") * 4096)
        await asyncio.sleep(0.1)  # for what a close would answer with a reset
        client.writer.write(b"X-More: 1\r\n" * 1000)
        assert status(await client.read_request()) == 431


async def test_trailers_are_no_way_around_the_limit(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(limits={**LIMITS, "max_header_fields": 5000})
    async with connect(kibitz.port) as client:
        head = request("POST", "/v1/files", b"Transfer-Encoding: chunked", b"Helicone-Request-Id: trailed")
        await client.send(head + b"1\r\na\r\n")
        await client.send(b"0\r\n")
        for _ in range(10):
            await client.send(field(500) + b"\r\n")
            await asyncio.sleep(0.001)
        answer = await client.read_request()
        assert await client.closed_by_peer()
    assert status(answer) == 400
    assert (await kibitz.row("trailed"))["error"]["kind"] == "client_broke_off"


async def test_bodies_of_any_framing_are_no_heads(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    async with connect(kibitz.port) as client:
        for _ in range(2):
            await client.send(request("POST", "/v1/files", b"Transfer-Encoding: chunked"))
            for _ in range(100):
                await client.send(b"40\r\n" + bytes(64) + b"\r\n")
            await client.send(b"0\r\n\r\n")
            assert status(await client.read_request()) == 200
            await client.send(request("POST", "/v1/files", body=bytes(100 * KiB)))
            assert status(await client.read_request()) == 200
    assert [len(received.body) for received in upstream.received] == [6400, 100 * KiB] * 2


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


async def dribble(client: Connection, data: bytes) -> None:
    while True:
        for byte in data:
            await client.send(bytes([byte]))
            await asyncio.sleep(0.02)
        data = b"X-More: 1\r\n"


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


class Busy:
    """An upstream that answers nobody until it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.end = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        while True:
            await connection.read_request()
            self.calls += 1
            await self.end.wait()
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    async def has(self, calls: int) -> None:
        assert self.calls == calls


@contextlib.asynccontextmanager
async def busy(kibitz: Running, upstream: Upstream, calls: int, eventually: Eventually) -> AsyncIterator[Busy]:
    """So many calls under way, each on a connection of its own; all get their answers in the end."""
    upstream.script = script = Busy()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(kibitz.port)) for _ in range(calls)]
        for client in clients:
            await client.send(CALL)
        await eventually(lambda: script.has(calls))
        yield script
        script.end.set()
        for client in clients:
            assert (await client.read_request()).body == b"done"


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


async def test_a_408_of_the_upstream_ends_no_connection(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    async with connect(kibitz.port) as client:
        for _ in range(2):
            await client.send(CALL)
            assert status(await client.read_request()) == 408
