"""Conversations of the Responses API. What a model thought stays out: chat messages have no place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from proxy.export.conversation import (
    CUT_SHORT,
    INEXPRESSIBLE,
    KEPT_ELSEWHERE,
    NO_ANSWER,
    Conversation,
    Part,
    Transcript,
    Unusable,
    function_call,
    text_part,
)
from proxy.wire.facts import as_object, as_objects

__all__ = ["read_responses"]

_ELSEWHERE: Final = ("previous_response_id", "conversation", "prompt")
_OF_A_FILE: Final = ("file_id", "file_data", "filename")


def read_responses(asked: dict[str, Any], answered: dict[str, Any]) -> Conversation:
    """Raises `Unusable`."""
    if any(asked.get(name) for name in _ELSEWHERE):
        raise Unusable(KEPT_ELSEWHERE)
    if answered.get("status") not in (None, "completed"):
        raise Unusable(CUT_SHORT)
    history, answer = Transcript(), Transcript()
    if instructions := asked.get("instructions"):
        history.say("system", [text_part(instructions)])
    given = asked.get("input")
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else as_objects(given):
        _add(history, item)
    for item in as_objects(answered.get("output")):
        _add(answer, item)
    if len(answer.messages()) != 1 or not history.messages():
        raise Unusable(NO_ANSWER)
    return Conversation(history.messages(), answer.messages()[0], _settings(asked))


def _add(to: Transcript, item: dict[str, Any]) -> None:
    match item.get("type", "message"):
        case "message":
            to.say(str(item.get("role", "assistant")), _parts(item.get("content")))
        case "function_call":
            to.call(function_call(item.get("call_id"), item.get("name"), str(item.get("arguments") or "")))
        case "custom_tool_call":
            custom = {"name": item.get("name"), "input": item.get("input") or ""}
            to.call({"id": item.get("call_id"), "type": "custom", "custom": custom})
        case "function_call_output" | "custom_tool_call_output":
            to.result(item.get("call_id"), _parts(item.get("output")))
        case "reasoning":
            pass
        case _:
            raise Unusable(INEXPRESSIBLE)


def _parts(content: object) -> list[Part]:
    if isinstance(content, str):
        return [text_part(content)]
    return [_PARTS.get(str(part.get("type")), _inexpressible)(part) for part in as_objects(content)]


def _inexpressible(_: Part) -> Part:
    raise Unusable(INEXPRESSIBLE)


def _text(part: Part) -> Part:
    return text_part(part.get("text"))


def _image(part: Part) -> Part:
    if not isinstance(part.get("image_url"), str):
        raise Unusable(INEXPRESSIBLE)
    detail = {"detail": part["detail"]} if part.get("detail") else {}
    return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}


def _file(part: Part) -> Part:
    members = {name: part[name] for name in _OF_A_FILE if part.get(name)}
    if not members.keys() & {"file_id", "file_data"}:
        raise Unusable(INEXPRESSIBLE)
    return {"type": "file", "file": members}


_PARTS: Final[dict[str, Callable[[Part], Part]]] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "refusal": lambda part: {"type": "refusal", "refusal": str(part.get("refusal"))},
    "input_image": _image,
    "input_audio": lambda part: {"type": "input_audio", "input_audio": part.get("input_audio")},
    "input_file": _file,
}


def _settings(asked: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if tools := as_objects(asked.get("tools")):
        settings["tools"] = [_tool(tool) for tool in tools]
    if isinstance(asked.get("parallel_tool_calls"), bool):
        settings["parallel_tool_calls"] = asked["parallel_tool_calls"]
    return settings


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    kind = tool.get("type")
    members = {name: value for name, value in tool.items() if name != "type" and value is not None}
    if kind == "custom" and as_object(tool.get("format")).get("type") == "grammar":
        grammar = {name: value for name, value in tool["format"].items() if name != "type"}
        members["format"] = {"type": "grammar", "grammar": grammar}
    if kind not in ("function", "custom"):
        raise Unusable(INEXPRESSIBLE)
    return {"type": kind, kind: members}
