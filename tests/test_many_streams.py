"""A thousand streams under way at once through one process: none fails, and the memory they take is level."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.descriptors import raise_limit
from tests.conftest import Launcher
from tests.raw_client import request
from tests.test_memory import MiB, memory
from tests.upstream import Connection, Upstream, chat_events

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

STREAMS = 1000
FEWEST = 500
WAVE = 50
EVENTS = chat_events(*("word " for _ in range(20)))
# Bytes of memory: what a stream may take, and what all of them may gain while they run, their log's copies included.
EACH = 64 * 1024
GAIN = 12 * MiB


USUAL_LIMIT = 1024


@pytest.fixture
def streams() -> Iterator[int]:
    """As many as descriptors allow: each takes two here, and two in Kibitz, which is started with the usual limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(USUAL_LIMIT, hard), hard))
    number = min(STREAMS, (hard - 200) // 2)
    if number < FEWEST:
        pytest.skip(f"{hard} descriptors are too few")
    yield number
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Paced:
    """An upstream that sends every stream's next event when it is told to."""

    def __init__(self) -> None:
        self.told = [asyncio.Event() for _ in range(len(EVENTS) + 1)]

    async def __call__(self, connection: Connection) -> None:
        await connection.read_request()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        await connection.send(head)
        for told, event in zip(self.told, [*EVENTS, b""], strict=True):
            await told.wait()
            await connection.send(b"%x\r\n%b\r\n" % (len(event), event))


async def begin(port: int, number: int) -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = Connection(reader, writer)
    name = b"Helicone-Request-Id: stream-%d" % number
    await connection.send(request("POST", "/v1/chat/completions", name, body=b'{"stream": true}'))
    status_line, _ = await connection.read_head()
    assert status_line == b"HTTP/1.1 200 OK"
    return connection


async def test_a_thousand_streams_at_once_all_end_well_in_level_memory(
    launch: Launcher, upstream: Upstream, tmp_path: Path, streams: int
) -> None:
    paced = upstream.script = Paced()
    flags = ("--upstream", upstream.base_url, "--database", str(tmp_path / "kibitz.db"))
    kibitz = await asyncio.to_thread(launch, *flags, KIBITZ_COMMIT_WAIT="60")
    raise_limit()
    idle = memory(kibitz.process.pid, "VmRSS")
    connections: list[Connection] = []
    for first in range(0, streams, WAVE):
        wave = range(first, min(first + WAVE, streams))
        connections += await asyncio.gather(*(begin(kibitz.port, number) for number in wave))
    taken = []
    for told, event in zip(paced.told, [*EVENTS, b""], strict=True):
        told.set()
        arrived = await asyncio.gather(*(connection.read_chunk() for connection in connections))
        assert set(arrived) == {event}
        taken.append(memory(kibitz.process.pid, "VmRSS"))
    for connection in connections:
        connection.close()
    sys.stdout.write(f"{streams} streams: {idle // MiB} MiB idle, then {[size // MiB for size in taken]}\n")
    assert memory(kibitz.process.pid, "VmHWM") - idle < streams * EACH
    assert taken[-3] - taken[0] < GAIN
    with closing(sqlite3.connect(tmp_path / "kibitz.db")) as db:
        rows = db.execute(
            "SELECT count(DISTINCT request_id), sum(error_kind IS NULL), min(completion_tokens) FROM calls"
        )
        assert rows.fetchall() == [(streams, streams, 20)]
