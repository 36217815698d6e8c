"""Hands ended exchanges to the store in groups, and says when they are safe there.

The rule it keeps (contract section 5): logging never fails a call, and the store never holds one up for longer than
``commit_wait``, nor at all while it is known to be stalled. Making a row is no part of that: a response waits for it
as long as it takes, which is bounded by itself; but for rows made in one go with writing them, within a millisecond or
a few. Groups form by themselves: while one is committed, the next gathers. What waits is bounded in bytes; past the
bound rows are dropped and counted, and `healthy` turns false.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

from proxy.building import RowBuilder
from proxy.commit import Commit
from proxy.exchange import Exchange
from proxy.in_flight import InFlight
from proxy.metrics import Metrics, status_class
from proxy.pricing import Pricer
from proxy.redaction.redactor import Redactor
from proxy.settling import Settling
from storage.base import RefusedRowError, Storage, StorageError
from storage.records import Call

__all__ = ["Recorder", "running_recorder"]

logger = logging.getLogger(__name__)

# Rows a transaction. Under load a group costs a turn of the event loop or two whatever its size, so large ones
# keep up where small ones fall behind; few sizes, because a store may prepare a statement for each.
_GROUP_SIZES: Final[tuple[int, ...]] = (128, 96, 64, 48, 32, 24, *range(16, 0, -1))
# Rows that wait for no others to come.
_GATHERED = 64
# Seconds that rows gather for where no response waits for them.
_RELAXED_PAUSE = 0.01
# How many times ``commit_wait`` a store may take for a group until nobody waits for it any more. Not once: the calls
# that end during a hiccup would go unguaranteed, though it is over before their own wait is.
_STALLED_AFTER = 4
# Seconds between attempts while the store fails.
_RETRY_PAUSE = 0.25


@dataclass(slots=True)
class _Waiting:
    exchange: Exchange
    call: Call
    weight: int
    committed: Commit
    amends: bool = False
    """Whether it is to take the place of a row that was written already."""


@dataclass(slots=True)
class _Lone:
    """A row that is made where it is written, in the store's thread."""

    exchange: Exchange
    weight: int
    committed: Commit
    call: Call | None = None


