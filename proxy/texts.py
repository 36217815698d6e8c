"""What can be searched of a call: what people and models say in its bodies, without the syntax around it.

Of a request the texts below its messages, prompt, input and the like; of an answer its text, its tool calls and its
error; of a body that is none of these all its texts, or itself. Ids, roles and the names of members are not among
them, nor is media that stands in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from proxy.wire import Message, read_response, visible_answer, visible_body
from storage.records import Body
from storage.texts import ReadText, TextReader

__all__ = ["LONGEST_TEXT", "TEXTS"]

LONGEST_TEXT: Final = 64 * 1024
"""Characters of each side that can be searched, the first ones."""
# To be raised whenever the same bodies give other texts: the index is then made anew.
_VERSION: Final = 1
# The members of a request that hold what is asked.
_ASKED: Final = ("system", "instructions", "messages", "prompt", "input", "query", "documents", "tools", "texts")
# Members whose texts are names of the API's own.
_TERMS: Final = frozenset(
    {
        "role",
        "type",
        "id",
        "call_id",
        "tool_call_id",
        "tool_use_id",
        "object",
        "model",
        "format",
        "status",
        "media_type",
        "mime_type",
        "finish_reason",
        "stop_reason",
        "service_tier",
        "system_fingerprint",
        "signature",
        "encrypted_content",
    }
)
_BINARY: Final = frozenset({"encoding", "data"})
_DATA_URL: Final = "data:"
# No text goes on for so many characters of ASCII without a blank; media in base64 does.
_LONGEST_WORD: Final = 512


def _asked(_: str, body: Body) -> Iterator[str]:
    if not body.data:
        return
    value = visible_body(_message(body, body.data))
    if isinstance(value, dict) and (members := [value[name] for name in _ASKED if name in value]):
        value = members
    yield from _texts(value)


def _answered(path: str, body: Body) -> Iterator[str]:
    if not body.data:
        return
    message = _message(body, body.data)
    facts = read_response(path, message)
    if facts.text or facts.tool_calls or facts.error:
        yield from filter(None, (facts.text, facts.error))
        yield from _texts(facts.tool_calls)
    else:
        yield from _texts(visible_answer(facts.body, message))


def _texts(value: Any) -> Iterator[str]:
    """The texts in a JSON value, in their order, without those that nobody reads. It may be nested to any depth."""
    waiting = [] if _is_binary(value) else [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if one and not _is_media(one):
                yield one
        elif isinstance(one, dict):
            waiting += reversed([below for name, below in one.items() if name not in _TERMS])
        elif isinstance(one, list):
            waiting += reversed(one)


def _is_binary(value: Any) -> bool:
    """Whether a body was no text, and is shown in base64."""
    return isinstance(value, dict) and value.keys() == _BINARY and value["encoding"] == "base64"


def _is_media(text: str) -> bool:
    if text.startswith(_DATA_URL):
        return True
    beginning = text[:_LONGEST_WORD]
    return len(text) > _LONGEST_WORD and beginning.isascii() and len(beginning.split(maxsplit=1)) == 1


def _message(body: Body, data: bytes) -> Message:
    return Message(data, body.content_type, body.content_encoding)


def _bounded(parts_of: Callable[[str, Body], Iterator[str]]) -> ReadText:
    """The parts with line ends between them, no longer than may be."""

    def read(path: str, body: Body) -> str:
        taken: list[str] = []
        room = LONGEST_TEXT
        for part in parts_of(path, body):
            if room <= 0:
                break
            taken.append(part[:room])
            room -= len(part) + 1
        return "\n".join(taken)

    return read


TEXTS: Final = TextReader(_VERSION, _bounded(_asked), _bounded(_answered))
