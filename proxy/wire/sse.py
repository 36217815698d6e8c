"""Server-sent events out of bytes, by the standard's rules (WHATWG HTML, section 9.2.6).

Two liberties, since this reads what was logged and not what is to be dispatched: a last event that lacks its
empty line counts, and bytes that are not UTF-8 are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["LastEventWatch", "events", "is_event_stream"]

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# Any number of empty lines end one event, so that a body of nothing else takes no time.
_EMPTY_LINES: Final = re.compile(rb"\n\n+")
_MEDIA_TYPE: Final = "text/event-stream"
# The lines that begin the last events of OpenAI's and Anthropic's streams: inside JSON a line end is escaped.
_LAST_EVENT: Final = re.compile(
    rb"[\r\n](?:data: ?\[DONE\]|event: ?(?:message_stop|response\.(?:completed|incomplete|failed)))(?=[\r\n])"
)
_EVENT_END: Final = re.compile(rb"\n[\r\n]|\r\r")
_LONGEST_FIRST_LINE: Final = 32  # bytes, with the line ends around it


def is_event_stream(content_type: str | None) -> bool:
    """Whether a Content-Type names server-sent events."""
    return content_type is not None and content_type.partition(";")[0].strip().lower() == _MEDIA_TYPE


class LastEventWatch:
    """Looks for the event by which a format ends its stream, in a stream's pieces as they come."""

    def __init__(self) -> None:
        self._tail = b"\n"  # a stream begins with a line
        self._has_begun = False

    def has_come(self, piece: bytes) -> bool:
        """Whether that event is whole, up to its empty line, with the stream's next piece."""
        seen, begin = self._tail + piece, 0
        if not self._has_begun:
            match = _LAST_EVENT.search(seen)
            if match is None:
                self._tail = seen[-_LONGEST_FIRST_LINE:]
                return False
            self._has_begun = True
            begin = match.end()
        self._tail = seen[-1:]
        return _EVENT_END.search(seen, begin) is not None


def events(body: bytes) -> Iterator[tuple[str, str]]:
    """The type of each event in a stream's bytes, ``message`` unless it is named, and its data lines joined.

    Comments, and events without data, are left out. One at a time is in memory.
    """
    for block in _blocks(body):
        name = b""
        data: list[bytes] = []
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ")
        if data:
            kind = name.decode("utf-8", "replace") if name else "message"
            yield kind, b"\n".join(data).decode("utf-8", "replace")


def _blocks(body: bytes) -> Iterator[bytes]:
    """What stands between empty lines. No byte of a character beyond ASCII ends a line (RFC 3629 section 3)."""
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    start = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
    for gap in _EMPTY_LINES.finditer(body, start):
        yield body[start : gap.start()]
        start = gap.end()
    yield body[start:]
