"""What a reader of aiohttp's holds, taken all at once: its own ways of reading take a piece with six calls.

And what it does of what comes for those ways, left out: to note where each chunk ends takes longer than to parse it.
"""

from __future__ import annotations

from aiohttp import StreamReader
from aiohttp.streams import EMPTY_PAYLOAD

__all__ = ["has_too_much", "is_silent", "take_all_at_once", "take_arrived"]


class _Arriving(StreamReader):
    """One of which nobody asks anything but what this module does, and which a parser feeds with many small pieces."""

    __slots__ = ()

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        """Called with each part of a chunk."""
        if data:
            self._size += len(data)
            self._buffer.append(data)
        return False

    def begin_http_chunk_receiving(self) -> None:
        """Called where a chunk begins."""

    def end_http_chunk_receiving(self) -> None:
        """Called where it ends."""


def take_all_at_once(content: StreamReader) -> None:
    """Have `take_arrived` be the one way in which a body is read from now on.

    Whoever feeds it asks `has_too_much`, since itself it has its connection paused no more.
    """
    if type(content) is StreamReader:  # none of aiohttp's others
        content.__class__ = _Arriving  # its parser makes it, and asks nobody of which class


def has_too_much(content: StreamReader) -> bool:
    """Whether so much has come that was not taken that no more should."""
    if content.is_eof():
        return False
    # Of many small pieces each takes more than it holds.
    return content._size > content._high_water or len(content._buffer) > content._high_water_chunks


def is_silent(content: StreamReader) -> bool:
    """Whether nothing has come that was not taken, nor the end."""
    return not content.is_eof() and not content._buffer


def take_arrived(content: StreamReader) -> list[bytes]:
    """All that has come of a body and was not read yet, in the pieces in which it came.

    No piece goes across two of the sender's chunks. What came before an error is there though the error is too. A
    reader that has too much has its connection paused; this has it go on.
    """
    if content is EMPTY_PAYLOAD or not content._buffer:
        return []
    pieces = list(content._buffer)
    if content._buffer_offset:
        pieces[0] = pieces[0][content._buffer_offset :]
        content._buffer_offset = 0
    content._buffer.clear()
    content._size, content._cursor = 0, content.total_bytes
    if content._http_chunk_splits:
        content._http_chunk_splits.clear()
    content._protocol.resume_reading()
    return pieces
