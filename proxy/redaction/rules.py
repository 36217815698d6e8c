"""What is not to be stored, as the settings name it, and the search for it in a text.

Fields are names of members, compared without case: the whole value goes. Patterns are searched for in texts: in
strings of JSON, each by itself and as it reads without its escapes, in long integers, and in what is no JSON.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator
from typing import Final

import regex

from proxy.redaction.edits import REDACTED, Edit, apply, in_turn
from proxy.redaction.json_strings import decoded, encoded, next_token, value_end
from proxy.redaction.keys import Keys
from proxy.wire.json_text import parse

__all__ = ["Rules", "Search", "TooSlow", "Unsearchable", "checked_pattern"]

logger = logging.getLogger(__name__)

_REDACTED_STRING: Final = f'"{REDACTED}"'
# In an answer's prose, or as Python writes its own.
_MEMBER: Final = r"""(["'])\L<names>\1\s*+:"""
_WITHOUT_CASE: Final = regex.IGNORECASE | regex.FULLCASE
# JSON in strings of JSON: each level doubles the backslashes of the one below.
_DEEPEST: Final = 16
_JSON_STARTS: Final = ("{", "[", '"')
# Texts as short as a name or an id come again and again in a stream; so many of them are remembered.
_SHORT: Final = 64
_MOST_REMEMBERED: Final = 4096
# Tokens between two looks at the clock.
_LOOKS_AT_THE_CLOCK: Final = 4096
# The same of searches for one key: there may be thousands of them, to look for in each text.
_COMPARED_BETWEEN_LOOKS: Final = 1_000_000
# Characters at the end of a text that was cut in which half a match may begin. Every place in them is tried, which
# takes a pattern that could be anything thousands of times as long as to find whole matches.
_TAIL: Final = 2048
# Seconds that a search may take, and for each character and pattern: a pattern may take for ever.
_PATIENCE: Final = 1.0
_PATIENCE_PER_CHARACTER: Final = 5e-7


class Unsearchable(Exception):
    """What is to be redacted can't be found in time, or in what can't be read."""


class TooSlow(Exception):
    """A search did not end within the time that it was to be tried for."""


class Rules:
    """The fields and the patterns, which `checked_pattern` has passed."""

    def __init__(self, fields: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        self.fields = frozenset(name.casefold() for name in fields)
        self.members = regex.compile(_MEMBER, _WITHOUT_CASE, names=[*self.fields])
        """The name of a field, in quotes and with a colon behind it, in a text that is not JSON."""
        self.patterns = tuple(regex.compile(pattern) for pattern in patterns)
        self._told_of: set[int] = set()
        self.end = math.inf
        """When every search is to end, by the monotonic clock."""

    def __bool__(self) -> bool:
        return bool(self.fields or self.patterns)

    def names(self, name: str) -> bool:
        """Whether a member of this name goes."""
        return bool(self.fields) and name.casefold() in self.fields

    def tell_of(self, pattern: regex.Pattern[str]) -> None:
        """Say once that a pattern takes too long, by its place: it may be a secret itself."""
        number = self.patterns.index(pattern)
        if number not in self._told_of:
            self._told_of.add(number)
            logger.warning("redact.patterns.%d takes too long: what it could not search is not kept", number)

    def search(self, size: int, trial: float | None = None, keys: Keys | None = None) -> Search:
        """A search of so many characters; or one that is tried until the moment ``trial`` of the monotonic clock.

        ``keys`` are taken out besides.
        """
        if trial is not None:
            return Search(self, trial, keys, is_trial=True)
        patience = _PATIENCE + size * _PATIENCE_PER_CHARACTER * (1 + len(self.patterns))
        return Search(self, time.monotonic() + patience, keys)

    def hurry(self, seconds: float) -> None:
        """Let all searches end within so many seconds, those that are under way too."""
        self.end = time.monotonic() + seconds


def checked_pattern(pattern: str) -> str:
    """The pattern. Raises ValueError, saying why, for one that is no regular expression."""
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression: {error}") from None
    return pattern


class Search:
    """One search, which ends at a moment: what is left then is `Unsearchable`, or, in a trial, `TooSlow`.

    Of a text that ``is_cut`` the end is missing: what may be half a match there goes too, from as far before the end
    as `_TAIL` says. It may be half a match only; no more than a word's end can be told of it.
    """

    def __init__(self, rules: Rules, deadline: float, keys: Keys | None = None, *, is_trial: bool = False) -> None:
        self.rules = rules
        self._keys = keys
        self._deadline = deadline
        self._is_trial = is_trial
        self._remembered: dict[str, list[Edit]] = {}
        self._compared = 0

    def document(self, text: str, *, is_cut: bool = False) -> str:
        """A body, or an event of a stream: its strings where it is JSON, else all of it. Raises `Unsearchable`."""
        is_json = text.lstrip()[:1] in _JSON_STARTS and parse(text.encode("utf-8", "replace")) is not None
        return apply(text, self._json(text, 0, is_cut=False) if is_json else self.text(text, is_cut=is_cut))

    def out_of_media(self, data: bytes) -> bytes:
        """Bytes that are no text, without the keys that stand there as they are."""
        return data if self._keys is None else self._keys.out_of(data)

    def without_keys(self, text: str) -> str:
        """A text without the keys that stand in it, whatever the rules say."""
        return text if self._keys is None else apply(text, self._keys.edits(text))

    def redacted(self, text: str, *, is_cut: bool = False) -> str:
        """A text without what is to be redacted. Raises `Unsearchable`."""
        return apply(text, self.text(text, is_cut=is_cut))

    def text(self, text: str, level: int = 0, *, is_cut: bool = False, is_name: bool = False) -> list[Edit]:
        """What is to be redacted in a text, be it the name of a member. Raises `Unsearchable`."""
        if is_name and self._keys is not None:
            return self._text(text, level, is_cut=is_cut, is_name=True)
        if len(text) > _SHORT or is_cut:
            return self._text(text, level, is_cut=is_cut)
        edits = self._remembered.get(text)
        if edits is None:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            edits = self._remembered[text] = self._text(text, level, is_cut=False)
        return edits

    def _text(self, text: str, level: int, *, is_cut: bool, is_name: bool = False) -> list[Edit]:
        edits: list[Edit] = []
        if level < _DEEPEST and text.lstrip()[:1] in _JSON_STARTS:
            edits = self._json(text, level + 1, is_cut=is_cut)
        if self._keys is not None:
            self._take_note_of(self._keys)
            left = apply(text, edits) if edits else text
            edits = in_turn(text, edits, self._keys.edits(left, is_cut=is_cut, is_name=is_name))
        if self.rules.fields and ('"' in text or "'" in text):
            edits = in_turn(text, edits, list(self._members(apply(text, edits))))
        for pattern in self.rules.patterns:
            found = self._matches(pattern, apply(text, edits) if edits else text, is_cut=is_cut)
            edits = in_turn(text, edits, found)
        return edits

    def _take_note_of(self, keys: Keys) -> None:
        self._compared += keys.count
        if self._compared > _COMPARED_BETWEEN_LOOKS:
            self._compared = 0
            self._left()

    def _matches(self, pattern: regex.Pattern[str], text: str, *, is_cut: bool = False) -> list[Edit]:
        try:
            found = self._whole_matches(pattern, text)
            half = self._half_match(pattern, text, found) if is_cut else None
            return found if half is None else _with_half(found, half, len(text))
        except (TimeoutError, MemoryError, RecursionError) as error:
            if self._is_trial:
                raise TooSlow from error
            self.rules.tell_of(pattern)
            raise Unsearchable from error

    def _whole_matches(self, pattern: regex.Pattern[str], text: str) -> list[Edit]:
        if pattern.search(text, timeout=self._left()) is None:  # which takes less than looking for all
            return []
        found = pattern.finditer(text, timeout=self._left())
        return [Edit(*match.span()) for match in found if match.end() > match.start()]

    def _half_match(self, pattern: regex.Pattern[str], text: str, whole: list[Edit]) -> int | None:
        """Where what may be the beginning of a match starts that goes on behind the text's end."""
        tail = max(0, len(text) - _TAIL)
        tail = max(tail, next((edit.end for edit in reversed(whole) if edit.start < tail), 0))
        found = pattern.finditer(text, tail, partial=True, timeout=self._left())
        return next((match.start() for match in found if match.partial and match.end() > match.start()), None)

    def _left(self) -> float:
        """The seconds that are left. Raises `Unsearchable` at the end."""
        left = min(self._deadline, self.rules.end) - time.monotonic()
        if left <= 0:
            raise TooSlow if self._is_trial else Unsearchable
        return left

    def _members(self, text: str) -> Iterator[Edit]:
        """Values of the fields in a text that is no JSON."""
        position = 0
        while name := self._next_member(text, position):
            start, position = value_end(text, name.end())
            if start < position:  # else it stands in another piece, or was cut off
                yield Edit(start, position, f"'{REDACTED}'" if text[start : start + 1] == "'" else _REDACTED_STRING)

    def _next_member(self, text: str, position: int) -> regex.Match[str] | None:
        try:
            return self.rules.members.search(text, position, timeout=self._left())
        except TimeoutError as error:
            raise (TooSlow if self._is_trial else Unsearchable) from error

    def _json(self, text: str, level: int, *, is_cut: bool) -> list[Edit]:
        """The same in a text that is JSON, or begins like it."""
        edits: list[Edit] = []
        position = seen = 0
        while token := next_token(text, position):
            position, seen = token.after, seen + 1
            if not seen % _LOOKS_AT_THE_CLOCK:
                self._left()
            if token.is_string:
                value = decoded(text[token.start : token.end])
                if token.is_name and self.rules.names(value):
                    start, position = value_end(text, position)
                    if start < position:
                        edits.append(Edit(start, position, _REDACTED_STRING))
                elif inner := self.text(value, level, is_cut=is_cut and token.end == len(text), is_name=token.is_name):
                    edits.append(Edit(token.start, token.end, encoded(apply(value, inner))))
            elif self._has_match(text[token.start : token.end]):
                edits.append(Edit(token.start, token.end, _REDACTED_STRING))
        return edits

    def _has_match(self, text: str) -> bool:
        if self._keys is not None and self._keys.edits(text):
            return True
        return any(self._matches(pattern, text) for pattern in self.rules.patterns)


def _with_half(found: list[Edit], half: int, end: int) -> list[Edit]:
    """Whole matches, and all from ``half`` on, with those that reach into it."""
    before = [edit for edit in found if edit.end <= half]
    start = found[len(before)].start if len(before) < len(found) else half
    return [*before, Edit(min(start, half), end)]
