"""Bytes that leave together, at the end of the event loop's turn.

A write wakes whoever waits for it, which takes as long as all the rest of sending. Of several in a row the first does:
the others find their reader awake. Under load requests come several a turn, so they go on together too.
"""

from __future__ import annotations

import asyncio

__all__ = ["Outbox"]


class Outbox:
    """What is put in is written once the turn has come to its end; a connection that is closed by then gets nothing.

    Whoever writes to a connection otherwise does so before anything is put in for it, or after that has left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []

    def put(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Have ``data`` written."""
        if not self._waiting:
            self._loop.call_soon(self._send)
        self._waiting.append((transport, data))

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
