"""A stream without what its events repeat, which is nearly all of it: most differ from the last one in a text or two.

What is left says the same in a tenth of the bytes, so whoever looks for something in a stream looks there.
A stream's may be made while it comes, so that not all is left to its end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Final, NamedTuple

__all__ = ["NEVER", "Gist", "GistSoFar", "Template", "find_gist", "find_gist_if_worth"]

_QUOTE: Final = b'"'
_GAPS: Final = (b"\n\n", b"\r\n\r\n", b"\n")
# Bytes of a stream that is worth it, and of one that takes too much memory a second time.
_SHORTEST: Final = 2048
_LONGEST: Final = 1024 * 1024
# Bytes of one that is worth it where it is whole and nothing has been made of it: to read all of a shorter one takes no
# longer.
_SHORTEST_WHOLE: Final = 8 * 1024
# Bytes of a stream that are taken at a time, while it comes.
_MOST_AT_ONCE: Final = 16 * 1024
NEVER: Final = sys.maxsize
"""The size of no stream."""
# Bytes of what is around the texts of an event.
_SHORTEST_FRAME: Final = 32
# A stream may be of events of several kinds.
_MOST_TEMPLATES: Final = 4
# Bytes in the middle of a stream whose events are compared, and how many of them.
_SAMPLE: Final = 8 * 1024
_SAMPLES: Final = 4
# What stands in front of the text of a member.
_VALUE_BEGINS: Final = (b':"', b': "')
# Bytes of what is between the texts of two events that parts are told by: to look for more takes longer.
_NEEDLE: Final = 16
_APART: Final = b'"\n"'


class Template(NamedTuple):
    """Events that are the same but for the texts of one or two members, which stand in quotation marks.

    ``head`` and ``tail`` are what is around the texts, ``between`` what is between two, with their quotation marks;
    ``gap`` stands between such events.
    """

    head: bytes
    between: bytes
    tail: bytes
    gap: bytes

    def filled(self, text: bytes) -> bytes:
        """The event with such a text in each place."""
        return self.head + text + (self.between + text if self.between else b"") + self.tail


class Gist(NamedTuple):
    """``rest`` is the stream without whole events, of each of which it has at least one other of the same template.

    ``texts`` are those in which the events left out differ: each in quotation marks, and a line of its own.
    """

    rest: bytes
    texts: bytes
    templates: Sequence[Template]


_NOTHING: Final = Gist(b"", b"", [])


def find_gist(stream: bytes) -> Gist:
    """The gist of a stream of any kind; of one that does not repeat itself all is left."""
    return _continued(_NOTHING, stream) if len(stream) <= _LONGEST else Gist(stream, b"", [])


def find_gist_if_worth(stream: bytes) -> Gist:
    """The same; of a stream that is read as quickly without it all is left."""
    return find_gist(stream) if len(stream) >= _SHORTEST_WHOLE else Gist(stream, b"", [])


class GistSoFar(NamedTuple):
    """The gist of the first bytes of a stream that is still coming, so many as are ``taken``."""

    gist: Gist = _NOTHING
    taken: int = 0

    @property
    def goes_on_at(self) -> int:
        """The stream's size in bytes with which more is to be taken: a part of what was, and never much at once.

        To take less each time would take longer than to take all of it at the end.
        """
        size = self.taken + min(max(_SHORTEST, self.taken // 4), _MOST_AT_ONCE)
        return size if size <= _LONGEST else NEVER

    def continued(self, stream: Callable[[int, int], bytes]) -> GistSoFar:
        """With more of the stream, which gives the bytes from a place to another."""
        more = stream(self.taken, self.taken + _MOST_AT_ONCE)
        return GistSoFar(_continued(self.gist, more), self.taken + len(more))

    def of_whole(self, stream: bytes) -> Gist:
        """That of the stream, which has come."""
        if len(stream) > _LONGEST or len(self.gist.rest) > max(self.taken // 2, 2 * _SHORTEST):
            return find_gist(stream)  # its middle may tell more of it than its beginning
        more = stream[self.taken :]
        if len(more) >= _SHORTEST:
            return _continued(self.gist, more)
        return Gist(self.gist.rest + more, self.gist.texts, self.gist.templates)


def _continued(gist: Gist, more: bytes) -> Gist:
    """The gist of a stream that goes on behind a part of which somebody has the gist."""
    # What is left of that is nearly nothing, or events that don't repeat themselves: not to be looked through again.
    before, rest = (b"", gist.rest + more) if len(gist.rest) <= len(more) else (gist.rest, more)
    texts, templates = gist.texts, [*gist.templates]
    for known in gist.templates:
        rest, said = _without(rest, known)
        texts += said
    while len(rest) >= _SHORTEST and len(templates) < _MOST_TEMPLATES and (template := _find_template(rest)):
        rest, said = _without(rest, template)
        if not said:
            break
        texts += said
        templates.append(template)
    return Gist(before + rest, texts, templates)


def _find_template(stream: bytes) -> Template | None:
    """That of two neighbours in the middle."""
    middle = len(stream) // 2
    sample = stream[middle : middle + _SAMPLE]
    for gap in _GAPS:
        if sample.find(gap) >= 0:
            _, *events = sample.split(gap, _SAMPLES)  # the first is a part, and all that is left the last
            return next(filter(None, map(_compare, events, events[1:-1], repeat(gap))), None)
    return None


def _compare(one: bytes, other: bytes, gap: bytes) -> Template | None:
    """The template of two events.

    Where one holds a quotation mark that is escaped, what it takes for a text may be none. So whoever goes by what
    texts mean has to see that any other text does as well.
    """
    head, between = _shared(one, other), b""
    tail, other_tail = one[one.find(_QUOTE, len(head)) :], other[other.find(_QUOTE, len(head)) :]
    if tail != other_tail:
        between = _shared(tail, other_tail)
        tail, other_tail = tail[tail.find(_QUOTE, len(between)) :], other_tail[other_tail.find(_QUOTE, len(between)) :]
    if tail != other_tail or not tail.startswith(_QUOTE) or len(head) + len(tail) < _SHORTEST_FRAME:
        return None
    if not _begins_value(head) or (between and not _begins_value(_QUOTE + between)):
        return None
    return Template(head, between, tail, gap)


def _shared(one: bytes, other: bytes) -> bytes:
    """What two texts begin with, up to the last quotation mark in it."""
    size = min(len(one), len(other))
    # Byte by byte each would be a step of the interpreter; of numbers the first digits are what texts begin with.
    differing = int.from_bytes(one[:size], "big") ^ int.from_bytes(other[:size], "big")
    return one[: one.rfind(_QUOTE, 0, size - (differing.bit_length() + 7) // 8) + 1]


def _begins_value(event: bytes) -> bool:
    """Whether the text of a member begins where this ends: not its name, nor anything outside of quotation marks."""
    return event.endswith(_VALUE_BEGINS) and event.count(_QUOTE) % 2 == 1


def _without(stream: bytes, template: Template) -> tuple[bytes, bytes]:
    """A stream without the events that fit, but the first and the last, and the texts of the others; or all of it."""
    joint = template.tail + template.gap + template.head
    needle, frame = joint[-_NEEDLE:], joint[:-_NEEDLE]
    first, *parts = stream.split(needle)
    if len(parts) < 2:
        return stream, b""
    last = parts.pop()
    texts = [*map(bytes.removesuffix, parts, repeat(frame))]
    if _all_fit(parts, texts, len(frame), template.between):  # then each is but a text, or two
        left, texts = [first, parts[0]], texts[1:]
    else:
        left, texts = _sorted_out(first, parts, template.between, frame)
    said = _APART.join(texts).replace(template.between or _APART, _APART)
    if not texts or _ends_lines(said, len(texts) * (2 if template.between else 1) - 1):
        return stream, b""
    return needle.join((*left, last)), b'\n"' + said + _QUOTE


def _all_fit(parts: Sequence[bytes], texts: Sequence[bytes], frame: int, between: bytes) -> bool:
    """Whether each of some parts is what the frame, of that length, was taken from: one event's texts."""
    said = b"".join(texts)
    if len(said) + len(parts) * frame < len(b"".join(parts)):
        return False
    if between and {*map(bytes.count, texts, repeat(between))} != {1}:
        return False
    return said.count(_QUOTE) == len(texts) * between.count(_QUOTE)


