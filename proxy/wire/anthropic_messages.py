"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages and .../messages-streaming."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from proxy.wire.accumulate import growing_list, grown, grown_text, index_of, settled
from proxy.wire.facts import (
    Billing,
    RequestFacts,
    ResponseFacts,
    as_count,
    as_object,
    as_objects,
    as_text,
    told_error,
)
from proxy.wire.json_text import parse
from proxy.wire.openai_usage import read_usage

__all__ = ["assemble", "read_answer", "read_request"]

_TOOL_CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
# Where a tool's input gathers as text until its block ends; no member of the API's own.
_PARTIAL_INPUT: Final = "partial_json"
_EMPTY: Final[dict[str, Any]] = {"type": "message", "role": "assistant", "content": [], "stop_reason": None}

Block = dict[str, Any]
Step = Callable[[Block, dict[str, Any]], None]


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
        tool_calls=[block for block in blocks if as_text(block.get("type")) in _TOOL_CALLS] or None,
        error=told_error(body),
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
    """The message that a stream's events add up to; empty, if there are none of such a stream."""
    message = dict(_EMPTY)
    blocks: dict[int, Block] = {}
    for event in events:
        kind = event.get("type")
        if kind == "message_start":
            message |= as_object(event.get("message"))
        elif kind == "message_delta":
            _add_message_delta(message, event)
        elif kind == "content_block_start":
            _start_block(message, blocks, event)
        elif kind == "content_block_delta":
            _add_block_delta(blocks.setdefault(index_of(event), {}), as_object(event.get("delta")))
        elif kind == "error" or event.get("error"):
            message["error"] = event.get("error") or event
    if message == _EMPTY and not blocks:
        return {}
    if blocks:
        message["content"] = [_finished(settled(blocks[index])) for index in sorted(blocks)]
    return message


def _start_block(message: dict[str, Any], blocks: dict[int, Block], event: dict[str, Any]) -> None:
    block = blocks[index_of(event)] = dict(as_object(event.get("content_block")))
    if block.get("type") == "fallback":  # another model goes on, and the message is its
        message["model"] = as_object(block.get("to")).get("model") or message.get("model")


def _add_message_delta(message: dict[str, Any], event: dict[str, Any]) -> None:
    beside = {name: value for name, value in event.items() if name not in ("type", "delta", "usage")}
    message |= _told({**beside, **as_object(event.get("delta"))})
    # Counts are totals so far, not increments; those that the event leaves out stay as message_start gave them.
    message["usage"] = {**as_object(message.get("usage")), **_told(as_object(event.get("usage")))}


def _told(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _add_block_delta(block: Block, delta: dict[str, Any]) -> None:
    _STEPS.get(str(delta.get("type")), _grow_all)(block, delta)


def _grow_all(block: Block, delta: dict[str, Any]) -> None:
    block |= {name: grown(name, block.get(name), value) for name, value in delta.items() if name != "type"}


def _grow(member: str) -> Step:
    def step(block: Block, delta: dict[str, Any]) -> None:
        known, new = block.get(member), delta.get(member)
        if isinstance(new, str):
            block[member] = grown_text(known, new)

    return step


def _set(*members: str) -> Step:
    def step(block: Block, delta: dict[str, Any]) -> None:
        block.update({member: delta[member] for member in members if member in delta})

    return step


def _add_citation(block: Block, delta: dict[str, Any]) -> None:
    citations = growing_list(block, "citations")
    citations[len(citations)] = delta.get("citation")


_STEPS: Final[dict[str, Step]] = {
    "text_delta": _grow("text"),
    "input_json_delta": _grow(_PARTIAL_INPUT),
    "thinking_delta": _grow("thinking"),
    "signature_delta": _set("signature"),
    "compaction_delta": _set("content", "encrypted_content"),
    "citations_delta": _add_citation,
}


def _finished(block: Block) -> Block:
    """The block with its tool's input parsed; of a stream that was cut the text stays, since it is no JSON yet."""
    text = as_text(block.pop(_PARTIAL_INPUT, None))
    if text:
        whole = parse(text)
        block["input"] = text if whole is None else whole
    return block
