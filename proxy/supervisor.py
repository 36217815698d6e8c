"""Several worker processes on one port, and the one that sees to it that they are there.

The supervisor only starts processes and waits: it has neither threads nor an event loop, so that it can fork, and
nothing of the workers' work can bring it down. It keeps every listening socket open: what waits in a dead worker's
queue is served by its successor.

Between it and each worker lies a pair of sockets. The worker sends a byte when it listens; the end of the stream
tells the supervisor that the worker has gone, and the worker that it is to stop, be it that the supervisor says so
or that it has gone itself.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

__all__ = ["STOP_SIGNALS", "Place", "supervise"]

logger = logging.getLogger(__name__)

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""The first of them asks for an orderly end, the second ends at once."""

# Seconds beyond the grace, for commits: the store may take its time to answer, twice (storage/sqlite: 5 s).
_MARGIN: Final = 15.0
# Seconds that a worker has to live for its successor to come at once, whatever there was before.
_STABLE: Final = 10.0
# Seconds before the second of those that come soon after each other; then twice as many each time, up to the last.
_SHORTEST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker is given: its number among how many, its listening socket, its end of the pair.

    ``directory`` is only this user's, and all workers'; ``supervisor`` is a process id.
    """

    number: int
    count: int
    listening: socket.socket
    control: socket.socket
    directory: Path
    supervisor: int

    def report_ready(self) -> None:
        """Tell the supervisor that this worker listens."""
        try:
            self.control.send(b"!")
        except OSError:
            pass  # it has gone; reading tells

    def clean_up(self) -> None:
        """Remove the directory, if the supervisor can't do that any more."""
        if os.getppid() != self.supervisor:
            shutil.rmtree(self.directory, ignore_errors=True)


Work = Callable[[Place], int]


def supervise(listening: Sequence[socket.socket], work: Work, *, announce: Callable[[], None], grace: float) -> int:
    """Run ``work`` in a process for each of the sockets, and again where one ends, until told to stop.

    ``announce`` is called once all are ready. A worker that ends before that ends all, and its exit status is given.
    Otherwise the status is 0, or 1 where a worker did not end by itself ``grace`` seconds, and some for commits,
    after the signal. Dies of a second signal.
    """
    signals = _Signals()
    directory = Path(tempfile.mkdtemp(prefix="kibitz-"))
    try:
        slots = [_Slot(number, one) for number, one in enumerate(listening)]
        status = _Supervisor(slots, work, signals, directory, grace).run(announce)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if signals.ask_again:
        _die_of(signals.came[-1])
    return status


def _die_of(number: int) -> NoReturn:
    """End at once as the signal does by itself, so that whoever waits for this process sees why."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    raise SystemExit(128 + number)  # not reached, unless the signal is blocked


class _Signals:
    """The stop signals that came; ``readable`` becomes so with each of them."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self.readable, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came.append(number)

    @property
    def ask_again(self) -> bool:
        return len(self.came) > 1

    def let_go(self) -> None:
        """In a child: back to what signals do by themselves."""
        signal.set_wakeup_fd(-1)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self.readable.close()
        self._wakeup.close()


@dataclass(slots=True)
class _Process:
    """A worker's process, and the supervisor's end of the pair; ``started`` is of `time.monotonic`."""

    pid: int
    control: socket.socket
    started: float
    is_ready: bool = False

    def tell_to_stop(self) -> None:
        try:
            self.control.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has gone already

    def bury(self) -> int:
        """Wait for its very end; gives the status as `_End` has it."""
        self.control.close()
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


