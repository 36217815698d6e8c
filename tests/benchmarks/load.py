"""The load: N connections, each of which sends its next request as soon as the last answer is whole.

A process of its own that parses as little as telling the end of an answer takes. It warms up, tells in a line of
JSON how that went, waits for a line, runs for its time, and tells how that went: counts, and times in seconds.
Requests under way when the time is up are waited for, so what was counted is what was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from typing import Any, Final

import uvloop

__all__ = ["SHAPES", "request_bytes"]

SHAPES: Final = ("json", "json-ids", "sse", "sse-burst")
"""A chat completion; one whose every call names its own id and its user; the same as the first streamed, at a fast
model's pace; and with all events at once, as no model sends them."""
_IDS: Final = ("Helicone-Request-Id: bench-%016d", "Helicone-User-Id: user-%04d")
_USERS: Final = 1000
_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_LAST_EVENT: Final = b"[DONE]"  # where SDKs stop reading
_TAIL: Final = 64  # bytes that hold the last event and the last chunk
_MOST_FAILURES: Final = 1000  # of a round; then it is over
_PATIENCE: Final = 60.0  # seconds for what is under way when the time is up
_PROMPT: Final = "Name the colours of the rainbow, in order, and say for each what it makes you think of."


def request_bytes(port: int, shape: str, fields: Sequence[str] = ()) -> bytes:
    """A chat request as an SDK sends one; ``fields`` are further lines of its head."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": _PROMPT}]
    streaming = {"stream": True, "stream_options": {"include_usage": True}} if shape.startswith("sse") else {}
    content = {"model": "gpt-4o-mini", "messages": messages, "temperature": 0.2, **streaming}
    body = json.dumps(content, separators=(",", ":")).encode()
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Accept: application/json",
        "Content-Type: application/json",
        "User-Agent: OpenAI/Python 2.8.0",
        "X-Stainless-Lang: python",
        "Authorization: Bearer sk-benchmark",
        *fields,
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def _requests(port: int, shape: str, fields: Sequence[str]) -> Iterator[bytes]:
    """The requests of all connections, in turn."""
    if shape != "json-ids":
        yield from repeat(request_bytes(port, shape, fields))
    line, rest = request_bytes(port, "json", fields).split(b"\r\n", 1)
    ids = "\r\n".join(_IDS).encode()
    for number in count(time.time_ns() // 1000):  # no id comes again in another round
        yield line + b"\r\n" + ids % (number, number % _USERS) + b"\r\n" + rest


@dataclass(slots=True)
class _Round:
    """What the connections share while one round lasts; times are of `time.perf_counter`."""

    until: float
    running: int
    over: asyncio.Event = field(default_factory=asyncio.Event)
    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)
    last_events: list[float] = field(default_factory=list)
    failures: int = 0
    last: float = 0.0

    def goes_on(self, now: float) -> bool:
        return now < self.until and self.failures < _MOST_FAILURES

    def leave(self) -> None:
        self.running -= 1
        if not self.running:
            self.over.set()


class _Connection(asyncio.Protocol):
    """One connection. A broken one counts as a failure, and is opened anew."""

    def __init__(self, port: int, requests: Iterator[bytes], streaming: bool) -> None:
        self._port = port
        self._requests = requests
        self._streaming = streaming
        self._round: _Round | None = None
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)

    def start(self, round_: _Round) -> None:
        self._round = round_
        if self._transport.is_closing():
            self._opening = asyncio.get_running_loop().create_task(self._open_again())
        else:
            self._send()

    def _send(self) -> None:
        self._head: bytes | None = b""
        self._tail = b"\r\n"
        self._first_byte = self._last_event = 0.0
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            self._head = data
            if end < 0:
                return
            self._read_head(data[:end])
            data = data[end + 4 :]
        if data:
            self._first_byte = self._first_byte or time.perf_counter()
            self._tail = (self._tail + data)[-_TAIL:]
            self._left -= len(data)
            if self._streaming and not self._last_event and _LAST_EVENT in self._tail:
                self._last_event = time.perf_counter()
        if self._left <= 0 if self._sized else self._tail.endswith(_LAST_CHUNK):
            self._end()

    def _read_head(self, head: bytes) -> None:
        length = _LENGTH.search(head)
        self._head = None
        self._good = head[9:12] == b"200"
        self._sized = length is not None
        self._left = int(length[1]) if length else 0

    def _end(self) -> None:
        now = time.perf_counter()
        if self._round is None:
            return
        if self._good and (self._last_event or not self._streaming):
            self._round.latencies.append(now - self._sent)
            self._round.first_bytes.append(self._first_byte - self._sent)
            if self._streaming:
                self._round.last_events.append(self._last_event - self._sent)
        else:
            self._round.failures += 1
        self._round.last = now
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        assert self._round is not None
        if self._round.goes_on(now):
            self._send()
        else:
            self._round.leave()
            self._round = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._round is not None:
            self._round.failures += 1
            self._opening = asyncio.get_running_loop().create_task(self._open_again())

    async def _open_again(self) -> None:
        assert self._round is not None
        try:
            await self.open()
        except OSError:
            self._round.failures = _MOST_FAILURES
        self._go_on(time.perf_counter())


async def _run(connections: list[_Connection], seconds: float) -> dict[str, Any]:
    began, cpu = time.perf_counter(), time.process_time()
    round_ = _Round(began + seconds, len(connections))
    for connection in connections:
        connection.start(round_)
    await asyncio.wait_for(round_.over.wait(), seconds + _PATIENCE)
    return {
        "requests": len(round_.latencies),
        "failures": round_.failures,
        "seconds": max(round_.last - began, 0.0),
        "cpu_seconds": time.process_time() - cpu,
        "latency_p50": _quantile(round_.latencies, 0.5),
        "latency_p99": _quantile(round_.latencies, 0.99),
        "first_byte_p50": _quantile(round_.first_bytes, 0.5),
        "first_byte_p99": _quantile(round_.first_bytes, 0.99),
        "last_event_p50": _quantile(round_.last_events, 0.5),
    }


def _quantile(values: list[float], share: float) -> float | None:
    """The nearest rank."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else None


async def _load(given: argparse.Namespace) -> None:
    requests, streaming = _requests(given.port, given.shape, given.header), given.shape.startswith("sse")
    connections = [_Connection(given.port, requests, streaming) for _ in range(given.connections)]
    for connection in connections:
        await connection.open()
    _tell(await _run(connections, given.warm_up))
    sys.stdin.readline()  # may block the loop: nothing is under way
    _tell(await _run(connections, given.seconds))


def _tell(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="json")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--warm-up", type=float, default=0.2)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--header", action="append", default=[])
    return parser.parse_args()


if __name__ == "__main__":
    gc.disable()  # nothing here makes cycles, and a collection would be timed
    uvloop.run(_load(_arguments()))
