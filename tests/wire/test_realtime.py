"""What a row learns from the frames of OpenAI's Realtime API."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.wire import Message, ResponseFacts, read_request, read_response
from proxy.wire.realtime import FRAMES
from storage.records import Usage


def facts(*events: dict[str, Any], **last: Any) -> ResponseFacts:
    """Of a WebSocket on which the upstream said this; ``last`` is a frame behind it all."""
    frames = [{"direction": "upstream", "type": "text", "at": 1.0, "data": event} for event in events]
    return read_response("/v1/realtime", message([*frames, last] if last else frames))


def message(frames: list[Any]) -> Message:
    return Message(orjson.dumps({"frames": frames}), FRAMES)


def done(id: str, *content: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    output = [{"type": "message", "role": "assistant", "content": list(content)}] if content else []
    return {"type": "response.done", "response": {"id": id, "status": status, "output": output, **more}}


USAGE = {
    "total_tokens": 30,
    "input_tokens": 20,
    "output_tokens": 10,
    "input_token_details": {"text_tokens": 5, "audio_tokens": 15, "cached_tokens": 4},
    "output_token_details": {"text_tokens": 3, "audio_tokens": 7},
}


def test_the_usage_of_all_responses_is_summed() -> None:
    told = facts(done("resp_1", usage=USAGE), done("resp_2"), done("resp_3", usage=USAGE))
    assert told.usage == Usage(
        prompt_tokens=40,
        completion_tokens=20,
        total_tokens=60,
        cache_read_tokens=8,
        prompt_audio_tokens=30,
        completion_audio_tokens=14,
    )
    assert (told.id, told.finish_reason, told.is_stream) == ("resp_3", "completed", True)


def test_no_response_has_no_figures() -> None:
    assert facts({"type": "session.created", "session": {"model": "gpt-realtime"}}) == ResponseFacts(
        model="gpt-realtime", is_stream=True
    )


def test_the_session_names_the_model_and_may_change_it() -> None:
    created = {"type": "session.created", "session": {"model": "gpt-realtime"}}
    assert facts(created, {"type": "session.updated", "session": {"model": "gpt-realtime-mini"}}).model == (
        "gpt-realtime-mini"
    )
    assert facts(created, {"type": "session.updated", "session": {}}).model == "gpt-realtime"


def test_what_the_assistant_wrote_and_said_is_joined_and_its_calls_are_listed() -> None:
    call = {"type": "function_call", "name": "weather", "arguments": "{}", "call_id": "call_1"}
    spoken = {"type": "output_audio", "transcript": "Hello"}
    written = {"type": "output_text", "text": " there."}
    second = done("resp_2")
    second["response"]["output"] = [call]
    told = facts(done("resp_1", spoken, written), second, done("resp_3", {"type": "audio", "transcript": "Bye."}))
    assert (told.text, told.tool_calls) == ("Hello there.\nBye.", [call])


@pytest.mark.parametrize(
    "kind",
    [
        "response.text.delta",
        "response.output_text.delta",
        "response.audio_transcript.delta",
        "response.output_audio_transcript.delta",
    ],
)
def test_a_response_that_was_cut_has_the_text_that_came(kind: str) -> None:
    created = {"type": "response.created", "response": {"id": "resp_2"}}
    told = facts(
        done("resp_1", {"type": "output_text", "text": "One"}),
        created,
        {"type": kind, "delta": "Tw"},
        {"type": kind, "delta": "o"},
    )
    assert (told.id, told.text) == ("resp_2", "One\nTwo")


def test_the_responses_api_over_a_websocket_is_read_too() -> None:
    told = facts(
        {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5"}},
        {
            **done("resp_1", {"type": "output_text", "text": "Hi"}, usage=USAGE, model="gpt-5"),
            "type": "response.completed",
        },
    )
    assert (told.id, told.model, told.text, told.usage.total_tokens) == ("resp_1", "gpt-5", "Hi", 30)


ERROR = {"type": "error", "error": {"type": "invalid_request_error", "message": "no such voice"}}
FAILED = done("resp_1", status="failed", status_details={"error": {"code": "rate_limit", "message": "slow down"}})


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([ERROR], "no such voice"),
        ([done("resp_1"), ERROR], "no such voice"),
        ([ERROR, done("resp_1")], None),
        ([FAILED], "slow down"),
        ([done("resp_1", status="failed")], "the response failed"),
        ([done("resp_1", status="cancelled")], None),
    ],
    ids=["told", "last", "got-over", "failed", "failed-without-a-reason", "cancelled"],
)
def test_an_error_counts_unless_a_response_came_after_it(events: list[dict[str, Any]], error: str | None) -> None:
    assert facts(*events).error == error


@pytest.mark.parametrize(
    ("code", "error"),
    [(None, None), (1000, None), (1001, None), (1011, "code 1011"), (4001, "code 4001")],
)
def test_a_close_that_is_none_of_the_usual_is_an_error(code: int | None, error: str | None) -> None:
    told = facts(direction="upstream", type="close", code=code, reason="secret").error
    assert told == (error and f"the upstream closed the WebSocket with {error}")
    assert facts(direction="client", type="close", code=code, reason="").error is None


def test_the_address_names_the_model_that_was_asked_for() -> None:
    asked = read_request("/v1/realtime?intent=x&model=gpt%2Drealtime", message([]))
    assert (asked.model, asked.is_stream) == ("gpt-realtime", True)
    assert read_request("/v1/realtime", message([])).model is None


@pytest.mark.parametrize(
    "frames",
    [
        None,
        [1, None, {}],
        [{"direction": "upstream", "data": 5, "code": []}],
        [{"direction": "upstream", "data": {"type": "response.done", "response": [], "error": 5}}],
        [{"direction": "upstream", "data": {"type": ["response.done"], "session": 1}}],
        [{"direction": "upstream", "data": {"type": "response.done", "response": {"output": [{"type": []}]}}}],
    ],
)
def test_frames_of_any_shape_are_read(frames: Any) -> None:
    assert read_response("/v1/realtime", message(frames)).is_stream


def test_a_body_that_is_no_json_is_read() -> None:
    assert read_response("/v1/realtime", Message(b"{", FRAMES)).is_stream
