"""Chat Completions: https://platform.openai.com/docs/api-reference/chat, and what others make of it.

A stream's chunks are put together into the answer that the same call gives unstreamed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from proxy.wire.accumulate import add_logprobs, add_members, assemble_choices, first_choice, index_of
from proxy.wire.facts import RequestFacts, ResponseFacts, as_object, as_objects, as_text, error_message, told_error
from proxy.wire.openai_usage import find_usage, read_billing, read_usage
from proxy.wire.tool_calls import ToolCalls, grown_tool

__all__ = ["assemble", "read_answer", "read_request"]

# Types of content parts that a person reads.
_READ: Final = ("text", "output_text")
# Where a choice's message waits until it is known whether deltas told the same; no member of the API's own.
_WHOLE: Final = "whole message"


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
    usage = find_usage(body)
    return ResponseFacts(
        id=as_text(body.get("id")),
        model=as_text(body.get("model")),
        finish_reason=as_text(choice.get("finish_reason")),
        usage=read_usage(usage),
        billing=read_billing(usage, body.get("service_tier")),
        text=_text(message.get("content")),
        tool_calls=as_objects(message.get("tool_calls")) or None,
        error=told_error(body) or error_message(choice.get("error")),
        body=body,
    )


def _text(content: Any) -> str | None:
    """Content is text or a list of parts, and the parts of type ``text`` are what a person reads."""
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in as_objects(content) if part.get("type", "text") in _READ]
    return "".join(part for part in parts if isinstance(part, str)) or None


def assemble(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The answer that a stream's chunks add up to."""
    answer = assemble_choices(chunks, "chat.completion", _ADDERS)
    for choice in answer.get("choices", ()):
        _finish(choice)
    return answer


def _add_delta(choice: dict[str, Any], delta: Any) -> None:
    if isinstance(delta, dict):
        add_members(choice.setdefault("message", {}), delta, _GROWERS)


def _add_message(choice: dict[str, Any], message: Any) -> None:
    said = {name: value for name, value in as_object(message).items() if value is not None and value != ""}
    choice[_WHOLE] = as_object(choice.get(_WHOLE)) | said


_ADDERS: Final = {"delta": _add_delta, "message": _add_message, "logprobs": add_logprobs}


def _grown_calls(_: str, known: Any, new: Any) -> ToolCalls:
    calls = ToolCalls() if known is None else known
    calls.take(as_objects(new))
    return calls


def _grown_function(name: str, known: Any, new: Any) -> Any:
    return grown_tool(name, known, new) if new else known


def _first(_: str, known: Any, new: Any) -> Any:
    return known or new


# Of the members of a delta that do not go on as others do.
_GROWERS: Final = {"tool_calls": _grown_calls, "function_call": _grown_function, "name": _first}


def _finish(choice: dict[str, Any]) -> None:
    """Give a choice its unstreamed shape: tool calls in order, without the index that streams need."""
    message = choice.setdefault("message", {})
    calls = message.pop("tool_calls", None)
    if calls:
        ordered = sorted(calls, key=index_of)
        message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in ordered]
    # A message beside deltas, or behind them, repeats what they add up to; alone it is all there is.
    for name, value in as_object(choice.pop(_WHOLE, None)).items():
        if message.get(name) in (None, ""):
            message[name] = value
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
