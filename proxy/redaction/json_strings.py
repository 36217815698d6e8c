"""The strings of a JSON text, found without understanding the rest of it: every other byte can stay as it is.

A text that was cut, or is no JSON in places, has strings too. Nothing here raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["Token", "decoded", "encoded", "next_token", "objects_in", "value_end"]

# Possessive, so that no length of a string takes more than one step back. The last one may have been cut.
_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?+\Z)'
# Integers as long as an account's number; shorter ones are counts. Fractions are measures.
_LONG: Final = r"(?<![\w.+-])-?[0-9]{9,}+(?![\w.])"
_TOKEN: Final = re.compile(rf"(?P<string>{_STRING})(?P<colon>\s*+:)?+|(?P<number>{_LONG})", re.DOTALL)
_BRACKETS: Final = re.compile(rf"{_STRING}|[\[{{\]}}]", re.DOTALL)
_BRACES: Final = re.compile(rf"{_STRING}|[{{}}]", re.DOTALL)
_SCALAR: Final = re.compile(rf"{_STRING}|[^\s,\]}}]*+", re.DOTALL)
_QUOTED: Final = re.compile(r"'[^'\\]*+(?:\\.[^'\\]*+)*+(?:'|\\?+\Z)", re.DOTALL)
_BLANKS: Final = re.compile(r"\s*+")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_PLAIN_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class Token(NamedTuple):
    """A string, its quotes included, or a long number; ``is_name`` where a colon follows it."""

    start: int
    end: int
    is_string: bool
    is_name: bool
    after: int
    """Where the text goes on; behind a name's colon."""


def next_token(text: str, position: int) -> Token | None:
    """The next string or long number from a position on."""
    match = _TOKEN.search(text, position)
    if match is None:
        return None
    is_string = match["string"] is not None
    start, end = match.span("string" if is_string else "number")
    return Token(start, end, is_string, match["colon"] is not None, match.end())


def decoded(token: str) -> str:
    """What a string stands for; of one that is cut or broken, as much as can be told."""
    if "\\" in token:
        try:
            return str(json.loads(token, strict=False))
        except ValueError:
            text = _ESCAPE.sub(_character, _inside(token).removesuffix("\\"))
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _inside(token)


def _inside(token: str) -> str:
    return token[1:-1] if len(token) > 1 and token.endswith('"') else token[1:]


def _character(escape: re.Match[str]) -> str:
    code, plain = escape.groups()
    return chr(int(code, 16)) if code else _PLAIN_ESCAPES.get(plain, plain)


def encoded(text: str) -> str:
    """A text as a JSON string."""
    return json.dumps(text)


def value_end(text: str, position: int) -> tuple[int, int]:
    """Where the value begins and ends that stands behind a colon; a value that was cut ends where the text does."""
    blanks = _BLANKS.match(text, position)
    start = blanks.end() if blanks else position
    first = text[start : start + 1]
    if first in ("{", "["):
        return start, _closing(text, start)
    scalar = (_QUOTED if first == "'" else _SCALAR).match(text, start)
    return start, scalar.end() if scalar else start


def _closing(text: str, start: int) -> int:
    depth = 0
    for match in _BRACKETS.finditer(text, start):
        first = text[match.start()]
        depth += 1 if first in "[{" else -1 if first in "]}" else 0
        if not depth:
            return match.end()
    return len(text)


def objects_in(text: str) -> Iterator[tuple[int, int]]:
    """Where each object begins and ends that is whole, and in no other object."""
    depth = start = 0
    for match in _BRACES.finditer(text):
        first = text[match.start()]
        if first == "{":
            start = start if depth else match.start()
            depth += 1
        elif first == "}" and depth:
            depth -= 1
            if not depth:
                yield start, match.end()
