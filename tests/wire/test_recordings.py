"""Streams that providers really sent: what the log makes of them against what the official SDKs make of them."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic._streaming import SSEDecoder as AnthropicDecoder
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._models import construct_type as openai_type
from openai._streaming import SSEDecoder
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from proxy.exchange import Capture
from proxy.wire import Message, ResponseFacts, read_response

TRAFFIC = Path(__file__).parents[3] / "shared" / "traffic"
pytestmark = pytest.mark.skipif(not TRAFFIC.is_dir(), reason="the recordings are not beside the repository")


def recordings() -> Iterator[dict[str, Any]]:
    for file in sorted(TRAFFIC.glob("*.json")):
        for item in json.loads(file.read_text(encoding="utf-8")):
            body = item["response_body"]
            encoded = item["response_body_encoding"] == "base64"
            item["body"] = base64.b64decode(body) if encoded else body.encode()
            fields = {name.lower(): value for name, value in item["response_headers"]}
            item["content_type"] = fields.get("content-type", "")
            yield item


RECORDINGS = list(recordings())


def streams(path_end: str) -> list[Any]:
    return [
        pytest.param(item, id=item["name"])
        for item in RECORDINGS
        if item["path"].partition("?")[0].endswith(path_end) and item["content_type"].startswith("text/event-stream")
    ]


def facts(item: dict[str, Any]) -> ResponseFacts:
    return read_response(item["path"], Message(item["body"], item["content_type"]))


def openai_events(body: bytes) -> Iterator[dict[str, Any]]:
    for event in SSEDecoder().iter_bytes(iter([body])):
        if event.data.strip() and not event.data.startswith("[DONE]"):
            yield event.json()


@pytest.mark.parametrize("item", streams("/chat/completions"))
def test_a_streamed_chat_adds_up_to_what_the_openai_sdk_makes_of_it(item: dict[str, Any]) -> None:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    usage = None
    for event in openai_events(item["body"]):
        chunk = openai_type(type_=ChatCompletionChunk, value=event)
        assert isinstance(chunk, ChatCompletionChunk)
        list(state.handle_chunk(chunk))
        usage = chunk.usage or usage
    snapshot = state.current_completion_snapshot
    assembled = facts(item)
    message = snapshot.choices[0].message
    assert (assembled.text or "") == (message.content or "")
    assert assembled.finish_reason == snapshot.choices[0].finish_reason
    assert snapshot.id in (assembled.id, "")  # Azure's first chunk has none, and the SDK keeps the first
    expected = [call.model_dump(exclude={"function": {"parsed_arguments"}}) for call in message.tool_calls or []]
    assert [_names_and_arguments(call) for call in assembled.tool_calls or []] == [
        _names_and_arguments(call) for call in expected
    ]
    if usage is not None:
        counts = assembled.usage
        assert (counts.prompt_tokens, counts.completion_tokens, counts.total_tokens) == (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
        )


def _names_and_arguments(call: dict[str, Any]) -> tuple[Any, ...]:
    function = call["function"]
    return call["id"], call["type"], function["name"], function["arguments"]


@pytest.mark.parametrize("item", streams("/completions"))
def test_a_streamed_completion_adds_up_by_index(item: dict[str, Any]) -> None:
    if item["path"].partition("?")[0].endswith("/chat/completions"):
        return
    texts: dict[int, str] = {}
    finish_reason = None
    for event in openai_events(item["body"]):
        for choice in event.get("choices", []):
            index = choice.get("index", 0)
            texts[index] = texts.get(index, "") + choice.get("text", "")
            finish_reason = choice.get("finish_reason") or finish_reason
    assembled = facts(item)
    assert assembled.text == texts.get(0)
    assert assembled.finish_reason == finish_reason


@pytest.mark.parametrize("item", streams("/responses"))
def test_a_streamed_response_is_what_its_last_event_carries(item: dict[str, Any]) -> None:
    whole = [event["response"] for event in openai_events(item["body"]) if event["type"] == "response.completed"][-1]
    assembled = facts(item)
    assert {name: assembled.body[name] for name in whole} == whole
    assert assembled.usage.total_tokens == whole["usage"]["total_tokens"]


@pytest.mark.parametrize("item", streams("/responses"))
def test_a_response_that_was_cut_adds_up_from_its_deltas(item: dict[str, Any]) -> None:
    """Without its last event, the deltas give the text and the calls that it would have carried."""
    last = item["body"].rfind(b"event: response.completed")
    cut = read_response(item["path"], Message(item["body"][:last], item["content_type"]))
    whole = facts(item)
    assert (cut.text, cut.tool_calls, cut.id) == (whole.text, whole.tool_calls, whole.id)
    assert cut.finish_reason == "in_progress"


@pytest.mark.parametrize("item", streams("/messages"))
def test_a_streamed_message_adds_up_to_what_the_anthropic_sdk_makes_of_it(item: dict[str, Any]) -> None:
    if "/threads/" in item["path"]:
        return
    snapshot: Any = None
    inputs: dict[int, bytes] = {}
    for event in AnthropicDecoder().iter_bytes(iter([item["body"]])):
        if event.event != "ping":
            snapshot = accumulate_event(event=event.json(), current_snapshot=snapshot, json_bufs=inputs)
    assembled = facts(item)
    assert assembled.text == "".join(block.text for block in snapshot.content if block.type == "text") or None
    assert assembled.finish_reason == snapshot.stop_reason
    tools = [(block.id, block.name, block.input) for block in snapshot.content if block.type == "tool_use"]
    assert [(call["id"], call["name"], call["input"]) for call in assembled.tool_calls or []] == tools
    usage = snapshot.usage
    counts = assembled.usage
    assert (counts.prompt_tokens, counts.completion_tokens) == (usage.input_tokens, usage.output_tokens)
    assert (counts.cache_read_tokens, counts.cache_write_tokens) == (
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
    )


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(RECORDINGS or [{}]), st.lists(st.integers(0, 20_000), max_size=8))
def test_any_split_of_a_recording_is_understood_alike(item: dict[str, Any], cuts: list[int]) -> None:
    capture = Capture(limit=2**24)
    places = sorted({0, *(min(cut, len(item["body"])) for cut in cuts), len(item["body"])})
    for start, end in itertools.pairwise(places):
        capture.feed(item["body"][start:end])
    assert read_response(item["path"], Message(capture.data(), item["content_type"])) == facts(item)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(RECORDINGS or [{}]), st.integers(0, 20_000), st.binary(max_size=40))
def test_a_recording_that_breaks_off_or_goes_wrong_gives_some_facts(
    item: dict[str, Any], cut: int, noise: bytes
) -> None:
    for body in (item["body"][:cut], item["body"][:cut] + noise + item["body"][cut:]):
        assert isinstance(read_response(item["path"], Message(body, item["content_type"])), ResponseFacts)
