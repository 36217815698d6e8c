"""Streams that no provider should send: one odd event must not cost what the others told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.wire import Message, ResponseFacts, read_response, visible_answer

Json = dict[str, Any]
Events = list[Json]

DONE = b"data: [DONE]\n\n"


def as_events(events: Events) -> Message:
    return Message(b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in events) + DONE, "text/event-stream")


def as_lines(events: Events) -> Message:
    return Message(b"".join(orjson.dumps(event) + b"\n" for event in events), "application/x-ndjson")


def chat(odd: Json) -> Events:
    told: Json = {"id": "r1", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    piece: Json = {"choices": [{**odd, "index": 0, "delta": odd}]}
    return [piece, told, piece]


def completions(odd: Json) -> Events:
    choice = {"index": 0, "text": "Hi", "finish_reason": "stop"}
    return [{"choices": [{"index": 0, **odd}]}, {"id": "r1", "choices": [choice]}, {"choices": [{"index": 0, **odd}]}]


def responses(odd: Json) -> Events:
    where = {"output_index": 0, "content_index": 0}
    text = [
        {"type": f"response.output_text.{step}", "delta": "Hi", "text": "Hi", **where} for step in ("delta", "done")
    ]
    item = {"type": "response.output_item.done", "output_index": 1, "item": odd}
    return [item, {"type": "response.created", "response": {"id": "r1", "status": "stop", **odd}}, *text, item]


def messages(odd: Json) -> Events:
    steps = [{"type": "text_delta", "text": "Hi"}, {"type": "unknown", **odd}, {"type": "unknown", **odd}]
    return [
        {"type": "message_start", "message": {"id": "r1", "stop_reason": "stop"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "", **odd}},
        *({"type": "content_block_delta", "index": 0, "delta": step} for step in steps),
    ]


FORMATS = {
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
    "/v1/responses": responses,
    "/v1/messages": messages,
}
formats = pytest.mark.parametrize(("path", "events"), FORMATS.items(), ids=list(FORMATS))


DEEP: Json = {"deep": "<here>"}
LEVELS = {"arrays": (b"[", b"]"), "objects": (b'{"in":', b"}"), "parts": (b'[{"index":0,"in":', b"}]")}


def deepened(message: Message, depth: int, kind: str = "objects") -> Message:
    """With that many levels in each place of an event that `DEEP` marks: writers of JSON stop earlier."""
    begin, end = LEVELS[kind]
    times = depth // len(end)
    return replace(message, data=message.data.replace(b'"<here>"', begin * times + b"1" + end * times))


@formats
@pytest.mark.parametrize("write", [as_events, as_lines])
@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("depth", [90, 150, 220, 450, 900])
def test_an_event_of_any_depth_leaves_the_rest_of_its_stream_understood(
    path: str, events: Callable[[Json], Events], write: Callable[[Events], Message], kind: str, depth: int
) -> None:
    message = deepened(write(events(DEEP)), depth, kind)
    facts = read_response(path, message)
    assert (facts.id, facts.text, facts.finish_reason, facts.is_stream) == ("r1", "Hi", "stop", True)
    assert orjson.dumps(visible_answer(facts.body, message))


@formats
def test_what_is_nested_less_deeply_is_kept_as_it_came(path: str, events: Callable[[Json], Events]) -> None:
    message = deepened(as_events(events(DEEP)), 150)
    assert b'"deep":%b1}' % (b'{"in":' * 150) in orjson.dumps(read_response(path, message).body)


@formats
def test_an_answer_that_is_not_kept_whole_is_shown_as_it_came(path: str, events: Callable[[Json], Events]) -> None:
    message = deepened(as_events(events(DEEP)), 900)
    assert visible_answer(read_response(path, message).body, message) == message.data.decode()


@pytest.mark.parametrize("depth", [10, 900])
def test_the_usage_of_images_may_be_of_any_depth(depth: int) -> None:
    usage = {"input_tokens": 2, **DEEP}
    event = {"type": "image_generation.completed", "b64_json": "x", "usage": usage}
    facts = read_response("/v1/images/generations", deepened(as_events([event, event]), depth))
    assert (facts.usage.prompt_tokens, facts.is_stream) == (4, True)


NAMES = ["whole message", "partial_json", "index", "type", "message", "delta", "content", "text", "tool_calls", "usage"]
NAMES += ["input", "item", "part", "output", "response", "citations", "annotations", "logprobs", "error", "name", "id"]
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["", "a", "{", "text", "tool_use"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(list(FORMATS.items())), st.dictionaries(st.sampled_from(NAMES), ODD, max_size=4))
@example(("/v1/chat/completions", chat), {"whole message": "a", "message": {"name": "a"}})
@example(("/v1/messages", messages), {"partial_json": {"a": 1}})
@example(("/v1/messages", messages), {"type": []})
def test_members_of_any_shape_leave_a_stream_understood(form: tuple[str, Callable[[Json], Events]], odd: Json) -> None:
    path, events = form
    facts = read_response(path, as_events(events(odd)))
    assert facts.body is not None
    assert facts.is_stream


def test_a_stream_that_nothing_can_be_made_of_is_one_all_the_same() -> None:
    no_bytes = cast("bytes", 7)
    for media_type in ("text/event-stream", "application/x-ndjson", "Text/Event-Stream; charset=utf-8"):
        assert read_response("/v1/messages", Message(no_bytes, media_type)) == ResponseFacts(is_stream=True)
    assert read_response("/v1/messages", Message(no_bytes, "application/json")) == ResponseFacts(is_stream=False)


@pytest.mark.parametrize(
    "odd",
    [
        b'{"id": "r2"},{"id": "r3"}',
        b'{"id": "r2", "choices": [{}\n\ndata: {}]},{}',
        b'{"id": "r2"\n,"b": 2}',
        b'{"id": "\n\ndata: "},{}',
        b"[DONE]",
        b"{}",
        b'["id"]',
        b"",
    ],
)
def test_data_that_is_no_object_is_none_with_what_stands_beside_it(odd: bytes) -> None:
    stream = as_events(chat({}))
    facts = read_response("/v1/chat/completions", replace(stream, data=b"data: " + odd + b"\n\n" + stream.data))
    assert facts == read_response("/v1/chat/completions", stream)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_bytes_that_are_no_utf_8_are_replaced(end: bytes) -> None:
    data = as_events(chat({})).data.replace(b"Hi", b"H\xffi").replace(b"\n", end)
    assert read_response("/v1/chat/completions", Message(data, "text/event-stream")).text == "H\ufffdi"
