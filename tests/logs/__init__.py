"""What the tests of the log routes share: telling of a call, and the rows that come of it (contract section 7)."""

from __future__ import annotations

from typing import Any, Final

import orjson

from tests.conftest import Running
from tests.described import check_answer
from tests.feedback import Reply, header_fields, row_of
from tests.upstream import CHAT_BODY

__all__ = ["ANSWER", "ASKED", "TIMING", "chunks", "custom", "portkey", "send", "tell_helicone", "tell_portkey"]

ANSWER: Final[dict[str, Any]] = orjson.loads(CHAT_BODY)
ASKED: Final[dict[str, Any]] = {
    "model": "gpt-4o-mini",
    "user": "ada",
    "messages": [{"role": "user", "content": "Hello"}],
}
TIMING: Final = {
    "startTime": {"seconds": 1700000000, "milliseconds": 250},
    "endTime": {"seconds": 1700000001, "milliseconds": 500},
}
_BODIES: Final = "?includeBody=true"
_URL: Final = "https://api.openai.com/v1/chat/completions"


def portkey(*, request: Any = None, response: Any = None, **more: Any) -> dict[str, Any]:
    """One log as Portkey's documentation has it; its two sides changed by ``request`` and ``response``."""
    return {
        "request": {"url": _URL, "method": "POST", "headers": {}, "body": ASKED, "provider": "openai"}
        | (request or {}),
        "response": {"status": 200, "headers": {}, "body": ANSWER, "response_time": 1250} | (response or {}),
        **more,
    }


def custom(*, request: Any = None, response: Any = None, **more: Any) -> dict[str, Any]:
    """One log as Helicone's helpers send it; its two sides changed by ``request`` and ``response``."""
    return {
        "providerRequest": {"url": "custom-model-nopath", "json": ASKED, "meta": {}} | (request or {}),
        "providerResponse": {"status": 200, "headers": {}, "json": ANSWER} | (response or {}),
        "timing": TIMING,
        **more,
    }


async def send(kibitz: Running, path: str, body: Any, **headers: str) -> tuple[Reply, dict[str, str]]:
    """The answer, parsed where it is JSON, and its header fields in lower case. Names take `_` for `-`."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    async with kibitz.client.post(kibitz.url + path, data=data, headers=header_fields(headers)) as response:
        content = await response.read()
        parsed = orjson.loads(content) if response.content_type == "application/json" else content.decode()
        check_answer(kibitz.kibitz.router, "POST", path, response.status, response.content_type, parsed)
        fields = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status, parsed, fields["x-portkey-trace-id"]), fields


async def tell_portkey(kibitz: Running, body: Any, **headers: str) -> list[dict[str, Any]]:
    """Tell of calls; gives their rows in the order sent."""
    reply, _ = await send(kibitz, "/v1/logs", body, **headers)
    assert reply.status == 200, reply
    assert reply.body["status"] == "success"
    return [await row_of(kibitz, request_id, _BODIES) for request_id in reply.body["request_ids"]]


async def tell_helicone(kibitz: Running, body: Any, **headers: str) -> dict[str, Any]:
    """Tell of a call; gives its row."""
    reply, fields = await send(kibitz, "/custom/v1/log", body, **headers)
    assert (reply.status, reply.body) == (200, "ok")
    row = await row_of(kibitz, fields["helicone-id"], _BODIES)
    assert reply.trace_id == row["trace_id"]
    return row


def chunks(*texts: str) -> list[dict[str, Any]]:
    """The chunks of a streamed chat completion."""
    shared = {"id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": text}, None) for text in texts]
    deltas.append(({}, "stop"))
    return [{**shared, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
