"""What a reader of aiohttp's holds, taken all at once: its own ways of reading take a piece with six calls.

And what it does of what comes for those ways, left out: to note where each chunk ends takes longer than to parse it.
"""

from __future__ import annotations

from aiohttp import StreamReader
from aiohttp.streams import EMPTY_PAYLOAD

__all__ = ["take_all_at_once", "take_arrived"]


class _Arriving(StreamReader):
    """One of which nobody asks anything but what `take_arrived` does, and which parser and protocol feed as ever."""

    __slots__ = ()

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        """Called with each part of a chunk."""
        if data:
            length = len(data)
            self._size += length
            self.total_bytes += length
            self._buffer.append(data)
            # Of many small pieces each takes more than it holds.
            if self._size > self._high_water or len(self._buffer) > self._high_water_chunks:
                self._protocol.pause_reading()
        return False

    def begin_http_chunk_receiving(self) -> None:
        """Called where a chunk begins."""

    def end_http_chunk_receiving(self) -> None:
        """Called where it ends."""


def take_all_at_once(content: StreamReader) -> None:
    """Have `take_arrived` be the one way in which a body is read from now on."""
    if type(content) is StreamReader:  # none of aiohttp's others
        content.__class__ = _Arriving  # its parser makes it, and asks nobody of which class


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
