"""A request's body on its way up: copied for the log, bounded, and given again if a dead connection ate it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import StreamReader

from proxy.arrived import take_arrived
from proxy.exchange import Capture

__all__ = ["BrokenBody", "RequestBody", "RequestTooLarge", "StalledBody"]

# Bytes that are kept at hand to be sent again; the client's first piece alone may be a quarter of it.
_MOST_AGAIN: Final = 1024 * 1024


class RequestTooLarge(Exception):
    """The client sent more than the configured bound."""


class BrokenBody(Exception):
    """The client's body ended before it was whole: it left, or it broke the framing."""


class StalledBody(BrokenBody):
    """The client sent nothing of its body for too long."""


class RequestBody:
    """What a client uploads, in the pieces in which it came.

    ``largest`` is in bytes; ``idle_timeout`` are the seconds that may pass between two pieces.
    """

    def __init__(self, content: StreamReader, capture: Capture, largest: int | None, idle_timeout: float) -> None:
        self._content = content
        self._capture = capture
        capture.is_whole = False
        self._largest = largest
        self._idle_timeout = idle_timeout
        self._read: list[bytes] = []
        self._read_size = 0
        self.can_be_sent_again = True
        """Whether everything that was read is still at hand."""

    def whole(self) -> bytes | None:
        """The body in one piece if all of it is here already, else ``None``."""
        if not self._content.is_eof():
            return None
        for piece in take_arrived(self._content):
            self._take(piece)
        self._capture.is_whole = True
        return b"".join(self._read)

    async def read(self, most: int) -> bytes | None:
        """The body in one piece once all of it is here, ``None`` if it is of more than ``most`` bytes.

        Either way `pieces` still gives all of it. Raises as `pieces` does.
        """
        while self._read_size <= most and (piece := await self._next()) is not None:
            self._take(piece)
        return b"".join(self._read) if self._read_size <= most else None

    def replace(self, body: bytes) -> None:
        """Send this instead of what was read, which was all of it. The log keeps what the client sent."""
        self._read = [body]

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body from its beginning, a chunk of the client's a piece; each piece goes into the capture once.

        Raises `RequestTooLarge`, `BrokenBody` and `StalledBody`.
        """
        for known in tuple(self._read):
            yield known
        while (piece := await self._next()) is not None:
            self._take(piece)
            self._forget_what_is_too_much()
            yield piece

    async def _next(self) -> bytes | None:
        """The next bytes, which are never none."""
        while not self._content.at_eof():
            try:
                piece, _ = await self._read_chunk()
            except TimeoutError:
                text = f"Nothing of the request's body came for {self._idle_timeout:g} seconds"
                raise StalledBody(f"{text} (limits.upload_idle_timeout).") from None
            except Exception as error:
                raise BrokenBody(str(error)) from error
            if piece:
                self._capture.is_whole = self._content.at_eof()
                return piece
        self._capture.is_whole = True
        return None

    async def _read_chunk(self) -> tuple[bytes, bool]:
        if self._content._buffer:  # most pieces are there already, and a timer costs more than to read one
            return await self._content.readchunk()
        async with asyncio.timeout(self._idle_timeout):
            return await self._content.readchunk()

    def _take(self, piece: bytes) -> None:
        self._capture.feed(piece)
        self._read_size += len(piece)
        if self._largest is not None and self._read_size > self._largest:
            raise RequestTooLarge
        if self.can_be_sent_again:
            self._read.append(piece)

    def _forget_what_is_too_much(self) -> None:
        if self.can_be_sent_again and self._read_size > _MOST_AGAIN:
            self.can_be_sent_again = False
            self._read.clear()
