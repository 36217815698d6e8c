"""`make bench-queries`: every question about many calls, asked of a filled log; and calls that go on beside them.

Each is asked over HTTP of a Kibitz of its own process: of the whole log, and of its last days. Then calls come at a
steady rate, with nobody asking and with one who asks the slowest questions over and over. Figures pass no judgement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from storage import open_storage
from tests.benchmarks.database import size_on_disk
from tests.benchmarks.machine import describe
from tests.benchmarks.population import fill
from tests.benchmarks.processes import Group, free_port, running_group
from tests.benchmarks.questions import Question, questions

__all__ = ["main"]

_START_WITHIN: Final = 20.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=120)
# Of a question's rounds those that count, and seconds from which one suffices.
_ROUNDS: Final = 3
_LONG: Final = 5.0
# Questions that are asked beside the calls: so many of the slowest.
_SLOWEST: Final = 8
_CALL: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is it?"}]}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question's times in seconds: the first, and the best of those behind it; and its answer's size in bytes.

    ``cpu`` is what each took of the processor, which heeds less what else the machine does; None where nobody can tell.
    """

    name: str
    days: int | None
    first: float
    again: float
    cpu: float | None
    size: int


@dataclass(frozen=True, slots=True)
class Beside:
    """Calls at a steady rate: how many, and their times in seconds."""

    calls: int
    median: float
    p99: float
    longest: float


def main() -> int:
    """Runs what the flags ask for."""
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="kibitz-queries-") as name:
        database = given.database or Path(name) / "kibitz.db"
        if not database.exists():
            uvloop.run(_fill(database, given.calls))
        report = uvloop.run(_measure(database, Path(name), given))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    _tell(f"written to {given.json}")
    return 0


async def _fill(database: Path, calls: int) -> None:
    storage = await open_storage(str(database))
    began = time.perf_counter()
    items = await fill(storage, database, calls)
    written = time.perf_counter()
    plain = size_on_disk(database)
    while await storage.add_up(beside_calls=False):
        pass
    added = time.perf_counter() - written
    await storage.close()
    sums = (size_on_disk(database) - plain) / calls
    _tell(
        f"{calls:,} calls and {items:,} items of feedback: {calls / (written - began):,.0f} calls/s, "
        f"{plain / calls:,.0f} bytes a call; sums {added / calls * 1e6:.1f} µs and {sums:.0f} bytes a call\n"
    )


async def _measure(database: Path, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    upstream, port = free_port(), free_port()
    flags = ("--port", str(port), "--upstream", f"http://127.0.0.1:{upstream}/v1", "--database", database)
    commands = [
        ((sys.executable, "-m", "tests.benchmarks.upstream", str(upstream)), upstream, "upstream.log"),
        ((sys.executable, "-m", "proxy", "serve", *flags), port, "kibitz.log"),
    ]
    with ExitStack() as stack:
        groups = [stack.enter_context(running_group(command, folder / log)) for command, _, log in commands]
        for group, (_, listens, _) in zip(groups, commands, strict=True):
            group.await_listening(listens, _START_WITHIN)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=_TIMEOUT) as client:
            asked = [await _ask(client, groups[-1], one, given.rounds) for one in _questions(given)]
            alone, beside = await _beside(client, asked, given)
    return {
        "machine": describe(None),
        "calls": given.calls,
        "questions": [asdict(one) for one in asked],
        "calls_alone": asdict(alone),
        "calls_beside_questions": asdict(beside),
    }


def _questions(given: argparse.Namespace) -> list[Question]:
    spans = [None if part == "all" else int(part) for part in given.days.split(",")]
    found = [one for span in spans for texts in (False, True) for one in questions(span, texts=texts)]
    _tell(f"{'first ms':>9} {'again ms':>9} {'CPU ms':>7}  days  question")
    return [one for one in found if given.only in one.name and (given.texts or "text of" not in one.name)]


async def _ask(client: aiohttp.ClientSession, kibitz: Group, question: Question, rounds: int) -> Asked:
    before = kibitz.usage()
    first, size = await _answer(client, question)
    again = [(await _answer(client, question))[0] for _ in range(rounds if first < _LONG else 0)]
    after = kibitz.usage()
    cpu = (after.cpu_seconds - before.cpu_seconds) / (1 + len(again)) if before and after else None
    asked = Asked(question.name, question.days, first, min(again, default=first), cpu, size)
    shown = f"{cpu * 1000:>7.0f}" if cpu is not None else f"{'-':>7}"
    _tell(f"{first * 1000:>9.0f} {asked.again * 1000:>9.0f} {shown}  {question.days or 'all':>4}  {question.name}")
    return asked


