"""Ends that are slow: an upstream that dribbles on very many connections, a client that does not read."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import resource
import socket
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conftest import Launcher
from tests.raw_client import Eventually, ask, request
from tests.test_memory import memory
from tests.upstream import Connection, Upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

KiB = 1024
MiB = 1024 * KiB
CALLS = 1000
FEWEST_CALLS = 500
# Files that a process has open beside its connections.
SPARE_FILES = 100
MOST_A_CALL = 128 * KiB
LENGTH = 64 * MiB
# What two connections hold in the kernel is up to it; a third of it all would do.
MOST_ON_THE_WAY = 32 * MiB
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"


@pytest.fixture
def many_files() -> Iterator[int]:
    """As many open files as may be, for this process and those it starts; gives how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Dribble:
    """Sends a byte a second to whoever asks for /v1/slow until it is told to end, and a whole answer to others."""

    def __init__(self) -> None:
        self.under_way = 0
        self._end = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            if received.target == b"/v1/slow":
                await self._dribble(connection)
            else:
                await connection.send(HEAD + b"Content-Length: 5\r\n\r\nquick")

    async def _dribble(self, connection: Connection) -> None:
        self.under_way += 1
        await connection.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while not self._end.is_set():
            await connection.send(b"1\r\n.\r\n")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), 1)
        self.under_way -= 1
        await connection.send(b"0\r\n\r\n")

    def end(self) -> None:
        self._end.set()


@contextlib.asynccontextmanager
async def dribbled_on(port: int, count: int) -> AsyncIterator[list[Connection]]:
    """So many calls whose answers have begun, each on a connection of its own."""
    connections: list[Connection] = []
    few_at_once = asyncio.Semaphore(20)

    async def begin() -> None:
        async with few_at_once:
            connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
            connections.append(connection)
            await connection.send(request("GET", "/v1/slow"))
            await connection.read_head()
            assert await connection.read_chunk() == b"."

    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(begin() for _ in range(count)))
        yield connections
    finally:
        for connection in connections:
            connection.close()


async def rest_of(connection: Connection) -> bytes:
    pieces = []
    while piece := await connection.read_chunk():
        pieces.append(piece)
    return b"".join(pieces)


async def test_an_upstream_that_dribbles_on_a_thousand_connections_holds_up_no_other_call(
    launch: Launcher, upstream: Upstream, many_files: int
) -> None:
    # In this process two ends a call: the client's and the upstream's.
    count = min(CALLS, (many_files - SPARE_FILES) // 2)
    assert count >= FEWEST_CALLS
    upstream.script = dribble = Dribble()
    kibitz = await asyncio.to_thread(launch, "--upstream", upstream.base_url)
    async with dribbled_on(kibitz.port, 1):
        assert (await ask(kibitz.port, request("GET", "/v1/quick"))).body == b"quick"
    before = memory(kibitz.process.pid, "VmRSS")
    async with dribbled_on(kibitz.port, count) as connections:
        for _ in range(10):
            assert (await ask(kibitz.port, request("GET", "/v1/quick"))).body == b"quick"
        assert dribble.under_way >= count
        assert memory(kibitz.process.pid, "VmRSS") - before < count * MOST_A_CALL
        dribble.end()
        async with asyncio.timeout(60):
            rests = await asyncio.gather(*map(rest_of, connections))
    assert all(set(rest) <= set(b".") for rest in rests)


class Flood:
    """Sends 64 MiB as fast as they are taken; ``sent`` counts the bytes that it was rid of."""

    def __init__(self) -> None:
        self.sent = 0
        self.digest = hashlib.sha256()

    async def __call__(self, connection: Connection) -> None:
        await connection.read_request()
        await connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % LENGTH)
        for number in range(LENGTH // MiB):
            piece = number.to_bytes(1) * MiB
            self.digest.update(piece)
            await connection.send(piece)
            self.sent += MiB

    async def is_stuck(self) -> None:
        """That nothing more goes for a while."""
        before = self.sent
        await asyncio.sleep(0.5)
        assert self.sent == before > 0


async def test_a_client_that_does_not_read_holds_its_upstream_back_and_takes_no_memory(
    launch: Launcher, upstream: Upstream, eventually: Eventually
) -> None:
    upstream.script = flood = Flood()
    kibitz = await asyncio.to_thread(launch, "--upstream", upstream.base_url)
    before = memory(kibitz.process.pid, "VmRSS")
    with socket.create_connection(("127.0.0.1", kibitz.port)) as client:
        client.sendall(request("GET", "/v1/files/large/content", b"Helicone-Request-Id: large"))
        await eventually(flood.is_stuck)
        assert flood.sent < MOST_ON_THE_WAY
        assert memory(kibitz.process.pid, "VmHWM") - before < MOST_ON_THE_WAY
        read = await asyncio.to_thread(read_slowly, client)
    assert read == flood.digest.hexdigest()
    assert flood.sent == LENGTH
    assert memory(kibitz.process.pid, "VmHWM") - before < MOST_ON_THE_WAY


def read_slowly(client: socket.socket) -> str:
    """The digest of the body, read in small pieces."""
    client.settimeout(60)
    with client.makefile("rb", buffering=16 * KiB) as reader:
        while reader.readline() != b"\r\n":
            pass
        digest = hashlib.sha256()
        for _ in range(LENGTH // (16 * KiB)):
            digest.update(reader.read(16 * KiB))
    return digest.hexdigest()
