"""The README's table of what a row holds, held to what rows of a call of each API do hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import ask, connect, request
from tests.test_docs import text
from tests.upstream import CHAT_BODY, Connection, Upstream, chat_events, json_answer, sse_answer
from tests.websocket_bytes import closing, event, open_websocket, speaking, until_closed

Json = dict[str, Any]

HEADING = "### What a row holds\n"
# The columns of a row that the table's columns stand for.
COLUMNS = {
    "model": "model",
    "response id": "provider_response_id",
    "text": "response_text",
    "tool calls": "tool_calls",
    "finish reason": "finish_reason",
    "tokens": "total_tokens",
    "cost": "cost",
}
USAGE = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}


def table() -> dict[str, dict[str, str]]:
    """The cells by API and column."""
    section = text("README.md").partition(HEADING)[2]
    block = re.search(r"(?m)(?:^\|.*\n)+", section)
    assert block is not None
    names, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block[0].splitlines()]
    return {cells[0]: dict(zip(names[1:], cells[1:], strict=True)) for cells in rows}


@dataclass(frozen=True, slots=True)
class Sample:
    """A call of an API, and the answers to it that its documentation shows; the streamed one apart."""

    path: str
    asked: Json
    answers: tuple[bytes, ...]
    streamed: bytes | None = None


def json_of(**members: Any) -> bytes:
    return json_answer(orjson.dumps(members))


def events(*members: Json) -> bytes:
    return sse_answer(
        *(b"event: %b\ndata: %b\n\n" % (str(event.get("type")).encode(), orjson.dumps(event)) for event in members)
    )


def bytes_of(content_type: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (content_type, len(body), body)


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT = orjson.loads(CHAT_BODY)
CHAT["choices"][0]["message"]["tool_calls"] = [CALL]
COMPLETION: Json = {
    "id": "cmpl-1",
    "object": "text_completion",
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "text": "Hello", "finish_reason": "length", "logprobs": None}],
    "usage": CHAT["usage"],
}
OUTPUT = [
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello", "annotations": []}]},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
]
RESPONSE: Json = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "gpt-4o-mini",
    "output": OUTPUT,
    "usage": USAGE,
}
MESSAGE: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-3-5-haiku-20241022",
    "content": [{"type": "text", "text": "Hello"}, {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 9, "output_tokens": 3},
}
TRANSCRIPT: Json = {"text": "Hello", "usage": {"type": "tokens", **USAGE}}
SAMPLES = {
    "Chat Completions": Sample(
        "/v1/chat/completions", {"model": "gpt-4o-mini"}, (json_of(**CHAT),), sse_answer(*chat_events("Hel", "lo"))
    ),
    "Completions": Sample("/v1/completions", {"model": "m"}, (json_of(**COMPLETION),), events(COMPLETION)),
    "Responses": Sample(
        "/v1/responses",
        {"model": "gpt-4o-mini"},
        (json_of(**RESPONSE),),
        events({"type": "response.created", "response": {}}, {"type": "response.completed", "response": RESPONSE}),
    ),
    "Anthropic Messages": Sample(
        "/v1/messages",
        {"model": "claude-3-5-haiku-latest"},
        (json_of(**MESSAGE),),
        events({"type": "message_start", "message": MESSAGE}, {"type": "message_stop"}),
    ),
    "Embeddings": Sample(
        "/v1/embeddings",
        {"model": "text-embedding-3-small", "input": "Hello"},
        (
            json_of(
                object="list",
                data=[{"object": "embedding", "index": 0, "embedding": [0.5]}],
                model="text-embedding-3-small",
                usage={"prompt_tokens": 9, "total_tokens": 9},
            ),
        ),
    ),
    "Audio transcription and translation": Sample(
        "/v1/audio/transcriptions",
        {"model": "gpt-4o-transcribe"},
        (json_of(**TRANSCRIPT), bytes_of(b"text/plain; charset=utf-8", b"Hello\n")),
        events({"type": "transcript.text.delta", "delta": "Hello"}, {"type": "transcript.text.done", **TRANSCRIPT}),
    ),
    "Audio speech": Sample(
        "/v1/audio/speech",
        {"model": "gpt-4o-mini-tts", "input": "Hello"},
        (bytes_of(b"audio/mpeg", b"\xff\xf3\x44\xc4"),),
        events({"type": "speech.audio.delta", "audio": "//NE"}, {"type": "speech.audio.done", "usage": USAGE}),
    ),
    "Images": Sample(
        "/v1/images/generations",
        {"model": "gpt-image-1", "prompt": "a cat"},
        (json_of(created=1, data=[{"b64_json": "iVBO"}], usage=USAGE),),
        events({"type": "image_generation.completed", "b64_json": "iVBO", "usage": USAGE}),
    ),
    "Moderations": Sample(
        "/v1/moderations",
        {"model": "omni-moderation-latest", "input": "Hello"},
        (json_of(id="modr-1", model="omni-moderation-latest", results=[{"flagged": False}]),),
    ),
    "Files": Sample(
        "/v1/files",
        {},
        (json_of(id="file-1", object="file", bytes=3, filename="a.jsonl"), bytes_of(b"image/png", b"\x89PNG")),
    ),
    "Batches": Sample(
        "/v1/batches",
        {"input_file_id": "file-1", "endpoint": "/v1/chat/completions"},
        (json_of(id="batch_1", object="batch", model="gpt-4o-mini", status="validating"),),
    ),
    "Models": Sample("/v1/models", {}, (json_of(object="list", data=[{"id": "gpt-4o-mini", "object": "model"}]),)),
    "anything else": Sample(
        "/v1/videos",
        {"model": "sora-2"},
        (
            json_of(id="video_1", object="video", model="sora-2", status="queued", usage=USAGE),
            bytes_of(b"text/plain", b"Hello"),
            bytes_of(b"video/mp4", b"\x00\x00\x00"),
        ),
        events({"type": "video.progress", "id": "video_1"}),
    ),
}


@pytest.fixture
async def priced(start_kibitz: StartKibitz, upstream: Upstream) -> Running:
    """A Kibitz that takes its upstream for a provider whose prices are known."""
    providers = {name: {"base_url": upstream.base_url} for name in ("openai", "anthropic")}
    return await start_kibitz(upstreams=providers)


async def row_of(kibitz: Running, upstream: Upstream, sample: Sample, answer: bytes) -> Json:
    upstream.answer = answer
    name = f"call-{len(upstream.received)}"
    provider = b"anthropic" if "claude" in sample.asked.get("model", "") else b"openai"
    fields = (b"Helicone-Request-Id: " + name.encode(), b"x-portkey-provider: " + provider)
    await ask(kibitz.port, request("POST", sample.path, *fields, body=orjson.dumps(sample.asked)))
    return await kibitz.row(name)


def filled(rows: Iterable[Json]) -> set[str]:
    """The table's columns that at least one of the rows fills."""
    return {name for row in rows for name, column in COLUMNS.items() if row[column] is not None}


