"""How long a response waits for its row: as long as that takes to be made, and then no longer than ``commit_wait``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from proxy.commit import Commit, Patience
from proxy.metrics import Metrics

__all__ = ["Settling"]

_Tell = Callable[[bool], None]


class Settling:
    """The waits of a process, with the figures of them. ``commit_wait`` is in seconds.

    That is the store's time, which begins once the row is made. Whoever comes while the store is stalled does not
    wait: the calls before have done so in vain.
    """

    def __init__(self, metrics: Metrics, commit_wait: float, is_stalled: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._patience = Patience(commit_wait)
        self._is_stalled = is_stalled

    def watch(self, committed: Commit, then: Callable[[], None]) -> None:
        """Have ``then``, which must not raise, called once the wait for ``committed`` is over, in whatever way."""
        began = time.perf_counter()

        def tell(in_time: bool) -> None:
            waited = time.perf_counter() - began
            then()
            if not in_time:
                self._metrics.late += 1
            self._metrics.waited(waited)

        self._tell_whether_in_time(committed, tell)

    def _tell_whether_in_time(self, committed: Commit, tell: _Tell) -> None:
        if committed.after is not None:
            self._tell_whether_in_time(
                committed.after, lambda in_time: self._when_made(committed, tell) if in_time else tell(False)
            )
        else:
            self._when_made(committed, tell)

    def _when_made(self, committed: Commit, tell: _Tell) -> None:
        made, is_stalled = committed.made, self._is_stalled()
        if made is not None and not (made.done or is_stalled):
            made.tell(lambda: self._when_made(committed, tell))  # a thread may make it by now, with another `made`
        elif committed.done or is_stalled:
            tell(committed.done)
        elif made is None:
            self._patience.watch(committed, partial(self._tell_unless_made_aside, committed, tell))
        else:
            self._patience.watch(committed, tell)

    def _tell_unless_made_aside(self, committed: Commit, tell: _Tell, in_time: bool) -> None:
        """Who was to make a row in one go with writing it may have left that to others: then the wait begins anew."""
        if in_time or committed.made is None:
            tell(in_time)
        else:
            self._when_made(committed, tell)
