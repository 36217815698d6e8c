"""Contract section 8: what heads of requests are held to."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.conftest import Running, StartKibitz
from tests.limits import CALL, LIMITS, SECRET, KiB, error, field, metrics, status, target
from tests.raw_client import connect, one_value, request
from tests.upstream import Connection, Upstream

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


def any_request(random: Random) -> bytes:
    """A request within the limits, with a body of any framing or none."""
    fields = [field(random.randrange(100, 1000)) for _ in range(random.randrange(4))]
    kind, body = random.randrange(4), random.randbytes(random.choice((1, 100, 20_000)))
    if kind == 0:
        return request("GET", target(random.randrange(100, 1000)), *fields)
    if kind == 1:
        return request("GET", "/v1/models", *fields, b"Connection: Upgrade", b"Upgrade: websocket")
    if kind == 2:
        return request("POST", "/v1/files", *fields, body=body)
    pieces = [body[start : start + 700] for start in range(0, len(body), 700)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return request("POST", "/v1/files", *fields, b"Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize("seed", range(8))
async def test_no_request_within_the_limits_is_refused_however_it_comes(start_kibitz: StartKibitz, seed: int) -> None:
    kibitz = await start_kibitz(limits={**LIMITS, "max_header_bytes": 6 * KiB})
    random = Random(seed)
    messages = [any_request(random) for _ in range(30)]

    async def send(client: Connection, data: bytes) -> None:
        start = 0
        while start < len(data):
            end = start + random.choice((1, 3, 50, 500, 5_000, 50_000))
            await client.send(data[start:end])
            await asyncio.sleep(random.choice((0, 0, 0.001)))
            start = end

    async with connect(kibitz.port) as client:
        for pipelined in groups(messages):
            sending = asyncio.create_task(send(client, b"".join(pipelined)))
            assert [status(await client.read_request()) for _ in pipelined] == [200] * len(pipelined)
            await sending


def groups(messages: list[bytes]) -> list[list[bytes]]:
    """Requests that are sent without waiting for an answer; a body in chunks stands alone, since it may be the last."""
    found: list[list[bytes]] = [[]]
    for message in messages:
        if b"Transfer-Encoding: chunked" in message:
            found += [[message], []]
        else:
            found[-1].append(message)
    return found
