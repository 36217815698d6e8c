"""What the tests of limits share: requests of any size, clients that dribble, calls that stay under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import orjson

from tests.conftest import Running
from tests.raw_client import Eventually, ask, connect, request
from tests.upstream import Connection, Received, Upstream

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


async def metrics(kibitz: Running) -> str:
    return (await ask(kibitz.port, request("GET", "/metrics"))).body.decode()


async def dribble(client: Connection, data: bytes) -> None:
    while True:
        for byte in data:
            await client.send(bytes([byte]))
            await asyncio.sleep(0.02)
        data = b"X-More: 1\r\n"


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
