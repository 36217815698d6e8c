"""Recorders before a store that may be faulty, and exchanges for them to record."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, cast

from proxy.exchange import Capture, Exchange
from proxy.headers import read_request_fields
from proxy.identity import identify
from proxy.in_flight import InFlight
from proxy.metrics import Metrics
from proxy.pricing import Pricer
from proxy.recorder import Recorder, running_recorder
from proxy.redaction.redactor import Redactor
from storage import Storage
from storage.records import Call

__all__ = ["ACME", "LARGE", "POISON", "SLOW", "Faulty", "exchange", "new_recorder", "recording", "slow_exchange"]

ACME: Final = "acme"
LARGE: Final = 300_000  # bytes; more than is understood on the event loop
POISON: Final = "/v1/\ud800"  # a path that no store takes
# Takes for ever on a slow exchange, which is searched for as long as it may take.
SLOW: Final = ["(a|aa)+$"]


class Faulty:
    """A real store behind faults: it holds writes back while its gate is shut, and fails them with `fault`."""

    def __init__(self, real: Storage) -> None:
        self.real = real
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.groups: list[int] = []
        self.takes_lone_rows = False
        self.lone_rows = 0

    async def write_calls(self, calls: Sequence[Call]) -> None:
        self.groups.append(len(calls))
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        await self.real.write_calls(calls)

    def write_now(self, make: Callable[[], Call | None], then: Callable[[BaseException | None], None]) -> bool:
        is_taken = self.takes_lone_rows and self.real.write_now(make, then)
        self.lone_rows += is_taken
        return is_taken

    async def replace_response(self, call: Call) -> bool:
        return await self.real.replace_response(call)

    async def request_ids(self, *request_ids: str) -> list[str]:
        """Those of the requests that have a row."""
        return [id for id in request_ids if await self.real.read_call(ACME, id, None)]


def new_recorder(
    store: Faulty,
    in_flight: InFlight,
    *,
    strict: bool = True,
    commit_wait: float = 10,
    max_waiting_bytes: int = 2**24,
    redactor: Redactor | None = None,
) -> Recorder:
    """One that is patient and has room, unless told."""
    return Recorder(
        cast(Storage, store),
        in_flight,
        Pricer({}),
        Metrics(),
        strict=strict,
        commit_wait=commit_wait,
        max_waiting_bytes=max_waiting_bytes,
        redactor=redactor,
    )


def exchange(request_id: str = "r1", *, size: int = 10, status: int = 200, path: str = "/v1/x") -> Exchange:
    """An exchange that has ended; `size` is of its response."""
    ended = Exchange(
        organisation=ACME,
        identity=identify(read_request_fields([(b"Helicone-Request-Id", request_id.encode())])),
        method="POST",
        path=path,
        target_url="http://upstream/v1/x",
        provider="test",
        request=Capture(limit=2**20),
        response=Capture(limit=2**20),
        status=status,
    )
    ended.on_response_bytes(bytes(size))
    ended.end()
    return ended


def slow_exchange(request_id: str) -> Exchange:
    ended = exchange(request_id, size=0)
    ended.on_response_bytes(b"a" * 60 + b"b")
    return ended


@contextlib.asynccontextmanager
async def recording(store: Faulty, recorder: Recorder) -> AsyncIterator[Recorder]:
    """The recorder at work; a test that fails while the gate is shut opens it, or leaving would wait for ever."""
    async with running_recorder(recorder):
        try:
            yield recorder
        except BaseException:
            store.gate.set()
            raise
