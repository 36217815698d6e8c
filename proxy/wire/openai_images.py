"""Images made and edited: https://platform.openai.com/docs/api-reference/images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from proxy.wire.facts import Billing, ResponseFacts, as_object, as_text, error_message
from proxy.wire.openai_usage import read_billing, read_usage
from storage.records import Usage

__all__ = ["assemble", "read_answer"]

_PARTIAL: Final = frozenset({"image_generation.partial_image", "image_edit.partial_image"})
_COMPLETED: Final = frozenset({"image_generation.completed", "image_edit.completed"})
_OF_AN_IMAGE: Final = frozenset({"b64_json", "url", "revised_prompt", "partial_image_index"})


def read_answer(body: dict[str, Any]) -> ResponseFacts:
    """Facts of an answer, whole or assembled."""
    usage = read_usage(body.get("usage"))
    return ResponseFacts(
        id=as_text(body.get("id")),
        model=as_text(body.get("model")),
        usage=usage,
        billing=_billing(body.get("usage"), usage),
        error=error_message(body.get("error")),
        body=body,
    )


def _billing(told: Any, usage: Usage) -> Billing:
    """Where the tokens of the output are not told apart, as in a stream, all are an image's."""
    billing = read_billing(told, None)
    if not usage.completion_tokens or as_object(as_object(told).get("output_tokens_details")):
        return billing
    return replace(billing, units={**billing.units, "output_image_tokens": usage.completion_tokens})


def assemble(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The answer that a stream's events add up to. One that was cut has the latest state of its unfinished image."""
    answer: dict[str, Any] = {}
    images: list[dict[str, Any]] = []
    partial: dict[str, Any] = {}
    for event in events:
        kind = as_text(event.get("type"))
        if kind in _PARTIAL or kind in _COMPLETED:
            usage = _sum(answer.get("usage"), event.get("usage"))
            answer |= _of_all(event) | ({"usage": usage} if usage else {})
            image = {name: value for name, value in event.items() if name in _OF_AN_IMAGE}
            partial = image if kind in _PARTIAL else {}
            images += [image] if kind in _COMPLETED else []
        elif kind == "error" or "error" in event:
            answer["error"] = event.get("error") or event
    images += [partial] if partial else []
    return answer | ({"data": images} if images else {})


def _of_all(event: dict[str, Any]) -> dict[str, Any]:
    """What an answer says of all its images."""
    members = {name: value for name, value in event.items() if name not in _OF_AN_IMAGE | {"type", "usage"}}
    if "created_at" in members:
        members["created"] = members.pop("created_at")
    return members


def _sum(known: Any, new: Any) -> Any:
    """Two counts of usage together: each image of a stream has its own."""
    if isinstance(known, dict) and isinstance(new, dict):
        return {name: _sum(known.get(name), new.get(name)) for name in known | new}
    if isinstance(known, int) and isinstance(new, int):
        return known + new
    return known if new is None else new
