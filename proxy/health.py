"""``/healthz``: the process answers. ``/readyz``: it would also keep what it is given."""

from __future__ import annotations

from proxy.dialects import Answer, Dialect
from proxy.recorder import Recorder
from proxy.routes import Route, RouteCall
from storage.base import Storage, StorageError

__all__ = ["Health"]


class Health:
    """Liveness and readiness, open to everybody."""

    def __init__(self, storage: Storage, recorder: Recorder) -> None:
        self._storage = storage
        self._recorder = recorder

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [
            Route("GET", "/healthz", self.alive, Dialect.OPENAI, None),
            Route("GET", "/readyz", self.ready, Dialect.OPENAI, None),
        ]

    async def alive(self, call: RouteCall) -> Answer:
        """200 as long as requests are answered at all."""
        return Answer({"status": "ok"})

    async def ready(self, call: RouteCall) -> Answer:
        """200, or 503 while the store doesn't answer or rows are being dropped."""
        store = "ok"
        try:
            await self._storage.check()
        except StorageError as error:
            store = str(error)
        is_ready = store == "ok" and self._recorder.healthy
        body = {
            "status": "ready" if is_ready else "unready",
            "store": store,
            "rows_waiting": self._recorder.waiting,
            "rows_dropped": self._recorder.dropped,
        }
        return Answer(body, status=200 if is_ready else 503)
