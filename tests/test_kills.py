"""Contract section 5 under ``kill -9``: what a client was told of is there afterwards, whenever the end came.

TEST_KILLS is how often: a few times in the suite, hundreds of times for whoever wants to be sure (``-rP`` shows how
many promises that were).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from tests.conftest import Launcher, Process
from tests.raw_client import connect, request
from tests.upstream import Connection, Received, Upstream, chat_answer, chat_events, sse_answer

KILLS = int(os.environ.get("TEST_KILLS", "6"))
CLIENTS = 12
# Seconds of load within which the end comes: some kills hit the first calls, some a log that has grown.
LONGEST = 0.6
WHOLE = chat_answer()
STREAM = sse_answer(*chat_events("Hello", " there", "."))
PIECE = 300


async def answer_what_was_asked(connection: Connection) -> None:
    """A completion, or a stream of one in pieces."""
    while True:
        asked = await connection.read_request()
        if b'"stream"' not in asked.body:
            await connection.send(WHOLE)
            continue
        for start in range(0, len(STREAM), PIECE):
            await connection.send(STREAM[start : start + PIECE])
            await asyncio.sleep(0)


@dataclass(slots=True)
class Promised:
    """What answers that were read to their end have promised: ids of calls, comments of ratings, ids of values."""

    calls: list[str] = field(default_factory=list)
    ratings: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.calls) + len(self.ratings) + len(self.values)


@dataclass(slots=True)
class Client:
    """Calls and rates in turn, over one connection, until that breaks."""

    name: str
    promised: Promised
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def run(self, port: int) -> None:
        actions: list[Callable[[Connection], Awaitable[None]]] = [self.call, self.stream, self.rate, self.add_value]
        try:
            async with connect(port) as connection:
                while True:
                    await random.choice(actions)(connection)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it was killed

    def next(self) -> str:
        return f"{self.name}-{next(self.numbers)}"

    async def call(self, connection: Connection, body: bytes = b"{}") -> None:
        name = self.next()
        fields = (b"Helicone-Request-Id: " + name.encode(), b"Content-Type: application/json")
        await ask(connection, request("POST", "/v1/chat/completions", *fields, body=body))
        self.promised.calls.append(name)

    async def stream(self, connection: Connection) -> None:
        await self.call(connection, b'{"stream": true}')

    async def rate(self, connection: Connection) -> None:
        if self.promised.calls:
            rated, name = random.choice(self.promised.calls), self.next()
            body = orjson.dumps({"rating": True, "comment": name})
            await ask(connection, request("POST", f"/v1/request/{rated}/feedback", body=body))
            self.promised.ratings.append(name)

    async def add_value(self, connection: Connection) -> None:
        body = orjson.dumps({"trace_id": self.next(), "value": 5})
        answer = await ask(connection, request("POST", "/v1/feedback", body=body))
        self.promised.values += orjson.loads(answer.body)["feedback_ids"]


async def ask(connection: Connection, message: bytes) -> Received:
    await connection.send(message)
    answer = await connection.read_request()
    assert answer.request_line == b"HTTP/1.1 200 OK", answer
    return answer


async def kill_under_load(process: Process, prefix: str) -> Promised:
    promised = Promised()
    clients = [
        asyncio.create_task(Client(f"{prefix}-{number}", promised).run(process.port)) for number in range(CLIENTS)
    ]
    await asyncio.sleep(random.uniform(0, LONGEST))
    await asyncio.to_thread(process.kill)
    await asyncio.gather(*clients)
    return promised


def kept(database: Path) -> Promised:
    """What another process can see."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:

        def column(query: str) -> list[str]:
            return [str(value) for (value,) in db.execute(query)]

        return Promised(
            column("SELECT request_id FROM calls"),
            column("SELECT comment FROM feedback WHERE kind = 'rating'"),
            column("SELECT id FROM feedback WHERE kind = 'value'"),
        )


def is_sound(database: Path) -> bool:
    with closing(sqlite3.connect(database)) as db:
        return db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("workers", [1, 2])
async def test_nothing_that_was_promised_is_lost_by_a_kill(
    launch: Launcher, upstream: Upstream, tmp_path: Path, workers: int
) -> None:
    """A store that stalls is another matter, so the commit is waited for however long this machine takes."""
    upstream.script = answer_what_was_asked
    database = tmp_path / "kibitz.db"
    flags = ("--upstream", upstream.base_url, "--database", str(database), "--workers", str(workers))
    promised = Promised()
    process = await asyncio.to_thread(launch, *flags, KIBITZ_COMMIT_WAIT="60")
    for number in range(KILLS):
        new = await kill_under_load(process, f"{number}")
        promised.calls += new.calls
        promised.ratings += new.ratings
        promised.values += new.values
        process = await asyncio.to_thread(launch, *flags, KIBITZ_COMMIT_WAIT="60")
        found = kept(database)
        assert set(new.calls) - set(found.calls) == set(), f"after kill {number}"
        assert set(new.ratings) - set(found.ratings) == set(), f"after kill {number}"
        assert set(new.values) - set(found.values) == set(), f"after kill {number}"
    sys.stdout.write(f"{KILLS} kills: {len(promised)} promises, of which {len(promised.calls)} calls\n")
    assert min(len(promised.calls), len(promised.ratings), len(promised.values)) > 0
    found = kept(database)
    assert set(promised.calls) - set(found.calls) == set()
    assert len(found.calls) == len(set(found.calls)), "a row is there twice"
    assert is_sound(database)
