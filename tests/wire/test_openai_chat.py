from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from proxy.wire import Message, RequestFacts, ResponseFacts, openai_chat, read_request, read_response
from storage.records import Usage

Json = dict[str, Any]

PATH = "/v1/chat/completions"
COUNTS: Json = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
USAGE = Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12)


def chunk(*choices: Json, **more: Any) -> Json:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": list(choices), **more}


def choice(finish_reason: str | None = None, index: int = 0, **delta: Any) -> Json:
    return {"index": index, "delta": delta, "finish_reason": finish_reason}


def text(content: str | None, index: int = 0) -> Json:
    return chunk(choice(index=index, content=content))


def call(**delta: Any) -> Json:
    return chunk(choice(tool_calls=[delta]))


def events(*chunks: Json, done: bool = True) -> bytes:
    body = b"".join(b"data: %b\n\n" % orjson.dumps(part) for part in chunks)
    return body + (b"data: [DONE]\n\n" if done else b"")


def read_stream(body: bytes, encoding: str | None = None) -> ResponseFacts:
    return read_response(PATH, Message(body, "text/event-stream; charset=utf-8", encoding))


def streamed(*chunks: Json) -> ResponseFacts:
    return read_stream(events(*chunks))


def answered(body: Json, **choice: Any) -> ResponseFacts:
    choices = {"choices": [{"index": 0, "finish_reason": "stop", **choice}]} if choice else {}
    return read_response(f"{PATH}?api-version=1", Message(orjson.dumps({**choices, **body}), "application/json"))


NAMES = ["choices", "delta", "message", "tool_calls", "function", "function_call", "index", "id", "name", "arguments"]
NAMES += ["content", "role", "type", "text", "usage", "x_groq", "error", "logprobs", "finish_reason", "model", "object"]
NAMES += ["prompt_tokens", "completion_tokens_details", "prompt_tokens_details", "cached_tokens", "refusal", "stream"]
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([2**63, 1e300, -0.5, "", "a", "stop", "\0"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)
# Objects that keep their shape down to the delta, so that what lies below is reached.
DELTAS = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4)
CHOICES = st.fixed_dictionaries(
    {"delta": DELTAS | JSON}, optional={"index": SCALARS, "logprobs": JSON, "message": JSON}
)
CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, max_size=3) | JSON}, optional={"usage": JSON, "error": JSON}
)


@given(st.lists(CHUNKS | st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5), max_size=5))
def test_any_objects_give_some_facts_that_can_be_stored_and_told(chunks: list[Json]) -> None:
    for body in (openai_chat.assemble(chunks), *chunks):
        facts = openai_chat.read_answer(body)
        assert orjson.dumps(facts.body)
        assert all(count is None or 0 <= count < 2**63 for count in counts(facts.usage))
        for label in (facts.id, facts.model, facts.finish_reason):
            assert label is None or (label and "\0" not in label)
        asked = openai_chat.read_request(body)
        assert isinstance(asked.is_stream, bool)


def counts(usage: Usage) -> list[int | None]:
    return [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.cache_read_tokens]


PIECES = st.lists(st.text(max_size=5), max_size=4)
CALLS = st.lists(st.tuples(st.text(min_size=1, max_size=5), PIECES), max_size=3)


