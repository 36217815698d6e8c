"""``/healthz``: the process answers. ``/readyz``: it also keeps what it is given. ``/metrics``: what it has counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from proxy.dialects import Answer, Dialect
from proxy.metrics import CONTENT_TYPE, Snapshot, exposition
from proxy.routes import Route, RouteCall
from storage.base import Storage, StorageError

__all__ = ["Health"]


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
            Route("GET", "/healthz", self.alive, Dialect.OPENAI, None),
            Route("GET", "/readyz", self.ready, Dialect.OPENAI, None),
            Route("GET", "/metrics", self.metrics, Dialect.OPENAI, "admin"),
        ]

    async def alive(self, call: RouteCall) -> Answer:
        """200 as long as requests are answered at all."""
        return Answer({"status": "ok"})

    async def ready(self, call: RouteCall) -> Answer:
        """200, or 503 while the store doesn't answer or a process drops rows; the figures are those of all."""
        store = "ok"
        try:
            await self._storage.check()
        except StorageError as error:
            store = str(error)
        snapshots = await self._all_snapshots()
        is_ready = store == "ok" and not _total(snapshots, "kibitz_workers_dropping")
        body = {
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
    return int(sum(snapshot[name] for snapshot in snapshots))
