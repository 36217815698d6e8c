"""Server-sent events out of bytes, by the standard's rules (WHATWG HTML, section 9.2.6).

Two liberties, since this reads what was logged and not what is to be dispatched: a last event that lacks its
empty line counts, and bytes that are not UTF-8 are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Event", "events"]

_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_BYTE_ORDER_MARK: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its type (``message`` unless named) and its data lines joined."""

    name: str
    data: str


def events(body: bytes) -> Iterator[Event]:
    """The events of a stream's bytes, comments and fields without data left out."""
    name, data = "", list[str]()
    for line in _LINE_END.split(body.decode("utf-8", "replace").removeprefix(_BYTE_ORDER_MARK)):
        if not line:
            if data:
                yield Event(name or "message", "\n".join(data))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    if data:
        yield Event(name or "message", "\n".join(data))
