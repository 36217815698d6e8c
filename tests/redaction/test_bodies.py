"""Bodies of every kind without what is to be redacted: streams in pieces, forms, frames, other charsets."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.redaction.bodies import redact_body
from proxy.redaction.rules import Rules, Unsearchable
from proxy.wire import Message, read_response
from proxy.wire.form import FORM
from proxy.wire.realtime import FRAMES
from tests.upstream import chat_events

EVENTS = "text/event-stream"
RULES = Rules(["password"], ["sk-[a-z]{4,}"])


def redacted(
    data: bytes, content_type: str = "application/json", *, is_cut: bool = False, rules: Rules = RULES
) -> bytes:
    return redact_body(rules.search(len(data)), data, content_type, is_cut=is_cut)


def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=10)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def split(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(
        st.sampled_from(["my key sk-abcdef, yes", "sk-abcd", "no key", "sk-abcd sk-efgh!", 'x {"password": "y z"}'])
    )
    return text, pieces_of(draw, text)


def event(name: str | None, data: dict[str, Any]) -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: %b\n\n" % orjson.dumps(data)


def anthropic(pieces: list[str]) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": {}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    events.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for piece in pieces:
        events.append({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
    events += [{"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
    return b"".join(event(str(one["type"]), one) for one in events)


def responses(pieces: list[str]) -> bytes:
    text = "".join(pieces)
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    output = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]
    done = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": output}
    events: list[dict[str, Any]] = [
        {"type": "response.output_text.delta", "sequence_number": number, "delta": piece, **place}
        for number, piece in enumerate(pieces)
    ]
    events += [
        {"type": "response.output_text.done", "text": text, **place},
        {"type": "response.completed", "response": done},
    ]
    return b"".join(event(one["type"], one) for one in events)


STREAMS = {
    "/v1/chat/completions": lambda pieces: b"".join(chat_events(*pieces)),
    "/v1/messages": anthropic,
    "/v1/responses": responses,
}


@settings(max_examples=150)
@given(split(), st.sampled_from(sorted(STREAMS)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_a_stream_in_any_pieces_is_redacted_as_its_whole_text_is(
    text: tuple[str, list[str]], path: str, line_end: bytes
) -> None:
    whole, pieces = text
    stream = STREAMS[path](pieces).replace(b"\n", line_end)
    kept = redacted(stream, EVENTS)
    facts = read_response(path, Message(kept, EVENTS))
    plain = read_response(path, Message(stream, EVENTS))
    assert facts.text == (redacted(whole.encode(), "text/plain").decode() or None)
    assert (facts.id, facts.model, facts.usage, facts.is_stream) == (plain.id, plain.model, plain.usage, True)
    if facts.text == plain.text:
        assert kept == stream


def tool_events(pieces: list[str]) -> bytes:
    calls = [[{"index": 1, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]]
    calls += [[{"index": 1, "function": {"arguments": piece}}] for piece in pieces]
    chunks = [{"choices": [{"delta": {"tool_calls": call}, "index": 0}]} for call in calls]
    return b"".join(event(None, chunk) for chunk in chunks)


@settings(max_examples=100)
@given(st.data())
def test_the_arguments_of_a_streamed_tool_call_are_redacted_whatever_their_pieces(data: st.DataObject) -> None:
    pieces = data.draw(st.composite(pieces_of)('{"password": "hunter2", "to": "sk-abcdef", "n": 1}'))
    kept = redacted(tool_events(pieces), EVENTS)
    [call] = read_response("/v1/chat/completions", Message(kept, EVENTS)).tool_calls or []
    assert json.loads(call["function"]["arguments"]) == {"password": "[redacted]", "to": "[redacted]", "n": 1}
    assert call["function"]["name"] == "f"


def test_the_texts_of_two_choices_are_not_mixed() -> None:
    chunks = [
        {"choices": [{"delta": {"content": text}, "index": index}]}
        for index, text in [(0, "sk-"), (1, "no"), (0, "abcd"), (1, " key")]
    ]
    kept = redacted(b"".join(event(None, chunk) for chunk in chunks), EVENTS)
    assert b"sk-" not in kept
    assert kept.count(b"[redacted]") == 1
    assert b" key" in kept


def test_a_stream_that_was_cut_keeps_no_half_of_a_match() -> None:
    stream = b"".join(chat_events("my key: s", "k-ab")[:3])
    assert b"k-ab" in redacted(stream, EVENTS)
    assert b"k-ab" not in redacted(stream, EVENTS, is_cut=True)
    assert b"k-ab" not in redacted(stream[:-20], EVENTS, is_cut=True)
    lines = b"\n".join(orjson.dumps({"text": text}) for text in ("s", "k-ab"))
    assert b"k-ab" not in redacted(lines[:-1], "application/x-ndjson", is_cut=True)


def test_what_a_stream_says_without_json_is_redacted_across_its_events() -> None:
    stream = b": sk-abcd\ndata: a sk-ab\nid: sk-efgh\n\ndata:cd\ndata: b\n\ndata: [DONE]\n\n"
    assert redacted(stream, EVENTS) == (
        b": [redacted]\ndata: a [redacted]\nid: [redacted]\n\ndata: \ndata: b\n\ndata: [DONE]\n\n"
    )


def test_the_probabilities_of_a_redacted_text_go_too() -> None:
    tokens = {"content": [{"token": "sk-", "logprob": -1}, {"token": "abcd", "logprob": -1}]}
    choice = {"index": 0, "logprobs": tokens, "message": {"content": "sk-abcd"}}
    kept = redacted(orjson.dumps({"choices": [choice, {"index": 1, "logprobs": None}]}))
    assert orjson.loads(kept)["choices"][0]["logprobs"] == "[redacted]"
    assert orjson.loads(kept)["choices"][1]["logprobs"] is None
    clean = orjson.dumps({"choices": [{**choice, "message": {"content": "none"}, "logprobs": {"content": []}}]})
    assert redacted(clean) == clean


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/jsonl", "application/json"])
def test_lines_and_arrays_of_json_are_streams_as_well(content_type: str) -> None:
    chunks = [{"message": {"content": piece}, "n": 1.5} for piece in ("a sk", "-ab", "cd!")]
    is_array = content_type == "application/json"
    data = orjson.dumps(chunks) if is_array else b"\n".join(map(orjson.dumps, chunks))
    kept = redacted(data, content_type)
    found = orjson.loads(kept) if is_array else [orjson.loads(line) for line in kept.split(b"\n")]
    assert [chunk["message"]["content"] for chunk in found] == ["a [redacted]", "", "!"]


def test_the_frames_of_a_websocket_are_a_stream_as_well() -> None:
    frames = [
        {"direction": "upstream", "type": "text", "at": 1.5, "data": {"type": "response.text.delta", "delta": piece}}
        for piece in ("sk-a", "bcd!")
    ]
    frames.append({"direction": "upstream", "type": "text", "at": 2.0, "data": "plain sk-abcd"})
    kept = orjson.loads(redacted(orjson.dumps({"frames": frames}), FRAMES))["frames"]
    assert [frame["data"] for frame in kept] == [
        {"type": "response.text.delta", "delta": "[redacted]"},
        {"type": "response.text.delta", "delta": "!"},
        "plain [redacted]",
    ]


def test_a_form_is_redacted_by_the_names_of_its_fields_and_in_its_values() -> None:
    parts: list[dict[str, Any]] = [
        {"name": "Password", "value": "x"},
        {"name": "prompt", "value": "a sk-abcd"},
        {"name": "long", "value": "cut sk-ab", "truncated": True},
        {"name": "file", "filename": "sk-abcd.wav", "content_type": None, "size": 3, "sha256": "0" * 64},
    ]
    kept = orjson.loads(redacted(orjson.dumps({"parts": parts}), FORM))["parts"]
    assert [part.get("value") for part in kept] == ["[redacted]", "a [redacted]", "cut [redacted]", None]
    assert kept[3]["filename"] == "[redacted].wav"


def test_pairs_are_redacted_by_their_names_and_without_their_encoding() -> None:
    data = b"pass%77ord=x&a=s%6B-abcd+b&c=d%20e&sk-abcd"
    assert (
        redacted(data, "application/x-www-form-urlencoded")
        == b"pass%77ord=[redacted]&a=[redacted]%20b&c=d%20e&[redacted]"
    )
    assert redacted(b'{"a": "\\u0073k-abcd"}', "application/x-www-form-urlencoded") == b'{"a": "[redacted]"}'


@pytest.mark.parametrize(
    ("data", "kept"), [(b"\xff", b"%FF"), ("\udcff\ud800".encode("utf-16", "surrogatepass"), None)]
)
def test_pairs_that_are_no_text_are_redacted_like_others(data: bytes, kept: bytes | None) -> None:
    charset = "utf-8" if kept else "utf-16-le"
    found = redacted(data + "a=sk-abcd".encode(charset) + data[-2:], "application/x-www-form-urlencoded")
    assert "sk-abcd".encode(charset) not in found
    assert kept is None or found == b"\xffa=[redacted]" + kept


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"name=books&lang=s", b"name=books&lang=[redacted]"),
        (b"name=books&lang=de&s", b"name=books&lang=de&[redacted]"),
        (b"s=books&as=de", b"s=books&as=de"),
        (b"books", b"book[redacted]"),
    ],
)
def test_of_pairs_that_were_cut_only_the_last_can_be_half_of_one(data: bytes, kept: bytes) -> None:
    assert redacted(data, "application/x-www-form-urlencoded", is_cut=True) == kept


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "utf-16-le", "utf-32", "iso-8859-1"])
def test_a_text_is_read_in_its_charset(charset: str) -> None:
    data = "grüße: sk-abcd".encode(charset)
    kept = redacted(data, f'text/plain; charset="{charset}"')
    assert kept.decode(charset) == "grüße: [redacted]"


def test_a_text_that_is_not_in_the_charset_that_it_names_is_searched() -> None:
    assert redacted(b"a key: sk-abcdef", "text/plain; charset=utf-16") == b"a key: [redacted]"
    assert redacted(b"a key: sk-abcd\xff", "text/plain; charset=utf-16-le") == b"a key: [redacted]\xff"


def test_what_is_no_text_stays_as_it_is() -> None:
    picture = b"\x89PNG\xff\0 sk-abcd"
    assert redacted(picture, "image/png") == picture
    assert redacted(b"\xfflatin sk-abcd \xfc", "text/plain") == b"\xfflatin [redacted] \xfc"


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/octet-stream", EVENTS, ""])
def test_bytes_that_are_no_text_are_searched_all_the_same(content_type: str) -> None:
    data = b'{"password":"hunter2","note":"\x00\xff \xed\xa0\x80","key":"sk-abcd"}'
    kept = redacted(data, content_type)
    assert kept == b'{"password":"[redacted]","note":"\x00\xff \xed\xa0\x80","key":"[redacted]"}'


@pytest.mark.parametrize("data", [b'\0{"a":"sk-abcd"}', b'\0{"a":"sk-abcd"} '])
def test_a_text_that_only_begins_like_utf_16_is_searched(data: bytes) -> None:
    assert redacted(data) == data.replace(b"sk-abcd", b"[redacted]")


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-32"])
def test_a_text_that_was_cut_within_a_character_is_searched(charset: str) -> None:
    data = "a key: sk-abcd, and more".encode(charset)[:-1]
    assert redacted(data, "text/plain", is_cut=True).decode(charset) == "a key: [redacted], and mor"


@pytest.mark.parametrize("line_end", [b"\n", b"\r"])
@pytest.mark.parametrize("content_type", [EVENTS, "application/x-ndjson"])
def test_countless_lines_are_not_searched(line_end: bytes, content_type: str) -> None:
    if content_type == EVENTS or line_end == b"\n":
        with pytest.raises(Unsearchable):
            redacted((b"a" + line_end) * 600_000, content_type)


@settings(max_examples=200)
@given(
    st.binary(max_size=60) | st.text("{}[]\"':,\\ us0sk-abcd\n", max_size=60).map(str.encode),
    st.sampled_from(
        ["application/json", EVENTS, "application/x-ndjson", FORM, FRAMES, "text/plain", "", "a/b;charset=x"]
    ),
    st.booleans(),
)
def test_no_body_is_too_odd_to_be_redacted(data: bytes, content_type: str, is_cut: bool) -> None:
    kept = redacted(data, content_type, is_cut=is_cut)
    if content_type not in (FORM, FRAMES) and not is_cut and b"sk-" not in data and b"password" not in data:
        assert b"\\" in data or kept == data
