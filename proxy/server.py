"""The server: which connections there are, and which of them give way to others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy.client_http import RelayedResponse, Request
from proxy.connection_limits import ConnectionLimits
from proxy.metrics import Metrics
from proxy.outbox import Outbox
from proxy.server_protocol import ServerProtocol

__all__ = ["Handler", "Server"]

Handler = Callable[[Request], Awaitable[RelayedResponse]]

# Connections beyond the limit that still get an answer: that they are too many, or on a route of ours theirs.
_SURPLUS: Final = 64
# Of the connections that wait for a request, the longest waiting that are looked at for one to close.
_LOOKED_AT: Final = 16


class Server(web.Server):
    """aiohttp's low-level server with this protocol. ``waiting`` are the connections that wait for their clients.

    They do so for a request, or for the body of one on a route of ours, and stand in the order in which they began.
    Beyond ``max_connections`` the first of them gives way to a new one. Where all are busy, the new one is a surplus:
    what is asked on it may only be answered by Kibitz itself, and it ends with that.
    """

    def __init__(self, handler: Handler, limits: ConnectionLimits, metrics: Metrics, **options: Any) -> None:
        super().__init__(
            cast(Any, handler),
            keepalive_timeout=0,  # aiohttp's own timer; ours is in the protocol
            max_line_size=2**31,  # of which the parser would not tell whether it is a line or a field
            max_field_size=limits.max_header_field,
            max_headers=limits.max_header_fields,
            **options,
        )
        self.metrics = metrics
        self.outbox = Outbox(self._loop)
        self.waiting: dict[ServerProtocol, None] = {}
        self.is_ending = False
        self._limits = limits

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        options: dict[str, Any] = self._kwargs
        return ServerProtocol(self, self._limits, loop=self._loop, **options)

    @property
    def is_full(self) -> bool:
        """Whether there are more connections than are allowed."""
        return self.metrics.connections > self._limits.max_connections

    def end_connections(self) -> None:
        """Close those that wait for a request, and from now on the others behind the one that they serve."""
        self.is_ending = True
        for protocol in list(self.waiting):
            if protocol.waits_for_request:
                protocol.give_way()

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Called with each new connection."""
        super().connection_made(handler, transport)
        assert isinstance(handler, ServerProtocol)
        self.metrics.connections += 1
        if self.is_full and not self._make_room():
            handler.is_surplus = True
            if self.metrics.connections > self._limits.max_connections + _SURPLUS:
                transport.abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Called when one has ended."""
        super().connection_lost(handler, exc)
        assert isinstance(handler, ServerProtocol)
        self._discount(handler)

    def _make_room(self) -> bool:
        for number, oldest in enumerate(self.waiting):
            if oldest.give_way():
                del self.waiting[oldest]
                self._discount(oldest)
                return True
            if number >= _LOOKED_AT:
                break
        return False

    def _discount(self, handler: ServerProtocol) -> None:
        if handler.is_counted:
            handler.is_counted = False
            self.metrics.connections -= 1