def choice_deltas(index: int, pieces: list[str], calls: list[tuple[str, list[str]]]) -> list[Json]:
    deltas: list[Json] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)]
    for number, (name, arguments) in enumerate(calls):
        head = {"id": f"call_{index}_{number}", "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [{"index": number, **head}]})
        deltas += [{"tool_calls": [{"index": number, "function": {"arguments": part}}]} for part in arguments]
    return deltas


@given(st.lists(st.tuples(PIECES, CALLS), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_an_assembled_stream_is_what_the_openai_package_accumulates(sent: list[Any], random: Any) -> None:
    """Choices interleaved at random; each one's own deltas stay in their order."""
    waiting = [choice_deltas(index, *parts) for index, parts in enumerate(sent)]
    chunks = [chunk(choice(index=index, **deltas.pop(0)), created=1) for index, deltas in enumerate(waiting)]
    while any(waiting):
        index = random.choice([index for index, deltas in enumerate(waiting) if deltas])
        chunks.append(chunk(choice(index=index, **waiting[index].pop(0)), created=1))
    chunks += [chunk(choice("stop", index), created=1) for index in range(len(sent))]
    chunks.append(chunk(created=1, usage=COUNTS))

    state = ChatCompletionStreamState()
    for part in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(part))
    theirs: Json = state.current_completion_snapshot.to_dict()
    ours = streamed(*chunks).body
    for name in ("id", "model", "created", "usage"):
        assert ours[name] == theirs[name]
    assert list(map(essence, ours["choices"])) == list(map(essence, theirs["choices"]))


def essence(choice: Any) -> tuple[Any, ...]:
    message = choice["message"]
    calls = [
        (call["id"], call["type"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    ]
    return choice["index"], choice["finish_reason"], message["role"], message["content"], calls


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (
            {"model": "gpt-4o", "user": "u", "stream": True, "messages": []},
            RequestFacts(model="gpt-4o", user="u", is_stream=True),
        ),
        ({"model": "gpt-4o"}, RequestFacts(model="gpt-4o")),
        ({"model": 4, "user": "", "stream": "true"}, RequestFacts()),
        ({"model": "\0", "user": "\0\0"}, RequestFacts()),
        ({"model": ["m"], "user": {}, "stream": 1}, RequestFacts()),
        ({"model": "a\0b", "user": None, "stream": False}, RequestFacts(model="ab")),
    ],
)
def test_a_request_tells_its_model_its_user_and_whether_it_streams(body: Json, facts: RequestFacts) -> None:
    data = orjson.dumps(body)
    assert read_request(PATH, Message(data, "application/json")) == facts
    assert read_request(PATH, Message(gzip.compress(data), None, "gzip")) == facts


def test_an_answer_tells_its_facts() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": "Hello.", "tool_calls": calls}
    facts = answered({"id": "chatcmpl-9", "model": "gpt-4o-mini", "usage": COUNTS}, message=message)
    assert (facts.id, facts.model, facts.finish_reason) == ("chatcmpl-9", "gpt-4o-mini", "stop")
    assert (facts.text, facts.tool_calls, facts.usage) == ("Hello.", calls, USAGE)
    assert (facts.is_stream, facts.error) == (False, None)
    assert facts.body["choices"][0]["message"] == message


def test_a_stream_tells_the_same_facts() -> None:
    facts = streamed(text("Hel"), text("lo."), chunk(choice("stop")), chunk(usage=COUNTS))
    assert (facts.id, facts.model, facts.finish_reason) == ("chatcmpl-1", "m", "stop")
    assert (facts.text, facts.usage, facts.is_stream, facts.error) == ("Hello.", USAGE, True, None)
    assert facts.body["object"] == "chat.completion"
    assert facts.body["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ""),
        (None, None),
        ([{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}], "ab"),
        ([], None),
        (7, None),
    ],
)
def test_content_is_text_or_parts_of_text(content: Any, expected: str | None) -> None:
    assert answered({}, message={"content": content}).text == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (COUNTS, USAGE),
        (None, Usage()),
        ([1], Usage()),
        ({"prompt_tokens": -1, "completion_tokens": "3", "total_tokens": True}, Usage()),
        ({"prompt_tokens": 0, "completion_tokens": 2.0, "total_tokens": 2**63}, Usage(0, 2, 2)),
        ({"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}, Usage(5, 6, 11)),
        (
            {"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 1}},
            Usage(4, cache_read_tokens=3, prompt_audio_tokens=1),
        ),
        (
            {"prompt_tokens": 4, "prompt_tokens_details": None, "prompt_cache_hit_tokens": 3},
            Usage(4, cache_read_tokens=3),
        ),
        (
            {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}},
            Usage(None, 9, reasoning_tokens=7),
        ),
        ({"num_cached_tokens": 0}, Usage(cache_read_tokens=0)),
    ],
)
def test_usage_is_what_the_provider_reported_and_unknown_is_not_zero(usage: Any, expected: Usage) -> None:
    assert answered({"usage": usage, "id": "x"}).usage == expected
    assert streamed(text("a"), chunk(usage=usage)).usage == expected


@pytest.mark.parametrize(
    "chunks",
    [
        [text("a"), chunk(choice("stop"), usage=COUNTS)],
        [text("a"), chunk(choice("stop"), usage=COUNTS), chunk(usage=None)],
        [chunk(usage=None), text("a"), chunk(choice("stop"), usage=None), chunk(usage=COUNTS)],
        [text("a"), chunk(choice("stop"), x_groq={"id": "req", "usage": COUNTS})],
        [text("a"), chunk(choice("stop"), usage={"prompt_tokens": 9, "completion_tokens": 1}), chunk(usage=COUNTS)],
    ],
    ids=["with the finish reason", "null behind it", "null before it", "groq", "growing"],
)
def test_usage_is_found_wherever_a_stream_has_it(chunks: list[Json]) -> None:
    facts = streamed(*chunks)
    assert (facts.usage, facts.text, facts.finish_reason) == (USAGE, "a", "stop")


def test_a_first_chunk_without_choices_or_model_hides_nothing() -> None:
    first = {"id": "", "object": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    facts = streamed(first, text("a"), chunk(choice("stop")))
    assert (facts.id, facts.model, facts.text) == ("chatcmpl-1", "m", "a")
    assert facts.body["prompt_filter_results"] == [{"prompt_index": 0}]


def test_choices_are_told_apart_by_index_and_the_first_one_is_told() -> None:
    facts = streamed(
        text("b1", 1), text("a1"), text("b2", 1), text("a2"), chunk(choice("length", 1), choice("stop", 0))
    )
    contents = [(choice["index"], choice["message"]["content"]) for choice in facts.body["choices"]]
    assert contents == [(0, "a1a2"), (1, "b1b2")]
    assert (facts.text, facts.finish_reason) == ("a1a2", "stop")


def test_a_choice_without_an_index_is_the_first() -> None:
    facts = streamed(chunk({"delta": {"content": "a"}}), chunk({"delta": {"content": "b"}, "finish_reason": "stop"}))
    assert (facts.text, facts.finish_reason, len(facts.body["choices"])) == ("ab", "stop", 1)


TWO_CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]


@pytest.mark.parametrize(
    "chunks",
    [
        [
            call(index=0, id="c1", type="function", function={"name": "f", "arguments": ""}),
            call(index=0, function={"arguments": '{"a"'}),
            call(index=1, id="c2", type="function", function={"name": "g", "arguments": "{}"}),
            call(index=0, function={"arguments": ":1}"}),
        ],
        [
            call(index=0, id="c1", type="function", function={"name": "f", "arguments": None}),
            call(index=0, id=None, type=None, function={"name": None, "arguments": '{"a":1}'}),
            call(index=1, id="c2", type="function", function={"name": "g", "arguments": "{}"}),
        ],
        [
            call(index=0, id="c1", type="function", function={"name": "f", "arguments": '{"a"'}),
            call(index=0, id="c1", type="function", function={"name": "f", "arguments": ":1}"}),
            call(index=1, id="c2", type="function", function={"name": "g", "arguments": "{}"}),
        ],
        [
            call(id="c1", type="function", function={"name": "f", "arguments": '{"a":'}),
            call(function={"arguments": "1}"}),
            call(id="c2", type="function", function={"name": "g", "arguments": "{}"}),
        ],
        [chunk(choice(tool_calls=[{"index": n, **one} for n, one in reversed(list(enumerate(TWO_CALLS)))]))],
    ],
    ids=["as documented", "nulls", "all repeated", "no index", "whole and out of order"],
)
def test_tool_calls_are_put_together_from_their_pieces(chunks: list[Json]) -> None:
    facts = streamed(*chunks, chunk(choice("tool_calls")))
    assert facts.tool_calls == TWO_CALLS
    assert facts.finish_reason == "tool_calls"
    assert facts.body["choices"][0]["message"]["content"] is None


def test_what_else_a_delta_carries_goes_on_from_chunk_to_chunk() -> None:
    pieces: list[Json] = [
        {"reasoning_content": "Let ", "refusal": "No", "function_call": {"name": "f", "arguments": '{"a'}},
        {"reasoning_content": "me.", "refusal": ".", "function_call": {"arguments": '":1}'}},
    ]
    facts = streamed(*(chunk(choice(**piece)) for piece in pieces))
    message = facts.body["choices"][0]["message"]
    assert (message["reasoning_content"], message["refusal"]) == ("Let me.", "No.")
    assert message["function_call"] == {"name": "f", "arguments": '{"a":1}'}


def test_content_may_begin_as_parts_and_go_on_as_text() -> None:
    parts = [{"type": "text", "text": "a"}]
    facts = streamed(chunk(choice(content=parts)), text("b"), text(None))
    assert facts.text == "ab"


def test_log_probabilities_are_gathered() -> None:
    parts = [
        {"index": 0, "delta": {"content": c}, "logprobs": {"content": [{"token": c}], "refusal": None}} for c in "ab"
    ]
    body = streamed(*map(chunk, parts)).body
    assert body["choices"][0]["logprobs"]["content"] == [{"token": "a"}, {"token": "b"}]


@pytest.mark.parametrize(
    "end",
    [
        b'data: {"error": {"message": "overloaded", "code": 529}}\n\n',
        b'event: error\ndata: {"error": {"message": "overloaded"}}\n\n',
        b'event: error\ndata: {"message": "overloaded"}\n\n',
        b'data: {"error": "overloaded"}\n\n',
        b'data: {"choices": [], "error": {"message": "overloaded"}}\n\ndata: {"usage": {}}\n\ndata: [DONE]\n\n',
    ],
)
def test_an_error_in_a_stream_is_told_beside_what_came_before(end: bytes) -> None:
    facts = read_stream(events(text("Hel"), done=False) + end)
    assert (facts.error, facts.text) == ("overloaded", "Hel")


def test_a_stream_that_was_cut_gives_what_had_come() -> None:
    body = events(text("Hel"), text("lo"), chunk(choice("stop")))
    facts = read_stream(body[: body.index(b"lo") + 1])
    assert (facts.text, facts.finish_reason, facts.model) == ("Hel", None, "m")
    packed = gzip.compress(b"".join(events(text(f"{n} "), done=False) for n in range(5000)))
    assert (read_stream(packed[: len(packed) // 2], "gzip").text or "").startswith("0 1 2 ")


@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n"])
def test_a_stream_may_end_its_lines_in_any_way_and_carry_comments(end: bytes) -> None:
    body = b": PROCESSING\n\n" + events(text("a"), text("b"), done=False)
    assert read_stream(body.replace(b"\n", end)).text == "ab"


def test_halves_of_a_character_in_two_chunks_hide_nothing_else() -> None:
    """What splits UTF-16 text between chunks sends each half of a pair escaped."""
    halves = (rb'{"choices":[{"index":0,"delta":{"content":"%b"}}]}' % part for part in (rb"a\ud83d", rb"\ude00b"))
    facts = read_stream(b"".join(b"data: %b\n\n" % half for half in halves))
    assert facts.text is not None
    assert facts.text.encode("utf-8")
    assert (facts.text[0], facts.text[-1]) == ("a", "b")


@pytest.mark.parametrize("body", [b"", b"data: [DONE]\n\n", b": hello\n\n", b"data: nonsense\n\n", b"data: []\n\n"])
def test_a_stream_of_nothing_tells_only_that_it_was_one(body: bytes) -> None:
    assert read_stream(body) == ResponseFacts(is_stream=True)


@pytest.mark.parametrize("path", ["/v1/files", "/chat/completions.txt", "/v1/chat/completions/x/messages"])
def test_a_body_of_another_path_tells_nothing(path: str) -> None:
    body = orjson.dumps({"id": "x", "model": "m"})
    assert read_response(path, Message(body, "application/json")) == ResponseFacts(is_stream=False)


@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", "text/html", "application/octet-stream", None])
@pytest.mark.parametrize("told", [{"error": {"message": "overloaded"}}, {"id": "x", "choices": []}])
def test_an_answer_under_a_wrong_content_type_is_read(content_type: str | None, told: Json) -> None:
    facts = read_response(PATH, Message(b" \n" + orjson.dumps(told), content_type))
    assert (facts.error, facts.id) == ("overloaded" if "error" in told else None, told.get("id"))
    assert facts.is_stream is (False if content_type else None)


def test_an_error_that_comes_whole_where_a_stream_was_announced_is_read() -> None:
    facts = read_stream(b'{\n "error": {"message": "overloaded"}\n}\n')
    assert (facts.error, facts.is_stream) == ("overloaded", True)


@pytest.mark.parametrize("body", [b"Bad Gateway", b"<html>{}</html>", b"[1]", b"\x89PNG", b""])
def test_a_body_that_is_no_json_tells_nothing(body: bytes) -> None:
    assert read_response(PATH, Message(body, "text/plain")) == ResponseFacts(is_stream=False)
