"""`make bench-endurance`: many calls through one Kibitz, and what each further ten thousand cost in time and memory.

With ``--fill`` the log is a long one before the first call: rows are written by the storage layer itself, and the
time of the last ones is set beside that of the first ones. Their response ids are random, as providers make them;
their request ids are in the order of their time, as Kibitz makes them, or random too, as callers may bring them.
Figures pass no judgement; a missing row is a warning.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import uuid_utils
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from storage import Storage, open_storage
from storage.records import Body, Call, Usage
from tests.benchmarks.database import await_rows, size_on_disk
from tests.benchmarks.load import request_bytes
from tests.benchmarks.processes import Group, free_port, running_group

__all__ = ["main"]

_GROUP: Final = 128  # rows a transaction
_LINES: Final = 10  # of the table of a fill
_MIB: Final = 2**20
_IN_TURN: Final = ("json", "sse-burst")
_START_WITHIN: Final = 20.0
_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_REQUEST: Final = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "%b"}]}' % (b"What is it? " * 40)
_RESPONSE: Final = b'{"id": "%%b", "choices": [{"message": {"content": "%b"}}]}' % (b"It is this. " * 60)


@dataclass(frozen=True, slots=True)
class _Step:
    """Some calls, one after the other or at once: seconds, bytes, and the mean wait for a commit in seconds."""

    calls: int
    seconds: float
    commit_wait: float
    resident: int


def main() -> int:
    """Runs what the flags ask for."""
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="kibitz-endurance-") as name:
        folder = Path(name)
        if given.fill:
            uvloop.run(_fill(folder / "kibitz.db", given))
        uvloop.run(_endure(folder, given))
    return 0


async def _fill(database: Path, given: argparse.Namespace) -> None:
    rows, step, new_id = given.fill, given.step, uuid.uuid4 if given.random_ids else uuid_utils.uuid7
    _tell(f"rows written by the storage layer, {_GROUP} a transaction, {step:,} a step:\n\n{'rows':>12} {'s/step':>8}")
    storage = await open_storage(str(database))
    times = [await _write(storage, range(first, min(first + step, rows)), new_id) for first in range(0, rows, step)]
    await storage.close()
    shown = sorted({0, *range(len(times) - 1, 0, -max(1, len(times) // _LINES))})
    for number in shown:
        _tell(f"{min((number + 1) * step, rows):>12,} {times[number]:>8.2f}")
    _tell(f"\n{_growth(times)}; on disk: {size_on_disk(database) // _MIB:,} MiB\n")


async def _write(storage: Storage, numbers: range, new_id: Callable[[], object]) -> float:
    """The seconds that the store took; making the rows is not among them."""
    seconds = 0.0
    for first in range(0, len(numbers), _GROUP):
        group = [_call(number, str(new_id())) for number in numbers[first : first + _GROUP]]
        began = time.perf_counter()
        await storage.write_calls(group)
        seconds += time.perf_counter() - began
    return seconds


def _growth(times: list[float]) -> str:
    """The end beside the beginning, by the quickest step of each: others lay in the way of something else."""
    tenth = max(1, len(times) // 10)
    return f"quickest step of the last tenth to that of the first: {min(times[-tenth:]) / min(times[:tenth]):.2f}"


def _call(number: int, request_id: str) -> Call:
    """A row as calls leave it: ids that are new, users and sessions that come back, bodies of some hundred bytes."""
    response_id = f"chatcmpl-{uuid.uuid4().hex}"
    response = _RESPONSE % response_id.encode()
    return Call(
        organisation="default",
        request_id=request_id,
        trace_id=request_id,
        session_id=f"session-{number // 8}",
        user_id=f"user-{number % 5000}",
        method="POST",
        path="/v1/chat/completions",
        target_url="https://api.openai.com/v1/chat/completions",
        provider="openai",
        started_at=1_700_000_000_000_000 + number * 1000,
        latency=800_000,
        status=200,
        request_model="gpt-4o-mini",
        response_model="gpt-4o-mini-2024-07-18",
        provider_response_id=response_id,
        finish_reason="stop",
        usage=Usage(prompt_tokens=120, completion_tokens=180, total_tokens=300),
        properties={"feature": f"feature-{number % 20}"},
        request=Body(_REQUEST, len(_REQUEST), content_type="application/json"),
        response=Body(response, len(response), content_type="application/json"),
    )


async def _endure(folder: Path, given: argparse.Namespace) -> None:
    upstream, port, database = free_port(), free_port(), folder / "kibitz.db"
    upstream_command = (sys.executable, "-m", "tests.benchmarks.upstream", str(upstream))
    flags = ("--port", str(port), "--upstream", f"http://127.0.0.1:{upstream}/v1", "--database", database)
    with (
        running_group(upstream_command, folder / "upstream.log") as other,
        running_group((sys.executable, "-m", "proxy", "serve", *flags), folder / "kibitz.log") as kibitz,
    ):
        other.await_listening(upstream, _START_WITHIN)
        kibitz.await_listening(port, _START_WITHIN)
        _tell(
            f"calls, {given.connections} at once, answers and streams in turn, {given.step:,} a step; "
            f"{_resident(kibitz) // _MIB} MiB before:\n\n"
            f"{'calls':>12} {'s/step':>8} {'commit ms':>10} {'MiB':>6}"
        )
        steps = await _steps(port, given, kibitz)
        _tell(f"\n{_growth([step.seconds for step in steps])}")
        rows = await_rows(database, given.fill + given.calls)
        if rows != given.fill + given.calls:
            _tell(f"WARNING: {given.fill + given.calls:,} rows should be there, and {rows:,} are")


async def _steps(port: int, given: argparse.Namespace, kibitz: Group) -> list[_Step]:
    steps: list[_Step] = []
    waits, waited = await _commit_waits(port)
    for first in range(0, given.calls, given.step):
        calls = min(given.step, given.calls - first)
        began = time.perf_counter()
        await _make(port, calls, given.connections)
        seconds = time.perf_counter() - began
        before, (waits, waited) = (waits, waited), await _commit_waits(port)
        mean = (waited - before[1]) / max(waits - before[0], 1)
        steps.append(_Step(first + calls, seconds, mean, _resident(kibitz)))
        _tell(f"{first + calls:>12,} {seconds:>8.2f} {mean * 1000:>10.2f} {steps[-1].resident // _MIB:>6}")
    return steps


def _resident(kibitz: Group) -> int:
    usage = kibitz.usage()
    return usage.resident if usage else 0


async def _commit_waits(port: int) -> tuple[float, float]:
    """How many responses have waited for their rows, and how many seconds all together."""
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    samples = {sample.name: sample.value for family in families for sample in family.samples}
    return samples["kibitz_commit_wait_seconds_count"], samples["kibitz_commit_wait_seconds_sum"]


async def _make(port: int, calls: int, connections: int) -> None:
    requests = [request_bytes(port, shape) for shape in _IN_TURN]
    left = iter(range(calls))  # shared: whoever is done takes the next one
    await asyncio.gather(*(_connection(port, requests, left) for _ in range(connections)))


async def _connection(port: int, requests: list[bytes], left: Iterator[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in left:
        writer.write(requests[number % len(requests)])
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"a call failed: {head.splitlines()[0].decode('latin-1')}")
        if length := _LENGTH.search(head):
            await reader.readexactly(int(length[1]))
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
    await writer.wait_closed()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-endurance", description="Sends many calls through one Kibitz.")
    number = _at_least(1)
    parser.add_argument("--calls", metavar="N", type=number, default=100_000, help="how many (%(default)s)")
    parser.add_argument("--connections", metavar="N", type=number, default=16, help="calls at once (%(default)s)")
    parser.add_argument("--step", metavar="N", type=number, default=10_000, help="calls a line (%(default)s)")
    parser.add_argument("--fill", metavar="N", type=_at_least(0), default=0, help="rows before (%(default)s)")
    parser.add_argument("--random-ids", action="store_true", help="with request ids that are random")
    return parser.parse_args()


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{least} at least")
        return int(text)

    return number


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