async def _answer(client: aiohttp.ClientSession, question: Question) -> tuple[float, int]:
    """Seconds, and bytes."""
    began = time.perf_counter()
    method = "GET" if question.body is None else "POST"
    async with client.request(method, question.path, json=question.body) as response:
        body = await response.read()
    if response.status != 200:
        raise SystemExit(f"{question.name} was answered with {response.status}: {body[:300]!r}")
    return time.perf_counter() - began, len(body)


async def _beside(
    client: aiohttp.ClientSession, asked: Sequence[Asked], given: argparse.Namespace
) -> tuple[Beside, Beside]:
    """Calls alone and beside the slowest questions, in turns."""
    names = {(one.name, one.days) for one in sorted(asked, key=lambda one: -one.again)[:_SLOWEST]}
    slow = [one for one in _questions_again(given) if (one.name, one.days) in names]
    alone, beside = list[float](), list[float]()
    for _ in range(given.turns):
        alone += await _calls(client, given)
        asking = asyncio.create_task(_keep_asking(client, slow))
        beside += await _calls(client, given)
        asking.cancel()
        await asyncio.wait([asking])
    figures = _figures(alone), _figures(beside)
    for name, one in zip(("alone", "beside questions"), figures, strict=True):
        _tell(
            f"\n{one.calls} calls, {given.rate}/s, {name}: median {one.median * 1000:.1f} ms, "
            f"p99 {one.p99 * 1000:.1f} ms, longest {one.longest * 1000:.1f} ms"
        )
    _tell(f"\np99 beside questions to p99 alone: {figures[1].p99 / figures[0].p99:.2f}")
    return figures


def _questions_again(given: argparse.Namespace) -> list[Question]:
    spans = [None if part == "all" else int(part) for part in given.days.split(",")]
    return [one for span in spans for one in questions(span)]


async def _keep_asking(client: aiohttp.ClientSession, slow: Sequence[Question]) -> None:
    while True:
        for question in slow:
            await _answer(client, question)


async def _calls(client: aiohttp.ClientSession, given: argparse.Namespace) -> list[float]:
    """Calls that begin when they are due, whatever became of those before them."""
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    tasks = list[asyncio.Task[float]]()
    for number in range(round(given.seconds * given.rate)):
        await asyncio.sleep(max(0.0, began + number / given.rate - time.perf_counter()))
        tasks.append(loop.create_task(_call(client)))
    return await asyncio.gather(*tasks)


async def _call(client: aiohttp.ClientSession) -> float:
    began = time.perf_counter()
    async with client.post("/v1/chat/completions", json=_CALL) as response:
        await response.read()
    if response.status != 200:
        raise SystemExit(f"a call was answered with {response.status}")
    return time.perf_counter() - began


def _figures(times: Sequence[float]) -> Beside:
    return Beside(len(times), statistics.median(times), statistics.quantiles(times, n=100)[98], max(times))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-queries", description="Asks a filled log every question.")
    add = parser.add_argument
    add("--calls", metavar="N", type=int, default=100_000, help="in the log (%(default)s)")
    add("--database", metavar="PATH", type=Path, help="a log to keep; it is filled if it is not there")
    add("--days", metavar="A,B", default="all,30,7", help="how far back is asked (%(default)s)")
    add("--only", metavar="TEXT", default="", help="the questions whose names have it")
    add("--texts", action="store_true", help="those on texts too, which without an index read all bodies")
    add("--rounds", metavar="N", type=int, default=_ROUNDS, help="of each question behind the first (%(default)s)")
    add("--rate", metavar="N", type=int, default=50, help="calls a second beside the questions (%(default)s)")
    add("--seconds", metavar="S", type=float, default=5.0, help="of a turn of these calls (%(default)s)")
    add("--turns", metavar="N", type=int, default=3, help="alone and beside questions (%(default)s)")
    add("--json", metavar="PATH", type=Path, default=Path("build/bench-queries.json"), help="(%(default)s)")
    return parser.parse_args()


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
