"""Conversations of Chat Completions: the messages stay as they were sent."""

from __future__ import annotations

from typing import Any, Final

from proxy.export.conversation import CUT_SHORT, NO_ANSWER, NOT_A_CHAT, Conversation, Message, Unusable
from proxy.wire.accumulate import first_choice
from proxy.wire.facts import as_object, as_objects
from proxy.wire.openai_chat import read_answer

__all__ = ["read_chat"]

_STOPPED: Final = ("length", "content_filter")
_SETTINGS: Final = {"tools": list, "functions": list, "parallel_tool_calls": bool}
_OF_A_CALL: Final = ("id", "type", "function", "custom")


def read_chat(asked: dict[str, Any], answered: dict[str, Any]) -> Conversation:
    """Of several choices the first. Raises `Unusable`."""
    messages = as_objects(asked.get("messages"))
    if not messages or len(messages) != len(asked["messages"]):
        raise Unusable(NOT_A_CHAT)
    if first_choice(answered).get("finish_reason") in _STOPPED:
        raise Unusable(CUT_SHORT)
    settings = {name: asked[name] for name, kind in _SETTINGS.items() if isinstance(asked.get(name), kind)}
    kept = {name: value for name, value in settings.items() if value != []}
    return Conversation([_sent(message) for message in messages], _answer(answered), kept)


def _sent(message: Message) -> Message:
    """Without the nulls that SDKs send along with an assistant's earlier answer."""
    return {name: value for name, value in message.items() if value is not None or name == "content"}


def _answer(answered: dict[str, Any]) -> Message:
    facts = read_answer(answered)
    said = as_object(first_choice(answered).get("message"))
    members = {
        "content": facts.text,
        "refusal": said.get("refusal"),
        "tool_calls": [_tool_call(call) for call in facts.tool_calls or ()],
        "function_call": said.get("function_call"),
    }
    answer = {name: value for name, value in members.items() if value}
    if not answer:
        raise Unusable(NO_ANSWER)
    return {"role": "assistant", **answer}


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    kept = {name: call[name] for name in _OF_A_CALL if call.get(name) is not None}
    return {"type": "custom" if "custom" in kept else "function", **kept}
