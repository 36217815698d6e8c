"""Server-sent events out of bytes, by the standard's rules (WHATWG HTML, section 9.2.6).

Two liberties, since this reads what was logged and not what is to be dispatched: a last event that lacks its
empty line counts, and bytes that are not UTF-8 are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import repeat
from operator import contains
from typing import Final, NamedTuple

__all__ = ["Events", "LastEventWatch", "event_batches", "first_data", "lone_events"]

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# Any number of empty lines end one event, so that a body of nothing else takes no time.
_EMPTY_LINES: Final = re.compile(rb"\n\n+")
_GAP: Final = b"\n\n"
_LF: Final = ord("\n")
_CR: Final = ord("\r")
_DATA: Final = b"data: "
_EVENT: Final = b"event: "
_THEN_DATA: Final = b"\ndata: "
_UNNAMED: Final = "message"
# So much is cut into events at once, in bytes.
_WINDOW: Final = 64 * 1024
# What only the last events of OpenAI's and Anthropic's streams have in their first lines, and those lines: inside JSON
# a line end is escaped. Looking for the words takes a tenth of what looking for the lines does, and most of them are
# looked for only where an event has a name.
_LAST_DATA: Final = b"[DONE]"
_NAME: Final = b"event:"
_LAST_NAMES: Final = (b"message_stop", b"response.completed", b"response.incomplete", b"response.failed")
_BEFORE_WORD: Final = len(b"\nevent: ")
_LAST_EVENT: Final = re.compile(
    rb"[\r\n](?:data: ?\[DONE\]|event: ?(?:message_stop|response\.(?:completed|incomplete|failed)))(?=[\r\n])"
)
_EVENT_END: Final = re.compile(rb"\n[\r\n]|\r\r")
_LONGEST_FIRST_LINE: Final = 32  # bytes, with the line ends around it


class LastEventWatch:
    """Looks for the event by which a format ends its stream, in a stream's pieces as they come."""

    def __init__(self) -> None:
        self._tail = b"\n"  # a stream begins with a line
        self._has_begun = False

    def has_come(self, piece: bytes) -> bool:
        """Whether that event is whole, up to its empty line, with the stream's next piece."""
        seen, begin = self._tail + piece, 0
        if not self._has_begun:
            word = _find_last_word(seen)
            match = _LAST_EVENT.search(seen, max(0, word - _BEFORE_WORD)) if word >= 0 else None
            if match is None:
                self._tail = seen[-_LONGEST_FIRST_LINE:]
                return False
            self._has_begun = True
            begin = match.end()
        self._tail = seen[-1:]
        return _EVENT_END.search(seen, begin) is not None


def _find_last_word(text: bytes) -> int:
    """Where the first of the words stands that a last event has; -1 where none does."""
    data = text.find(_LAST_DATA)
    if text.find(_NAME) < 0:  # `in` would first try to read the name as a number, and fail
        return data
    return min((place for place in (data, *map(text.find, _LAST_NAMES)) if place >= 0), default=-1)


class Events(NamedTuple):
    """Events in their order: the data lines of each joined, in UTF-8, and of which type each is."""

    data: list[bytes]
    types: list[str] | None = None
    """``None`` where none is named, and so each is of the type ``message``."""


def event_batches(body: bytes, window: int = _WINDOW) -> Iterator[Events]:
    """The events of a stream's bytes, ``window`` bytes and what is left of the event that they end in at a time.

    Comments, and events without data, are left out.
    """
    # No byte of a character beyond ASCII ends a line (RFC 3629 section 3).
    if _CR in body:
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    start = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
    while start < len(body):
        gap = body.find(_GAP, start + window)
        end = len(body) if gap < 0 else gap + len(_GAP)
        text = _as_utf_8(body[start:end])
        lone = _lone_data(text)
        yield Events(lone) if lone else _named_data(text) or _any_events(text)
        start = end


def first_data(piece: bytes) -> bytes | None:
    """The data of the first event that has some, if it is whole and has one line; `event_batches` tells of others."""
    start = piece.find(_DATA)
    if start > 0 and piece[start - 1] != _LF:
        return None
    end = piece.find(b"\n", start)
    data = piece[start + len(_DATA) : end]
    return data if start >= 0 and end >= 0 and piece[end : end + 2] == _GAP and data.find(b"\r") < 0 else None


def lone_events(body: bytes) -> list[bytes] | None:
    """Of a short stream's events the data, if each is the one line ``data: ...`` and no more; perhaps no UTF-8."""
    return _lone_data(body) if len(body) <= _WINDOW and body.find(b"\r") < 0 else None


def _as_utf_8(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("utf-8", "replace").encode()
    return text


def _lone_data(window: bytes) -> list[bytes] | None:
    """The events' data, if each is the one line ``data: ...`` and no more, as most APIs send them."""
    if not (window.startswith(_DATA) and window.endswith(_GAP)):
        return None
    data = window[len(_DATA) : -len(_GAP)].split(_GAP + _DATA)
    # Each event ended two lines, its own and an empty one; what ends further ones has more of its own.
    return data if window.count(b"\n") == 2 * len(data) else None


def _named_data(window: bytes) -> Events | None:
    """The events, if each is the line ``event: ...`` and the line ``data: ...``, as the other APIs send them."""
    if not (window.startswith(_EVENT) and window.endswith(_GAP)):
        return None
    pairs = [block.partition(_THEN_DATA) for block in window[len(_EVENT) : -len(_GAP)].split(_GAP + _EVENT)]
    data = [data for _, _, data in pairs]
    names = [name for name, then, _ in pairs if then]
    if len(names) < len(pairs) or _has_several_lines(data) or _has_several_lines(names):
        return None
    return Events(data, [name.decode() or _UNNAMED for name in names])


def _has_several_lines(texts: Sequence[bytes]) -> bool:
    """Whether one of them has."""
    return any(map(contains, texts, repeat(_LF)))


def _any_events(window: bytes) -> Events:
    data: list[bytes] = []
    types: list[str] = []
    for block in _EMPTY_LINES.split(window):
        name = b""
        lines: list[bytes] = []
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            if field == b"data":
                lines.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ")
        if lines:
            data.append(b"\n".join(lines))
            types.append(name.decode() or _UNNAMED)
    return Events(data, types)
