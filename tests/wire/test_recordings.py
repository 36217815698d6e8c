"""Streams that providers really sent: what the log makes of them against what the official SDKs make of them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange import Capture
from proxy.wire import Message, ResponseFacts, read_response
from tests.wire import accumulated
from tests.wire.recordings import beside_the_repository, recordings

RECORDINGS = list(recordings())
pytestmark = beside_the_repository


def streams(path_end: str) -> list[Any]:
    return [
        pytest.param(item, id=item["name"])
        for item in RECORDINGS
        if item["path"].partition("?")[0].endswith(path_end) and item["content_type"].startswith("text/event-stream")
    ]


def facts(item: dict[str, Any]) -> ResponseFacts:
    return read_response(item["path"], Message(item["body"], item["content_type"]))


@pytest.mark.parametrize("item", [*streams("/chat/completions"), *streams("/v1/chat")])
def test_a_streamed_chat_adds_up_to_what_the_openai_sdk_makes_of_it(item: dict[str, Any]) -> None:
    theirs = accumulated.chat(item["body"])
    ours = facts(item)
    body = accumulated.without_nulls(ours.body)
    for answer in (body, theirs):
        for choice in answer["choices"]:
            choice.pop("content_filter_results", None)  # Azure's last chunk takes it back, and the SDK believes it
    assert body == theirs
    message = theirs["choices"][0]["message"]
    assert (ours.text, ours.tool_calls) == (message.get("content"), message.get("tool_calls"))
    assert ours.finish_reason == theirs["choices"][0]["finish_reason"]


@pytest.mark.parametrize("item", streams("/completions"))
def test_a_streamed_completion_adds_up_by_index(item: dict[str, Any]) -> None:
    theirs = accumulated.completion(item["body"])
    if item["path"].partition("?")[0].endswith("/chat/completions") or not theirs["choices"]:
        return
    ours = facts(item)
    assert (ours.text, ours.finish_reason) == (theirs["choices"][0]["text"], theirs["choices"][0]["finish_reason"])
    assert [choice["text"] for choice in ours.body["choices"]] == [choice["text"] for choice in theirs["choices"]]


@pytest.mark.parametrize("item", streams("/responses"))
def test_a_streamed_response_is_what_its_last_event_carries(item: dict[str, Any]) -> None:
    whole = [
        event["response"] for event in accumulated.openai_events(item["body"]) if event["type"] == "response.completed"
    ][-1]
    assembled = facts(item)
    assert assembled.body == whole
    assert assembled.usage.total_tokens == whole["usage"]["total_tokens"]


@pytest.mark.parametrize("item", streams("/responses"))
def test_a_response_that_was_cut_adds_up_from_its_deltas(item: dict[str, Any]) -> None:
    """Without its last event, the deltas give the text and the calls that it would have carried."""
    last = item["body"].rfind(b"event: response.completed")
    cut = read_response(item["path"], Message(item["body"][:last], item["content_type"]))
    whole = facts(item)
    assert (cut.text, cut.tool_calls, cut.id) == (whole.text, whole.tool_calls, whole.id)
    assert cut.finish_reason == "in_progress"


@pytest.mark.parametrize("item", [item for item in streams("/messages") if "/threads/" not in item.values[0]["path"]])
def test_a_streamed_message_adds_up_to_what_the_anthropic_sdk_makes_of_it(item: dict[str, Any]) -> None:
    theirs = accumulated.message(item["body"])
    ours = facts(item)
    assert accumulated.without_nulls(ours.body) == theirs
    blocks = theirs["content"]
    assert ours.text == "".join(block["text"] for block in blocks if block["type"] == "text") or None
    assert ours.finish_reason == theirs["stop_reason"]
    assert (ours.usage.prompt_tokens, ours.usage.completion_tokens) == (
        theirs["usage"]["input_tokens"],
        theirs["usage"]["output_tokens"],
    )


@settings(max_examples=60)
@given(st.sampled_from(RECORDINGS or [{}]), st.lists(st.integers(0, 20_000), max_size=8))
def test_any_split_of_a_recording_is_understood_alike(item: dict[str, Any], cuts: list[int]) -> None:
    capture = Capture(limit=2**24)
    places = sorted({0, *(min(cut, len(item["body"])) for cut in cuts), len(item["body"])})
    for start, end in itertools.pairwise(places):
        capture.feed(item["body"][start:end])
    assert read_response(item["path"], Message(capture.data(), item["content_type"])) == facts(item)


@settings(max_examples=150)
@given(st.sampled_from(RECORDINGS or [{}]), st.integers(0, 20_000), st.binary(max_size=40))
def test_a_recording_that_breaks_off_or_goes_wrong_gives_some_facts(
    item: dict[str, Any], cut: int, noise: bytes
) -> None:
    for body in (item["body"][:cut], item["body"][:cut] + noise + item["body"][cut:]):
        assert isinstance(read_response(item["path"], Message(body, item["content_type"])), ResponseFacts)
