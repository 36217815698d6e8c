"""What of bodies can be searched: `proxy.texts`."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from proxy.texts import LONGEST_TEXT, TEXTS
from storage.records import Body
from tests.upstream import chat_events

CHAT = "/v1/chat/completions"
PICTURE = base64.b64encode(bytes(3000)).decode()


def body(value: Any, content_type: str = "application/json") -> Body:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Body(data, len(data), content_type=content_type)


REQUESTS: list[tuple[Any, str]] = [
    ({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "user": "ada"}, "Hello"),
    ({"system": "Be kind", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, "Be kind\nHi"),
    ({"prompt": ["one", "two"], "model": "m"}, "one\ntwo"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;x"}]}]}, ""),
    ({"input": [{"source": {"data": PICTURE}}, {"text": "a picture"}]}, "a picture"),
    ({"messages": [{"tool_call_id": "call_1", "content": "sunny"}]}, "sunny"),
    ({"colour": "blue", "nested": [{"shade": "dark"}]}, "blue\ndark"),
    (b"plain words", "plain words"),
    (b'{"messages": [{"content": "cut', '{"messages": [{"content": "cut'),
    (b"", ""),
    (b"\xff\xfe\x00", ""),
]


@pytest.mark.parametrize(("sent", "text"), REQUESTS)
def test_of_a_request_what_is_asked_can_be_searched(sent: Any, text: str) -> None:
    assert TEXTS.request(CHAT, body(sent)) == text


CALLS = [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}]
ANSWERS: list[tuple[Body, str]] = [
    (body({"id": "x", "choices": [{"message": {"role": "assistant", "content": "Good"}}]}), "Good"),
    (body({"choices": [{"message": {"content": None, "tool_calls": CALLS}}]}), 'weather\n{"city": "Ulm"}'),
    (body({"error": {"message": "No quota", "type": "t"}}), "No quota"),
    (body(b"".join(chat_events("Go", "od")), "text/event-stream"), "Good"),
    (body({"detail": "moved"}), "moved"),
    (body(b"<html>Bad gateway</html>", "text/html"), "<html>Bad gateway</html>"),
    (Body(None, 10, omitted=True), ""),
]


@pytest.mark.parametrize(("answer", "text"), ANSWERS)
def test_of_an_answer_what_it_says_can_be_searched(answer: Body, text: str) -> None:
    assert TEXTS.response(CHAT, answer) == text


def test_the_first_characters_of_a_long_text_can_be_searched() -> None:
    parts = ["a b" * 10_000, "c d" * 20_000, "e"]
    text = TEXTS.request(CHAT, body({"messages": parts}))
    assert text == "\n".join(parts)[:LONGEST_TEXT]


def test_values_nested_to_any_depth_are_read() -> None:
    deep = b'{"messages": ' + b"[" * 150 + b'"deep"' + b"]" * 150 + b"}"
    assert TEXTS.request(CHAT, body(deep)) == "deep"
