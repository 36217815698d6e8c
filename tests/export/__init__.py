"""What the tests of exports share: calls of each API, and what the libraries that take the files say of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
from pydantic import ConfigDict, TypeAdapter

from storage.records import Body, Call
from tests.storage import a_call

__all__ = [
    "CHAT_PATH",
    "MESSAGES_PATH",
    "RESPONSES_PATH",
    "a_chat",
    "a_conversation",
    "as_openai_takes_it",
    "chat_reply",
]

CHAT_PATH: Final = "/v1/chat/completions"
RESPONSES_PATH: Final = "/v1/responses"
MESSAGES_PATH: Final = "/v1/messages"

_MESSAGES: Final = TypeAdapter(list[ChatCompletionMessageParam], config=ConfigDict(extra="forbid"))
_TOOLS: Final = TypeAdapter(list[ChatCompletionToolUnionParam])


def a_conversation(request_id: str, path: str, asked: Any, answered: Any, **fields: Any) -> Call:
    """A call with JSON bodies, or with bodies that are given."""
    bodies = [one if isinstance(one, Body) else _json_body(one) for one in (asked, answered)]
    known = {"status": 200, "path": path, "request": bodies[0], "response": bodies[1]}
    return a_call(request_id, **{**known, **fields})


def _json_body(value: Any) -> Body:
    data = orjson.dumps(value)
    return Body(data, len(data), content_type="application/json")


def chat_reply(message: Any, finish_reason: str = "stop") -> dict[str, Any]:
    """An answer of Chat Completions."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o", "choices": [choice]}


def a_chat(request_id: str = "r1", question: str = "Hello", answer: str = "Hello there.", **fields: Any) -> Call:
    """A small chat."""
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": question}]}
    return a_conversation(request_id, CHAT_PATH, asked, chat_reply({"content": answer}), **fields)


def as_openai_takes_it(line: dict[str, Any]) -> list[Any]:
    """The messages of a line, checked against the SDK's types to the last part, as are the tools."""
    settings = line.keys() - {"messages"}
    assert settings <= {"tools", "functions", "parallel_tool_calls"}
    _force(_TOOLS.validate_python(line.get("tools", []), strict=True))
    _force(_MESSAGES.validate_python(line["messages"]))
    messages: list[Any] = line["messages"]
    return messages


def _force(value: Any) -> None:
    """Have pydantic look into what it would look into when it is gone over."""
    if isinstance(value, dict):
        for part in value.values():
            _force(part)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for part in value:
            _force(part)
