"""Every call of the recorded traffic through a running Kibitz: what the client gets, and what the row says.

What a row should say is worked out here from the recording by `json` and by the official SDKs, not by `proxy.wire`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import ask, request
from tests.upstream import Received
from tests.wire import accumulated
from tests.wire.recordings import beside_the_repository, recordings, running_replay

pytestmark = beside_the_repository

Json = dict[str, Any]

# Fields that are of a connection or of the message's framing, and those that Kibitz adds (contract section 3).
UNCOMPARED = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length"}
ADDED = {b"helicone-id", b"helicone-request-id", b"helicone-status", b"x-portkey-trace-id"}
# Of the recorded request: of the connection, or made anew by the one who sends it.
NOT_SENT = {"host", "connection", "content-length"}
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Traffic:
    """A Kibitz before the player of the recordings, each provider mounted under its name."""

    replay: int
    kibitz: Running

    async def directly(self, item: Json) -> Received:
        return await ask(self.replay, message(item, item["path"]))

    async def through(self, item: Json) -> Received:
        return await ask(self.kibitz.port, message(item, client_path(item)))


def client_path(item: Json) -> str:
    """OpenAI's paths begin with the mount of the default upstream already."""
    path: str = item["path"]
    return path if item["provider"] == "openai" else f"/{item['provider']}{path}"


def message(item: Json, target: str) -> bytes:
    fields = [(name, value) for name, value in item["request_headers"] if name.lower() not in NOT_SENT]
    lines = [f"{name}: {value}".encode() for name, value in fields]
    named = [b"X-Replay: " + item["name"].encode(), b"Helicone-Request-Id: " + item["name"].encode()]
    return request(item["method"], target, *lines, *named, body=item["request"])


@pytest.fixture
async def traffic(start_kibitz: StartKibitz) -> AsyncIterator[Traffic]:
    async with running_replay() as port:
        origin = f"http://127.0.0.1:{port}"
        mounts = {item["provider"]: {"base_url": origin} for item in recordings()}
        kibitz = await start_kibitz(upstream={"base_url": f"{origin}/v1"}, upstreams=mounts)
        yield Traffic(port, kibitz)


Check = Callable[[Json], Awaitable[dict[str, tuple[Any, Any]]]]


async def hold_all(check: Check) -> None:
    """Hold a check of every recording, some of them at a time. It gives by their names the pairs that don't agree."""
    found: list[str] = []
    ahead = iter(recordings())

    async def work() -> None:
        for item in ahead:
            found.extend(f"{item['name']}: {name}: {pair!r:.1000}" for name, pair in (await check(item)).items())

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    assert not found, "\n".join(found)


def disagreeing(pairs: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


async def test_every_recorded_answer_arrives_as_the_provider_sent_it(traffic: Traffic) -> None:
    async def check(item: Json) -> dict[str, tuple[Any, Any]]:
        sent, got = await traffic.directly(item), await traffic.through(item)
        return disagreeing(
            {
                "status": (sent.request_line, got.request_line),
                "fields": (end_to_end(sent, item), end_to_end(got, item)),
                "body": (sent.body, got.body),
                "chunks that were joined": (set(), ends(sent.chunks) - ends(got.chunks)),
                "added": (ADDED, set(got.names) & ADDED),
            }
        )

    await hold_all(check)


def ends(chunks: list[bytes]) -> set[int]:
    """Where chunks end. One that TCP cut may arrive cut: no part of it waits for the rest."""
    return set(itertools.accumulate(map(len, chunks)))


def end_to_end(answer: Received, item: Json) -> list[tuple[bytes, bytes]]:
    """The fields that have to pass, in their order; a Date that the player added may be of the next second."""
    recorded = {name.lower().encode() for name, _ in item["response_headers"]}
    left_out = UNCOMPARED | ADDED | ({b"date"} - recorded)
    return [(name, value) for name, value in answer.fields if name.lower() not in left_out]


async def test_every_recorded_call_leaves_a_row_of_what_was_sent(traffic: Traffic) -> None:
    async def check(item: Json) -> dict[str, tuple[Any, Any]]:
        got = await traffic.through(item)
        row = await traffic.kibitz.row(item["name"])
        expected = {
            "response_status": item["status"],
            "is_stream": item["is_stream"],
            "request_method": item["method"],
            "request_body_size": len(item["request"]),
            "response_body_size": len(got.body),
            "request_body": as_read(item["request"]),
            **told_by(item),
        }
        row["response_body"] = comparable(item, row["response_body"])
        return disagreeing({name: (row[name], value) for name, value in expected.items()})

    await hold_all(check)


def as_read(body: bytes) -> Any:
    """JSON where it is JSON, else text, else base64 (contract section 7)."""
    if not body:
        return None
    with contextlib.suppress(ValueError):
        return json.loads(body)
    with contextlib.suppress(UnicodeDecodeError):
        return body.decode()
    return {"encoding": "base64", "data": base64.b64encode(body).decode()}


def told_by(item: Json) -> Json:
    """The columns that a recording's bodies give; null, where they tell nothing."""
    known, answer, asked = api(item), as_read(item["body"]), as_read(item["request"])
    if known and known.accumulate and item["is_stream"]:
        answer = known.accumulate(item["body"])
    told = known.read(answer) if known and isinstance(answer, dict) else {}
    if item["status"] >= 400:
        told["error"] = None  # the status tells of it
    row = {**dict.fromkeys(COLUMNS), **told, "response_body": comparable(item, answer)}
    row["request_model"] = asked.get("model") if isinstance(asked, dict) else None
    row["model"] = row["response_model"] or row["request_model"]
    return row


def comparable(item: Json, answer: Any) -> Any:
    """A streamed answer without what the SDKs leave out or fill in when they put it together."""
    if not item["is_stream"] or not isinstance(answer, dict) or "choices" not in answer:
        return accumulated.without_nulls(answer) if item["is_stream"] else answer
    choices = [{name: choice.get(name) for name in ESSENCE} for choice in answer["choices"]]
    return accumulated.without_nulls({"id": answer.get("id"), "model": answer.get("model"), "choices": choices})


ESSENCE = ("index", "message", "text", "finish_reason")
COLUMNS = (
    "error",
    "provider_response_id",
    "response_model",
    "finish_reason",
    "response_text",
    "tool_calls",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_cache_read_tokens",
    "prompt_cache_write_tokens",
    "prompt_audio_tokens",
    "completion_audio_tokens",
    "reasoning_tokens",
)


def counts(usage: Json | None) -> Json:
    """Token counts under whichever names they have; the total, if it isn't given, is the sum."""
    told: Json = accumulated.without_nulls(usage or {})
    asked = {**told.get("prompt_tokens_details", {}), **told.get("input_tokens_details", {})}
    answered = {**told.get("completion_tokens_details", {}), **told.get("output_tokens_details", {})}
    prompt = told.get("prompt_tokens", told.get("input_tokens"))
    completion = told.get("completion_tokens", told.get("output_tokens"))
    both = prompt + completion if prompt is not None and completion is not None else None
    cached = told.get("prompt_cache_hit_tokens", told.get("cache_read_input_tokens"))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": told.get("total_tokens", both),
        "prompt_cache_read_tokens": asked.get("cached_tokens", cached),
        "prompt_cache_write_tokens": told.get("cache_creation_input_tokens"),
        "prompt_audio_tokens": asked.get("audio_tokens"),
        "completion_audio_tokens": answered.get("audio_tokens"),
        "reasoning_tokens": answered.get("reasoning_tokens", told.get("reasoning_tokens")),
    }


