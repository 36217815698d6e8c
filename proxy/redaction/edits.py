"""Changes of a text, told by places in it: so what was found in a text can be put back into the pieces it came in."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

__all__ = ["REDACTED", "Edit", "apply", "in_turn", "of_piece"]

REDACTED: Final = "[redacted]"
"""What stands in the place of what is not stored."""


class Edit(NamedTuple):
    """The text from ``start`` to ``end`` becomes ``new``. Several never overlap, and stand in their order."""

    start: int
    end: int
    new: str = REDACTED


_start: Final = attrgetter("start")
_end: Final = attrgetter("end")


def apply(text: str, edits: Sequence[Edit]) -> str:
    """The text with its edits made."""
    parts: list[str] = []
    done = 0
    for edit in edits:
        parts += (text[done : edit.start], edit.new)
        done = edit.end
    return "".join((*parts, text[done:]))


def in_turn(text: str, first: Sequence[Edit], second: Sequence[Edit]) -> list[Edit]:
    """The edits of ``text`` that do what ``first`` does, and then ``second`` to what came of that."""
    if not first or not second:
        return [*first, *second]
    between = apply(text, first)
    merged: list[Edit] = []
    shift = 0
    for start, end, growth in _spans([*_made(first), *((edit.start, edit.end, 0) for edit in second)]):
        inside = second[bisect_left(second, start, key=_start) : bisect_right(second, end, key=_end)]
        new = apply(between[start:end], [Edit(edit.start - start, edit.end - start, edit.new) for edit in inside])
        merged.append(Edit(start - shift, end - shift - growth, new))
        shift += growth
    return merged


def _made(edits: Sequence[Edit]) -> Iterator[tuple[int, int, int]]:
    """Where the new texts stand once the edits are made, and by how much each is longer than what it replaced."""
    shift = 0
    for edit in edits:
        growth = len(edit.new) - (edit.end - edit.start)
        yield edit.start + shift, edit.end + shift + growth, growth
        shift += growth


def _spans(places: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Those that overlap made one, with the growth of all in it."""
    (start, end, growth), *others = sorted(places)
    for begin, stop, more in others:
        if begin < end or begin == start:
            end, growth = max(end, stop), growth + more
        else:
            yield start, end, growth
            start, end, growth = begin, stop, more
    yield start, end, growth


def of_piece(edits: Sequence[Edit], start: int, end: int) -> list[Edit]:
    """The edits of a longer text as they touch its piece; what they put in stands where they begin."""
    touching = edits[bisect_right(edits, start, key=_end) : bisect_left(edits, end, key=_start)]
    return [
        Edit(max(edit.start, start) - start, min(edit.end, end) - start, edit.new if edit.start >= start else "")
        for edit in touching
    ]
