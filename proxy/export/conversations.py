"""Which calls are conversations, and how to read each."""

from __future__ import annotations

from typing import Any, Final

from proxy.export.conversation import FAILED, INEXPRESSIBLE, NOT_A_CHAT, OMITTED, TRUNCATED, Conversation, Unusable
from proxy.export.from_anthropic import read_messages
from proxy.export.from_chat import read_chat
from proxy.export.from_responses import read_responses
from proxy.wire import Message, read_response
from proxy.wire.json_text import nested_deeper_than, parse_object
from storage.records import Body, Call

__all__ = ["conversation_of"]

# Levels of JSON; orjson writes no more than 254, and a line has some of its own.
_DEEPEST: Final = 200


def conversation_of(call: Call) -> Conversation:
    """What a call asked and got. Raises `Unusable`."""
    _check_outcome(call)
    asked = parse_object(_message(call.request).decoded())
    answered = read_response(call.path, _message(call.response)).body
    if not asked or not isinstance(answered, dict):
        raise Unusable(NOT_A_CHAT)
    if nested_deeper_than([asked, answered], _DEEPEST):
        raise Unusable(INEXPRESSIBLE)
    return _read(asked, answered)


def _check_outcome(call: Call) -> None:
    if call.error_kind is not None or call.status is None or not 200 <= call.status < 300:
        raise Unusable(FAILED)
    bodies = (call.request, call.response)
    if any(body.omitted or body.data is None for body in bodies):
        raise Unusable(OMITTED)
    if any(body.truncated for body in bodies):
        raise Unusable(TRUNCATED)


def _read(asked: dict[str, Any], answered: dict[str, Any]) -> Conversation:
    """By the answer's own shape, which is that of its API, streamed or not, wherever that is mounted."""
    if answered.get("object") == "response":
        return read_responses(asked, answered)
    if answered.get("type") == "message":
        return read_messages(asked, answered)
    if isinstance(answered.get("choices"), list) and "messages" in asked:
        return read_chat(asked, answered)
    raise Unusable(NOT_A_CHAT)


def _message(body: Body) -> Message:
    return Message(body.data or b"", body.content_type, body.content_encoding)
