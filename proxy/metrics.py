"""What ``/metrics`` tells: plain counters while calls pass, the text that Prometheus reads when it asks.

A label's values are few and Kibitz's own: no model, user, path or key ever gets in here. A snapshot is names with
numbers, so those of several processes add up; ``:`` stands between a family's name and the values of its labels.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "Metrics", "Snapshot", "counters", "exposition", "status_class"]

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

Snapshot = Mapping[str, float]
"""Every figure of one process by its name."""

# Upper bounds in seconds, up to where nobody waits any longer: `commit_wait` is 0.25 unless set.
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_BUCKETS: Final = (*map(str, _BOUNDS), "+Inf")
_WAIT: Final = "kibitz_commit_wait_seconds"


@dataclass(frozen=True, slots=True)
class _Family:
    name: str
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    help: str
    labels: tuple[str, ...] = ()


_FAMILIES: Final = (
    _Family(
        "kibitz_calls_total",
        CounterMetricFamily,
        "Calls that ended, by how (ok, or the kind of error in their row) and the class of the answer's status.",
        ("outcome", "status"),
    ),
    _Family("kibitz_calls_in_flight", GaugeMetricFamily, "Calls under way."),
    _Family(
        "kibitz_calls_refused_total",
        CounterMetricFamily,
        "Requests refused before they went anywhere, by the code of the refusal; they have no row.",
        ("code",),
    ),
    _Family(
        "kibitz_route_requests_total",
        CounterMetricFamily,
        "Requests to Kibitz's own routes, by the class of the answer's status.",
        ("method", "route", "status"),
    ),
    _Family("kibitz_rows_written_total", CounterMetricFamily, "Rows of calls that the store has taken."),
    _Family("kibitz_row_groups_written_total", CounterMetricFamily, "Transactions that these rows were written in."),
    _Family("kibitz_rows_dropped_total", CounterMetricFamily, "Rows of calls that were lost."),
    _Family("kibitz_rows_pruned_total", CounterMetricFamily, "Rows of calls that were deleted as [retention] says."),
    _Family("kibitz_rows_waiting", GaugeMetricFamily, "Rows in memory that the store has not taken yet."),
    _Family("kibitz_rows_waiting_bytes", GaugeMetricFamily, "About the memory that these rows take."),
    _Family("kibitz_responses_late_total", CounterMetricFamily, "Responses that were complete before their row was."),
    _Family("kibitz_store_failures_total", CounterMetricFamily, "Writes of rows that the store failed."),
    _Family("kibitz_connections", GaugeMetricFamily, "Open connections of clients."),
    _Family("kibitz_workers", GaugeMetricFamily, "Processes that these figures are of."),
    _Family("kibitz_workers_stalled", GaugeMetricFamily, "Of these, those whose store keeps rows waiting."),
    _Family("kibitz_workers_dropping", GaugeMetricFamily, "Of these, those with no more room for rows that wait."),
)


class Metrics:
    """What one process has counted since it started. Whoever sees a thing happen adds it here."""

    def __init__(self) -> None:
        self.calls_begun = 0
        self.calls: defaultdict[tuple[str, str], int] = defaultdict(int)
        """Calls that ended, by outcome and class of status."""
        self.refused: defaultdict[str, int] = defaultdict(int)
        self.route_requests: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.rows_written = 0
        self.groups_written = 0
        self.dropped = 0
        """Rows lost: refused by the store, or it was away for longer than memory or the process lasted."""
        self.rows_pruned = 0
        """Rows deleted in the background, because they were too old or too many."""
        self.late = 0
        """Responses completed before their row was committed, because the store stalled."""
        self.store_failures = 0
        self.connections = 0
        """Clients' connections that are open."""
        self._waits = [0] * len(_BUCKETS)
        self._waited = 0.0

    def refuse(self, code: str) -> None:
        """Count a call that is refused before it goes anywhere."""
        self.refused[code] += 1

    def answered(self, method: str, route: str, status: int) -> None:
        """A route of our own, by its pattern, gave an answer."""
        self.route_requests[method, route, status_class(status)] += 1

    def waited(self, seconds: float) -> None:
        """The end of a response was held back for so long."""
        self._waits[bisect_left(_BOUNDS, seconds)] += 1
        self._waited += seconds

    def snapshot(self) -> dict[str, float]:
        """The figures of now."""
        return {
            **{f"kibitz_calls_total:{outcome}:{status}": count for (outcome, status), count in self.calls.items()},
            "kibitz_calls_in_flight": self.calls_begun - sum(self.calls.values()),
            **{f"kibitz_calls_refused_total:{code}": count for code, count in self.refused.items()},
            **{f"kibitz_route_requests_total:{':'.join(key)}": count for key, count in self.route_requests.items()},
            "kibitz_rows_written_total": self.rows_written,
            "kibitz_row_groups_written_total": self.groups_written,
            "kibitz_rows_dropped_total": self.dropped,
            "kibitz_rows_pruned_total": self.rows_pruned,
            "kibitz_responses_late_total": self.late,
            "kibitz_store_failures_total": self.store_failures,
            "kibitz_connections": self.connections,
            "kibitz_workers": 1,
            **{f"{_WAIT}:{bound}": count for bound, count in zip(_BUCKETS, self._waits, strict=True)},
            f"{_WAIT}:sum": self._waited,
        }


def status_class(status: int | None) -> str:
    """``2xx`` for 200, and so on; ``none`` where there was no status."""
    return f"{status // 100}xx" if status is not None else "none"


def counters(snapshot: Snapshot) -> dict[str, float]:
    """The figures that only ever grow while a process lives."""
    gauges = {family.name for family in _FAMILIES if family.kind is GaugeMetricFamily}
    return {name: value for name, value in snapshot.items() if name.partition(":")[0] not in gauges}


def exposition(snapshots: Sequence[Snapshot]) -> bytes:
    """The sum of what some processes have counted, in Prometheus' text format (version 0.0.4)."""
    return generate_latest(_Sum(snapshots))


class _Sum(Collector):
    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._totals: defaultdict[str, float] = defaultdict(float)
        for snapshot in snapshots:
            for name, value in snapshot.items():
                self._totals[name] += value

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """Every family, those without a sample too: their names are there from the start."""
        for family in _FAMILIES:
            collected = family.kind(family.name, family.help, labels=family.labels)
            for name, value in self._totals.items():
                known, *labels = name.split(":")
                if known == family.name:
                    collected.add_metric(labels, value)
            yield collected
        yield self._waits()

    def _waits(self) -> HistogramMetricFamily:
        below, buckets = 0.0, []
        for bound in _BUCKETS:
            below += self._totals[f"{_WAIT}:{bound}"]
            buckets.append((bound, below))
        text = "Seconds that the end of a response was held back until its row was committed."
        return HistogramMetricFamily(_WAIT, text, buckets=buckets, sum_value=self._totals[f"{_WAIT}:sum"])
