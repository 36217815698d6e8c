"""A stream without what its events repeat, which is most of it: what is left takes a tenth of the time to search."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["lean", "may_be_lost", "runs_of_lines"]

_LINE_END: Final = b"\n"
_QUOTE: Final = b'"'
# What stands around a member's text, and texts of which it may be a part.
_BEFORE: Final = b":"
_BEHIND: Final = (b"}", b",", b"]")
_STRUCTURE: Final = re.compile(rb'["{}\[\],\r\n]|^:')
# Bytes of a stream that is worth it, and of one that takes too much memory a second time; of lines that are worth it,
# and of what two of those are to have in common.
_SHORTEST: Final = 2048
_LONGEST: Final = 1024 * 1024
_SHORTEST_LINE: Final = 64
_SHORTEST_COMMON: Final = 32
# Bytes whose lines are held one by one: each takes some fifty bytes more than it is long.
_RUN: Final = 64 * 1024


def lean(stream: bytes) -> bytes:
    """The stream, of most of whose lines only what is between two quotation marks is left; the rest of them once.

    No text within a line is lost if it is one of those that `may_be_lost` denies, nor which character stands beside
    a quotation mark, or at a line's end.
    """
    if not _SHORTEST <= len(stream) <= _LONGEST:
        return stream
    return _LINE_END.join(map(_lean, runs_of_lines(stream)))


def runs_of_lines(stream: bytes) -> Iterator[bytes]:
    """A stream in parts that end where a line does, unless a line is too long for that."""
    if len(stream) <= _RUN:
        yield stream
        return
    start = 0
    while start < len(stream):
        end = stream.rfind(_LINE_END, start, start + _RUN) + 1
        if not end and start + _RUN < len(stream):
            end = stream.find(_LINE_END, start + _RUN) + 1
        end = end or len(stream)
        yield stream[start:end]
        start = end


def _lean(stream: bytes) -> bytes:
    lines = stream.split(_LINE_END)
    head, tail = _frame(lines)
    if len(head) + len(tail) < _SHORTEST_COMMON or b"%" in head + tail or b"\\" in head + tail:
        return stream
    if b"%" not in stream and b"\\" not in stream:  # else what is split of an escape is counted
        lines = [*dict.fromkeys(lines)]
    left = [line.removeprefix(head).removesuffix(tail) for line in lines]
    return _LINE_END.join((*left, head + _QUOTE, _QUOTE + tail))


def may_be_lost(text: bytes) -> bool:
    """Whether a text may be cut in two by that: such as a JSON string holds escaped, or hardly ever."""
    return _STRUCTURE.search(text) is not None


def _frame(lines: list[bytes]) -> tuple[bytes, bytes]:
    """What two lines in the middle begin with, up to a quotation mark, and what they end with behind one."""
    middle = len(lines) // 2
    long = [line for line in lines[middle : middle + 8] if len(line) >= _SHORTEST_LINE]
    if len(long) < 2:
        return b"", b""
    one, other = long[:2]
    head = one[: _common(one, other)]
    tail = one[len(one) - _common(one[::-1], other[::-1]) :]
    end, begin = head.rfind(_QUOTE), tail.find(_QUOTE)
    head, tail = head[: max(0, end)], tail[begin + 1 :]
    return (head, tail) if begin >= 0 and head.endswith(_BEFORE) and tail.startswith(_BEHIND) else (b"", b"")


def _common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[:middle]):
            low = middle
        else:
            high = middle - 1
    return low
