"""Conversations of Anthropic's Messages. What a model thought stays out: chat messages have no place for it."""

from __future__ import annotations

from typing import Any, Final

import orjson

from proxy.export.conversation import (
    CUT_SHORT,
    INEXPRESSIBLE,
    NO_ANSWER,
    Conversation,
    Part,
    Transcript,
    Unusable,
    function_call,
    text_part,
)
from proxy.wire.facts import as_object, as_objects

__all__ = ["read_messages"]

_STOPPED: Final = ("max_tokens", "model_context_window_exceeded", "pause_turn", "refusal")
_THOUGHTS: Final = ("thinking", "redacted_thinking")


def read_messages(asked: dict[str, Any], answered: dict[str, Any]) -> Conversation:
    """What a client has put into the answer's mouth is the answer's beginning. Raises `Unusable`."""
    if answered.get("stop_reason") in _STOPPED:
        raise Unusable(CUT_SHORT)
    history, answer = Transcript(), Transcript()
    history.say("system", _texts(asked.get("system")))
    messages = as_objects(asked.get("messages"))
    if messages and messages[-1].get("role") == "assistant":
        _add(answer, messages.pop())
    for message in messages:
        _add(history, message)
    _add(answer, {"role": "assistant", "content": answered.get("content")})
    if len(answer.messages()) != 1 or not history.messages():
        raise Unusable(NO_ANSWER)
    return Conversation(history.messages(), answer.messages()[0], _settings(asked))


def _add(to: Transcript, message: dict[str, Any]) -> None:
    """A message's blocks; what tools gave goes first, where chat messages want it, and Anthropic too."""
    role, content = str(message.get("role")), message.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else as_objects(content)
    parts: list[Part] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        match block.get("type"):
            case "tool_result":
                to.result(block.get("tool_use_id"), _texts(block.get("content")))
            case "tool_use":
                arguments = orjson.dumps(block.get("input") or {}).decode()
                calls.append(function_call(block.get("id"), block.get("name"), arguments))
            case kind if kind not in _THOUGHTS:
                parts.append(_part(block))
    to.say(role, parts)
    for call in calls:
        to.call(call)


def _part(block: dict[str, Any]) -> Part:
    if block.get("type") == "text":
        return text_part(block.get("text"))
    source = as_object(block.get("source"))
    if block.get("type") == "image" and source.get("type") == "base64":
        return _image(f"data:{source.get('media_type')};base64,{source.get('data')}")
    if block.get("type") == "image" and source.get("type") == "url":
        return _image(str(source.get("url")))
    raise Unusable(INEXPRESSIBLE)


def _image(url: str) -> Part:
    return {"type": "image_url", "image_url": {"url": url}}


def _texts(content: object) -> list[Part]:
    """A text, or blocks."""
    if isinstance(content, str):
        return [text_part(content)] if content else []
    return [_part(block) for block in as_objects(content)]


def _settings(asked: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if tools := as_objects(asked.get("tools")):
        settings["tools"] = [_tool(tool) for tool in tools]
    if as_object(asked.get("tool_choice")).get("disable_parallel_tool_use") is True:
        settings["parallel_tool_calls"] = False
    return settings


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type", "custom") != "custom":
        raise Unusable(INEXPRESSIBLE)
    members = {"name": tool.get("name"), "description": tool.get("description"), "parameters": tool.get("input_schema")}
    return {"type": "function", "function": {name: value for name, value in members.items() if value is not None}}
