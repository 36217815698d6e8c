"""Redaction of an answer that comes in pieces: a secret may be split over many events.

The pieces of one text are strings that stand in the same place of event after event: under the same names, in
objects with the same index. They are searched together, and each event keeps what it had, without its part of a
match. So no format has to be known, and what a stream tells besides stays as it is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from proxy.redaction.edits import Edit, apply, of_piece
from proxy.redaction.json_strings import objects_in
from proxy.redaction.rules import Search, Unsearchable
from proxy.wire.json_text import parse

__all__ = [
    "EVENTS_BEGIN",
    "VALUES_MEET",
    "looks_like_events",
    "redact_events",
    "redact_lines",
    "redact_pieces",
    "redact_series",
    "redact_values",
]

# Servers say of streams that they are plain text, or JSON, or nothing.
EVENTS_BEGIN: Final = r"\s*+(?:data|event|id|retry)?+:"
"""How server-sent events begin, whatever they are called."""
VALUES_MEET: Final = r"\}[\s\x1e]*+\{"
"""What stands where one value of a stream of JSON ends and another begins (RFC 7464), and in no JSON."""

_END_OF_STREAM: Final = "[DONE]"
# What tells whose piece a string is, and says the same in each of its events.
_LABELS: Final = ("index", "output_index", "content_index", "summary_index", "item_id", "direction")
_KIND: Final = "type"
# Strings that are whole in every event; joined they would only be taken for something else.
_WHOLE: Final = frozenset(
    {"id", "object", "model", "role", "item_id", "response_id", "event_id", "call_id", "obfuscation", _KIND, *_LABELS}
)
_DEEPEST: Final = 64
# More of them than a stream of the log's usual bound has; each line takes memory of its own.
_MOST_LINE_ENDS: Final = 500_000
_LINE_END: Final = "\n"
_EVENTS: Final = re.compile(EVENTS_BEGIN)
_VALUES_MEET: Final = re.compile(VALUES_MEET)
# In front of the next value.
_NEXT: Final = re.compile(r"[\s\x1e,]*+(?=\{)")
_LINE: Final = re.compile(r"[^\r\n]++(?:\r\n|\r|\n)?+|[\r\n]++")
_DATA: Final = re.compile(r"(\ufeff?data(?:: ?+|(?=[\r\n]|\Z)))([^\r\n]*+)([\r\n]*+)")

_Key = tuple[Any, ...]


class _Piece(NamedTuple):
    event: int
    holder: Any
    place: Any
    text: str


def looks_like_events(text: str) -> bool:
    """Whether a text of whatever media type may be server-sent events."""
    return _EVENTS.match(text) is not None


def redact_pieces(search: Search, events: Sequence[Any], *, is_cut: bool) -> set[int]:
    """Take from parsed events what is split over them; gives the numbers of those that it changed."""
    texts: defaultdict[_Key, list[_Piece]] = defaultdict(list)
    for number, event in enumerate(events):
        kind = event.get(_KIND) if isinstance(event, dict) else None
        for key, holder, place in _strings(event, (kind if isinstance(kind, str) else None,)):
            texts[key].append(_Piece(number, holder, place, holder[place]))
    changed: set[int] = set()
    for pieces in texts.values():
        # Of the last two events the later may be half of one: what the other one begins may go on in it.
        if len(pieces) > 1 or (is_cut and pieces[0].event >= len(events) - 2):
            changed |= _redact_together(search, pieces, is_cut=is_cut)
    return changed


def _strings(value: Any, key: _Key) -> Iterator[tuple[_Key, Any, Any]]:
    """Every string that may be a piece: whose it is, and where it stands."""
    if len(key) > _DEEPEST:
        return
    if isinstance(value, dict):
        key = (*key, *[value[label] for label in _LABELS if isinstance(value.get(label), int | str)])
    for place, item in _members(value):
        if isinstance(item, str):
            if place not in _WHOLE:
                yield (*key, place if isinstance(place, str) else None), value, place
        elif isinstance(item, dict | list):
            yield from _strings(item, (*key, place if isinstance(place, str) else None))


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        return iter(value.items())
    return enumerate(value) if isinstance(value, list) else iter(())


def _redact_together(search: Search, pieces: Sequence[_Piece], *, is_cut: bool) -> set[int]:
    edits = search.text("".join(piece.text for piece in pieces), is_cut=is_cut)
    changed: set[int] = set()
    end = 0
    for piece in pieces if edits else ():
        start, end = end, end + len(piece.text)
        if own := of_piece(edits, start, end):
            piece.holder[piece.place] = apply(piece.text, own)
            changed.add(piece.event)
    return changed


def redact_series(
    search: Search, texts: Sequence[str], *, is_cut: bool = False, is_last_cut: bool = False
) -> list[str]:
    """The texts of events, what is split over them redacted, and then each by itself. Raises `Unsearchable`.

    ``is_cut`` says that further events are missing, ``is_last_cut`` that the end of the last one is.
    """
    texts = [*texts[:-1], _without_half_an_event(texts[-1])] if is_last_cut and texts else texts
    parsed = [parse(text.encode("utf-8", "replace")) if text.lstrip()[:1] in ("{", "[") else None for text in texts]
    # Such as are no JSON may be pieces of one text as well.
    events = [
        ([text] if text != _END_OF_STREAM else []) if known is None else known
        for text, known in zip(texts, parsed, strict=True)
    ]
    changed = redact_pieces(search, events, is_cut=is_cut)
    last = len(texts) - 1
    redacted = []
    for number, (text, event) in enumerate(zip(texts, events, strict=True)):
        if number in changed:
            text = event[0] if parsed[number] is None else orjson.dumps(event).decode()
        redacted.append(search.document(text, is_cut=is_last_cut and number == last))
    return redacted


def _without_half_an_event(text: str) -> str:
    """The last event, if what there is of it can be told to be whose piece."""
    return "" if text.lstrip()[:1] in ("{", "[") and parse(text.encode("utf-8", "replace")) is None else text


def redact_lines(search: Search, text: str, *, is_cut: bool) -> str:
    """A stream that has an event a line. Raises `Unsearchable`."""
    if text.count("\n") > _MOST_LINE_ENDS:
        raise Unsearchable
    return "\n".join(redact_series(search, text.split("\n"), is_cut=is_cut, is_last_cut=is_cut))


def redact_values(search: Search, text: str, *, is_cut: bool) -> str:
    """A stream of JSON objects with whatever between them, or an array of them, whose end may be missing.

    What is split over them is redacted; each by itself is left to be searched. Raises `Unsearchable`.
    """
    first = text.lstrip()[:1]
    if first != "[" and _VALUES_MEET.search(text) is None:
        return text
    places = list(islice(objects_in(text), _MOST_LINE_ENDS + 1))
    if len(places) > _MOST_LINE_ENDS:
        raise Unsearchable
    events = [parse(text[start:end].encode("utf-8", "replace")) for start, end in places]
    if None in events or len(events) < (1 if first in ("[", "{") else 2):
        return text
    changed = sorted(redact_pieces(search, events, is_cut=is_cut))
    edits = [Edit(*places[number], orjson.dumps(events[number]).decode()) for number in changed]
    # Of the beginning of another one it can't be told whose piece it is.
    if is_cut and (blanks := _NEXT.match(text, places[-1][1])):
        edits.append(Edit(blanks.end(), len(text), ""))
    return apply(text, edits)


def redact_events(search: Search, text: str, *, is_cut: bool) -> str:
    """Server-sent events; of lines that carry no data each is searched by itself. Raises `Unsearchable`."""
    lines = _lines(text)
    events = list(_data_lines(lines))
    data = ["\n".join(value for _, value, _ in map(_parts, (lines[number] for number in event))) for event in events]
    ends_in_data = bool(events) and events[-1][-1] == len(lines) - 1
    redacted = redact_series(search, data, is_cut=is_cut, is_last_cut=is_cut and ends_in_data)
    carrying = {number for event in events for number in event}
    last = len(lines) - 1
    written = [
        line if number in carrying else search.redacted(line, is_cut=is_cut and number == last)
        for number, line in enumerate(lines)
    ]
    for event, old, new in zip(events, data, redacted, strict=True):
        if new != old:
            start, _, end = _parts(lines[event[-1]])
            written[event[0]] = "".join(f"{start}{line}{end or _LINE_END}" for line in new.split("\n"))
            for number in event[1:]:
                written[number] = ""
    return "".join(written)


def _lines(text: str) -> list[str]:
    """The lines with their ends; of empty ones all that follow each other together."""
    if text.count("\n") + text.count("\r") > _MOST_LINE_ENDS:
        raise Unsearchable
    return _LINE.findall(text)


def _data_lines(lines: Sequence[str]) -> Iterator[list[int]]:
    """Of each event the numbers of the lines that carry its data."""
    numbers: list[int] = []
    for number, line in enumerate(lines):
        if _DATA.match(line):
            numbers.append(number)
        elif line[0] in "\r\n" and numbers:
            yield numbers
            numbers = []
    if numbers:
        yield numbers


def _parts(line: str) -> tuple[str, str, str]:
    """What stands before a line's data, the data, and the line's end."""
    match = _DATA.match(line)
    return (match[1], match[2], match[3]) if match else ("", "", "")
