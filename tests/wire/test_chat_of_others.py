"""Chat Completions as providers other than OpenAI speak it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.wire import Message, ResponseFacts, read_response, visible_answer
from storage.records import Usage
from tests.wire.test_openai_chat import COUNTS, USAGE, answered, choice, chunk, events, read_stream, streamed, text

Json = dict[str, Any]


def messages(facts: ResponseFacts) -> list[Json]:
    return [choice["message"] for choice in facts.body["choices"]]


@pytest.mark.parametrize("whole", ["Hel", "Hello"], ids=["as the delta", "all so far"])
def test_a_message_beside_a_delta_is_not_said_twice(whole: str) -> None:
    """Writer repeats each delta as a message, Perplexity all that has come."""
    facts = streamed(
        chunk({**choice(content="Hel"), "message": {"role": "assistant", "content": "Hel"}}),
        chunk({**choice("stop", content="lo"), "message": {"role": "assistant", "content": whole, "refusal": None}}),
    )
    assert (facts.text, facts.finish_reason) == ("Hello", "stop")
    assert messages(facts) == [{"role": "assistant", "content": "Hello"}]


def test_a_message_behind_the_deltas_adds_what_they_left_out() -> None:
    """As MiniMax ends a stream with the unstreamed answer."""
    last = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello", "audio": "x"}}
    facts = streamed(text("Hel"), text("lo"), {**chunk(last, usage=COUNTS), "object": "chat.completion"})
    assert (facts.text, facts.usage, facts.finish_reason) == ("Hello", USAGE, "stop")
    assert messages(facts) == [{"role": "assistant", "content": "Hello", "audio": "x"}]


def test_a_stream_of_one_whole_answer_is_that_answer() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": "Hello", "tool_calls": calls}
    facts = streamed({**chunk({"index": 0, "message": message, "finish_reason": "stop"}), "object": "chat.completion"})
    assert (facts.text, facts.tool_calls, messages(facts)) == ("Hello", calls, [message])


@pytest.mark.parametrize(
    "place",
    [
        lambda usage: chunk(choice("stop"), usage=usage),
        lambda usage: chunk(choice("stop"), x_groq={"id": "req_1", "usage": usage}),
        lambda usage: chunk({**choice("stop"), "usage": usage}),
    ],
    ids=["beside the choices", "groq", "moonshot"],
)
def test_usage_is_found_where_a_provider_has_it(place: Any) -> None:
    assert streamed(text("a"), place(COUNTS)).usage == USAGE
    assert streamed(text("a"), place(None)).usage == Usage()


def test_a_reason_is_not_taken_back_by_an_empty_one() -> None:
    facts = streamed(chunk(choice("", content="a")), chunk(choice("stop")), chunk(choice("")), chunk(choice(None)))
    assert facts.finish_reason == "stop"


def test_details_of_reasoning_go_on_by_their_index_and_type() -> None:
    """https://openrouter.ai/docs/use-cases/reasoning-tokens"""
    pieces: list[list[Json]] = [
        [{"type": "reasoning.text", "text": "Let ", "format": "f", "index": 0}],
        [{"type": "reasoning.text", "text": "me.", "format": "f", "index": 0, "signature": None}],
        [
            {"type": "reasoning.text", "text": "", "signature": "sig", "index": 0},
            {"type": "reasoning.encrypted", "data": "e", "index": 0},
            {"type": "reasoning.text", "text": "Yes.", "index": 1},
        ],
    ]
    [message] = messages(streamed(*(chunk(choice(content="", reasoning_details=details)) for details in pieces)))
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "text": "Let me.", "format": "f", "index": 0, "signature": "sig"},
        {"type": "reasoning.encrypted", "data": "e", "index": 0},
        {"type": "reasoning.text", "text": "Yes.", "index": 1},
    ]


def thought(text: str) -> Json:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