class Recorder:
    """The one way from an exchange to the store."""

    def __init__(
        self,
        storage: Storage,
        in_flight: InFlight,
        pricer: Pricer,
        metrics: Metrics,
        *,
        strict: bool,
        commit_wait: float,
        max_waiting_bytes: int,
        redactor: Redactor | None = None,
    ) -> None:
        self._storage = storage
        self._in_flight = in_flight
        self._builder = RowBuilder(pricer, redactor)
        self.metrics = metrics
        self._strict = strict
        self._commit_wait = commit_wait
        self._settling = Settling(metrics, commit_wait, self._is_stalled)
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._building_bytes = 0
        self._arrived = asyncio.Event()
        self.waiting = 0
        """Rows that are not in the store yet."""
        self._closing = False
        self._building: set[asyncio.Task[None] | Commit] = set()
        self._lone: _Lone | None = None
        self._writing_since: float | None = None
        self._failures = 0
        self._lost_meanwhile = 0

    @property
    def healthy(self) -> bool:
        """Whether a row that comes now would be kept."""
        return self._waiting_bytes + self._building_bytes < self._max_waiting_bytes

    @property
    def stalled(self) -> bool:
        """Whether the store has had a group for much longer than ``commit_wait``."""
        return self._is_stalled()

    def _is_stalled(self) -> bool:
        since = self._writing_since
        return since is not None and time.perf_counter() - since > _STALLED_AFTER * self._commit_wait

    def snapshot(self) -> dict[str, float]:
        """The figures of this process, for `proxy.metrics.exposition`."""
        return {
            **self.metrics.snapshot(),
            "kibitz_rows_waiting": self.waiting,
            "kibitz_rows_waiting_bytes": self._waiting_bytes,
            "kibitz_workers_stalled": int(self.stalled),
            "kibitz_workers_dropping": int(not self.healthy),
        }

    async def write(self, calls: Sequence[Call]) -> None:
        """Record calls that ended elsewhere, all or none; returns when they are committed, whatever the durability.

        Raises `StorageError`: whoever tells of a call can tell again, so none of them waits in memory.
        """
        await self._storage.write_calls(calls)
        self._count_written(len(calls))

    async def settled(self, committed: Commit) -> None:
        """Wait as long as `when_settled` does. A caller that is cancelled meanwhile loses only its wait."""
        settled = Commit()
        self.when_settled(committed, settled.set)
        await settled

    def when_settled(self, committed: Commit, then: Callable[[], None]) -> None:
        """Have ``then``, which must not raise, called once: when a response need not wait any longer for its row.

        ``committed`` is what `submit` gave. How long is as the durability asks for, and as `Settling` says.
        """
        if self._strict:
            self._settling.watch(committed, then)
        else:
            then()

    @property
    def has_time(self) -> bool:
        """Whether there is time between the calls under way: what one gains by it, no other loses."""
        return self._in_flight.are_few

    def prepare(self, exchange: Exchange) -> None:
        """Do what of its row can be done already, of an exchange whose request has left."""
        self._builder.prepare(exchange)

    def submit(self, exchange: Exchange) -> Commit:
        """Record an ended exchange without waiting for what is given back."""
        committed = Commit()
        self._in_flight.land(exchange)
        if not self._hand_over(exchange, committed):
            self._build(exchange, committed)
        return committed

    def submit_soon(self, exchange: Exchange) -> Commit:
        """The same, but its row is made once what has been written by now has left.

        That is before any task that is woken by what is read later: whoever asks for the call finds it on its way.
        """
        committed = Commit()
        self._in_flight.land(exchange)
        # Whoever has read its end may ask by a response id that only the row will tell: here it is made before.
        if exchange.response_id is None or not self._hand_over(exchange, committed):
            committed.made = made = Commit()
            self._building.add(made)
            asyncio.get_running_loop().call_soon(self._build_now, exchange, committed, made)
        return committed

    def _build_now(self, exchange: Exchange, committed: Commit, made: Commit) -> None:
        try:
            self._build(exchange, committed)
        except Exception:  # that nobody thought of
            logger.exception("making a row")
            self._lose(exchange, committed)
        finally:
            made.set()
            self._built(made)

    def _lose(self, exchange: Exchange, committed: Commit) -> None:
        """There is no row of it; else all that waits for it would wait for ever."""
        self.metrics.dropped += 1
        self._in_flight.remove(exchange)
        committed.set()

    def _hand_over(self, exchange: Exchange, committed: Commit) -> bool:
        """Have the store make and write its row in one go, if it has no other and hardly any calls are under way.

        A call that comes alone waits for all on the way to its row, and all of that is cold: each task that is woken
        between, and each turn of the event loop, takes as long as a part of the row. Under load groups are cheaper.
        """
        if not self._strict or self._waiting or self._writing_since is not None:
            return False
        if not (self._in_flight.are_hardly_any and self.healthy and self._builder.is_quick(exchange)):
            return False
        if exchange.request.is_whole is False:  # it may go on while another thread reads it
            return False
        lone = _Lone(exchange, exchange.weight, committed)
        if not self._storage.write_now(partial(self._make, lone), partial(self._handed_over, lone)):
            return False
        self._lone = lone
        self._writing_since = time.perf_counter()
        self.waiting += 1
        self._waiting_bytes += lone.weight
        return True

    def _make(self, lone: _Lone) -> Call | None:
        """Called in the store's thread."""
        lone.call = call = self._builder.quickly(lone.exchange)
        if call is not None:
            lone.exchange.response_id_of_row = call.provider_response_id
        return call

    def _handed_over(self, lone: _Lone, error: BaseException | None) -> None:
        self._lone = None
        if lone.call is not None and error is not None:
            self._put_back(_Waiting(lone.exchange, lone.call, lone.weight, lone.committed), error)
            return
        self._writing_since = None
        self.waiting -= 1
        self._waiting_bytes -= lone.weight
        if lone.call is not None:
            # Behind the response's end, which leaves with what comes next, and before all that this wakes: the client's
            # next request may be here already.
            asyncio.get_running_loop().call_soon(self._take_note_of_lone, lone.exchange, lone.call)
            lone.committed.set()
        elif error is None:
            self._start_building_aside(lone.exchange, lone.committed)
        else:
            logger.error("making a row", exc_info=error)
            self._lose(lone.exchange, lone.committed)
        if self._waiting or self._closing:
            self._arrived.set()

    def _take_note_of_lone(self, exchange: Exchange, call: Call) -> None:
        self._in_flight.remove(exchange)
        self._count_ended(call)
        self._count_written(1)
        self._take_note_of_an_answer()

    def _put_back(self, waiting: _Waiting, error: BaseException) -> None:
        """Have a row written before those that came later: what has failed is tried again, and told, with them."""
        self._count_ended(waiting.call)
        self._waiting.appendleft(waiting)
        if isinstance(error, StorageError) and not isinstance(error, RefusedRowError):
            self._count_failure(error)
        self._arrived.set()

    def _build(self, exchange: Exchange, committed: Commit) -> None:
        call = self._builder.at_once(exchange)
        if call is None:
            self._start_building_aside(exchange, committed)
        else:
            self._enqueue(exchange, call, committed)

    def amend(self, exchange: Exchange, *, after: Commit) -> Commit:
        """Record an exchange anew whose row, submitted before it had ended, is committed with ``after``."""
        committed = Commit(after=after)
        self._start_building(self._build_amendment(exchange, after, committed), committed)
        return committed

    async def _build_amendment(self, exchange: Exchange, after: Commit, committed: Commit) -> None:
        await after
        call = await self._builder.aside(exchange)
        self._append(_Waiting(exchange, call, exchange.weight, committed, amends=True))

    def _start_building_aside(self, exchange: Exchange, committed: Commit) -> None:
        """Build a row in a thread; what waits for one counts among what waits for the store."""
        if not self.healthy:
            outcome = exchange.failure.kind if exchange.failure else "ok"
            self.metrics.calls[outcome, status_class(exchange.status)] += 1
            self._count_dropped()
            self._in_flight.remove(exchange)
            committed.set()
            return
        weight = exchange.weight  # once for both: a gist may be continued behind a client that left
        self._building_bytes += weight
        self._start_building(self._build_aside(exchange, committed, weight), committed)

    def _start_building(self, building: Coroutine[Any, Any, None], committed: Commit) -> None:
        made = committed.made = Commit()
        task = asyncio.create_task(building, name="build-row")
        self._building.add(task)
        task.add_done_callback(lambda _: made.set())
        task.add_done_callback(self._built)

    async def _build_aside(self, exchange: Exchange, committed: Commit, weight: int) -> None:
        try:
            call = await self._builder.aside(exchange)
        finally:
            self._building_bytes -= weight
        self._enqueue(exchange, call, committed)

    def _built(self, building: asyncio.Task[None] | Commit) -> None:
        self._building.discard(building)
        self._arrived.set()  # whoever waits for the last of them to be written looks again

    def _enqueue(self, exchange: Exchange, call: Call, committed: Commit) -> None:
        exchange.response_id_of_row = call.provider_response_id
        self._count_ended(call)
        self._append(_Waiting(exchange, call, exchange.weight, committed))

    def _count_ended(self, call: Call) -> None:
        self.metrics.calls[call.error_kind or "ok", status_class(call.status)] += 1

    def _append(self, waiting: _Waiting) -> None:
        if not self.healthy:
            self._drop(waiting)
        else:
            self._waiting.append(waiting)
            self.waiting += 1
            self._waiting_bytes += waiting.weight
            self._arrived.set()

    def _drop(self, waiting: _Waiting) -> None:
        self._count_dropped()
        self._finish(waiting)

    def _count_dropped(self) -> None:
        self.metrics.dropped += 1
        self._lost_meanwhile += 1
        if self._lost_meanwhile == 1:  # a line a call would fill the disk that the store may be waiting for
            logger.error("dropping the rows of calls: the memory for waiting rows is full")

    def _finish(self, waiting: _Waiting) -> None:
        waiting.committed.set()  # first: with this the response's end leaves
        if not waiting.amends:
            self._in_flight.remove(waiting.exchange)

    async def run(self) -> None:
        """Write until `close` is called and nothing waits any more."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting and self._lone is None:
                await self._write_next_group()
            if self._closing and not self._building and self._lone is None:
                self._builder.close()
                return

    async def _write_next_group(self) -> None:
        await self._gather()
        group = [self._waiting.popleft() for _ in range(self._group_size())]
        if self._writing_since is None:  # else the first of them has been tried before
            self._writing_since = time.perf_counter()
        await self._write(group)
        self._writing_since = None
        self._leave(group)

    async def _gather(self) -> None:
        """Let rows come together, as long as each turn of the event loop brings another one, and calls run to bring it.

        A row in a group of sixteen costs the store half of what it costs in a group of four. A turn takes as long as
        there is other work to do, so whoever is alone waits for nothing. Where nobody waits, rows do.
        """
        if not self._strict and not self._closing and len(self._waiting) < _GATHERED:
            await asyncio.sleep(_RELAXED_PAUSE)
        before = 0
        while before < len(self._waiting) < _GATHERED and self._in_flight.running:
            before = len(self._waiting)
            await asyncio.sleep(0)

    def _leave(self, group: Iterable[_Waiting]) -> None:
        """These rows wait no longer, whatever has become of them."""
        for waiting in group:
            self.waiting -= 1
            self._waiting_bytes -= waiting.weight
            self._finish(waiting)

    def _group_size(self) -> int:
        """How many of the rows that wait are written next: what amends a row is written by itself."""
        length = 0
        for waiting in islice(self._waiting, _GROUP_SIZES[0]):
            if waiting.amends:
                break
            length += 1
        length = length or 1
        return max(size for size in _GROUP_SIZES if size <= length)

    def close(self) -> None:
        """Make `run` return once everything is written."""
        self._closing = True
        self._builder.hurry()
        self._arrived.set()

    async def _write(self, group: list[_Waiting]) -> None:
        """Write a group, however long the store needs to come back; only a row it refuses outright is lost."""
        while True:
            try:
                await self._store(group)
                self._count_written(len(group))
                break
            except RefusedRowError as error:
                self._take_note_of_an_answer()
                await self._write_singly(group, error)
                return
            except StorageError as error:
                self._count_failure(error)
                if self._closing and self._failures > 1:
                    self._give_up(group, error)
                    return
                await asyncio.sleep(_RETRY_PAUSE)
            except Exception as error:  # one that nobody thought of: it must not end the recording of the rest
                await self._write_singly(group, error)
                return
        self._take_note_of_an_answer()

    def _count_failure(self, error: StorageError) -> None:
        self._failures += 1
        self.metrics.store_failures += 1
        if self._failures == 1:
            logger.warning("the store is away, %d rows wait: %s", self.waiting, error)

    def _take_note_of_an_answer(self) -> None:
        if self._failures or self._lost_meanwhile:
            logger.warning("the store is back; %d rows were dropped meanwhile", self._lost_meanwhile)
            self._failures = self._lost_meanwhile = 0

    def _count_written(self, rows: int) -> None:
        self.metrics.rows_written += rows
        self.metrics.groups_written += 1

    async def _store(self, group: list[_Waiting]) -> None:
        calls = [waiting.call for waiting in group]
        if group[0].amends and await self._storage.replace_response(calls[0]):
            return
        await self._storage.write_calls(calls)

    def _give_up(self, group: list[_Waiting], error: StorageError) -> None:
        """The end has come and the store is not there: what waits behind the group would wait as long, in turn."""
        behind = list(self._waiting)
        self._waiting.clear()
        self._leave(behind)
        lost = len(group) + len(behind)
        self.metrics.dropped += lost
        logger.error("lost %d rows at the end: %s", lost, error)

    async def _write_singly(self, group: list[_Waiting], error: Exception) -> None:
        if len(group) > 1:
            for waiting in group:
                await self._write([waiting])
        else:
            self.metrics.dropped += 1
            logger.error("the row of request %r can't be stored: %s", group[0].call.request_id, error)


@contextlib.asynccontextmanager
async def running_recorder(recorder: Recorder) -> AsyncIterator[Recorder]:
    """The recorder at work; leaving the context writes what still waits."""
    task = asyncio.create_task(recorder.run(), name="recorder")
    try:
        yield recorder
    finally:
        recorder.close()
        await task
