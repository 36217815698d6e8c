from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import Message, read_request, read_response, visible_body

PATHS = ["/v1/chat/completions", "/v1/chat/completions/?a=b", "/v1/responses", "/v1/messages", "/v1/x", ""]
TYPES = [
    "application/json",
    "application/problem+json",
    "text/event-stream; charset=utf-8",
    "text/plain",
    "",
    ";",
    None,
]
CODINGS = ["gzip", "deflate", "br", "zstd", "nonsense", "identity", "", None]
BODIES = st.one_of(
    st.binary(),
    st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text('[]{}":,01en-.\\ud8 \n', max_size=30).map(str.encode),
    st.text('data: {}[]":,1\n\r', max_size=40).map(str.encode),
)


class Loud(logging.Handler):
    """Turns a fault that is caught and logged into one that a test sees."""

    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage())


@pytest.fixture(autouse=True, scope="module")
def _no_fault_is_swallowed() -> Iterator[None]:
    handler = Loud()
    logging.getLogger("proxy.wire").addHandler(handler)
    yield
    logging.getLogger("proxy.wire").removeHandler(handler)


@given(BODIES, st.sampled_from(PATHS), st.sampled_from(TYPES), st.sampled_from(CODINGS))
def test_any_body_gives_some_facts_and_something_to_show(
    data: bytes, path: str, content_type: str | None, coding: str | None
) -> None:
    message = Message(data, content_type, coding)
    asked, answered = read_request(path, message), read_response(path, message)
    for text in (asked.model, asked.user, answered.id, answered.model, answered.finish_reason, answered.text):
        assert text is None or text.encode("utf-8")
    assert orjson.dumps({"data": visible_body(message)})


def nested(depth: int) -> bytes:
    return b'{"model": "m", "deep": %b1%b}' % (b"[" * depth, b"]" * depth)


@pytest.mark.parametrize("depth", [10, 100, 250, 260, 900, 5000, 200_000])
def test_a_body_of_any_depth_can_be_told_in_an_answer(depth: int) -> None:
    body = nested(depth)
    visible = visible_body(Message(body, "application/json"))
    assert orjson.loads(orjson.dumps({"data": {"request_body": visible}})) == {"data": {"request_body": visible}}
    assert isinstance(visible, dict if depth <= 100 else dict | str)
    assert visible in ([body.decode()] if isinstance(visible, str) else [orjson.loads(body)])


@pytest.mark.parametrize(
    ("data", "content_type", "shown"),
    [
        (b'{"a": [1, null]}', "application/json", {"a": [1, None]}),
        (b'{"a": 1}', "Application/JSON; charset=utf-8", {"a": 1}),
        (b'{"a": 1}', "application/vnd.api+json", {"a": 1}),
        (b' \n{"a": 1}', None, {"a": 1}),
        (b"[1]", "text/plain", [1]),
        (b'"text"', "application/json", "text"),
        (b"false", "application/json", False),
        (b"12", "text/plain", "12"),
        (b'{"a": ', "application/json", '{"a": '),
        (b"not json", "application/json", "not json"),
        ("Zoë 北京".encode(), "text/plain", "Zoë 北京"),
        (b"{not json}", "text/plain", "{not json}"),
        (b"data: x\n\n", "text/event-stream", "data: x\n\n"),
        (b"\xff\xfe\x00", "audio/mpeg", {"encoding": "base64", "data": "//4A"}),
        (b'{"a": "\xff"}', "application/json", {"encoding": "base64", "data": "eyJhIjogIv8ifQ=="}),
        (b"", "application/json", None),
        (b"", None, None),
    ],
)
def test_a_body_is_shown_as_json_else_as_text_else_as_base64(data: bytes, content_type: str | None, shown: Any) -> None:
    assert visible_body(Message(data, content_type)) == shown


@pytest.mark.parametrize(
    ("coding", "data"), [("gzip", gzip.compress(b'{"a":1}', mtime=0)), ("deflate", zlib.compress(b'{"a":1}'))]
)
def test_an_encoded_body_is_shown_decoded(coding: str, data: bytes) -> None:
    assert visible_body(Message(data, "application/json", coding)) == {"a": 1}


def test_a_body_whose_coding_is_unknown_is_shown_in_base64_as_it_came() -> None:
    assert visible_body(Message(b'{"a":1}', "application/json", "aes128gcm")) == {
        "encoding": "base64",
        "data": "eyJhIjoxfQ==",
    }


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "nonsense"])
def test_no_body_is_none_whatever_its_coding(coding: str) -> None:
    """Answers to HEAD and 304 have a Content-Encoding and no body."""
    assert visible_body(Message(b"", "application/json", coding)) is None


@pytest.mark.parametrize(
    "text",
    [
        '"x": NaN',
        '"x": [Infinity, -Infinity]',
        '"x": "\\ud83d"',
        '"x": 123456789012345678901234567890',
        f'"x": {"9" * 400}',
        '"x": 1e400',
    ],
    ids=["NaN", "infinity", "half a pair", "long integer", "longer integer", "large float"],
)
def test_what_is_sent_though_it_is_hardly_json_hides_nothing_else(text: str) -> None:
    body = f'{{"model": "m", "user": "u", "stream": true, {text}}}'.encode()
    asked = read_request("/v1/chat/completions", Message(body, "application/json"))
    assert (asked.model, asked.user, asked.is_stream) == ("m", "u", True)
    answered = read_response("/v1/chat/completions", Message(body, "application/json"))
    assert answered.model == "m"
    assert orjson.dumps(answered.body)
