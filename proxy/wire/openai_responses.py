"""The Responses API: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming.

A stream ends with an event that carries the whole response. One that was cut is put together from its deltas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from proxy.wire.accumulate import grown_text, settled
from proxy.wire.facts import ResponseFacts, as_object, as_objects, as_text, error_message
from proxy.wire.openai_usage import read_billing, read_usage

__all__ = ["assemble", "read_answer"]

_TOOL_CALLS: Final = frozenset({"function_call", "custom_tool_call"})

Event = dict[str, Any]


def read_answer(body: dict[str, Any]) -> ResponseFacts:
    """Facts of a response object."""
    output = as_objects(body.get("output"))
    return ResponseFacts(
        id=as_text(body.get("id")),
        model=as_text(body.get("model")),
        finish_reason=as_text(body.get("status")),
        usage=read_usage(body.get("usage")),
        billing=read_billing(body.get("usage"), body.get("service_tier")),
        text=_text(output),
        tool_calls=[item for item in output if item.get("type") in _TOOL_CALLS] or None,
        error=error_message(body.get("error")),
        body=body,
    )


def _text(output: list[dict[str, Any]]) -> str | None:
    """The text of every message among the output, as the SDK's ``output_text``."""
    parts = [
        part.get("text")
        for item in output
        if item.get("type") == "message"
        for part in as_objects(item.get("content"))
        if part.get("type") == "output_text"
    ]
    return "".join(text for text in parts if isinstance(text, str)) if parts else None


def assemble(events: Iterable[Event]) -> dict[str, Any]:
    """The response that a stream's events add up to."""
    response: dict[str, Any] = {"object": "response", "output": []}
    for event in events:
        kind = str(event.get("type", ""))
        whole = event.get("response")
        if isinstance(whole, dict):
            # A snapshot taken before any output would throw away what the deltas have built.
            output = whole.get("output") or response["output"]
            response = {**response, **whole, "output": output if isinstance(output, list) else []}
        elif kind == "error" or "error" in event:
            response["error"] = event.get("error") or event
        elif step := _STEPS.get(kind):
            step(response["output"], event)
    response["output"] = settled(response["output"])
    return response


def _set_item(output: list[Any], event: Event) -> None:
    item = event.get("item")
    if isinstance(item, dict):
        index = _index(event, "output_index", len(output))
        if index < len(output):
            output[index] = item
        else:
            output.append(item)


def _set_part(output: list[Any], event: Event) -> None:
    part, content = event.get("part"), _item(output, event).setdefault("content", [])
    if isinstance(part, dict) and isinstance(content, list):
        index = _index(event, "content_index", len(content))
        if index < len(content):
            content[index] = part
        else:
            content.append(part)


def _grow_part(member: str) -> Callable[[list[Any], Event], None]:
    def step(output: list[Any], event: Event) -> None:
        content = as_objects(_item(output, event).get("content"))
        index = _index(event, "content_index", 0)
        if index < len(content):
            _append_text(content[index], member, event)

    return step


def _grow_item(member: str) -> Callable[[list[Any], Event], None]:
    def step(output: list[Any], event: Event) -> None:
        _append_text(_item(output, event), member, event)

    return step


def _append_text(holder: dict[str, Any], member: str, event: Event) -> None:
    known, delta = holder.get(member), event.get("delta")
    if isinstance(delta, str):
        holder[member] = grown_text(known, delta)


def _item(output: list[Any], event: Event) -> dict[str, Any]:
    index = _index(event, "output_index", 0)
    return as_object(output[index]) if index < len(output) else {}


def _index(event: Event, name: str, otherwise: int) -> int:
    index = event.get(name)
    return index if isinstance(index, int) and index >= 0 else otherwise


_STEPS: Final[dict[str, Callable[[list[Any], Event], None]]] = {
    "response.output_item.added": _set_item,
    "response.output_item.done": _set_item,
    "response.content_part.added": _set_part,
    "response.content_part.done": _set_part,
    "response.output_text.delta": _grow_part("text"),
    "response.refusal.delta": _grow_part("refusal"),
    "response.reasoning_text.delta": _grow_part("text"),
    "response.function_call_arguments.delta": _grow_item("arguments"),
    "response.custom_tool_call_input.delta": _grow_item("input"),
    "response.mcp_call_arguments.delta": _grow_item("arguments"),
    "response.code_interpreter_call_code.delta": _grow_item("code"),
}
