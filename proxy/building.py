"""Where rows are made: in the event loop, or the store's thread, where that is over at once, else in another thread.

Understanding a large body takes long, and searching any for what `[redact]` names may. A pattern can take for ever on
a few bytes, so a short row's search is tried in the loop for a moment only; one that does not end is tried for longer
in a thread of the few for that, and only then in one of those that are held up for as long as a search may take. So
no row waits for the searches of a slow pattern but such as are slow themselves.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from proxy.exchange import Capture, Exchange
from proxy.pricing import Pricer
from proxy.redaction.redactor import Redactor
from proxy.redaction.rules import TooSlow
from proxy.row import build_call, read_ahead
from storage.records import Call

__all__ = ["RowBuilder"]

logger = logging.getLogger(__name__)

# Understanding bodies of more bytes than this takes long enough to hold other calls up.
_MOST_IN_LOOP: Final = 256 * 1024
# The same where they are searched.
_MOST_SEARCHED_IN_LOOP: Final = 4 * 1024
# The same where who waits for it to be written waits for this no longer than for that: a few milliseconds at most.
_MOST_BESIDE_WRITING: Final = 64 * 1024
# How many times its size an encoded body is taken to hold.
_MOST_PACKED: Final = 64
# Seconds that all searches for a row may take in the loop, and in the threads that are not for slow ones.
_PATIENCE_IN_LOOP: Final = 0.001
_PATIENCE_OF_QUICK: Final = 0.25
_PATIENCE_OF_QUICK_PER_BYTE: Final = 2.5e-7
# The same of all rows that are not made yet when the end comes; their calls have had `shutdown_grace`.
_LAST_PATIENCE: Final = 1.0
# Searches for strings let go of the interpreter, and few processors are had for them.
_THREADS: Final = max(2, min(8, os.cpu_count() or 1))


class RowBuilder:
    """Makes the rows of exchanges that have ended."""

    def __init__(self, pricer: Pricer, redactor: Redactor | None) -> None:
        self._pricer = pricer
        self._redactor = redactor
        self._quick = ThreadPoolExecutor(_THREADS, thread_name_prefix="redact")
        self._slow = ThreadPoolExecutor(_THREADS, thread_name_prefix="redact-slowly")

    def prepare(self, exchange: Exchange) -> None:
        """Do ahead what of a row the request alone tells, if that is over at once. Nothing is raised."""
        request = exchange.request
        if self._redactor is not None or request.content_encoding or request.kept > _MOST_IN_LOOP:
            return
        try:
            if request.is_whole and not request.truncated:
                read_ahead(exchange)
        except TooSlow:
            pass
        except Exception:  # it is no more than a head start
            logger.exception("reading a request ahead")

    def is_quick(self, exchange: Exchange) -> bool:
        """Whether making its row takes no time to speak of, beside that of writing it."""
        request, response = exchange.request, exchange.response
        if self._redactor is not None or request.content_encoding or response.content_encoding:
            return False
        return request.kept + response.kept <= _MOST_BESIDE_WRITING

    def at_once(self, exchange: Exchange) -> Call | None:
        """The row, unless making it would hold other calls up."""
        most = _MOST_IN_LOOP if self._redactor is None else _MOST_SEARCHED_IN_LOOP
        return self.quickly(exchange) if _effort(exchange.request) + _effort(exchange.response) <= most else None

    def quickly(self, exchange: Exchange) -> Call | None:
        """The row of an exchange that `is_quick`, or is small; unless its searches take long."""
        try:
            return build_call(exchange, self._pricer, self._redactor, within=_PATIENCE_IN_LOOP)
        except TooSlow:
            return None

    async def aside(self, exchange: Exchange) -> Call:
        """The row, made in a thread."""
        try:
            if self._redactor is None:
                return await asyncio.to_thread(self._build, exchange, None)
            return await self._search(exchange)
        except RuntimeError:  # there are no more threads to be had
            return self._build(exchange, None)

    async def _search(self, exchange: Exchange) -> Call:
        loop = asyncio.get_running_loop()
        patience = _PATIENCE_OF_QUICK + exchange.weight * _PATIENCE_OF_QUICK_PER_BYTE
        try:
            return await loop.run_in_executor(self._quick, self._build, exchange, patience)
        except TooSlow:
            return await loop.run_in_executor(self._slow, self._build, exchange, None)

    def _build(self, exchange: Exchange, within: float | None) -> Call:
        return build_call(exchange, self._pricer, self._redactor, within=within)

    def hurry(self) -> None:
        """Give the searches that are left little time, all of them together: the end has come."""
        if self._redactor is not None:
            self._redactor.hurry(_LAST_PATIENCE)

    def close(self) -> None:
        """Let go of the threads, which have nothing to do any more."""
        self._quick.shutdown(wait=False)
        self._slow.shutdown(wait=False)


def _effort(capture: Capture) -> int:
    return capture.kept * _MOST_PACKED if capture.content_encoding else capture.kept
