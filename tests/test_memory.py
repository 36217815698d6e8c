"""Uploads and downloads of any length pass in bounded memory, seen from outside: a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path
from random import Random

import pytest

from tests.conftest import Launcher
from tests.raw_client import connect, request
from tests.upstream import Connection, Upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MiB = 2**20
LENGTH = 64 * MiB
PIECE = 64 * 1024
MOST = 40 * MiB
NOISE = Random(1).randbytes(PIECE)  # the same each time: what looks like a text is searched at greater length
TEXT = b'{"content": "' + NOISE.hex().encode()[: PIECE - 12]


async def echo(connection: Connection) -> None:
    """Sends back what comes while it comes, under the type that it had."""
    while True:
        _, fields = await connection.read_head()
        known = {name.lower(): value for name, value in fields}
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %b\r\n\r\n"
        await connection.send(head % (known[b"content-type"], known[b"content-length"]))
        for _ in range(int(known[b"content-length"]) // PIECE):
            await connection.send(await connection.reader.readexactly(PIECE))


async def exchange(port: int, content_type: bytes, piece: bytes, length: int) -> None:
    """That many bytes up and the same down again."""
    up, down = hashlib.sha256(), hashlib.sha256()
    fields = (b"Content-Type: " + content_type, b"Content-Length: %d" % length)

    async def upload(connection: Connection) -> None:
        for number in range(length // PIECE):
            numbered = piece[:-10] + b"%08d" % number + piece[-2:]
            up.update(numbered)
            await connection.send(numbered)

    async with connect(port) as connection:
        await connection.send(request("POST", "/v1/chat/completions", *fields))
        uploading = asyncio.ensure_future(upload(connection))
        await connection.read_head()
        for _ in range(length // PIECE):
            down.update(await connection.reader.readexactly(PIECE))
        await uploading
    assert down.hexdigest() == up.hexdigest()


def memory(pid: int, name: str) -> int:
    """Bytes that a process has (``VmRSS``), or has had at most (``VmHWM``)."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    ("content_type", "piece"),
    [
        (b"application/octet-stream", NOISE),
        (b"application/json", TEXT),
        (b"text/event-stream", b'data: {"a": 0}\n\n' * 4096),
    ],
    ids=["noise", "json", "events"],
)
async def test_64_mib_up_and_down_take_less_than_40_mib(
    launch: Launcher, upstream: Upstream, content_type: bytes, piece: bytes
) -> None:
    upstream.script = echo
    kibitz = await asyncio.to_thread(launch, "--upstream", upstream.base_url)
    for _ in range(5):
        await exchange(kibitz.port, content_type, piece[:PIECE].ljust(PIECE), PIECE)
    before = memory(kibitz.process.pid, "VmRSS")
    await exchange(kibitz.port, content_type, piece[:PIECE].ljust(PIECE), LENGTH)
    assert memory(kibitz.process.pid, "VmHWM") - before < MOST
