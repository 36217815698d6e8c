"""``GET /v1/request/{id}``."""

from __future__ import annotations

import asyncio

from proxy.dialects import Answer, Dialect, Failed
from proxy.reads.rows import row
from proxy.routes import Route, RouteCall
from proxy.under_way import UnderWay
from storage.base import Storage

__all__ = ["RequestReads"]

# The largest attempt that SQLite can count to is far beyond; this one only keeps nonsense away.
_MOST_DIGITS = 9
# Understanding bodies of more bytes than this takes long enough to hold calls up; a thread does it.
_BUILD_IN_THREAD = 64 * 1024


class RequestReads:
    """Reads single rows."""

    def __init__(self, storage: Storage, under_way: UnderWay) -> None:
        self._storage = storage
        self._under_way = under_way

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [Route("GET", "/v1/request/{id}", self.read, Dialect.HELICONE, "read")]

    async def read(self, call: RouteCall) -> Answer:
        """One row: the latest attempt, or ``?attempt=n``; with ``?includeBody=true`` its bodies too."""
        attempt = _attempt(call.query.get("attempt"))
        call_id = call.parameters["id"]
        await self._under_way.landed(call.organisation, call_id)
        stored = await self._storage.read_call(call.organisation, call_id, attempt)
        if stored is None:
            raise Failed(404, "not_found", "Request not found")
        include_body = call.query.get("includeBody", "").lower() == "true"
        if stored.call.request.size + stored.call.response.size > _BUILD_IN_THREAD:
            data = await asyncio.to_thread(row, stored, include_body=include_body)
        else:
            data = row(stored, include_body=include_body)
        return Answer({"data": data, "error": None}, trace_id=stored.call.trace_id)


def _attempt(text: str | None) -> int | None:
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) > 0:
        return int(text)
    raise Failed(400, "invalid_parameter", "attempt must be a number from 1")
