from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.wire import Message, RequestFacts, ResponseFacts, read_request, read_response
from storage.records import Usage

Json = dict[str, Any]

PATH = "/anthropic/v1/messages"
USAGE = {"input_tokens": 9, "cache_read_input_tokens": 4, "cache_creation_input_tokens": None, "output_tokens": 1}
START: Json = {
    "type": "message_start",
    "message": {"id": "msg_1", "type": "message", "model": "m", "content": [], "stop_reason": None, "usage": USAGE},
}


def streamed(*events: Json) -> ResponseFacts:
    body = b"".join(b"event: %b\ndata: %b\n\n" % (str(e.get("type")).encode(), orjson.dumps(e)) for e in events)
    return read_response(PATH, Message(body, "text/event-stream"))


def answered(body: Json, path: str = PATH) -> ResponseFacts:
    return read_response(path, Message(orjson.dumps(body), "application/json"))


def start(index: int, **block: Any) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **more: Any) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **more}}


def ended(reason: str = "end_turn", **usage: Any) -> Json:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


def test_a_request_tells_its_model_its_user_and_whether_it_streams() -> None:
    body = {"model": "m", "stream": True, "metadata": {"user_id": "u"}, "user": "nobody"}
    assert read_request(PATH, Message(orjson.dumps(body))) == RequestFacts("m", "u", True)


def test_counts_that_the_end_leaves_out_stay_as_the_beginning_gave_them() -> None:
    facts = streamed(START, ended(output_tokens=7, cache_read_input_tokens=None))
    assert facts.usage == Usage(9, 7, 16, cache_read_tokens=4)
    assert streamed(START, ended(output_tokens=7, input_tokens=5)).usage.prompt_tokens == 5


def test_what_stands_beside_the_delta_of_a_message_is_the_message_s() -> None:
    event = {**ended(output_tokens=1), "context_management": {"applied_edits": []}}
    event["delta"]["container"] = {"id": "c"}
    body = streamed(START, event).body
    assert (body["context_management"], body["container"]) == ({"applied_edits": []}, {"id": "c"})
    assert (body["type"], body["usage"]["output_tokens"]) == ("message", 1)


def test_text_is_what_is_said_and_not_what_is_thought() -> None:
    facts = streamed(
        START,
        start(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="Hm."),
        delta(0, "signature_delta", signature="sig"),
        start(1, type="redacted_thinking", data="xyz"),
        start(2, type="text", text=""),
        delta(2, "text_delta", text="Hel"),
        delta(2, "text_delta", text="lo."),
        delta(2, "citations_delta", citation={"cited_text": "a"}),
        start(3, type="text", text=" Bye."),
        ended("pause_turn"),
    )
    assert (facts.text, facts.finish_reason, facts.tool_calls) == ("Hello. Bye.", "pause_turn", None)
    assert facts.body["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "Hello.", "citations": [{"cited_text": "a"}]},
        {"type": "text", "text": " Bye."},
    ]


@pytest.mark.parametrize("kind", ["tool_use", "server_tool_use", "mcp_tool_use"])
def test_the_input_of_a_tool_is_put_together_and_parsed(kind: str) -> None:
    head = {"type": kind, "id": "toolu_1", "name": "f", "input": {}}
    pieces = [delta(0, "input_json_delta", partial_json=piece) for piece in ("", '{"a"', ': "\\u00e9"}')]
    facts = streamed(START, start(0, **head), *pieces, ended("tool_use"))
    assert facts.tool_calls == [{**head, "input": {"a": "é"}}]
    assert facts.text is None
    assert streamed(START, start(0, **head)).tool_calls == [head]
    assert streamed(START, start(0, **head), *pieces[:2]).tool_calls == [{**head, "input": '{"a"'}]


def test_a_fallback_to_another_model_names_the_model() -> None:
    block = {"type": "fallback", "from": {"model": "m"}, "to": {"model": "n"}}
    assert streamed(START, start(0, **block)).model == "n"


def test_deltas_of_a_kind_that_is_not_known_are_added_all_the_same() -> None:
    facts = streamed(START, start(0, type="new"), *(delta(0, "new_delta", words=word) for word in ("a", "b")))
    assert facts.body["content"] == [{"type": "new", "words": "ab"}]


def test_an_error_in_a_stream_is_told_beside_what_came_before() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    facts = streamed(START, start(0, type="text", text="Hel"), error)
    assert (facts.error, facts.text, facts.finish_reason) == ("Overloaded", "Hel", None)
    assert streamed(error).error == "Overloaded"
    assert streamed(START, {"type": "new_event", "error": None}, ended()).error is None


def test_a_refusal_is_a_reason_and_no_error() -> None:
    facts = streamed(START, ended("refusal", output_tokens=0))
    assert (facts.finish_reason, facts.error, facts.text) == ("refusal", None, None)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages/count_tokens", {"input_tokens": 2095}),
        ("/v1/messages/batches", {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}),
        ("/v1/messages/batches/msgbatch_1", {"id": "msgbatch_1", "type": "message_batch"}),
        ("/v1/threads/thread_1/messages", {"id": "msg_1", "object": "thread.message", "content": []}),
    ],
)
def test_what_is_no_message_tells_nothing(path: str, body: Json) -> None:
    assert answered(body, path) == ResponseFacts(is_stream=False)
