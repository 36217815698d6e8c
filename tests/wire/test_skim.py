"""What is read for a row without building the rest is what reading in full gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.wire import Message, ResponseFacts, read_request, read_response, skim_response
from proxy.wire.facts import STANDARD_BILLING
from proxy.wire.gist import find_gist
from proxy.wire.skim import skim_answer, skim_chunks, skim_request
from storage.records import Usage
from tests.wire.generated import chat_streams
from tests.wire.recordings import beside_the_repository, recordings

Json = dict[str, Any]

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["", "a\0", "stop", "default", "error", 7.0, 7.5]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["error", "usage", "a"]), inner),
    max_leaves=4,
)
COUNTS = st.integers(-1, 9) | st.sampled_from([2**63 - 1, 2**63, 7.0, None])
USAGE = st.fixed_dictionaries(
    {"prompt_tokens": COUNTS, "completion_tokens": COUNTS, "total_tokens": COUNTS},
    optional={
        "prompt_tokens_details": st.dictionaries(st.sampled_from(["cached_tokens", "audio_tokens"]), COUNTS),
        "completion_tokens_details": st.dictionaries(st.sampled_from(["reasoning_tokens", "audio_tokens"]), COUNTS),
        "cached_tokens": COUNTS,
    },
)
REASONS = st.sampled_from([None, "", "stop", "length"])
CHOICES = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(-1, 2)},
        optional={"finish_reason": REASONS | ODD, "delta": ODD, "error": ODD, "usage": USAGE | st.none()},
    ),
    max_size=3,
)
ANSWERS = st.fixed_dictionaries(
    {"object": st.sampled_from(["chat.completion", "chat.completion.chunk"]) | ODD, "choices": CHOICES},
    optional={
        "id": st.sampled_from([None, "", "r1", "r2"]) | ODD,
        "model": st.sampled_from([None, "", "m1", "m2"]) | ODD,
        "usage": USAGE | st.none() | ODD,
        **dict.fromkeys(("service_tier", "error", "x_groq", "type"), ODD),
    },
)


def of_a_row(facts: ResponseFacts) -> ResponseFacts:
    billing = facts.billing if facts.usage != Usage() else STANDARD_BILLING  # without usage there is nothing to pay for
    return replace(facts, text=None, tool_calls=None, body=None, billing=billing)


def assert_alike(path: str, message: Message) -> None:
    read = of_a_row(read_response(path, message))
    assert of_a_row(skim_response(path, message)) == read
    assert of_a_row(skim_response(path, message, find_gist(message.data))) == read


def stream(chunks: list[Json]) -> Message:
    events = [b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks]
    return Message(b"".join(events) + b"data: [DONE]\n\n", "text/event-stream")


@given(st.lists(ANSWERS, max_size=4))
@example([{"object": "chat.completion.chunk", "choices": [{"index": 0, "finish_reason": "stop"}], "usage": None}])
def test_a_stream_of_any_chunks_is_skimmed_as_it_is_read(chunks: list[Json]) -> None:
    assert_alike(CHAT, stream(chunks))


@given(ANSWERS)
@example({"object": "chat.completion", "choices": [{"index": 0, "finish_reason": reason} for reason in "ab"]})
def test_an_answer_of_any_shape_is_skimmed_as_it_is_read(answer: Json) -> None:
    assert_alike(CHAT, Message(orjson.dumps(answer), "application/json"))


@given(chat_streams())
def test_a_stream_as_the_api_sends_it_is_skimmed(chunks: list[Json]) -> None:
    assert_alike(CHAT, stream(chunks))


TEXTS = st.lists(
    st.sampled_from(["", "a", "stop", "length", "m1", "chat.completion.chunk", 'a"b', "a\\", "\n"]), min_size=1
)
NAMES = st.sampled_from(["id", "model", "object", "service_tier", "obfuscation", "error", "type", "x_groq"])
OF_CHOICES = st.sampled_from(["finish_reason", "text", "error", "delta"])


@given(TEXTS, NAMES, TEXTS, OF_CHOICES, USAGE | st.none(), st.sampled_from(["\n\n", "\r\n\r\n", "\n"]), ANSWERS)
def test_a_stream_whose_chunks_repeat_themselves_is_skimmed_as_it_is_read(
    texts: list[str], name: str, of_choices: list[str], member: str, usage: Json | None, gap: str, last: Json
) -> None:
    def chunk(number: int) -> Json:
        said = {"index": 0, member: of_choices[number % len(of_choices)], "logprobs": "-" * 200}
        head = {"object": "chat.completion.chunk", "choices": [said], "usage": usage}
        return {**head, name: texts[number % len(texts)]}

    chunks = [*map(chunk, range(16)), last, *map(chunk, range(16, 24))]
    events = [f"data: {orjson.dumps(one).decode()}{gap}" for one in chunks]
    assert_alike(CHAT, Message("".join(events).encode(), "text/event-stream"))


STARTED = {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 3}}}
ENDED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
EVENT_NAMES = st.sampled_from(["", "content_block_delta", "message_delta", "error", "ping"])
EVENT_TEXTS = st.lists(
    st.sampled_from(
        ["", "a", "error", "message_start", "message_delta", "content_block_delta", "fallback", 'a"b', "a\\"]
    ),
    min_size=1,
)


@given(
    EVENT_TEXTS,
    st.sampled_from(["type", "index", "error", "message", "usage", "delta", "content_block", "padding"]),
    EVENT_TEXTS,
    st.sampled_from(["type", "text", "partial_json", "thinking", "stop_reason", "content"]),
    EVENT_NAMES,
    st.sampled_from(["content_block_delta", "content_block_start", "message_delta", "ping", "error"]),
    st.sampled_from(["\n\n", "\r\n\r\n", "\n"]),
    st.booleans(),
)
@example(["a"], "padding", ["a", "b"], "text", "content_block_delta", "content_block_delta", "\n\n", True)
def test_a_message_whose_events_repeat_themselves_is_skimmed_as_it_is_read(
    texts: list[str], name: str, of_deltas: list[str], member: str, event: str, kind: str, gap: str, is_whole: bool
) -> None:
    def delta(number: int) -> Json:
        told = {"type": "text_delta", "signature": "-" * 200, member: of_deltas[number % len(of_deltas)]}
        return {"type": kind, "index": 0, "delta": told, name: texts[number % len(texts)]}

    events = [STARTED, *map(delta, range(16)), *([ENDED] if is_whole else []), *map(delta, range(16, 24))]
    named = f"event: {event}{gap[: len(gap) // 2]}" if event else ""
    data = "".join(f"{named}data: {orjson.dumps(one).decode()}{gap}" for one in events)
    assert_alike(MESSAGES, Message(data.encode(), "text/event-stream"))


PIECE = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word"}}'
FALLBACK = '{"type":"content_block_start","index":0,"content_block":{"type":"fallback","to":{"model":"%s"}}}'


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([FALLBACK], id="an event that says more"),
        pytest.param([PIECE + "\r\n\r\ndata: " + FALLBACK], id="two of them"),
    ],
)
def test_a_message_of_which_another_model_goes_on_is_skimmed_as_it_is_read(events: list[str]) -> None:
    models = [f"m{place}" for place in range(60)] + [""]  # what says nothing leaves what the one before said
    data = "".join(f"data: {event}\n\n" % model for model in models for event in events)
    assert_alike(MESSAGES, Message(data.encode(), "text/event-stream"))


def test_an_error_of_many_lines_is_told_whole() -> None:
    lines = "".join("data: " + PIECE.replace("word", f"word {place}") + "\n" for place in range(600))
    assert_alike(MESSAGES, Message(f"event: error\n{lines}\n".encode(), "text/event-stream"))


@pytest.mark.parametrize(
    "odd", [b'"a\\"', b'"a\rb"', b'"a\nevent: error\nb"', b'"a\r\revent: error\rdata: x\r\rb"', b"7"]
)
def test_odd_pieces_among_those_of_a_message_are_skimmed_as_they_are_read(odd: bytes) -> None:
    def delta(text: str) -> Json:
        return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}

    events = [STARTED, *(delta(f"word {place}") for place in range(60)), ENDED]
    data = b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), orjson.dumps(one)) for one in events)
    assert_alike(MESSAGES, Message(data.replace(b'"word 30"', odd), "text/event-stream"))


RESPONSE = {"id": "resp_1", "model": "m", "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 5}}
DELTAS = ["response.output_text.delta", "response.function_call_arguments.delta", "content_block_delta"]
KINDS = st.sampled_from([*DELTAS, "response.created", "response.completed", "message_start", "message_delta", "error"])
STREAM_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["", "error", *DELTAS, "message"]),
        st.fixed_dictionaries(
            {"type": KINDS | ODD},
            optional={
                "delta": st.just("text") | st.just({"type": "text_delta", "text": "text"}) | ODD,
                "response": st.just(RESPONSE) | st.none() | ODD,
                "message": st.just(STARTED["message"]) | ODD,
                "usage": USAGE | st.none(),
                "error": st.just({"message": "boom"}) | st.none() | ODD,
                "output_index": st.integers(0, 2),
                "index": st.integers(0, 2),
            },
        ),
        st.sampled_from(["", "}", '"type":"error",', '"type":"response.output_text.delta",', "\\u0022", " "]),
    ),
    max_size=5,
)


@given(st.sampled_from([MESSAGES, RESPONSES]), STREAM_EVENTS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
@example(RESPONSES, [("", {"type": DELTAS[0], "delta": "text", "error": {"message": "boom"}}, "")], "\n", True)
@example(RESPONSES, [("", {"type": DELTAS[0], "delta": "text", "response": RESPONSE}, "")], "\n", True)
@example(RESPONSES, [("error", {"type": DELTAS[0], "delta": "text"}, "")], "\n", True)
@example(MESSAGES, [("error", {"type": DELTAS[2], "delta": "text"}, "")], "\n", True)
@example(RESPONSES, [("", {"type": DELTAS[0], "delta": "text"}, "")], "\n", True)
@example(MESSAGES, [("", {"type": DELTAS[2], "delta": "text"}, "")], "\n", True)
@example(RESPONSES, [("", {"type": DELTAS[0]}, '"type":"error",')], "\n", True)
def test_events_that_bring_pieces_are_skimmed_as_they_are_read(
    path: str, events: list[tuple[str, Json, str]], end: str, is_whole: bool
) -> None:
    text = ""
    for name, event, odd in events:
        written = orjson.dumps(event).decode()
        named = f"event: {name}{end}" if name else ""
        text += f"{named}data: {written[:-1]}{',' + odd.rstrip(',') if odd else ''}}}{end}{end}"
    for cut in (text, text[:-9]) if is_whole else (text,):
        assert_alike(path, Message(cut.encode(), "text/event-stream"))
        assert_alike(path, Message(cut.replace("data: ", "").encode(), "application/x-ndjson"))


@pytest.mark.parametrize("within", [b"a\nevent: error\nb", b"a\r\revent: error\rdata: boom\r\rb"])
def test_an_error_within_what_looks_like_a_text_is_read(within: bytes) -> None:
    choices = [{"index": 0, "delta": {"content": f"word {place}"}} for place in range(40)]
    whole = stream([{"object": "chat.completion.chunk", "choices": [choice], "id": "r1"} for choice in choices])
    broken = whole.data.replace(b"word 30", within)
    message = Message(broken, "text/event-stream")
    assert_alike(CHAT, message)
    assert skim_response(CHAT, message, find_gist(broken)).error is not None


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b"data: 7\n\n", b"data: {}\n\n", b"[" * 100_000])
@pytest.mark.parametrize("media_type", ["application/json", "text/event-stream"])
def test_what_is_no_answer_is_skimmed_as_it_is_read(path: str, body: bytes, media_type: str) -> None:
    assert_alike(path, Message(body, media_type))


@beside_the_repository
def test_recorded_answers_are_skimmed_as_they_are_read() -> None:
    for item in recordings():
        assert_alike(item["path"], Message(item["body"], item["content_type"]))


def test_usual_shapes_need_no_reading_in_full() -> None:
    choice = {"index": 0, "message": {"content": "Hi"}, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": None}
    answer = orjson.dumps({"id": "r1", "object": "chat.completion", "choices": [choice], "usage": usage, "created": 1})
    assert skim_answer(answer) is not None
    assert skim_chunks([answer, answer, b"[DONE]"]) is not None


@pytest.mark.parametrize("body", [b'{"model":"m","user":7,"stream":true,"messages":[{}]}', b"{}", b"[]", b"{", b"\xff"])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_a_request_is_understood_whether_it_is_skimmed_or_not(path: str, body: bytes) -> None:
    facts = read_request(path, Message(body, "application/json"))
    assert facts.model == ("m" if b'"m"' in body else None)
    assert facts.is_stream == (b"true" in body)
    assert (skim_request(body) is None) == (not body.startswith(b"{") or len(body) < 2)
