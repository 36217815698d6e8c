"""Chat Completions: https://platform.openai.com/docs/api-reference/chat, and what others make of it.

A stream's chunks are put together into the answer that the same call gives unstreamed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy.wire.accumulate import assemble_choices, first_choice, grown, index_of
from proxy.wire.facts import RequestFacts, ResponseFacts, as_object, as_objects, as_text, error_message
from proxy.wire.openai_usage import read_billing, read_usage

__all__ = ["assemble", "read_answer", "read_request"]


def read_request(body: dict[str, Any]) -> RequestFacts:
    """Facts of a request."""
    return RequestFacts(
        model=as_text(body.get("model")),
        user=as_text(body.get("user")),
        is_stream=body.get("stream") is True,
    )


def read_answer(body: dict[str, Any]) -> ResponseFacts:
    """Facts of an unstreamed answer, or of a stream's assembled one."""
    choice = first_choice(body)
    message = as_object(choice.get("message"))
    usage = body.get("usage") or as_object(body.get("x_groq")).get("usage")
    return ResponseFacts(
        id=as_text(body.get("id")),
        model=as_text(body.get("model")),
        finish_reason=as_text(choice.get("finish_reason")),
        usage=read_usage(usage),
        billing=read_billing(usage, body.get("service_tier")),
        text=_text(message.get("content")),
        tool_calls=as_objects(message.get("tool_calls")) or None,
        error=error_message(body.get("error")),
        body=body,
    )


def _text(content: Any) -> str | None:
    """Content is text or a list of parts, and the parts of type ``text`` are what a person reads."""
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in as_objects(content)]
    return "".join(part for part in parts if isinstance(part, str)) or None


def assemble(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The answer that a stream's chunks add up to."""
    answer = assemble_choices(chunks, "chat.completion", _add_to_choice)
    for choice in answer["choices"]:
        _finish(choice)
    return answer


def _add_to_choice(choice: dict[str, Any], name: str, value: Any) -> None:
    if name in ("delta", "message"):
        _add_delta(choice.setdefault("message", {}), as_object(value))
    elif value is not None or name not in choice:
        choice[name] = value


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            _add_tool_calls(message.setdefault("tool_calls", []), value)
        elif name == "function_call":
            message[name] = _add_function(message.get(name), as_object(value)) if value else message.get(name)
        else:
            message[name] = grown(name, message.get(name), value)


def _add_tool_calls(calls: list[dict[str, Any]], new: Any) -> None:
    for part in as_objects(new):
        call = _tool_call(calls, part)
        for name, value in part.items():
            if name == "function":
                call["function"] = _add_function(call.get("function"), as_object(value))
            elif name != "index":
                call[name] = grown(name, call.get(name), value)


def _tool_call(calls: list[dict[str, Any]], part: dict[str, Any]) -> dict[str, Any]:
    """The call that a delta goes on with: by index, else by id, else the last one."""
    index, call_id = part.get("index"), part.get("id")
    if index is not None:
        known = [call for call in calls if call.get("index") == index]
    elif call_id:
        known = [call for call in calls if call.get("id") == call_id]
    else:
        known = calls[-1:]
    if known:
        return known[0]
    calls.append({"index": index if index is not None else len(calls)})
    return calls[-1]


def _add_function(known: Any, new: dict[str, Any]) -> dict[str, Any]:
    function = dict(as_object(known))
    for name, value in new.items():
        repeated = name == "name" and function.get(name) == value  # some send the whole name with every delta
        if not repeated:
            function[name] = grown(name, function.get(name), value)
    return function


def _finish(choice: dict[str, Any]) -> None:
    """Give a choice its unstreamed shape: tool calls in order, without the index that streams need."""
    message = choice.setdefault("message", {})
    if calls := message.get("tool_calls"):
        ordered = sorted(calls, key=index_of)
        message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in ordered]
    else:
        message.pop("tool_calls", None)
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
