"""A member of a JSON object set in the text that holds it: every other byte stays as it is.

Parsing and writing anew would turn 1.10 into 1.1, and lose spaces, escapes and repeated names. So the text is only
looked through, token by token, for where a value stands. It has to be JSON already; NaN and the like are no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

__all__ = ["last_value", "with_new_member", "with_other_value"]

# Possessive, so that no length of a string takes more than one step back, or memory of its size.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_BLANKS: Final = rb"[ \t\r\n]*+"
# All that tells where a value ends, and what is a name: a string before a colon. The rest is passed over.
_TOKEN: Final = re.compile(rb"(%b)(%b:%b)?+|[\[{\]}]" % (_STRING, _BLANKS, _BLANKS), re.DOTALL)
_SCALAR: Final = re.compile(rb"%b|[^\s,\]}]++" % _STRING, re.DOTALL)
_NO_MEMBER: Final = re.compile(rb"%b}" % _BLANKS)
_OPEN: Final = b"[{"
_CLOSE: Final = b"]}"


def with_new_member(text: bytes, start: int, name: str, value: bytes) -> bytes:
    """The text with one more member, the first, in the object that begins at ``start``."""
    inside = start + 1
    comma = b"" if _NO_MEMBER.match(text, inside) else b","
    return b"%b%b:%b%b%b" % (text[:inside], json.dumps(name).encode(), value, comma, text[inside:])


def with_other_value(text: bytes, start: int, value: bytes) -> bytes:
    """The text with another value in the place of that which begins at ``start``."""
    return text[:start] + value + text[_end(text, start) :]


def last_value(text: bytes, start: int, name: str) -> int | None:
    """Where the value of an object's last member of a name begins: it is the one that counts to parsers."""
    found = None
    for depth, token in _tokens(text, start):
        if depth == 1 and token[2] and _says(token[1], name):
            found = token.end()
    return found


def _says(string: bytes, text: str) -> bool:
    return string == b'"%b"' % text.encode() or (b"\\" in string and json.loads(string) == text)


def _tokens(text: bytes, start: int) -> Iterator[tuple[int, re.Match[bytes]]]:
    """The tokens of the array or object that begins at ``start``, each with how deep inside it the text then is."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        first = text[token.start()]
        if first in _OPEN:
            depth += 1
        elif first in _CLOSE:
            depth -= 1
        yield depth, token
        if not depth:
            return


def _end(text: bytes, start: int) -> int:
    """Where the value ends that begins at ``start``."""
    if text[start] in _OPEN:
        *_, (_, last) = _tokens(text, start)
        return last.end()
    scalar = _SCALAR.match(text, start)
    assert scalar is not None
    return scalar.end()
