"""The published SDKs, unchanged but for their `base_url`: `openai` and `portkey_ai`, sync and async."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import portkey_ai
import pytest
from portkey_ai.api_resources import exceptions as portkey_errors

from tests.conftest import Running, StartKibitz
from tests.feedback import listed
from tests.upstream import Connection, Upstream, chat_answer, chat_events, json_answer, sse_answer

QUESTION: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
IDENTITY = {"Helicone-Request-Id": "r", "x-portkey-trace-id": "t"}
OVERLOADED = b'{"error": {"message": "Overloaded", "type": "server_error", "param": null, "code": null}}'


@dataclass(frozen=True, slots=True)
class Answered:
    """What an SDK made of an answer."""

    text: str
    headers: Any

    def ids(self, *names: str) -> list[list[str]]:
        return [self.headers.get_list(name) for name in names]


Chat = Callable[[Running, bool], Awaitable[Answered]]


async def openai_sync(kibitz: Running, stream: bool, **options: Any) -> Answered:
    def call() -> Answered:
        with openai.OpenAI(base_url=kibitz.base_url, api_key="sk-upstream", **options) as client:
            raw = client.chat.completions.with_raw_response
            if not stream:
                whole = raw.create(**QUESTION, extra_headers=IDENTITY)
                return Answered(whole.parse().choices[0].message.content or "", whole.headers)
            begun = raw.create(**QUESTION, extra_headers=IDENTITY, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in begun.parse() if chunk.choices)
            return Answered(text, begun.headers)

    return await asyncio.to_thread(call)


async def openai_async(kibitz: Running, stream: bool, **options: Any) -> Answered:
    async with openai.AsyncOpenAI(base_url=kibitz.base_url, api_key="sk-upstream", **options) as client:
        raw = client.chat.completions.with_raw_response
        if not stream:
            whole = await raw.create(**QUESTION, extra_headers=IDENTITY)
            return Answered(whole.parse().choices[0].message.content or "", whole.headers)
        begun = await raw.create(**QUESTION, extra_headers=IDENTITY, stream=True)
        chunks = [chunk async for chunk in begun.parse()]
        return Answered(
            "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), begun.headers
        )


@contextlib.contextmanager
def portkey(kibitz: Running) -> Iterator[Any]:
    """A client; its own exit leaves the connections of its calls open."""
    client = portkey_ai.Portkey(base_url=kibitz.base_url, api_key="pk-any")
    with client, client.openai_client:
        yield client


@contextlib.asynccontextmanager
async def async_portkey(kibitz: Running) -> AsyncIterator[Any]:
    client = portkey_ai.AsyncPortkey(base_url=kibitz.base_url, api_key="pk-any")
    async with client, client.openai_client:
        yield client


async def portkey_sync(kibitz: Running, stream: bool) -> Answered:
    def call() -> Answered:
        with portkey(kibitz) as client:
            answer = client.chat.completions.create(**QUESTION, stream=stream, extra_headers=IDENTITY)
            if not stream:
                return Answered(answer.choices[0].message.content, httpx.Headers(answer._headers))
            text = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
            return Answered(text, answer.response.headers)

    return await asyncio.to_thread(call)


async def portkey_async(kibitz: Running, stream: bool) -> Answered:
    async with async_portkey(kibitz) as client:
        answer = await client.chat.completions.create(**QUESTION, stream=stream, extra_headers=IDENTITY)
        if not stream:
            return Answered(answer.choices[0].message.content, httpx.Headers(answer._headers))
        chunks = [chunk async for chunk in answer]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return Answered(text, answer.response.headers)


OPENAI = [openai_sync, openai_async]
PORTKEY = [portkey_sync, portkey_async]


@pytest.mark.parametrize("chat", [*OPENAI, *PORTKEY])
async def test_a_chat_call_works_unchanged_and_is_logged(kibitz: Running, chat: Chat) -> None:
    assert (await chat(kibitz, False)).text == "Hello there."
    row = await kibitz.row("r")
    assert (row["response_text"], row["is_stream"], row["finish_reason"]) == ("Hello there.", False, "stop")
    assert (row["trace_id"], row["total_tokens"], row["error"]) == ("t", 12, None)
    assert row["time_to_first_token"] is None


@pytest.mark.parametrize("chat", [*OPENAI, *PORTKEY])
async def test_a_streamed_call_works_unchanged_and_is_logged(
    kibitz: Running, upstream: Upstream, chat: Chat, eventually: Any
) -> None:
    upstream.answer = sse_answer(*chat_events("Hello", " there."))
    assert (await chat(kibitz, True)).text == "Hello there."
    # Some SDKs leave at `[DONE]` and do not wait for the message's end, so the row may be a moment behind them.
    row = await eventually(lambda: kibitz.row("r"))
    assert (row["response_text"], row["is_stream"], row["finish_reason"]) == ("Hello there.", True, "stop")
    assert (row["trace_id"], row["total_tokens"], row["error"]) == ("t", 11, None)
    assert row["time_to_first_token"] is not None


@pytest.mark.parametrize("chat", [openai_sync, *PORTKEY])
async def test_a_stream_that_its_sdk_leaves_at_done_is_whole_and_not_cancelled(
    kibitz: Running, upstream: Upstream, chat: Chat, eventually: Any
) -> None:
    """The upstream keeps the end of the message back for longer than the SDK waits."""

    async def keep_the_end_back(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(sse_answer(*chat_events("Hello")).removesuffix(b"0\r\n\r\n"))
        await connection.closed_by_peer()

    upstream.script = keep_the_end_back
    assert (await chat(kibitz, True)).text == "Hello"
    row = await eventually(lambda: kibitz.row("r"))
    assert (row["response_text"], row["finish_reason"], row["error"]) == ("Hello", "stop", None)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("chat", [*OPENAI, *PORTKEY])
async def test_the_ids_come_back_once_each(kibitz: Running, upstream: Upstream, chat: Chat, stream: bool) -> None:
    upstream.answer = (
        sse_answer(*chat_events("Hi")) if stream else chat_answer(fields=b"x-portkey-trace-id: theirs\r\n")
    )
    ids = (await chat(kibitz, stream)).ids("Helicone-Id", "Helicone-Request-Id", "x-portkey-trace-id")
    assert ids == [["r"], ["r"], ["t"]]


async def test_portkey_tells_the_trace_id_of_its_answers(kibitz: Running) -> None:
    async with async_portkey(kibitz) as client:
        answer = await client.chat.completions.create(**QUESTION)
        saved = await client.feedback.create(trace_id=answer.get_headers()["trace-id"], value=1)
    assert saved.status == "success"
    (item,) = (await kibitz.row(answer.get_headers()["trace-id"]))["feedback"]["items"]
    assert item["id"] == saved.feedback_ids[0]


async def test_portkeys_options_become_the_rows_identity_and_go_no_further(kibitz: Running, upstream: Upstream) -> None:
    options: dict[str, Any] = {
        "trace_id": "1729",
        "span_id": "11",
        "parent_span_id": "10",
        "span_name": "LLM Call",
    }
    metadata = {"_user": "ada", "env": "dev"}
    async with async_portkey(kibitz) as client:
        await client.with_options(**options, metadata=metadata).chat.completions.create(**QUESTION)
    row = await kibitz.row("chatcmpl-1")
    assert {name: row[name] for name in options} == options
    assert (row["request_user_id"], row["properties"]) == ("ada", metadata)
    (received,) = upstream.received
    assert not [name for name in received.names if name.startswith((b"x-portkey", b"helicone"))]
    assert received.values("Authorization") == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400 Bad Request", openai.BadRequestError),
        ("401 Unauthorized", openai.AuthenticationError),
        ("404 Not Found", openai.NotFoundError),
        ("429 Too Many Requests", openai.RateLimitError),
        ("500 Internal Server Error", openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("chat", OPENAI)
async def test_an_upstreams_error_is_the_clients_typed_exception(
    kibitz: Running, upstream: Upstream, chat: Any, status: str, error: type[openai.APIStatusError]
) -> None:
    upstream.answer = json_answer(OVERLOADED, status=status)
    with pytest.raises(error) as raised:
        await chat(kibitz, False, max_retries=0)
    response = raised.value.response
    assert response.content == OVERLOADED
    names = ("Helicone-Id", "Helicone-Request-Id", "x-portkey-trace-id", "Helicone-Status")
    assert [response.headers.get_list(name) for name in names] == [["r"], ["r"], ["t"], ["success"]]
    assert (await kibitz.row("r"))["response_status"] == int(status.split()[0])


@pytest.mark.parametrize("chat", OPENAI)
async def test_an_upstream_that_is_away_is_a_typed_exception_too(
    start_kibitz: StartKibitz, unused_tcp_port: int, chat: Any
) -> None:
    kibitz = await start_kibitz(upstream={"base_url": f"http://127.0.0.1:{unused_tcp_port}/v1"})
    with pytest.raises(openai.InternalServerError) as raised:
        await chat(kibitz, False, max_retries=0)
    assert (raised.value.status_code, raised.value.code) == (502, "upstream_unreachable")
    names = ("Helicone-Id", "x-portkey-trace-id", "Helicone-Status")
    assert [raised.value.response.headers.get_list(name) for name in names] == [["r"], ["t"], ["failed"]]


@pytest.mark.parametrize("chat", OPENAI)
async def test_a_retry_of_the_openai_sdks_is_a_second_attempt(kibitz: Running, upstream: Upstream, chat: Any) -> None:
    upstream.answer = json_answer(OVERLOADED, status="503 Service Unavailable", fields=b"retry-after-ms: 1\r\n")
    with pytest.raises(openai.InternalServerError):
        await chat(kibitz, False, max_retries=1)
    assert len(upstream.received) == 2
    assert [(await kibitz.row("r", attempt=number))["attempt"] for number in (1, 2)] == [1, 2]


@pytest.mark.parametrize("chat", PORTKEY)
async def test_portkey_sends_a_call_that_the_upstream_fails_once(
    kibitz: Running, upstream: Upstream, chat: Chat
) -> None:
    """It retries a 5xx that lacks a trace id."""
    upstream.answer = json_answer(OVERLOADED, status="500 Internal Server Error")
    with pytest.raises(Exception, match="Overloaded") as raised:
        await chat(kibitz, False)
    assert raised.type.__name__ == "InternalServerError"
    assert len(upstream.received) == 1
    assert (await kibitz.row("r"))["attempt"] == 1


Say = Callable[..., Awaitable[Any]]


async def say_sync(kibitz: Running, method: str, **arguments: Any) -> Any:
    def call() -> Any:
        with portkey(kibitz) as client:
            return getattr(client.feedback, method)(**arguments)

    return await asyncio.to_thread(call)


async def say_async(kibitz: Running, method: str, **arguments: Any) -> Any:
    async with async_portkey(kibitz) as client:
        return await getattr(client.feedback, method)(**arguments)


both_kinds = pytest.mark.parametrize("say", [say_sync, say_async], ids=["Portkey", "AsyncPortkey"])


@both_kinds
async def test_portkeys_feedback_create(kibitz: Running, say: Say) -> None:
    saved = await say(kibitz, "create", trace_id="t", value=-10, weight=0.5, metadata={"text": "off", "_user": "ada"})
    assert (saved.status, saved.message) == ("success", "Feedback successfully saved")
    (item,) = await listed(kibitz, trace_id="t")
    assert [item["id"]] == saved.feedback_ids
    assert (item["value"], item["weight"], item["metadata"]) == (-10, 0.5, {"text": "off", "_user": "ada"})


@both_kinds
async def test_portkeys_feedback_with_none_takes_the_defaults(kibitz: Running, say: Say) -> None:
    await say(kibitz, "create", trace_id="t", value=0, weight=None, metadata=None)
    (item,) = await listed(kibitz, trace_id="t")
    assert (item["value"], item["weight"], item["metadata"]) == (0, 1, None)


@both_kinds
async def test_portkeys_feedback_bulk_create(kibitz: Running, say: Say) -> None:
    saved = await say(kibitz, "bulk_create", feedbacks=[{"trace_id": "t", "value": value} for value in (3, "1", -2)])
    items = {item["id"]: item["value"] for item in await listed(kibitz, trace_id="t")}
    assert [items[feedback_id] for feedback_id in saved.feedback_ids] == [3, 1, -2]


@both_kinds
async def test_portkeys_feedback_update(kibitz: Running, say: Say) -> None:
    saved = await say(kibitz, "create", trace_id="t", value=1, weight=0.5, metadata={"_user": "ada"})
    updated = await say(kibitz, "update", feedback_id=saved.feedback_ids[0], value=3)
    assert (updated.message, updated.feedback_ids) == ("Feedback successfully updated", saved.feedback_ids)
    (item,) = await listed(kibitz, trace_id="t")
    assert (item["value"], item["weight"], item["metadata"]) == (3, 0.5, {"_user": "ada"})


@pytest.mark.parametrize(
    ("method", "arguments", "error", "message"),
    [
        ("create", {"trace_id": "t", "value": 11}, portkey_errors.BadRequestError, "value"),
        ("create", {"trace_id": "", "value": 1}, portkey_errors.BadRequestError, "trace_id"),
        ("create", {}, portkey_errors.BadRequestError, "trace_id"),
        ("bulk_create", {"feedbacks": []}, portkey_errors.BadRequestError, None),
        ("bulk_create", {"feedbacks": [{"trace_id": "t"}]}, portkey_errors.BadRequestError, "item 0.*value"),
        ("update", {"feedback_id": "nobody", "value": 1}, portkey_errors.NotFoundError, "nobody"),
        ("update", {"value": 1}, (portkey_errors.BadRequestError, portkey_errors.NotFoundError), None),
    ],
)
@both_kinds
async def test_portkeys_feedback_fails_with_typed_exceptions(
    kibitz: Running, say: Say, method: str, arguments: Any, error: Any, message: str | None
) -> None:
    with pytest.raises(error, match=message) as raised:
        await say(kibitz, method, **arguments)
    assert raised.value.response.headers["x-portkey-trace-id"]
    assert await listed(kibitz, trace_id="t") == []
