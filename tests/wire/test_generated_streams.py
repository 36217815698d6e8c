"""Streams made by the protocols' rules: what the log makes of them against what the official SDKs make of them."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.wire import Message, ResponseFacts, read_response
from tests.wire import accumulated
from tests.wire.accumulated import without_nulls
from tests.wire.generated import (
    Framing,
    ResponseStream,
    chat_streams,
    framings,
    message_streams,
    plain,
    response_streams,
)

Json = dict[str, Any]

thoroughly = settings(suppress_health_check=[HealthCheck.too_slow])


def read(path: str, body: bytes) -> ResponseFacts:
    return read_response(path, Message(body, "text/event-stream"))


@given(chat_streams(), framings)
@thoroughly
def test_chat_chunks_add_up_to_what_the_openai_sdk_accumulates(chunks: list[Json], framing: Framing) -> None:
    theirs = accumulated.chat(plain.write(chunks, "[DONE]"))
    ours = read("/v1/chat/completions", framing.write(chunks, "[DONE]"))
    assert without_nulls(ours.body) == theirs
    first = theirs["choices"][0]
    assert (ours.text, ours.tool_calls) == (first["message"]["content"], first["message"].get("tool_calls"))
    assert (ours.id, ours.model, ours.finish_reason) == ("chatcmpl-1", "m", first["finish_reason"])
    counts = (ours.usage.prompt_tokens, ours.usage.completion_tokens, ours.usage.total_tokens)
    assert counts == tuple(theirs.get("usage", {}).get(f"{what}_tokens") for what in ("prompt", "completion", "total"))


@given(message_streams(), framings)
@thoroughly
def test_message_events_add_up_to_what_the_anthropic_sdk_accumulates(events: list[Json], framing: Framing) -> None:
    theirs = accumulated.message(plain.write(events))
    ours = read("/v1/messages", framing.write(events))
    assert without_nulls(ours.body) == theirs
    blocks = theirs["content"]
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    assert ours.text == ("".join(texts) if texts else None)
    calls = [block for block in blocks if block["type"].endswith("tool_use")]
    assert without_nulls(ours.tool_calls) == (calls or None)
    assert (ours.id, ours.model, ours.finish_reason) == ("msg_1", "m", theirs["stop_reason"])
    usage = theirs["usage"]
    assert (ours.usage.prompt_tokens, ours.usage.completion_tokens) == (usage["input_tokens"], usage["output_tokens"])
    assert ours.usage.cache_read_tokens == usage.get("cache_read_input_tokens")


@given(response_streams(), framings)
@thoroughly
def test_response_events_add_up_to_the_response_that_the_last_one_carries(
    stream: ResponseStream, framing: Framing
) -> None:
    ours = read("/v1/responses", framing.write(stream.events))
    assert ours.body == stream.whole
    assert (ours.id, ours.finish_reason) == ("resp_1", stream.whole["status"])
    assert ours.usage.total_tokens == stream.whole["usage"]["total_tokens"]
    assert ours.error == (stream.whole["error"] or {}).get("message")
    if stream.whole["status"] == "completed":
        theirs = accumulated.response(plain.write(stream.events))
        assert without_nulls(ours.body)["output"] == theirs["output"]


@given(response_streams())
@thoroughly
def test_a_response_without_its_last_event_has_the_same_output(stream: ResponseStream) -> None:
    ours = read("/v1/responses", plain.write(stream.events[:-1]))
    assert ours.body["output"] == stream.whole["output"]
    assert ours.finish_reason == "in_progress"


@given(response_streams(), st.data())
@thoroughly
def test_a_response_that_was_cut_has_the_text_and_arguments_that_had_come(
    stream: ResponseStream, data: st.DataObject
) -> None:
    events = stream.events[: data.draw(st.integers(1, len(stream.events) - 1))]
    theirs = accumulated.response(plain.write(events))
    ours = read("/v1/responses", plain.write(events)).body
    assert [spoken(item) for item in ours["output"]] == [spoken(item) for item in theirs["output"]]


def spoken(item: Json) -> Any:
    """What the SDK takes of an item from its deltas."""
    if item["type"] == "message":
        return [part["text"] for part in item["content"] if part["type"] == "output_text"]
    return item["arguments"] if item["type"] == "function_call" else None


@given(response_streams())
@thoroughly
def test_deltas_alone_add_up_to_the_output(stream: ResponseStream) -> None:
    deltas = [event for event in stream.events[:-1] if not event["type"].endswith(".done")]
    ours = read("/v1/responses", plain.write(deltas)).body["output"]
    assert [written(item) for item in ours] == [written(item) for item in stream.whole["output"]]


def written(item: Json) -> Json:
    """What an item has that comes in deltas."""
    return {name: item[name] for name in ("content", "summary", "arguments", "input", "code") if name in item}


@given(response_streams(), st.data())
@thoroughly
def test_a_resumed_response_has_whatever_is_told_from_there_on(stream: ResponseStream, data: st.DataObject) -> None:
    """It begins anywhere in the stream: `GET /v1/responses/{id}?stream=true&starting_after=N`."""
    events = stream.events[data.draw(st.integers(0, len(stream.events) - 1)) :]
    path = "/v1/responses/resp_1?stream=true&starting_after=4"
    assert read(path, plain.write(events)).body == stream.whole
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    cut = read(path, plain.write(events[:-1])).body
    assert ((cut or {}).get("output") or []) == done


@given(chat_streams() | message_streams(), st.data())
@thoroughly
def test_a_stream_that_is_cut_anywhere_tells_a_beginning(events: list[Json], data: st.DataObject) -> None:
    path = "/v1/messages" if "type" in events[0] else "/v1/chat/completions"
    body = plain.write(events)
    whole, cut = read(path, body), read(path, body[: data.draw(st.integers(0, len(body)))])
    assert (whole.text or "").startswith(cut.text or "")
    assert cut.finish_reason in (None, whole.finish_reason)
    assert cut.error is None
