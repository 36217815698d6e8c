"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages and .../messages-streaming."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from proxy.wire.accumulate import grown_text, settled
from proxy.wire.facts import (
    Billing,
    RequestFacts,
    ResponseFacts,
    as_count,
    as_object,
    as_objects,
    as_text,
    error_message,
)
from proxy.wire.json_text import parse
from proxy.wire.openai_usage import read_usage

__all__ = ["assemble", "read_answer", "read_request"]

_TOOL_CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
# Where a tool's input gathers as text until its block ends; no member of the API's own.
_PARTIAL_INPUT: Final = "partial_json"


def read_request(body: dict[str, Any]) -> RequestFacts:
    """Facts of a request."""
    return RequestFacts(
        model=as_text(body.get("model")),
        user=as_text(as_object(body.get("metadata")).get("user_id")),
        is_stream=body.get("stream") is True,
    )


def read_answer(body: dict[str, Any]) -> ResponseFacts:
    """Facts of a message, whole or assembled."""
    blocks = as_objects(body.get("content"))
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    usage = as_object(body.get("usage"))
    return ResponseFacts(
        id=as_text(body.get("id")),
        model=as_text(body.get("model")),
        finish_reason=as_text(body.get("stop_reason")),
        usage=read_usage(usage),
        billing=_billing(usage),
        text="".join(text for text in texts if isinstance(text, str)) if texts else None,
        tool_calls=[block for block in blocks if block.get("type") in _TOOL_CALLS] or None,
        error=error_message(body.get("error")),
        body=body,
    )


def _billing(usage: dict[str, Any]) -> Billing:
    """Writes to the cache cost more if they are kept for an hour, and searches are paid for one by one."""
    units = {
        "cache_write_1h_tokens": as_count(as_object(usage.get("cache_creation")).get("ephemeral_1h_input_tokens")),
        "web_searches": as_count(as_object(usage.get("server_tool_use")).get("web_search_requests")),
    }
    speed = as_text(usage.get("speed"))
    return Billing(
        cache_apart=True,
        units={name: count for name, count in units.items() if count},
        terms={"speed": speed} if speed and speed != "standard" else {},
    )


def assemble(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The message that a stream's events add up to."""
    message: dict[str, Any] = {"type": "message", "role": "assistant", "content": []}
    blocks: dict[int, dict[str, Any]] = {}
    for event in events:
        kind = event.get("type")
        if kind == "message_start":
            message |= as_object(event.get("message"))
        elif kind == "message_delta":
            _add_message_delta(message, event)
        elif kind == "content_block_start":
            blocks[_index(event)] = dict(as_object(event.get("content_block")))
        elif kind == "content_block_delta":
            _add_block_delta(blocks.setdefault(_index(event), {}), as_object(event.get("delta")))
        elif kind == "error" or "error" in event:
            message["error"] = event.get("error") or event
    if blocks:
        message["content"] = [_finished(settled(blocks[index])) for index in sorted(blocks)]
    return message


def _index(event: dict[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0


def _add_message_delta(message: dict[str, Any], event: dict[str, Any]) -> None:
    message |= {name: value for name, value in as_object(event.get("delta")).items() if value is not None}
    # Counts are totals so far, not increments; those that the event leaves out stay as message_start gave them.
    counts = {name: count for name, count in as_object(event.get("usage")).items() if count is not None}
    message["usage"] = {**as_object(message.get("usage")), **counts}


def _add_block_delta(block: dict[str, Any], delta: dict[str, Any]) -> None:
    step = _STEPS.get(str(delta.get("type")))
    if step is not None:
        step(block, delta)


def _grow(member: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def step(block: dict[str, Any], delta: dict[str, Any]) -> None:
        known, new = block.get(member), delta.get(member)
        if isinstance(new, str):
            block[member] = grown_text(known, new)

    return step


def _add_citation(block: dict[str, Any], delta: dict[str, Any]) -> None:
    known = block.get("citations")
    block["citations"] = [*(known if isinstance(known, list) else []), delta.get("citation")]


_STEPS: Final[dict[str, Callable[[dict[str, Any], dict[str, Any]], None]]] = {
    "text_delta": _grow("text"),
    "input_json_delta": _grow(_PARTIAL_INPUT),
    "thinking_delta": _grow("thinking"),
    "signature_delta": _grow("signature"),
    "citations_delta": _add_citation,
}


def _finished(block: dict[str, Any]) -> dict[str, Any]:
    """The block with its tool's input parsed; of a stream that was cut the text stays, since it is no JSON yet."""
    text = block.pop(_PARTIAL_INPUT, None)
    if text:
        whole = parse(text)
        block["input"] = text if whole is None else whole
    return block
