"""``/openapi.json``: our own routes, this one among them, described for programs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import orjson

import proxy
from proxy.dialects import Answer, Dialect
from proxy.openapi import describe
from proxy.operations import Operation
from proxy.routes import Route, RouteCall
from proxy.text_limits import FeedbackLimits

__all__ = ["Description"]

_READ: Final = Operation(summary="This description, in OpenAPI 3.1.", answer=dict[str, Any])


class Description:
    """Describes ``routes``, and its own, with the ``limits`` of what they take."""

    def __init__(self, routes: Iterable[Route], limits: FeedbackLimits) -> None:
        self._limits = limits
        self._described = (*routes, *self.routes())
        self._document: bytes | None = None

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [Route("GET", "/openapi.json", Dialect.OPENAI, "admin", _READ, self.read)]

    async def read(self, call: RouteCall) -> Answer:
        """The document; it is for operators, as all that tells of the server and not of calls."""
        if self._document is None:  # most processes are never asked, and making it holds calls up
            self._document = await asyncio.to_thread(self._make)
        return Answer(self._document)

    def _make(self) -> bytes:
        return orjson.dumps(describe(self._described, proxy.__version__, self._limits))
