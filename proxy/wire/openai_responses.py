"""The Responses API: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming.

A stream ends with an event that carries the whole response. One that was cut is put together from its deltas.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from proxy.wire.accumulate import GrowingList, growing_list, grown_text, settled
from proxy.wire.facts import ResponseFacts, as_objects, as_text, told_error
from proxy.wire.openai_usage import read_billing, read_usage

__all__ = ["assemble", "read_answer", "tool_calls_in"]

# As the types of all tools' calls do; those of what they gave end otherwise.
_TOOL_CALL: Final = "_call"

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
        tool_calls=tool_calls_in(output) or None,
        error=told_error(body),
        body=body,
    )


def tool_calls_in(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of the output that are calls, of functions and of OpenAI's own tools."""
    return [item for item in output if str(item.get("type")).endswith(_TOOL_CALL)]


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
    """The response that a stream's events add up to; empty, if there are none of such a stream."""
    response: dict[str, Any] = {}
    output = GrowingList()
    error = None
    for event in events:
        kind, whole = str(event.get("type", "")), event.get("response")
        if isinstance(whole, dict):
            response |= whole
            # A snapshot taken before any output would throw away what the deltas have built.
            if isinstance(whole.get("output"), list) and whole["output"]:
                output = GrowingList(enumerate(whole["output"]))
        elif kind == "error" or event.get("error"):
            error = event.get("error") or event
        else:
            _add_to_output(output, kind, event)
    if not response and not output and not error:
        return {}
    response = {"object": "response", **response, "output": settled(output)}
    if error and not response.get("error"):
        response["error"] = error
    return response


def _add_to_output(output: GrowingList, kind: str, event: Event) -> None:
    stem, _, step = kind.rpartition(".")
    if stem == "response.output_item":
        if isinstance(event.get("item"), dict):
            output[_index(event, "output", len(output))] = event["item"]
    elif stem in _PARTS:
        place = _PARTS[stem]
        if isinstance(event.get("part"), dict):
            _parts(output, place, event)[_index(event, place.parts, 0)] = event["part"]
    elif stem == "response.output_text.annotation":
        annotations = growing_list(_holder(output, _TEXTS["response.output_text"], event), "annotations")
        annotations[_index(event, "annotation", len(annotations))] = event.get("annotation")
    elif stem in _TEXTS:
        _add_text(_holder(output, _TEXTS[stem], event), _TEXTS[stem].member, step, event)


def _add_text(holder: dict[str, Any], member: str, step: str, event: Event) -> None:
    """The next piece of a text; or all of it, which also comes where a resumed stream has missed its beginning."""
    delta, whole = event.get("delta"), event.get(member)
    if step == "delta" and isinstance(delta, str):
        holder[member] = grown_text(holder.get(member), delta)
    elif step == "done" and isinstance(whole, str):
        holder[member] = whole


class _Place(NamedTuple):
    """Where in the output a text is: in an item, or in one of an item's parts."""

    item_type: str
    member: str = ""
    parts: str = ""
    """Of the item, the member that holds its parts, if it has any."""
    part_type: str = ""


def _holder(output: GrowingList, place: _Place, event: Event) -> dict[str, Any]:
    """The item or part that an event speaks of. A resumed stream may not have begun it."""
    if not place.parts:
        return _item(output, place, event)
    return _at(_parts(output, place, event), _index(event, place.parts, 0), {"type": place.part_type})


def _parts(output: GrowingList, place: _Place, event: Event) -> GrowingList:
    return growing_list(_item(output, place, event), place.parts)


def _item(output: GrowingList, place: _Place, event: Event) -> dict[str, Any]:
    return _at(output, _index(event, "output", 0), {"id": event.get("item_id"), "type": place.item_type})


def _at(items: GrowingList, index: int, unknown: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(items.get(index), dict):
        items[index] = unknown
    known: dict[str, Any] = items[index]
    return known


def _index(event: Event, what: str, otherwise: int) -> int:
    index = event.get(f"{what}_index")
    return index if isinstance(index, int) else otherwise


_TEXTS: Final = {
    "response.output_text": _Place("message", "text", "content", "output_text"),
    "response.refusal": _Place("message", "refusal", "content", "refusal"),
    "response.reasoning_text": _Place("reasoning", "text", "content", "reasoning_text"),
    "response.reasoning_summary_text": _Place("reasoning", "text", "summary", "summary_text"),
    "response.function_call_arguments": _Place("function_call", "arguments"),
    "response.custom_tool_call_input": _Place("custom_tool_call", "input"),
    "response.mcp_call_arguments": _Place("mcp_call", "arguments"),
    "response.code_interpreter_call_code": _Place("code_interpreter_call", "code"),
}
_PARTS: Final = {
    "response.content_part": _Place("message", parts="content"),
    "response.reasoning_summary_part": _Place("reasoning", parts="summary"),
}