def of_chat(answer: Json) -> Json:
    [choice, *_] = answer.get("choices") or [{}]
    told = choice.get("message", {})
    return {
        **of_any(answer),
        "finish_reason": choice.get("finish_reason"),
        "response_text": told.get("content"),
        "tool_calls": told.get("tool_calls") or None,
        **counts(answer.get("usage") or answer.get("x_groq", {}).get("usage")),
    }


def of_completion(answer: Json) -> Json:
    [choice, *_] = answer.get("choices") or [{}]
    told = {"finish_reason": choice.get("finish_reason"), "response_text": choice.get("text")}
    return {**of_any(answer), **told}


def of_response(answer: Json) -> Json:
    output = answer.get("output", [])
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    texts = [part["text"] for part in parts if part["type"] == "output_text"]
    return {
        **of_any(answer),
        "finish_reason": answer.get("status"),
        "response_text": "".join(texts) if texts else None,
        "tool_calls": [item for item in output if item["type"].endswith("_call")] or None,
    }


def of_message(answer: Json) -> Json:
    blocks = answer.get("content", [])
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    return {
        **of_any(answer),
        "finish_reason": answer.get("stop_reason"),
        "response_text": "".join(texts) if texts else None,
        "tool_calls": [block for block in blocks if block["type"].endswith("tool_use")] or None,
    }


def of_any(answer: Json) -> Json:
    error = answer.get("error")
    return {
        "provider_response_id": answer.get("id") or None,
        "response_model": answer.get("model"),
        "error": {"kind": "upstream_error_body", "message": error["message"]} if error else None,
        **counts(answer.get("usage")),
    }


@dataclass(frozen=True, slots=True)
class Api:
    """How the answers of an API are read here; ``accumulate`` puts its streams together."""

    read: Callable[[Json], Json]
    accumulate: Callable[[bytes], Json] | None = None


CHAT = Api(of_chat, accumulated.chat)
MESSAGES = Api(of_message, accumulated.message)
COMPLETIONS = Api(of_completion, accumulated.completion)
DECLARED = {
    "chat.completion": CHAT,
    "chat.completion.chunk": CHAT,
    "text_completion": COMPLETIONS,
    "message": MESSAGES,
}
# The first that a path ends with.
APIS = {
    "/chat/completions": CHAT,
    "/completions": COMPLETIONS,
    "/responses": Api(of_response, accumulated.response),
    "/messages": MESSAGES,
    "/embeddings": Api(of_any),
    "/rerank": Api(of_any),
    "/images/generations": Api(of_any),
}


def api(item: Json) -> Api | None:
    """The API that a recording is of: by its path, else by what the answer of a provider with own paths says it is."""
    path, body = item["path"].partition("?")[0], item["body"]
    if "/threads/" in path or body.startswith(b'data: {"value":'):
        return None
    if known := next((known for end, known in APIS.items() if path.endswith(end)), None):
        return known
    answer = as_read(body.partition(b"\n")[0].removeprefix(b"data: ") if item["is_stream"] else body)
    return DECLARED.get(str(answer.get("object", answer.get("type")))) if isinstance(answer, dict) else None
