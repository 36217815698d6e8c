"""The formats of an export: each makes of calls, a batch after the other, the bytes of one file.

They run in threads, one at a time. To add one: a class like those here, and an entry in `FORMATS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from proxy.export.conversation import Conversation, Unusable
from proxy.export.conversations import conversation_of
from proxy.reads.rows import row
from storage.records import StoredCall

__all__ = ["JSON_LINES", "Chat", "Format", "Rows", "Tally", "conversations", "json_line"]

JSON_LINES: Final = "application/x-ndjson"


@dataclass(slots=True)
class Tally:
    """How many calls were read, how many lines, or rows, were written, and why calls are in none of them."""

    read: int = 0
    written: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"read": self.read, "written": self.written, "skipped": dict(self.skipped)}

    def as_text(self) -> str:
        """For people, in a line."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
        return f"read {self.read} calls, wrote {self.written}" + (f"; skipped {reasons}" if reasons else "")


class Format(Protocol):
    """One file in the making."""

    media_type: str
    tally: Tally

    def add(self, calls: Sequence[StoredCall]) -> Iterator[bytes]:
        """What the file goes on with."""
        ...

    def end(self) -> Iterator[bytes]:
        """What it ends with."""
        ...

    def close(self) -> None:
        """Let go of what it holds, whether or not it came to its end."""
        ...


def json_line(value: object) -> bytes:
    """A line of JSON Lines."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


class Rows:
    """Calls as ``GET /v1/request/{id}?includeBody=true`` shows them."""

    media_type = JSON_LINES

    def __init__(self) -> None:
        self.tally = Tally()

    def add(self, calls: Sequence[StoredCall]) -> Iterator[bytes]:
        """A line a call."""
        for stored in calls:
            self.tally.read += 1
            self.tally.written += 1
            yield json_line(row(stored, include_body=True))

    def end(self) -> Iterator[bytes]:
        """Nothing."""
        return iter(())

    def close(self) -> None:
        """Nothing."""


def conversations(calls: Sequence[StoredCall], tally: Tally) -> Iterator[tuple[StoredCall, Conversation]]:
    """The calls that are conversations; the others are counted by what is in the way."""
    for stored in calls:
        tally.read += 1
        try:
            yield stored, conversation_of(stored.call)
        except Unusable as unusable:
            tally.skipped[unusable.reason] += 1


class Chat:
    """Lines as OpenAI's supervised fine-tuning takes them: the messages, the answer being the last, and the tools."""

    media_type = JSON_LINES

    def __init__(self) -> None:
        self.tally = Tally()

    def add(self, calls: Sequence[StoredCall]) -> Iterator[bytes]:
        """A line a conversation."""
        for _, talk in conversations(calls, self.tally):
            self.tally.written += 1
            yield json_line({"messages": [*talk.messages, talk.answer], **talk.settings})

    def end(self) -> Iterator[bytes]:
        """Nothing."""
        return iter(())

    def close(self) -> None:
        """Nothing."""
