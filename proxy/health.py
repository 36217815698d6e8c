"""``/healthz``: the process answers. ``/readyz``: it also keeps what it is given. ``/metrics``: what it has counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

from typing_extensions import TypedDict

from proxy.dialects import Answer, Dialect
from proxy.metrics import CONTENT_TYPE, Snapshot, exposition
from proxy.operations import Operation
from proxy.routes import Route, RouteCall
from storage.base import Storage, StorageError

__all__ = ["Health"]


class Alive(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class Readiness(TypedDict):
    """Whether the log takes rows. ``store`` is "ok", or what is wrong with it; the rows are those of all processes."""

    status: Literal["ready", "unready"]
    store: str
    rows_waiting: int
    rows_dropped: int


_ALIVE: Final = Operation(summary="Whether the process answers.", answer=Alive)
_READY: Final = Operation(
    summary="Whether the log takes rows.",
    description="503 where it does not.",
    answer=Readiness,
    others={503: Readiness},
)
_METRICS: Final = Operation(summary="What Kibitz has counted, for Prometheus.", answer=str, media_type=CONTENT_TYPE)


class Health:
    """Liveness and readiness, open to everybody; metrics, which are of all organisations, for operators.

    ``all_snapshots`` gives those of every process that serves.
    """

    def __init__(self, storage: Storage, all_snapshots: Callable[[], Awaitable[Sequence[Snapshot]]]) -> None:
        self._storage = storage
        self._all_snapshots = all_snapshots

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [
            Route("GET", "/healthz", Dialect.OPENAI, None, _ALIVE, self.alive),
            Route("GET", "/readyz", Dialect.OPENAI, None, _READY, self.ready),
            Route("GET", "/metrics", Dialect.OPENAI, "admin", _METRICS, self.metrics),
        ]

    async def alive(self, call: RouteCall) -> Answer:
        """200 as long as requests are answered at all."""
        alive: Alive = {"status": "ok"}
        return Answer(alive)

    async def ready(self, call: RouteCall) -> Answer:
        """200, or 503 while the store doesn't answer or a process drops rows; the figures are those of all."""
        store = "ok"
        try:
            await self._storage.check()
        except StorageError as error:
            store = str(error)
        snapshots = await self._all_snapshots()
        is_ready = store == "ok" and not _total(snapshots, "kibitz_workers_dropping")
        body: Readiness = {
            "status": "ready" if is_ready else "unready",
            "store": store,
            "rows_waiting": _total(snapshots, "kibitz_rows_waiting"),
            "rows_dropped": _total(snapshots, "kibitz_rows_dropped_total"),
        }
        return Answer(body, status=200 if is_ready else 503)

    async def metrics(self, call: RouteCall) -> Answer:
        """The figures of all processes together, for Prometheus."""
        text = exposition(await self._all_snapshots())
        return Answer(text.decode("utf-8"), media_type=CONTENT_TYPE)


def _total(snapshots: Sequence[Snapshot], name: str) -> int:
    return int(sum(snapshot.get(name, 0) for snapshot in snapshots))