def kind_of(body: Any) -> str:
    if isinstance(body, str):
        return "text"
    return next((name for name, member in (("base64", "encoding"), ("frames", "frames")) if member in body), "JSON")


def kinds_in(cell: str) -> set[str]:
    return {"JSON", "text", "base64"} if cell == "as it came" else set(cell.split(" or "))


@pytest.mark.parametrize("api", SAMPLES)
async def test_a_row_of_each_api_holds_what_the_readme_says(priced: Running, upstream: Upstream, api: str) -> None:
    cells, sample = table()[api], SAMPLES[api]
    plain = [await row_of(priced, upstream, sample, answer) for answer in sample.answers]
    streamed = [await row_of(priced, upstream, sample, sample.streamed)] if sample.streamed else []
    assert filled(plain) == {name for name in COLUMNS if cells[name] not in ("", "if streamed")}
    assert filled(plain + streamed) == {name for name in COLUMNS if cells[name]}
    assert {kind_of(row["response_body"]) for row in plain} <= kinds_in(cells["answer's body"])
    put_together = [row["response_body"] for row in streamed if isinstance(row["response_body"], dict)]
    assert bool(put_together) == (cells["streams"] == "yes")
    assert all(row["is_stream"] for row in streamed)


async def test_a_row_of_a_model_that_was_not_asked_for_has_none(kibitz: Running, upstream: Upstream) -> None:
    sample = Sample("/v1/videos", {"prompt": "a cat"}, ())
    row = await row_of(kibitz, upstream, sample, json_of(id="video_1", model="sora-2"))
    assert (table()["anything else"]["model"], row["model"]) == ("if asked for", None)


async def test_a_row_of_the_realtime_api_holds_what_the_readme_says(kibitz: Running, upstream: Upstream) -> None:
    done = {"id": "resp_1", "status": "completed", "usage": USAGE, "output": [*OUTPUT]}

    async def then(connection: Connection) -> None:
        await connection.send(event("response.done", response=done) + closing())
        await connection.reader.readexactly(len(closing(masked=True)))

    upstream.script = speaking(then, upstream)
    async with connect(kibitz.port) as client:
        await open_websocket(client, b"Helicone-Request-Id: socket")
        await client.send(closing(masked=True))
        await until_closed(client)
    row, cells = await kibitz.row("socket"), table()["Realtime"]
    assert filled([row]) == {name for name in COLUMNS if cells[name]}
    assert (kind_of(row["response_body"]), cells["streams"]) == (cells["answer's body"], "")


def test_the_table_has_every_api_that_is_tried_and_no_other() -> None:
    assert table().keys() == {*SAMPLES, "Realtime"}
