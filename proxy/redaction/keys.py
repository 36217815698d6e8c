"""What is looked for in all that is logged of one call: the keys that it carried, and what looks like one of Kibitz's.

Two steps, since nearly no call repeats a key: `may_be_in` tells by a few searches in bytes that none is there,
however it be spelt or split, and only where it can't tell, `edits` finds them, text by text as `Search` comes by them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from typing import Final

from proxy.redaction.edits import Edit
from proxy.redaction.spellings import Reading, is_spelt, unescaped
from proxy.wire.gist import Gist, Template, find_gist_if_worth

__all__ = ["SHORTEST", "Keys"]

SHORTEST: Final = 16
"""Characters of a key that is found inside words too, and whose beginning is at the end of a text that was cut."""
# Characters of such a beginning. What is shorter tells nobody anything: "sk-proj-" is as long.
_SHORTEST_PART: Final = 8
# Kibitz's own keys, whoever wrote them there.
_OWN_MARK: Final = b"kbz_"
_OWN_MARK_TEXT: Final = "kbz_"
_OWN_CHARACTERS: Final = f"{string.ascii_letters}{string.digits}_-"
_OWN_KEY: Final = re.compile(r"kbz_[A-Za-z0-9_-]{40,}")
_SHORTEST_OWN: Final = len(_OWN_MARK) + 40
_OWN_KEY_BYTES: Final = re.compile(_OWN_KEY.pattern.encode("ascii"))
_REDACTED: Final = b"[redacted]"
# An escape of which only the beginning is there: where a text was cut, and at the end of a piece of one. Of one that
# is escaped itself several are left, once all that are whole are undone.
_HALF_ESCAPE: Final = re.compile(r"(?:%(?:25)*[2-7]?|(?<!\\)\\++(?:u[0-9A-Fa-f]{0,3})?){1,4}\Z")
# What stands in front of a word, and is no part of it though it ends in a letter or a digit.
_BLANK_IN_ESCAPES: Final = re.compile(r"(?:\\[bfnrt]|%(?:[01][0-9A-Fa-f]|20))\Z")
_SPLIT_PERCENT: Final = re.compile(rb'%(?:25)*[2-7]?["\r\n]')
# Only where a run of backslashes begins: one that is tried from each of them takes time by its length's square.
_SPLIT_ESCAPE: Final = re.compile(rb'(?<!\\)\\{2,}+(?:u[0-9A-Fa-f]{0,3})?["\r\n]')
# Pairs of neighbours that are looked for: so many of a key's are enough to tell.
_MOST_PAIRS: Final = 32
# What such a key is made of is the name of a member as well as a key.
_NAME: Final = re.compile(r"[A-Za-z_]+")
_QUOTE: Final = b'"'
_ALL_BYTES: Final = bytes(range(256))
# What a key has that may be cut in two by what a gist leaves out. In JSON strings it is escaped, or hardly ever there.
_STRUCTURE: Final = re.compile(rb'["{}\[\],\r\n]')
_PIECE_STARTS: Final = (b" ", b":", b"\n", b"\r")
_ESCAPED: Final = ((b"/", b"\\/"), (_QUOTE, b'\\"'), (b"\\", b"\\\\"))
_TAIL: Final = 4096
# Bytes of a text that is searched at once.
_LONGEST_PART: Final = 1024 * 1024
# Bytes that an escape takes for one, with its own backslash or percent sign escaped again and again.
_LONGEST_SPELLING: Final = 16


class Keys:
    """Some keys to take out of texts."""

    __slots__ = ("_escapes", "_has_backslash", "_is_structure", "_keys", "_shortest", "_texts")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        found = {*keys}
        # One may be a part of another.
        self._keys = sorted(found, key=len, reverse=True) if len(found) > 1 else [*found]
        # Once, since the calls of a connection share them.
        self._shortest = min(len(self._keys[-1]), _SHORTEST_OWN) if found else _SHORTEST_OWN
        self._has_backslash = any(key.find(b"\\") >= 0 for key in self._keys)
        self._texts: list[str] | None = None
        self._is_structure: bool | None = None
        self._escapes: list[bytes] | None = None

    @property
    def count(self) -> int:
        """How many they are, without those that only look like one."""
        return len(self._keys)

    def and_also(self, keys: Iterable[bytes]) -> Keys:
        """These and others."""
        return Keys((*self._keys, *keys))

    def may_be_in(
        self, text: bytes, *, in_pieces: bool = False, is_cut: bool = False, gist: Gist | None = None
    ) -> bool:
        """Whether one may be in a text; ``in_pieces`` tells of a text that is a stream of other texts' pieces.

        ``gist`` is that of such a stream, if somebody has it.
        """
        if self._has_backslash and text.find(b"\\") >= 0:
            return True  # how many there are is lost where escapes are undone
        if in_pieces:
            return self._may_be_in_pieces(self._lean(text, gist), is_cut=is_cut)
        if not is_cut and len(text) < self._shortest:
            return False  # however it is spelt: no escape is shorter than what it stands for
        if len(text) <= _LONGEST_PART:
            if self._is_in_some_spelling(text):
                return True
        elif any(map(self._is_in_some_spelling, self._parts_of(text))):
            return True
        return is_cut and self._may_begin_in(text[-_LONGEST_SPELLING * _TAIL :])

    def _may_be_in_pieces(self, text: bytes, *, is_cut: bool) -> bool:
        split = 0
        if _has_escapes(text):
            if self._is_in(text):
                return True
            split = _split_escapes(text)
            if self._may_be_spelt(text):
                text = unescaped(text)
        pieces = _Pieces(text, split)  # whatever is in a text as it is may be in it in pieces
        if any(map(pieces.may_hold, (*self._keys, _OWN_MARK))):
            return True
        return is_cut and any(map(pieces.may_hold, self._parts()))

    def _lean(self, stream: bytes, gist: Gist | None) -> bytes:
        """A stream without what its events repeat: to search what is left takes a tenth of the time.

        No key within a line is lost by that, nor which character stands beside a quotation mark, or at a line's end.
        """
        if self._is_structure is None:
            self._is_structure = any(map(_STRUCTURE.search, self._keys))
        if self._is_structure:
            return stream
        gist = gist or find_gist_if_worth(stream)
        lean = gist.rest + gist.texts
        # What is split of an escape is counted, wherever it is.
        return stream if _has_escapes(lean) and any(map(_repeats_escapes, gist.templates)) else lean

    def _parts_of(self, text: bytes) -> Iterator[bytes]:
        """A long text in parts that overlap by as much as a key takes: to undo escapes takes several times a part."""
        overlap = _LONGEST_SPELLING * max(map(len, (*self._keys, _OWN_MARK)))
        step = _LONGEST_PART + overlap
        for start in range(0, len(text), step):
            yield text[start : start + step + overlap]

    def _is_in_some_spelling(self, text: bytes) -> bool:
        return self._is_in(text) or (self._may_be_spelt(text) and self._is_in(unescaped(text)))

    def _may_begin_in(self, end: bytes) -> bool:
        if self._may_be_spelt(end):
            end = unescaped(end)
        return any(part in end[-_TAIL:] for part in self._parts())

    def _may_be_spelt(self, text: bytes) -> bool:
        if not _has_escapes(text):
            return False
        if self._escapes is None:
            characters = b"".join(self._keys)
            self._escapes = [escape for plain, escape in _ESCAPED if plain in characters]
        return is_spelt(text, self._escapes)

    def may_end(self, text: str) -> bool:
        """Whether a text that was cut may end in the beginning of one."""
        return self.may_be_in(text.encode("utf-8", "surrogatepass"), is_cut=True)

    def _is_in(self, text: bytes) -> bool:
        # Not by `in`, which first tries to read what it looks for as a number; nor by a generator, for every row.
        if text.find(_OWN_MARK) >= 0:
            return True
        for key in self._keys:  # noqa: SIM110
            if text.find(key) >= 0:
                return True
        return False

    def _parts(self) -> list[bytes]:
        """What a cut may leave of them."""
        return [key[:_SHORTEST_PART] for key in self._keys if len(key) >= SHORTEST]

    def out_of(self, data: bytes) -> bytes:
        """Bytes that nobody can read without those that stand there as they are."""
        for key in self._keys:
            data = data.replace(key, _REDACTED)
        return _OWN_KEY_BYTES.sub(_REDACTED, data)

    def edits(self, text: str, *, is_cut: bool = False, is_name: bool = False) -> list[Edit]:
        """Where they stand in a text; in one that ``is_cut`` at its end, the beginning of one there too.

        ``is_name`` tells of a member's name, which is no key if it is letters only.
        """
        if is_name and _NAME.fullmatch(text):
            return []
        spans = list(self._spans(text, is_cut=is_cut))
        if "%" in text or "\\" in text:
            reading = Reading(text)
            read = self._spans(reading.plain, is_cut=is_cut)
            spans += ((reading.place(start), reading.place(end)) for start, end in read)
        return list(_united(spans)) if spans else []

    def _spans(self, text: str, *, is_cut: bool) -> Iterator[tuple[int, int]]:
        if self._texts is None:
            self._texts = [key.decode("utf-8", "surrogateescape") for key in self._keys]
        for key in self._texts:
            start = text.find(key)
            while start >= 0:
                end = start + len(key)
                if len(key) >= SHORTEST or _is_word(text, start, end):
                    yield start, end
                start = text.find(key, end)
        yield from (own.span() for own in _OWN_KEY.finditer(text))
        if is_cut:
            yield from self._cut(text)

    def _cut(self, text: str) -> Iterator[tuple[int, int]]:
        half = _HALF_ESCAPE.search(text, max(0, len(text) - _TAIL))
        whole = text[: half.start()] if half else text
        for key in self._texts or ():
            start = whole.rfind(key[:_SHORTEST_PART]) if len(key) >= SHORTEST else -1
            if start >= 0 and key.startswith(whole[start:]):
                yield start, len(text)
        # Not by a pattern: of a mark that comes again and again, each would be followed to the end.
        own = whole.find(_OWN_MARK_TEXT, len(whole.rstrip(_OWN_CHARACTERS)))
        if 0 <= own <= len(whole) - len(_OWN_MARK_TEXT) - _SHORTEST_PART:
            yield own, len(text)


def _is_word(text: str, start: int, end: int) -> bool:
    """Whether a short key stands by itself: inside words it would be letters like any others."""
    begins = not text[start - 1 : start].isalnum() or _BLANK_IN_ESCAPES.search(text, max(0, start - 3), start)
    return bool(begins) and not text[end : end + 1].isalnum()


def _united(spans: list[tuple[int, int]]) -> Iterator[Edit]:
    """Those that overlap made one."""
    (start, end), *others = sorted(spans)
    for begin, stop in others:
        if begin < end:
            end = max(end, stop)
        else:
            yield Edit(start, end)
            start, end = begin, stop
    yield Edit(start, end)


def _has_escapes(text: bytes) -> bool:
    return text.find(b"%") >= 0 or text.find(b"\\") >= 0


def _repeats_escapes(template: Template) -> bool:
    return _has_escapes(template.filled(b""))


def _split_escapes(text: bytes) -> int:
    """How many escapes are split between two pieces."""
    count = sum(1 for _ in _SPLIT_PERCENT.finditer(text)) if text.find(b"%") >= 0 else 0
    return count + (sum(1 for _ in _SPLIT_ESCAPE.finditer(text)) if text.find(b"\\\\") >= 0 else 0)


class _Pieces:
    """A stream's pieces, of which ``split`` end within an escape."""

    __slots__ = ("_absent", "_split", "_text")

    def __init__(self, text: bytes, split: int) -> None:
        self._text = text
        self._split = split
        self._absent = _ALL_BYTES.translate(None, text)

    def may_hold(self, key: bytes) -> bool:
        """Whether a key may stand in them.

        If it does, any two neighbours in it stand beside each other, or one ends a piece and the other begins one. An
        escape that is split hides one character, and so two such pairs.
        """
        if not self._split and len(key.translate(None, self._absent)) < len(key):
            return False  # one of its characters stands nowhere
        missing = 0
        for place in range(len(key) - 2, max(-1, len(key) - 2 - _MOST_PAIRS), -1):
            pair = key[place : place + 2]
            if self._text.find(pair) < 0 and not self._may_be_between(pair):
                missing += 1
                if missing > 2 * self._split:
                    return False
        return True

    def _may_be_between(self, pair: bytes) -> bool:
        """Whether one piece ends with the first of two characters, and one begins with the other."""
        text, end, begin = self._text, pair[:1], pair[1:]
        if text.find(end + _QUOTE) >= 0 and text.find(_QUOTE + begin) >= 0:
            return True
        # Events that are text, and no JSON.
        return self._ends_line(end) and any(text.find(start + begin) >= 0 for start in _PIECE_STARTS)

    def _ends_line(self, character: bytes) -> bool:
        text = self._text
        return text.endswith(character) or text.find(character + b"\n") >= 0 or text.find(character + b"\r") >= 0
