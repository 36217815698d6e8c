"""How long a response waits for its row: as long as that takes to be made, and then no longer than ``commit_wait``."""

from __future__ import annotations

import time
from collections.abc import Callable

from proxy.commit import Commit, Patience
from proxy.metrics import Metrics

__all__ = ["Settling"]


class Settling:
    """The waits of a process, with the figures of them. ``commit_wait`` is in seconds.

    That is the store's time, which begins once the row is made. Whoever comes while the store is stalled does not
    wait: the calls before have done so in vain.
    """

    def __init__(self, metrics: Metrics, commit_wait: float, is_stalled: Callable[[], bool]) -> None:
        self.metrics = metrics
        self.patience = Patience(commit_wait)
        self.is_stalled = is_stalled

    def watch(self, committed: Commit, then: Callable[[], None]) -> None:
        """Have ``then``, which must not raise, called once the wait for ``committed`` is over, in whatever way."""
        _Wait(self, _in_turn(committed), then, time.perf_counter()).begin()


def _in_turn(committed: Commit) -> tuple[Commit, ...]:
    """What there is to wait for: first what has to be committed before."""
    return (committed,) if committed.after is None else (*_in_turn(committed.after), committed)


class _Wait:
    """One for the first of some commits. It ends once, with that or with the time that there is."""

    __slots__ = ("_began", "_commits", "_settling", "_then", "_was_made", "is_over")

    def __init__(self, settling: Settling, commits: tuple[Commit, ...], then: Callable[[], None], began: float) -> None:
        self._settling = settling
        self._commits = commits
        self._then = then
        self._began = began
        self._was_made = False
        self.is_over = False

    def begin(self) -> None:
        committed, is_stalled = self._commits[0], self._settling.is_stalled()
        made = committed.made
        if made is not None and not (made.done or is_stalled):
            made.tell(self.begin)  # a thread may make it by now, with another `made`
        elif committed.done or is_stalled:
            self._end(in_time=committed.done)
        else:
            self._was_made = made is not None
            committed.tell(self._end_in_time)
            self._settling.patience.watch(self)

    def _end_in_time(self) -> None:
        if not self.is_over:
            self._end(in_time=True)

    def end_late(self) -> None:
        """See `proxy.commit.Wait`."""
        if self._commits[0].made is None or self._was_made:
            self._end(in_time=False)
        else:  # who was to make the row in one go with writing it has left that to others: the time begins anew
            self._go_on_with(self._commits)

    def _end(self, *, in_time: bool) -> None:
        if in_time and len(self._commits) > 1:
            self._go_on_with(self._commits[1:])
            return
        self.is_over = True
        waited = time.perf_counter() - self._began
        self._then()
        if not in_time:
            self._settling.metrics.late += 1
        self._settling.metrics.waited(waited)

    def _go_on_with(self, commits: tuple[Commit, ...]) -> None:
        self.is_over = True
        _Wait(self._settling, commits, self._then, self._began).begin()