def _sorted_out(first: bytes, parts: Sequence[bytes], between: bytes, frame: bytes) -> tuple[list[bytes], list[bytes]]:
    """The parts that are more than one event's texts, or have no event before them, and the texts of the others."""
    left, texts = [first], list[bytes]()
    has_head = False  # that of an event is at the end of the part before
    is_told = False  # what is between two texts: the events around may be of other kinds, with its head or its tail
    for part, text in zip(parts, _texts_of(parts, between, frame), strict=True):
        if has_head and is_told and text is not None:
            texts.append(text)
        else:
            left.append(part)
            has_head = text is not None or part.endswith(frame)
            is_told = is_told or text is not None
    return left, texts


def _ends_lines(texts: bytes, between: int) -> bool:
    """Whether texts end lines besides those ``between`` them: no JSON does, and behind such an end anything may be."""
    return texts.count(b"\n") > between or texts.find(b"\r") >= 0


def _texts_of(parts: Sequence[bytes], between: bytes, frame: bytes) -> list[bytes | None]:
    """Of each part the texts of one event, if these and a frame are all it holds."""
    behind = frame[len(_QUOTE) :]
    if not between:
        found = [part.partition(_QUOTE) for part in parts]
        return [text if rest == behind else None for text, _, rest in found]
    halves = [part.partition(between) for part in parts]
    pairs = [(one, rest.partition(_QUOTE)) for one, _, rest in halves]
    return [
        one + between + other if rest == behind and one.find(_QUOTE) < 0 else None for one, (other, _, rest) in pairs
    ]
