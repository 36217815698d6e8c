"""What a reader of aiohttp's holds, taken all at once: its own ways of reading take a piece with six calls."""

from __future__ import annotations

from aiohttp import StreamReader
from aiohttp.streams import EMPTY_PAYLOAD

__all__ = ["take_arrived"]


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
