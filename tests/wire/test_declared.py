"""Answers from paths that tell nothing, which say themselves of what API they are."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.wire import Message, ResponseFacts, read_response

Json = dict[str, Any]

CHAT: Json = {"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": "Hello"}}]}
CHUNK: Json = {"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hello"}}]}
TEXT: Json = {"id": "1", "object": "text_completion", "choices": [{"index": 0, "text": "Hello"}]}
PART = {"type": "output_text", "text": "Hello"}
RESPONSE: Json = {"id": "1", "object": "response", "output": [{"type": "message", "content": [PART]}]}
MESSAGE: Json = {
    "id": "1",
    "type": "message",
    "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Hello"}],
}
# Of Writer, of Vertex and of Bedrock.
PATHS = ["/v1/chat", "/v1/projects/p/publishers/anthropic/models/m:rawPredict", "/model/m/invoke"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [CHAT, TEXT, RESPONSE, MESSAGE])
def test_an_answer_is_read_as_what_it_says_it_is(path: str, body: Json) -> None:
    facts = read_response(path, Message(orjson.dumps(body), "application/json"))
    assert (facts.id, facts.text, facts.body) == ("1", "Hello", body)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("content_type", ["text/event-stream", "application/x-ndjson", "application/stream+json"])
@pytest.mark.parametrize(
    "events",
    [
        [CHUNK],
        [{"object": "", "choices": []}, CHUNK],
        [TEXT],
        [{"type": "response.created", "response": RESPONSE}],
        [{"type": "response.queued", "response": {}}, {"type": "response.completed", "response": RESPONSE}],
        [{"type": "ping"}, {"type": "message_start", "message": MESSAGE}],
    ],
)
def test_a_stream_is_put_together_as_what_its_events_say_they_are(
    path: str, content_type: str, events: list[Json]
) -> None:
    frame = b"data: %b\n\n" if content_type == "text/event-stream" else b"%b\n"
    facts = read_response(path, Message(b"".join(frame % orjson.dumps(event) for event in events), content_type))
    assert (facts.id, facts.text, facts.is_stream) == ("1", "Hello", True)


@pytest.mark.parametrize(
    "body",
    [
        {"id": "file-1", "object": "file", "model": "m", "usage": {"prompt_tokens": 3}},
        {"id": "msg_1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
        {"id": "resp_1", "object": "response", "deleted": True},
        {"id": "run_1", "object": "thread.run", "model": "m"},
        {"id": "x", "object": ["chat.completion"], "choices": []},
        {"id": "x", "text": "Hello"},
    ],
    ids=["file", "item of a conversation", "deletion", "run", "no name", "silent"],
)
def test_anything_else_tells_nothing(body: Json) -> None:
    assert read_response("/v1/x", Message(orjson.dumps(body), "application/json")) == ResponseFacts(is_stream=False)


def test_a_stream_that_stays_silent_tells_nothing() -> None:
    silent = b"".join(b"data: %b\n\n" % orjson.dumps({"type": "thread.message.delta", "n": n}) for n in range(100))
    late = b"data: %b\n\n" % orjson.dumps(CHUNK)
    assert read_response("/v1/x", Message(silent + late, "text/event-stream")) == ResponseFacts(is_stream=True)
