"""`POST /v1/logs`, and the published Portkey SDK as its client (contracts/portkey section 4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from portkey_ai.api_resources.apis.logger import Logger

from tests.conftest import Running
from tests.feedback import add_value, failure_message
from tests.logs import ANSWER, ASKED, chunks, portkey, send, tell_portkey


async def count(kibitz: Running, request_id: str) -> int:
    """How many attempts of a request there are."""
    async with kibitz.client.get(f"{kibitz.base_url}/request/{request_id}") as response:
        return int((await response.json())["data"]["attempt"]) if response.status == 200 else 0


async def test_an_array_gives_a_row_for_each_in_the_order_sent(kibitz: Running) -> None:
    logs = [portkey(metadata={"n": n}, trace_id="t") for n in range(40)]
    rows = await tell_portkey(kibitz, logs)
    assert [row["properties"] for row in rows] == [{"n": str(n)} for n in range(40)]
    assert {row["trace_id"] for row in rows} == {"t"}
    assert len({row["request_id"] for row in rows}) == 40


async def test_the_answer_tells_the_ids_and_the_trace(kibitz: Running) -> None:
    reply, fields = await send(kibitz, "/v1/logs/", portkey(trace_id="t"))
    [request_id] = reply.body.pop("request_ids")
    assert reply.body == {"status": "success", "message": "Logs successfully saved"}
    assert (reply.trace_id, fields["content-type"]) == ("t", "application/json")
    assert (await kibitz.row(request_id))["trace_id"] == "t"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (5, "item 1: must be an object"),
        ({}, "request is required"),
        ({"request": {}}, "response is required"),
        (portkey(response={"status": "fine"}), "response.status"),
        (portkey(response={"status": 7}), "response.status"),
        (portkey(response={"response_time": "soon"}), "response.response_time"),
        (portkey(response={"response_time": -1}), "response.response_time"),
        (portkey(request={"url": 5}), "request.url"),
        (portkey(metadata="text"), "metadata"),
        (portkey(start_time=1e300), "start_time"),
    ],
)
async def test_one_bad_item_refuses_all_and_the_message_names_it(kibitz: Running, bad: Any, told: str) -> None:
    good = portkey(metadata={"Helicone-Request-Id": "good"})
    reply, _ = await send(kibitz, "/v1/logs", [good, bad])
    message = failure_message(reply)
    assert message.startswith("item 1: ")
    assert told in message
    assert await count(kibitz, "good") == 0


async def test_an_empty_array_is_refused(kibitz: Running) -> None:
    reply, _ = await send(kibitz, "/v1/logs", [])
    assert "no log" in failure_message(reply)


async def test_a_request_id_in_the_header_is_not_that_of_several_calls(kibitz: Running) -> None:
    rows = await tell_portkey(kibitz, [portkey(), portkey()], Helicone_Request_Id="one")
    assert "one" not in {row["request_id"] for row in rows}
    [row] = await tell_portkey(kibitz, [portkey()], Helicone_Request_Id="one")
    assert row["request_id"] == "one"


CAMEL = {"traceId": "t", "spanId": 18446744073709551615, "parentSpanId": "p", "spanName": "llm"}
SNAKE = {"trace_id": "t", "span_id": "18446744073709551615", "parent_span_id": "p", "span_name": "llm"}


@pytest.mark.parametrize("names", [CAMEL, SNAKE])
@pytest.mark.parametrize("in_metadata", [True, False])
async def test_the_trace_stands_in_the_metadata_or_in_the_item(
    kibitz: Running, names: dict[str, Any], in_metadata: bool
) -> None:
    log = portkey(metadata={"env": "dev", **names}) if in_metadata else portkey(metadata={"env": "dev"}, **names)
    [row] = await tell_portkey(kibitz, log)
    assert {name: row[name] for name in SNAKE} == SNAKE
    assert row["properties"] == {"env": "dev"}


async def test_a_trace_in_the_header_goes_before_the_logs(kibitz: Running) -> None:
    names = {"x_portkey_trace_id": "h", "x_portkey_span_name": "of the header"}
    [row] = await tell_portkey(kibitz, portkey(metadata=CAMEL), **names)
    assert (row["trace_id"], row["span_name"], row["parent_span_id"]) == ("h", "of the header", "p")


@pytest.mark.parametrize("unusable", ["", " ", None, True, 1.5, ["t"], {"a": 1}, "\n", "x" * 257])
async def test_an_unusable_trace_id_is_none_and_the_trace_is_the_requests(kibitz: Running, unusable: Any) -> None:
    [row] = await tell_portkey(kibitz, portkey(trace_id=unusable))
    assert row["trace_id"] == row["request_id"]


async def test_the_user_and_properties_come_from_the_metadata(kibitz: Running) -> None:
    [row] = await tell_portkey(kibitz, portkey(metadata={"_user": "lin", "n": 1, "deep": {"a": [1]}, "none": None}))
    assert row["request_user_id"] == "lin"
    assert row["properties"] == {"_user": "lin", "n": "1", "deep": '{"a":[1]}'}


@pytest.mark.parametrize("milliseconds", [1250, 1250.0, "1250", "01250"])
async def test_the_times_are_those_of_the_log(kibitz: Running, milliseconds: Any) -> None:
    [row] = await tell_portkey(kibitz, portkey(response={"response_time": milliseconds}, start_time=1700000000.25))
    assert row["request_created_at"] == "2023-11-14T22:13:20.250Z"
    assert row["response_created_at"] == "2023-11-14T22:13:21.500Z"
    assert (row["delay_ms"], row["time_to_first_token"]) == (1250.0, None)


@pytest.mark.parametrize("milliseconds", ["", None])
async def test_a_time_that_is_not_given_is_none(kibitz: Running, milliseconds: Any) -> None:
    [row] = await tell_portkey(kibitz, portkey(response={"response_time": milliseconds, "status": None}))
    assert (row["delay_ms"], row["response_status"]) == (0.0, 200)


async def test_the_latest_time_that_there_is_can_be_read_back(kibitz: Running) -> None:
    [row] = await tell_portkey(kibitz, portkey(response={"response_time": 1e10}, start_time=253402300799))
    assert row["response_created_at"].startswith("9999-12-31")


async def test_the_chunks_of_a_stream_are_put_together(kibitz: Running) -> None:
    response = {"body": chunks("Hel", "lo"), "streamingMode": True}
    [row] = await tell_portkey(kibitz, portkey(response=response))
    assert (row["is_stream"], row["response_text"], row["model"]) == (True, "Hello", "gpt-4o-mini")


async def test_an_array_that_is_no_stream_stays_an_array(kibitz: Running) -> None:
    [row] = await tell_portkey(kibitz, portkey(response={"body": [{"a": 1}]}))
    assert (row["is_stream"], row["response_body"]) == (False, [{"a": 1}])


async def test_text_is_of_the_type_that_its_header_field_gives(kibitz: Running) -> None:
    text = 'event: message\ndata: {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "Hi"}}]}\n\n'
    [row] = await tell_portkey(
        kibitz, portkey(response={"body": text, "headers": {"Content-Type": "text/event-stream"}})
    )
    assert (row["is_stream"], row["response_text"]) == (True, "Hi")


def langchain(serialized: dict[str, Any], asked: Any, answer: Any, **more: Any) -> dict[str, Any]:
    """A run as the LangChain handler tells of it."""
    return {
        "span_id": "9b2d",
        "parent_span_id": "None",
        "span_name": serialized["name"],
        "trace_id": "of-the-chain",
        "request": asked,
        "start_time": 1700000000.5,
        "metadata": {"_source": "Langchain", "_source_type": "Agent", "source_metadata": '{"type": "llm"}'},
        "response": {**answer, "response_time": "0042"},
        **more,
    }


async def tell_by_sdk(kibitz: Running, logs: Any) -> Any:
    response = await asyncio.to_thread(Logger(api_key="pk", base_url=kibitz.base_url).log, logs)
    assert response.status_code == 200, response.text
    return response.json()["request_ids"]


async def test_what_the_langchain_handler_sends_by_the_sdk_gives_rows(kibitz: Running) -> None:
    asked = {
        "method": "POST",
        "url": "chat/completions",
        "provider": "openai",
        "headers": {"provider": "openai"},
        "body": {"messages": [{"role": "Human", "content": "Hello"}], "model": "gpt-4o-mini", "_type": "openai-chat"},
    }
    body = {name: ANSWER[name] for name in ("choices", "usage", "model")} | {"id": "run-1", "system_fingerprint": None}
    span = {"name": "chain", "input": '{"question": "?"}'}
    logs = [
        langchain({"name": "ChatOpenAI"}, asked, {"body": body, "headers": {}}),
        langchain({"name": "RunnableSequence"}, span, {"output": {"answer": "Hello there."}}, span_id="1"),
    ]
    call, chain = [await kibitz.row(request_id) for request_id in await tell_by_sdk(kibitz, logs)]
    assert (call["response_text"], call["total_tokens"], call["provider_response_id"]) == ("Hello there.", 12, "run-1")
    assert (call["request_path"], call["provider"]) == ("/chat/completions", "openai")
    assert (call["trace_id"], call["span_id"], call["parent_span_id"]) == ("of-the-chain", "9b2d", None)
    assert (call["delay_ms"], call["request_created_at"]) == (42.0, "2023-11-14T22:13:20.500Z")
    assert call["properties"]["_source"] == "Langchain"
    assert (chain["request_body"], chain["response_body"]) == (span, {"output": {"answer": "Hello there."}})
    await add_value(kibitz, "of-the-chain", 3)
    assert (await kibitz.row(chain["request_id"]))["feedback"]["count"] == 1


async def test_a_step_that_the_llamaindex_handler_sends_as_text_is_kept(kibitz: Running) -> None:
    log = langchain({"name": "agent_step"}, '{"task_id": "7", "input": "Hello"}', {"agent_chat_response": {"a": 1}})
    [request_id] = await tell_by_sdk(kibitz, [log])
    row = await kibitz.row(request_id)
    assert row["request_body"] == {"task_id": "7", "input": "Hello"}
    assert row["response_body"] == {"agent_chat_response": {"a": 1}}


async def test_a_span_of_portkeys_instrumentation_gives_a_row(kibitz: Running) -> None:
    metadata = {"traceId": "u-u-i-d", "spanId": 123, "spanName": "call", "parentSpanId": None}
    metadata |= {"startTime": 1700000000500000000, "endTime": 1700000000542000000, "_logType": "opentelemetry"}
    response = {"status": 200, "headers": {"Content-Type": "application/json"}, "body": {}, "response_time": 42.0}
    request = {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": {"name": "call"}}
    [request_id] = await tell_by_sdk(kibitz, [{"metadata": metadata, "request": request, "response": response}])
    row = await kibitz.row(request_id)
    assert (row["trace_id"], row["span_id"], row["span_name"]) == ("u-u-i-d", "123", "call")
    assert row["request_created_at"] == "2023-11-14T22:13:20.500Z"
    assert (row["request_body"], row["response_body"]) == ({"name": "call"}, {})


async def test_a_call_may_be_told_of_with_nothing_but_its_two_bodies(kibitz: Running) -> None:
    [row] = await tell_portkey(kibitz, {"request": {"body": ASKED}, "response": {"body": ANSWER}})
    assert (row["request_path"], row["provider"], row["request_method"]) == ("/v1/logs", "custom", "POST")
    assert (row["response_text"], row["response_status"]) == ("Hello there.", 200)
