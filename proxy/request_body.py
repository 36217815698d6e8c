"""A request's body on its way up: copied for the log, bounded, and given again if a dead connection ate it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import StreamReader

from proxy.exchange import Capture

__all__ = ["BrokenBody", "RequestBody", "RequestTooLarge"]


class RequestTooLarge(Exception):
    """The client sent more than the configured bound."""


class BrokenBody(Exception):
    """The client's body ended before it was whole: it left, or it broke the framing."""


class RequestBody:
    """What a client uploads, in the pieces in which it came."""

    def __init__(self, content: StreamReader, capture: Capture, largest: int | None) -> None:
        self._content = content
        self._capture = capture
        self._largest = largest

    @property
    def can_be_sent_again(self) -> bool:
        """Whether everything that was read is still at hand."""
        return not self._capture.truncated

    def whole(self) -> bytes | None:
        """The body in one piece if all of it is here already, else ``None``."""
        if not self._content.is_eof():
            return None
        known = self._capture.data()  # what was read for an attempt before
        left = b"" if self._content.at_eof() else self._content.read_nowait()
        if left:
            self._take(left)
        return known + left

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body from its beginning, a chunk of the client's a piece; each piece goes into the capture once.

        Raises `RequestTooLarge` and `BrokenBody`.
        """
        for known in tuple(self._capture.chunks):
            yield known
        while (piece := await self._read()) is not None:
            if piece:
                self._take(piece)
                yield piece

    async def _read(self) -> bytes | None:
        if self._content.at_eof():
            return None
        try:
            piece, _ = await self._content.readchunk()
        except Exception as error:
            raise BrokenBody(str(error)) from error
        return piece

    def _take(self, piece: bytes) -> None:
        self._capture.feed(piece)
        if self._largest is not None and self._capture.size > self._largest:
            raise RequestTooLarge
