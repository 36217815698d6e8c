from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.wire import Message, ResponseFacts, read_response
from storage.records import Usage

Json = dict[str, Any]

PATH = "/v1/responses"
BEGUN: Json = {"id": "resp_1", "object": "response", "status": "in_progress", "model": "m", "output": [], "error": None}


def streamed(*events: Json, path: str = PATH) -> ResponseFacts:
    body = b"".join(b"event: %b\ndata: %b\n\n" % (str(e.get("type")).encode(), orjson.dumps(e)) for e in events)
    return read_response(path, Message(body, "text/event-stream; charset=utf-8"))


def answered(path: str = PATH, **members: Any) -> ResponseFacts:
    return read_response(path, Message(orjson.dumps({**BEGUN, **members}), "application/json"))


def created(kind: str = "created", **members: Any) -> Json:
    return {"type": f"response.{kind}", "response": {**BEGUN, **members}}


def part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": []}


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled", "queued", "complete"])
def test_the_status_is_the_reason(status: str) -> None:
    assert answered(status=status).finish_reason == status
    assert streamed(created(), created("completed", status=status)).finish_reason == status


def test_text_is_that_of_all_messages_and_a_refusal_is_none() -> None:
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "content": [part("no")]},
        {"type": "message", "content": [part("Hel"), {"type": "refusal", "refusal": "No."}, part("lo")]},
        {"type": "message", "content": [part(".")]},
    ]
    assert answered(output=output).text == "Hello."
    assert answered(output=[{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]).text is None
    assert answered(output=[]).text is None


CALLS = ["function_call", "custom_tool_call", "mcp_call", "web_search_call", "file_search_call", "computer_call"]
CALLS += ["code_interpreter_call", "image_generation_call", "local_shell_call", "shell_call", "apply_patch_call"]


def test_calls_of_every_tool_are_tool_calls_and_their_outputs_are_not() -> None:
    others = ["reasoning", "message", "mcp_list_tools", "mcp_approval_request", "shell_call_output", "compaction"]
    output = [{"type": kind, "id": kind} for kind in [*CALLS, *others]]
    calls = answered(output=output).tool_calls
    assert calls is not None
    assert [call["type"] for call in calls] == CALLS


def test_a_background_response_has_no_usage_yet() -> None:
    facts = answered(status="queued", usage=None, background=True)
    assert (facts.usage, facts.finish_reason) == (Usage(), "queued")


def test_a_stream_resumed_from_the_queue_is_read() -> None:
    usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
    last = created("completed", status="completed", output=[{"type": "message", "content": [part("Hi")]}], usage=usage)
    path = f"{PATH}/resp_1?stream=true"
    facts = streamed(created("queued", status="queued"), created("in_progress"), last, path=path)
    assert (facts.id, facts.text, facts.usage) == ("resp_1", "Hi", Usage(9, 3, 12))


def test_a_stream_resumed_amid_a_text_has_the_rest_of_it() -> None:
    where = {"output_index": 1, "content_index": 2, "item_id": "msg_1"}
    facts = streamed(
        {"type": "response.output_text.delta", "delta": "lo ", **where},
        {"type": "response.output_text.delta", "delta": "there", **where},
    )
    message = {"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": "lo there"}]}
    assert (facts.text, facts.body["output"]) == ("lo there", [message])


def test_the_end_of_a_text_repeats_what_a_resumed_stream_has_missed() -> None:
    where = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    facts = streamed(
        {"type": "response.output_text.delta", "delta": "there", **where},
        {"type": "response.output_text.done", "text": "Hello there", **where},
    )
    assert facts.text == "Hello there"


def test_items_are_told_apart_by_their_index_where_some_never_begin() -> None:
    """Some providers number items that they don't send."""
    events = [
        {"type": "response.output_item.added", "output_index": index, "item": {"type": "message", "content": []}}
        for index in (3, 1)
    ]
    where = {"content_index": 0, "item_id": "x"}
    texts = [
        {"type": "response.output_text.delta", "output_index": index, "delta": delta, **where}
        for index, delta in ((3, "c"), (1, "a"), (3, "d"), (1, "b"))
    ]
    assert streamed(created(), *events, *texts).text == "abcd"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "server_error", "message": "overloaded", "param": None, "sequence_number": 3},
        {"type": "error", "error": {"type": "server_error", "code": "x", "message": "overloaded"}},
        created("failed", status="failed", error={"code": "server_error", "message": "overloaded"}),
    ],
)
def test_an_error_in_a_stream_is_told_beside_what_came_before(event: Json) -> None:
    item = {"type": "message", "content": [part("Hel")]}
    facts = streamed(created(), {"type": "response.output_item.added", "output_index": 0, "item": item}, event)
    assert (facts.error, facts.text, facts.id) == ("overloaded", "Hel", "resp_1")


def test_an_error_stays_told_when_the_response_that_follows_is_silent_on_it() -> None:
    error = {"type": "error", "code": "server_error", "message": "overloaded"}
    assert streamed(created(), error, created("failed", status="failed")).error == "overloaded"


def test_an_error_that_is_null_is_none() -> None:
    facts = streamed(created(), {"type": "response.mcp_call.completed", "error": None}, created("completed"))
    assert facts.error is None


def test_an_incomplete_response_is_no_error() -> None:
    facts = answered(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert (facts.finish_reason, facts.error) == ("incomplete", None)


def test_a_compacted_conversation_has_its_cost_and_no_text() -> None:
    item = {"type": "message", "content": [part("Hi")]}
    usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
    facts = answered(f"{PATH}/compact", object="response.compaction", output=[item], usage=usage)
    assert (facts.usage, facts.text, facts.finish_reason) == (Usage(9, 3, 12), None, None)


@pytest.mark.parametrize("end", ["input_tokens", "resp_1/input_items"])
def test_a_count_and_a_list_of_items_are_no_response(end: str) -> None:
    body = orjson.dumps({"object": "response.input_tokens", "input_tokens": 11, "data": []})
    assert read_response(f"{PATH}/{end}", Message(body, "application/json")) == ResponseFacts(is_stream=False)
