"""A text as it reads once its escapes are undone: JSON's and those of percent-encoding, one in the other too.

So a key is found however its characters are spelt, in a text of whatever kind. Nothing here raises.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote

from proxy.headers import decode_value

__all__ = ["Reading", "is_spelt", "other_forms", "unescaped"]

# Any number of backslashes, since JSON that stands in JSON has its own escaped; "%2541" is "%41", encoded once more.
_ESCAPE: Final = r"""%(?:25)*([2-7][0-9A-Fa-f])|\\+(?:u([0-9A-Fa-f]{4})|(["/\\]))"""
_IN_TEXT: Final = re.compile(_ESCAPE)
_IN_BYTES: Final = re.compile(_ESCAPE.encode("ascii"))
_BEYOND_ASCII: Final = re.compile(r"([^\x00-\x7f]+)")
_PERCENT: Final = re.compile(rb"%[2-7][0-9A-Fa-f]")
# One kind of escape may hide another.
_MOST_ROUNDS: Final = 4


def is_spelt(text: bytes, also: Sequence[bytes]) -> bool:
    """Whether printable characters may be escaped in a text; ``also`` are further escapes that matter."""
    if b"%" in text and _PERCENT.search(text) is not None:
        return True
    return b"\\" in text and (b"\\u00" in text or (bool(also) and any(escape in text for escape in also)))


def unescaped(text: bytes) -> bytes:
    """The text without its escapes."""
    for _ in range(_MOST_ROUNDS):
        before, text = text, _once(text)
        if text == before:
            break
    return text


def _once(text: bytes) -> bytes:
    if text.find(b"\\\\") < 0:  # then no escape but these has their marks in it
        text = text.replace(b'\\"', b'"').replace(b"\\/", b"/")
    # As sub() would, which holds each part as an object of its own until the end.
    read, done = bytearray(), 0
    for escape in _IN_BYTES.finditer(text):
        read += text[done : escape.start()]
        read += _bytes_of(escape)
        done = escape.end()
    return bytes(read + text[done:]) if done else text


def other_forms(key: bytes) -> Iterator[bytes]:
    """How else a key reads: one that is escaped itself without that; of one beyond ASCII, that in the usual escapes.

    Of those `unescaped` undoes what stands for ASCII only.
    """
    if key.isascii():
        yield unescaped(key)
        return
    text = decode_value(key)
    yield text.encode("utf-8")
    parts = _BEYOND_ASCII.split(text)
    for escape in (_in_json, _in_json_upper, quote, _quoted_lower):
        yield "".join(part if part.isascii() else escape(part) for part in parts).encode("ascii")


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _in_json_upper(text: str) -> str:
    return _in_json(text).upper().replace("\\U", "\\u")


def _quoted_lower(text: str) -> str:
    return quote(text).lower()


def _bytes_of(escape: re.Match[bytes]) -> bytes:
    percent, code, plain = escape.groups()
    return plain or chr(int(percent or code, 16)).encode("utf-8", "surrogatepass")


class Reading:
    """A text without its escapes, and where in the text each of its characters stands."""

    def __init__(self, text: str) -> None:
        self.plain = text
        self._rounds: list[_Round] = []
        for _ in range(_MOST_ROUNDS):
            undone = _Round(self.plain)
            if undone.plain == self.plain:
                break
            self._rounds.append(undone)
            self.plain = undone.plain

    def place(self, place: int) -> int:
        """Where in the text that begins which stands at a place without the escapes."""
        for undone in reversed(self._rounds):
            place = undone.place(place)
        return place


class _Round:
    def __init__(self, text: str) -> None:
        # Behind each escape, as it reads: from where on what follows stands further back, and how much.
        self._from: list[int] = []
        self._shifts: list[int] = []
        parts: list[str] = []
        done = shift = 0
        for escape in _IN_TEXT.finditer(text):
            start, end = escape.span()
            percent, code, plain = escape.groups()
            parts += (text[done:start], plain or chr(int(percent or code, 16)))
            done, shift = end, shift + end - start - 1
            self._from.append(end - shift)
            self._shifts.append(shift)
        self.plain = "".join((*parts, text[done:]))

    def place(self, place: int) -> int:
        index = bisect_right(self._from, place)
        return place + (self._shifts[index - 1] if index else 0)