@pytest.mark.parametrize(
    "answer", [["An", "swer"], [[{"type": "text", "text": "An"}], [{"type": "text", "text": "swer"}]]]
)
def test_parts_go_on_in_the_next_part_of_their_type(answer: list[Any]) -> None:
    """https://docs.mistral.ai/capabilities/reasoning: first parts with thoughts, then text in parts or as such."""
    contents: list[Any] = ["", [thought("Let ")], [thought("me.")], *answer]
    facts = streamed(*(chunk(choice(content=content)) for content in contents))
    assert facts.text == "Answer"
    assert messages(facts)[0]["content"] == [thought("Let me."), {"type": "text", "text": "Answer"}]


def test_parts_behind_text_keep_the_text() -> None:
    reference = {"type": "reference", "reference_ids": [1]}
    facts = streamed(text("See "), chunk(choice(content=[reference])), text("there."))
    assert facts.text == "See there."
    assert messages(facts)[0]["content"] == [
        {"type": "text", "text": "See "},
        reference,
        {"type": "text", "text": "there."},
    ]


def test_parts_that_nobody_reads_are_no_text() -> None:
    parts = [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}, {"type": "output_text", "text": "b"}]
    assert answered({}, message={"content": parts}).text == "ab"


def test_a_name_that_comes_with_every_delta_is_one_name() -> None:
    [message] = messages(streamed(*(chunk(choice(name="Assistant", role="assistant", content=c)) for c in "ab")))
    assert message == {"name": "Assistant", "role": "assistant", "content": "ab"}


def test_padding_is_no_part_of_the_answer() -> None:
    body = streamed(chunk(choice(content="a"), obfuscation="xyz", p="abc"), chunk(choice("stop"), obfuscation="q")).body
    assert {"obfuscation", "p"}.isdisjoint(body)


def test_pieces_of_audio_add_up() -> None:
    pieces = [
        {"id": "audio_1", "transcript": "Hel"},
        {"data": "AAA", "transcript": "lo"},
        {"data": "BBB"},
        {"expires_at": 7},
    ]
    [message] = messages(streamed(*(chunk(choice(audio=piece)) for piece in pieces)))
    assert message["audio"] == {"id": "audio_1", "transcript": "Hello", "data": "AAABBB", "expires_at": 7}


@pytest.mark.parametrize(
    "told",
    [
        {"object": "error", "message": "overloaded", "type": "BadRequestError", "param": None, "code": 400},
        {"error": {"message": "overloaded", "type": "server_error", "code": 503}},
        {"choices": [], "error": "overloaded"},
        {"x_groq": {"id": "req_1", "error": "overloaded"}},
        {"choices": [{"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "overloaded"}}]},
        {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}},
    ],
    ids=["vllm", "openai", "in text", "groq", "openrouter", "anthropic"],
)
def test_an_error_under_a_good_status_is_told(told: Json) -> None:
    assert answered(told).error == "overloaded"
    facts = read_stream(events(text("Hel"), told, chunk(usage=COUNTS)))
    assert (facts.error, facts.text, facts.usage) == ("overloaded", "Hel", USAGE)


def test_an_error_that_is_null_is_none() -> None:
    assert answered({"error": None, "x_groq": {"error": None}}).error is None
    assert streamed(chunk(choice(content="a"), error=None)).error is None


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"])
def test_a_stream_of_chunks_of_another_api_is_shown_as_it_came(path: str) -> None:
    """As Writer streams completions. What has none of an API's members can't be put together by it."""
    body = b'data: {"value":"Su"}\n\ndata: {"value":"re"}\n\n'
    message = Message(body, "text/event-stream")
    facts = read_response(path, message)
    assert facts == ResponseFacts(is_stream=True)
    assert visible_answer(facts.body, message) == body.decode()


def test_a_body_that_begins_with_a_byte_order_mark_is_read() -> None:
    body = b"\xef\xbb\xbf" + orjson.dumps({"id": "x", "choices": [{"message": {"content": "Hello"}}]})
    facts = read_response("/v1/chat/completions", Message(body, "application/json"))
    assert (facts.id, facts.text) == ("x", "Hello")
