"""What the official SDKs make of a stream's bytes: their decoders and accumulators, and nothing of Kibitz."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anthropic._streaming import SSEDecoder as AnthropicDecoder
from anthropic.lib.streaming._beta_messages import accumulate_event
from openai._models import construct_type
from openai._streaming import SSEDecoder
from openai._types import NOT_GIVEN
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent

__all__ = ["chat", "completion", "message", "openai_events", "response", "without_nulls"]

Json = dict[str, Any]


def without_nulls(value: Any) -> Any:
    """JSON without the members that say nothing: SDKs fill in those that their types have."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def openai_events(body: bytes) -> Iterator[Json]:
    """The JSON of a stream's events, as the openai package takes them."""
    for event in SSEDecoder().iter_bytes(iter([body])):
        if event.data.strip() and not event.data.startswith("[DONE]"):
            yield event.json()


def chat(body: bytes) -> Json:
    """A chat completion."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    chunks = list(openai_events(body))
    for chunk in _as_documented(chunks):
        typed = construct_type(type_=ChatCompletionChunk, value=chunk)
        assert isinstance(typed, ChatCompletionChunk)
        list(state.handle_chunk(typed))
    snapshot: Json = state.current_completion_snapshot.to_dict(warnings=False)
    for choice in snapshot["choices"]:
        for call in choice["message"].get("tool_calls") or ():
            del call["index"]
            (call["function"] or {}).pop("parsed_arguments", None)
    # Of these the package keeps what the first chunk says, even if that is nothing, or what the last one says.
    for name, place in {"id": 0, "model": 0, "created": 0, "usage": -1, "x_groq": -1}.items():
        if said := [chunk[name] for chunk in chunks if chunk.get(name)]:
            snapshot[name] = said[place]
    return without_nulls(snapshot)  # type: ignore[no-any-return]


def _as_documented(chunks: list[Json]) -> Iterator[Json]:
    """Chunks without what other providers send and the package trips over: nulls in deltas, and repeated roles."""
    begun = set[int]()
    for chunk in without_nulls(chunks):
        for choice in chunk.get("choices", ()):
            if choice["index"] in begun:
                choice["delta"].pop("role", None)
            begun.add(choice["index"])
        yield chunk


def completion(body: bytes) -> Json:
    """A completion of the older API, for whose streams the package has no accumulator."""
    answer: Json = {}
    choices: dict[int, Json] = {}
    for chunk in openai_events(body):
        answer |= {name: value for name, value in chunk.items() if value and name != "choices"}
        for part in chunk.get("choices", []):
            choice = choices.setdefault(part.get("index", 0), {"index": part.get("index", 0), "text": ""})
            choice["text"] += part.get("text") or ""
            choice |= {name: value for name, value in part.items() if value and name != "text"}
    return {**answer, "choices": [choices[index] for index in sorted(choices)]}


def response(body: bytes) -> Json:
    """A response: the one that its last event carries; of a stream that was cut what its events add up to."""
    state: ResponseStreamState[None] = ResponseStreamState(input_tools=NOT_GIVEN, text_format=NOT_GIVEN)  # type: ignore[arg-type]
    for event in openai_events(body):
        state.handle_event(construct_type(type_=ResponseStreamEvent, value=event))  # type: ignore[arg-type]
    snapshot: Any = state._completed_response or state._ResponseStreamState__current_snapshot  # type: ignore[attr-defined]
    return without_nulls(snapshot.to_dict(warnings=False))  # type: ignore[no-any-return]


def message(body: bytes) -> Json:
    """A message of Anthropic's, the blocks and counts of its beta included."""
    snapshot: Any = None
    no_fields: Any = {}
    inputs: dict[int, bytes] = {}
    for event in AnthropicDecoder().iter_bytes(iter([body])):
        if event.event not in ("ping", "error"):
            snapshot = accumulate_event(
                event=event.json(), current_snapshot=snapshot, json_bufs=inputs, request_headers=no_fields
            )
    return without_nulls(snapshot.to_dict(warnings=False))  # type: ignore[no-any-return]
