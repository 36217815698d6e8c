"""A call as a conversation in chat messages, whichever API it spoke: what was asked, and the one answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

__all__ = [
    "CUT_SHORT",
    "FAILED",
    "INEXPRESSIBLE",
    "KEPT_ELSEWHERE",
    "NOT_A_CHAT",
    "NO_ANSWER",
    "OMITTED",
    "TRUNCATED",
    "Conversation",
    "Message",
    "Part",
    "Transcript",
    "Unusable",
    "function_call",
    "text_part",
]

Message: TypeAlias = dict[str, Any]
Part: TypeAlias = dict[str, Any]

FAILED: Final = "failed"
"""The call has an error, or a status that is none of success."""
OMITTED: Final = "omitted"
"""A body is not in the log."""
TRUNCATED: Final = "truncated"
"""Of a body only the beginning is in the log."""
NOT_A_CHAT: Final = "not a chat"
"""The call asked something else of a model, or its bodies can't be read."""
CUT_SHORT: Final = "cut short"
"""The model was stopped: by a limit of tokens, or by a filter."""
NO_ANSWER: Final = "no answer"
"""The answer says nothing and calls no tool."""
KEPT_ELSEWHERE: Final = "kept elsewhere"
"""The request names a part of the conversation, or of the prompt, that only the provider has."""
INEXPRESSIBLE: Final = "inexpressible"
"""Something of it has no form among chat messages: a provider's own tool, a file by its id."""


class Unusable(Exception):
    """A call that can't be shown as a conversation. ``reason`` is one of the constants above."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Conversation:
    """``messages`` are what was asked, ``answer`` the assistant's; ``settings`` are the tools, and how to call them."""

    messages: list[Message]
    answer: Message
    settings: Mapping[str, Any]


def text_part(text: object) -> Part:
    """A part of a message's content."""
    if not isinstance(text, str):
        raise Unusable(INEXPRESSIBLE)
    return {"type": "text", "text": text}


def function_call(call_id: object, name: object, arguments: str) -> dict[str, Any]:
    """A tool call of an assistant's message."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


class Transcript:
    """Chat messages, built from APIs whose messages are cut another way: what an assistant says in a row is one."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def say(self, role: str, parts: list[Part]) -> None:
        """Add what somebody says; nothing, if it has no parts."""
        if not parts:
            return
        if role == "assistant":
            self._assistant()["content"] += parts
        else:
            self._messages.append({"role": role, "content": parts})

    def call(self, tool_call: dict[str, Any]) -> None:
        """Add a call of a tool by the assistant."""
        self._assistant()["tool_calls"].append(tool_call)

    def result(self, call_id: object, parts: list[Part]) -> None:
        """Add what a tool gave."""
        if any(part["type"] != "text" for part in parts):
            raise Unusable(INEXPRESSIBLE)
        self._messages.append({"role": "tool", "tool_call_id": call_id, "content": parts})

    def messages(self) -> list[Message]:
        """All of it, without those in which an assistant says nothing and calls no tool."""
        shown = (
            _assistant(one) if one["role"] == "assistant" else {**one, "content": _content(one["content"])}
            for one in self._messages
        )
        return [one for one in shown if one.keys() > {"role"}]

    def _assistant(self) -> Message:
        if not self._messages or self._messages[-1]["role"] != "assistant":
            self._messages.append({"role": "assistant", "content": [], "tool_calls": []})
        return self._messages[-1]


def _content(parts: list[Part]) -> str | list[Part]:
    if not parts:  # a tool that gave nothing; a list must not be empty
        return ""
    is_text = len(parts) == 1 and parts[0]["type"] == "text"
    return str(parts[0]["text"]) if is_text else parts


def _assistant(built: Message) -> Message:
    """The assistant's parts joined to texts, as Chat Completions gives them; what is empty is left out."""
    parts = built["content"]
    if any(part["type"] not in ("text", "refusal") for part in parts):
        raise Unusable(INEXPRESSIBLE)
    content = "".join(part["text"] for part in parts if part["type"] == "text")
    refusal = "".join(part["refusal"] for part in parts if part["type"] == "refusal")
    members = {"content": content, "refusal": refusal, "tool_calls": built["tool_calls"]}
    return {"role": "assistant", **{name: value for name, value in members.items() if value}}