@dataclass(slots=True)
class _Slot:
    """A listening socket, and the process that serves it, if there is one; else it is ``due`` at that time."""

    number: int
    listening: socket.socket
    process: _Process | None = None
    due: float = 0.0
    pause: float = 0.0

    def wait_for_turn(self, lived: float) -> None:
        """Be due again after ``lived`` seconds: at once, unless it ends like this again and again."""
        if lived > _STABLE:
            self.pause = 0.0
        self.due = time.monotonic() + self.pause
        self.pause = min(max(2 * self.pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)


@dataclass(frozen=True, slots=True)
class _End:
    """That a worker has ended; its exit status, or minus the signal that it died of."""

    number: int
    pid: int
    status: int

    def __str__(self) -> str:
        how = signal.Signals(-self.status).name if self.status < 0 else f"exit status {self.status}"
        return f"worker {self.number} (process {self.pid}) ended: {how}"


class _Supervisor:
    def __init__(self, slots: list[_Slot], work: Work, signals: _Signals, directory: Path, grace: float) -> None:
        self._slots = slots
        self._work = work
        self._signals = signals
        self._directory = directory
        self._grace = grace

    def run(self, announce: Callable[[], None]) -> int:
        # The first alone: it brings the store up to date, and a fault that would be all of theirs is told once.
        failed = self._bring_up(self._slots[:1]) or self._bring_up(self._slots[1:])
        if failed:
            self._stop()
            return failed
        if not self._signals.came:
            announce()
        while not self._signals.came:
            self._restart_the_dead()
        return self._stop()

    def _bring_up(self, slots: Sequence[_Slot]) -> int:
        """Start them and wait until they are ready, which gives 0; the exit status where one ended instead."""
        for slot in slots:
            self._start(slot)
        while not self._signals.came and not all(slot.process and slot.process.is_ready for slot in slots):
            for end in self._wait_for_ends(None):
                if end.status < 0:  # it could not tell why itself
                    logger.error("%s", end)
                return max(end.status, 1)
        return 0

    def _restart_the_dead(self) -> None:
        waiting = [slot for slot in self._slots if slot.process is None]
        now = time.monotonic()
        for slot in waiting:
            if slot.due <= now:
                self._start_again(slot)
        pauses = [slot.due - now for slot in waiting if slot.process is None]
        for end in self._wait_for_ends(min(pauses, default=None)):
            logger.error("%s; another takes its place", end)

    def _start_again(self, slot: _Slot) -> None:
        try:
            self._start(slot)
        except OSError as error:  # of processes or files there are no more to be had
            logger.error("worker %d can't be started: %s", slot.number, error)
            slot.wait_for_turn(0)

    def _stop(self) -> int:
        """Have all of them stop; kill those that don't end in time, and all of them at a second signal."""
        until = time.monotonic() + self._grace + _MARGIN
        for slot in self._slots:
            slot.listening.close()
        for process in self._processes():
            process.tell_to_stop()
        statuses = []
        while self._processes() and not self._signals.ask_again and (left := until - time.monotonic()) > 0:
            statuses += [end.status for end in self._wait_for_ends(left)]
        for process in self._processes():
            logger.error("worker process %d is killed: it has not ended", process.pid)
            os.kill(process.pid, signal.SIGKILL)
            statuses.append(process.bury())
        return 1 if any(statuses) else 0

    def _processes(self) -> list[_Process]:
        return [slot.process for slot in self._slots if slot.process is not None]

    def _wait_for_ends(self, timeout: float | None) -> list[_End]:
        """Wait for news of any kind, and bury the processes that ended."""
        controls = [process.control for process in self._processes()]
        readable, _, _ = select.select([self._signals.readable, *controls], [], [], timeout)
        if self._signals.readable in readable:
            self._signals.readable.recv(64)
        ended = []
        for slot in self._slots:
            process = slot.process
            if process is None or process.control not in readable:
                continue
            if process.control.recv(1):
                process.is_ready = True
                continue
            slot.process = None
            slot.wait_for_turn(time.monotonic() - process.started)
            ended.append(_End(slot.number, process.pid, process.bury()))
        return ended

    def _start(self, slot: _Slot) -> None:
        ours, theirs = socket.socketpair()
        place = Place(slot.number, len(self._slots), slot.listening, theirs, self._directory, os.getpid())
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become(place)
        theirs.close()
        slot.process = _Process(pid, ours, time.monotonic())

    def _become(self, place: Place) -> NoReturn:
        """Be that worker from here on, and end with it."""
        status = 1
        try:
            self._signals.let_go()
            # A copy of the supervisor's ends would hide from the others that it has gone.
            for process in self._processes():
                process.control.close()
            for slot in self._slots:
                if slot.listening is not place.listening:
                    slot.listening.close()
            status = self._work(place)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
