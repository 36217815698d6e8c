"""Who serves whom: the workers of a Kibitz process, and a connection to each. Reads Linux's /proc."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.raw_client import request
from tests.upstream import Connection, Received

__all__ = ["ask_on", "connection_to_each", "needs_proc", "runs", "workers_of"]

needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="tells workers apart by /proc")

# Connections that the kernel, which spreads them by chance, is given to reach every worker.
_ATTEMPTS = 100
# Only a fault makes anything take this long: it fails the test instead of hanging the suite.
_PATIENCE = 120


def workers_of(supervisor: int) -> list[int]:
    """The process ids of a process's children."""
    return [int(pid) for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()]


def runs(pid: int) -> bool:
    """Whether there is such a process, other than one that has ended and waits to be told of."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def ask_on(connection: Connection, message: bytes) -> Received:
    """The answer to one request on a connection that stays open."""
    await connection.send(message)
    return await connection.read_request()


@contextlib.asynccontextmanager
async def connection_to_each(supervisor: int, port: int) -> AsyncIterator[dict[int, Connection]]:
    """A connection to each worker, by its process id."""
    workers = workers_of(supervisor)
    found: dict[int, Connection] = {}
    opened: list[Connection] = []
    try:
        while found.keys() != set(workers):
            assert len(opened) < _ATTEMPTS, f"of {workers} only {list(found)} could be reached"
            connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=2**20))
            opened.append(connection)
            await ask_on(connection, request("GET", "/healthz"))
            found.setdefault(_server_of(connection, workers), connection)
        async with asyncio.timeout(_PATIENCE):
            yield found
    finally:
        for connection in opened:
            connection.close()


def _server_of(connection: Connection, workers: list[int]) -> int:
    """The worker at the other end of a connection, which it has answered on."""
    _, ours = connection.writer.get_extra_info("sockname")
    _, theirs = connection.writer.get_extra_info("peername")
    ends = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    [inode] = [end[9] for end in ends if end[1].endswith(f":{theirs:04X}") and end[2].endswith(f":{ours:04X}")]
    [worker] = [pid for pid in workers if f"socket:[{inode}]" in _open_files(pid)]
    return worker


def _open_files(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(os.readlink(descriptor))
    return found
