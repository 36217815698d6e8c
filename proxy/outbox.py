"""Bytes that leave together, at the end of the event loop's turn.

A write wakes whoever waits for it, which takes as long as all the rest of sending. Of several in a row the first does:
the others find their reader awake. Under load requests come several a turn, and so do pieces of answers: they go on
together too, and those for one connection as one. Where few calls run, and each turn is for one, it is passed by.
"""

from __future__ import annotations

import asyncio

__all__ = ["Outbox"]


class Outbox:
    """What is put in is written once the turn has come to its end; a connection that is closed by then gets nothing.

    Whoever writes to a connection otherwise takes what is in here for it, and writes that first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[asyncio.WriteTransport, bytes] = {}

    def put(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Have ``data`` written."""
        if not self._waiting:
            self._loop.call_soon(self._send)
        elif transport in self._waiting:
            data = self._waiting[transport] + data
        self._waiting[transport] = data

    def take(self, transport: asyncio.WriteTransport) -> bytes:
        """What waits for a connection, for the caller to write."""
        return self._waiting.pop(transport, b"") if self._waiting else b""

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for transport, data in waiting.items():
            if not transport.is_closing():
                transport.write(data)
