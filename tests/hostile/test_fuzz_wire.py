"""The readers of what comes over the wire, given what nobody should send: they read it or not, and never fail."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from typing import Any

import brotli
import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.base_url import BaseUrl
from proxy.exchange import Capture, Exchange
from proxy.form_capture import FormCapture
from proxy.frames import FrameReader, inflaters
from proxy.headers import decode_value, read_request_fields, read_response_fields, serialize
from proxy.http_faults import find_fault
from proxy.identity import identify, usable_id
from proxy.json_splice import last_value, with_new_member, with_other_value
from proxy.pricing import Pricer
from proxy.redaction.addresses import redact_query
from proxy.routes import Router, read_query
from proxy.row import build_call
from proxy.stream_usage import with_usage_asked
from proxy.upstreams import Upstream, UpstreamTable, split_target
from proxy.wire import Message, first_id, read_request, read_response, visible_answer, visible_body
from proxy.wire.json_text import parse
from proxy.wire.sse import LastEventWatch, event_batches
from storage.records import Call
from tests.hostile.fuzz import JSON_VALUES, ODD_TEXT, examples, no_complaint, wild_json

USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 2,
    "total_tokens": 3,
    "input_tokens": 4,
    "output_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 1},
    "cache_creation_input_tokens": 1,
    "cache_read_input_tokens": 1,
    "input_tokens_details": {"cached_tokens": 1},
}
CALL = {"id": "t", "index": 0, "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHOICE = {
    "index": 0,
    "message": {"role": "assistant", "content": "Hi", "tool_calls": [CALL], "refusal": None},
    "delta": {"role": "assistant", "content": "Hi", "tool_calls": [CALL]},
    "text": "Hi",
    "finish_reason": "stop",
}
BLOCK = {"type": "text", "text": "Hi", "id": "t", "name": "f", "input": {"a": 1}}
ITEM = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
RESPONSE = {"id": "r", "object": "response", "status": "completed", "output": [ITEM], "usage": USAGE, "model": "m"}
MESSAGE = {"id": "m", "type": "message", "content": [BLOCK], "stop_reason": "end_turn", "usage": USAGE, "model": "m"}
SEEDS: list[Any] = [
    {"id": "c", "object": "chat.completion", "model": "gpt-4o", "choices": [CHOICE], "usage": USAGE},
    RESPONSE,
    MESSAGE,
    {"error": {"message": "no", "type": "t", "code": "c"}},
    {"object": "list", "data": [{"embedding": [0.1], "b64_json": "aGk=", "url": "u"}], "usage": USAGE},
    {"text": "Hi", "language": "en", "duration": 1.5, "segments": [{"text": "Hi"}], "usage": USAGE},
    {"type": "response.completed", "response": RESPONSE},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"},
    {"type": "message_start", "message": MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": BLOCK},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "input_json_delta", "partial_json": "{", "text": "x"},
    },
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE},
    {"type": "response.done", "response": RESPONSE, "event_id": "e"},
    {"frames": [{"type": "text", "data": {"type": "response.done", "response": RESPONSE}, "at": 1.5}]},
    {"model": "gpt-4o", "stream": True, "stream_options": {"include_usage": True}, "user": "u", "metadata": {"a": "b"}},
    {"parts": [{"name": "model", "value": "whisper-1"}, {"name": "file", "filename": "a", "size": 1}]},
]
PATHS = st.sampled_from(
    [
        *(
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/responses",
            "/v1/messages",
            "/v1/embeddings",
            "/v1/images/edits",
        ),
        *("/v1/audio/speech", "/v1/audio/transcriptions", "/v1/realtime", "/v1/logs", "/v1/files", "/x/y?model=m"),
    ]
)
TYPES = st.sampled_from(
    [
        *("application/json", "text/event-stream", "application/x-ndjson", "application/stream+json", "text/plain"),
        *("application/vnd.kibitz.frames+json", "multipart/form-data", "audio/mpeg", "TEXT/EVENT-STREAM; x=y", ""),
    ]
)
CODINGS = st.sampled_from([None, None, None, "gzip", "br", "deflate", "zstd", "gzip, br", "odd"])
OBJECTS = st.sampled_from(SEEDS).flatmap(wild_json)


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON, events or lines of it, whole or cut, or with bytes changed; or any bytes at all."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(st.binary(max_size=200))
    texts = [as_json(value) for value in draw(st.lists(OBJECTS, min_size=1, max_size=4))]
    if kind == 1:
        return texts[0]
    names = draw(st.sampled_from([b"", b"event: error\n", b"event: x\n", b"id: 1\r\n", b": ping\n\n", b"\xef\xbb\xbf"]))
    events = b"".join(names + b"data: %b\n\n" % text for text in texts)
    data = [texts[0], events, b"\n".join(texts), events + b"data: [DONE]\n\n"][kind - 2]
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    if data and draw(st.booleans()):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at + 1 :]
    return data


def encoded(data: bytes, coding: str | None) -> bytes:
    for name in (coding or "").split(", "):
        data = gzip.compress(data, 1) if name == "gzip" else brotli.compress(data, quality=0) if name == "br" else data
    return data


messages = st.builds(lambda data, kind, coding: Message(encoded(data, coding), kind, coding), bodies(), TYPES, CODINGS)


@given(PATHS, messages)
@examples(120)
def test_any_body_is_read_or_is_not(path: str, message: Message) -> None:
    with no_complaint():
        asked, answered = read_request(path, message), read_response(path, message)
        shown = visible_answer(answered.body, message), visible_body(message)
    orjson.dumps(shown)
    for text in (asked.model, asked.user, answered.id, answered.model, answered.finish_reason, answered.text):
        assert text is None or isinstance(text, str)
        orjson.dumps(text)  # which a lone surrogate is no text for
    assert first_id(message.data) is None or isinstance(first_id(message.data), str)


TOKEN = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1, max_size=12).map(str.encode)
NAMES = TOKEN | st.sampled_from(
    [
        *(
            b"Helicone-Request-Id",
            b"x-portkey-trace-id",
            b"traceparent",
            b"baggage",
            b"x-portkey-metadata",
            b"Connection",
        ),
        *(
            b"Helicone-Property-A",
            b"Helicone-Property-",
            b"Helicone-Session-Path",
            b"Helicone-User-Id",
            b"Content-Type",
        ),
        *(b"Helicone-Model-Override", b"Helicone-Stream-Usage", b"Content-Length", b"Transfer-Encoding", b"Upgrade"),
        *(b"Host", b"Expect", b"Authorization", b"Content-Encoding", b"Set-Cookie", b"x-portkey-provider"),
    ]
)
VALUES = (
    st.binary(max_size=40)
    | ODD_TEXT.map(str.encode)
    | JSON_VALUES.map(as_json)
    | st.sampled_from([b"chunked", b"close, content-length", b"5", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-x"])
    | st.lists(ODD_TEXT, max_size=4).map(lambda texts: ",".join(f"{text}={text};p" for text in texts).encode())
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


@given(FIELDS)
@examples(120)
def test_any_fields_give_an_identity_whose_ids_can_be_sent_back(fields: list[tuple[bytes, bytes]]) -> None:
    identity = identify(read_request_fields(fields))
    for text, header in (
        (identity.request_id, identity.request_id_header),
        (identity.trace_id, identity.trace_id_header),
    ):
        assert usable_id(text)
        assert decode_value(header) == text
        assert not set(header) & set(b"\r\n\0")
    assert not any("\0" in part for pair in identity.properties.items() for part in pair)
    orjson.dumps([identity.properties, identity.user_id, identity.session_path, identity.span_name])


@given(FIELDS, st.sampled_from([(0, 9), (1, 0), (1, 1)]), ODD_TEXT)
@examples(100)
def test_what_is_passed_on_is_as_many_lines_as_fields(
    fields: list[tuple[bytes, bytes]], version: tuple[int, int], target: str
) -> None:
    asked, answered = read_request_fields(fields), read_response_fields(fields)
    find_fault("POST", target, version, asked)
    for forward in (asked.forward, answered.forward):
        head = serialize(forward)
        assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n") == len(forward)
        assert b"\0" not in head
        names = {name.lower() for name, _ in forward}
        assert not names & {b"connection", b"transfer-encoding", b"upgrade", b"te", b"keep-alive", b"proxy-connection"}
    assert not {name.lower() for name, _ in asked.forward} & {b"host", b"expect", b"helicone-request-id"}


@given(PATHS, messages, messages, FIELDS)
@examples(60)
def test_any_call_has_a_row(path: str, asked: Message, answered: Message, fields: list[tuple[bytes, bytes]]) -> None:
    exchange = Exchange(
        organisation="o",
        identity=identify(read_request_fields(fields)),
        method="POST",
        path=path,
        target_url="https://api.openai.com" + path,
        provider="openai",
        request=captured(asked),
        response=captured(answered),
        status=200,
    )
    exchange.end()
    with no_complaint():
        call = build_call(exchange, PRICER)
    assert isinstance(call, Call)
    counts = [call.usage.prompt_tokens, call.usage.completion_tokens, call.usage.total_tokens]
    assert all(count is None or 0 <= count < 2**63 for count in counts)
    assert call.cost is None or 0 <= call.cost < float("inf")


PRICER = Pricer({})


def captured(message: Message) -> Capture:
    capture = Capture(limit=10**6, content_type=message.content_type, content_encoding=message.content_encoding)
    capture.feed(message.data)
    return capture


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 1000), max_size=5)


@given(bodies(), CUTS)
@examples(150)
def test_the_end_of_a_stream_is_found_wherever_it_is_cut(data: bytes, cuts: list[int]) -> None:
    whole, cut = LastEventWatch(), LastEventWatch()
    has_come = whole.has_come(data)
    assert any(cut.has_come(piece) for piece in pieces(data, cuts)) == has_come
    for batch in event_batches(data):
        assert batch.types is None or len(batch.types) == len(batch.data)


FORM_PIECES = st.lists(
    st.sampled_from(
        [
            *(
                b"--b",
                b"--b\r\n",
                b"--b--",
                b"\r\n",
                b"\r\n\r\n",
                b"\n",
                b"-",
                b"Content-Disposition: form-data; name=a",
            ),
            *(
                b'Content-Disposition: form-data; name="a"; filename="f"',
                b"Content-Type: x",
                b": ",
                b"\0",
                b"\xff" * 50,
            ),
            *(b'Content-Disposition: form-data; name="\\"', b"name=", b"x" * 300, b"--b--\r\n--b\r\n"),
        ]
    ),
    max_size=14,
).map(b"".join)


@given(FORM_PIECES, CUTS)
@examples(100)
def test_any_form_is_shown_alike_wherever_it_is_cut(data: bytes, cuts: list[int]) -> None:
    whole, cut = (FormCapture(500, b"multipart/form-data; boundary=b", None, omitted=False) for _ in range(2))
    whole.feed(data)
    for piece in pieces(data, cuts):
        cut.feed(piece)
    assert (whole.size, whole.truncated, whole.data()) == (cut.size, cut.truncated, cut.data())
    with no_complaint():
        read_request("/v1/audio/transcriptions", Message(whole.data(), whole.content_type))


@given(st.binary(max_size=200), CUTS, st.sampled_from([b"", b"permessage-deflate", b"permessage-deflate; x=\xff;;"]))
@examples(100)
def test_any_frames_are_read_alike_wherever_they_are_cut(data: bytes, cuts: list[int], extensions: bytes) -> None:
    whole, cut = (FrameReader(100, inflaters(extensions, 100)[0]) for _ in range(2))
    frames = whole.feed(data)
    assert [frame for piece in pieces(data, cuts) for frame in cut.feed(piece)] == frames
    for frame in frames:
        assert frame.size >= 0
        assert isinstance(frame.reason, str)


@given(st.dictionaries(ODD_TEXT, JSON_VALUES, max_size=5), ODD_TEXT, st.sampled_from([None, 1, "\t"]))
@examples(100)
@example({"a": "}", "b": '"'}, "a", None)
def test_a_member_that_is_set_is_set_and_nothing_else(value: dict[str, Any], name: str, indent: Any) -> None:
    text = json.dumps(value, indent=indent).encode()
    assert json.loads(with_new_member(text, 0, "new name", b"[1]")) == {"new name": [1], **value}
    at = last_value(text, 0, name)
    assert (at is not None) == (name in value)
    if at is not None:
        assert json.loads(with_other_value(text, at, b'{"x":2}')) == {**value, name: {"x": 2}}


@given(bodies())
@examples(150)
def test_asking_for_usage_changes_a_body_that_is_json_to_another_that_is(data: bytes) -> None:
    asking = with_usage_asked(data)
    if asking is not None:
        assert parse(asking) == {**parse(data), "stream_options": parse(asking)["stream_options"]}


@given(st.binary(max_size=60) | bodies())
@examples(120)
@example(b'{"a":' * 200_000)
@example(b"[NaN," * 100_000)
@example(b"[1e" + b"9" * 100_000 + b"]")
@example(b'"\xed\xa0\x80"')
@example(rb'["\ud800\udc00\udc00"]')
def test_any_json_is_read_to_what_can_be_written_or_not_at_all(data: bytes) -> None:
    value = parse(data)
    orjson.dumps(parse(data.decode("latin-1")))
    written = orjson.dumps(value)
    assert parse(written) == value


ADDRESSES = st.lists(
    st.sampled_from(
        [
            *(
                "http",
                "https",
                "HTTP",
                "://",
                ":",
                "//",
                "/",
                "a.b",
                "127.0.0.1",
                "[::1]",
                "[::ffff:1.2.3.4]",
                "@",
                "user",
            ),
            *(":80", ":99999", ":0", "%2e", "..", ".", "\\", "?", "#", " ", "\t", "\n", "é", "localhost.", "%00", "x"),
        ]
    ),
    max_size=8,
).map("".join)


@given(ADDRESSES | ODD_TEXT)
@examples(150)
def test_an_address_is_refused_or_has_one_form(text: str) -> None:
    try:
        base = BaseUrl.parse(text)
    except ValueError:
        return
    assert BaseUrl.parse(str(base)) == base
    assert base.covers(base)
    assert not set(str(base)) & set(" \t\r\n\\@?#")


DEFAULT, OPEN = BaseUrl.parse("http://u.test/v1"), BaseUrl.parse("http://a.b")
TABLE = UpstreamTable(Upstream("u", DEFAULT, None, 1, 1, 1), {}, [OPEN])
ROUTER = Router([])


@given(ADDRESSES | ODD_TEXT | st.text("/%2e.v1?=&;a", max_size=30))
@examples(150)
def test_any_target_is_found_or_is_not(text: str) -> None:
    mount, query = split_target(text)
    assert split_target(text) == (mount, query)
    TABLE.find(
        mount, read_request_fields([(b"helicone-target-url", text.encode())][: len(text) % 2])
    ) if not text else None
    ROUTER.find("GET", mount)
    orjson.dumps(read_query(query))
    redacted = redact_query(query)
    assert redact_query(redacted) == redacted
