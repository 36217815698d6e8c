"""What the tests of feedback share: one way to ask, and the shapes of the answers (contract section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson
from yarl import URL

from tests.conftest import Running
from tests.described import check_answer

__all__ = [
    "NO_BODY",
    "SAVED",
    "Reply",
    "add_value",
    "ask",
    "failure_message",
    "header_fields",
    "listed",
    "path_of",
    "rate",
    "row_of",
]

SAVED: Final = {"data": None, "error": None}
"""What Helicone's routes say when all went well."""
NO_BODY: Final = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of one of Kibitz's own routes."""

    status: int
    body: Any
    trace_id: str


async def ask(kibitz: Running, method: str, path: str, body: Any = NO_BODY, **headers: str) -> Reply:
    """Send bytes as they are and anything else as JSON; the path is taken as percent-encoded.

    Header names take `_` for `-`. Every answer has to carry a trace id, and only one (contract section 3), and to be
    as it is described.
    """
    fields = {"Content-Type": "application/json", **header_fields(headers)}
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    url = URL(kibitz.base_url + path, encoded=True)
    async with kibitz.client.request(method, url, data=data, headers=fields) as response:
        (trace_id,) = response.headers.getall("x-portkey-trace-id")
        assert trace_id
        assert response.content_type == "application/json"
        answer = orjson.loads(await response.read())
        check_answer(kibitz.kibitz.router, method, url.raw_path, response.status, response.content_type, answer)
        return Reply(response.status, answer, trace_id)


def header_fields(headers: Mapping[str, str]) -> dict[str, str]:
    """Keyword arguments as header fields, `_` for `-`."""
    return {name.replace("_", "-"): text for name, text in headers.items()}


def path_of(template: str, text: str) -> str:
    """The path in which `text` stands for `{id}`, percent-encoded."""
    return template.replace("{id}", quote(text, safe=""))


async def rate(kibitz: Running, request_id: str, rating: Any = True, **more: Any) -> Reply:
    return await ask(kibitz, "POST", path_of("/request/{id}/feedback", request_id), {"rating": rating, **more})


async def add_value(kibitz: Running, trace_id: str, value: Any, **more: Any) -> str:
    """Add a value to a trace; gives the item's id."""
    reply = await ask(kibitz, "POST", "/feedback", {"trace_id": trace_id, "value": value, **more})
    assert reply.status == 200, reply
    (feedback_id,) = reply.body["feedback_ids"]
    return str(feedback_id)


async def listed(kibitz: Running, **query: str) -> list[dict[str, Any]]:
    """The items that `GET /v1/feedback` lists."""
    parameters = "&".join(f"{name}={quote(text, safe='')}" for name, text in query.items())
    reply = await ask(kibitz, "GET", f"/feedback?{parameters}")
    assert reply.status == 200, reply
    assert reply.body == {"object": "list", "total": len(reply.body["data"]), "data": reply.body["data"]}
    items: list[dict[str, Any]] = reply.body["data"]
    return items


async def row_of(kibitz: Running, request_id: str, query: str = "") -> dict[str, Any]:
    """A row by an id of any form."""
    reply = await ask(kibitz, "GET", path_of("/request/{id}", request_id) + query)
    assert reply.status == 200, reply
    row: dict[str, Any] = reply.body["data"]
    return row


def failure_message(reply: Reply, status: int = 400) -> str:
    """The message of a failure as Portkey's routes tell it."""
    assert reply.status == status, reply
    message, code = reply.body["message"], reply.body["error"]["code"]
    assert message
    assert code
    assert reply.body == {"status": "failure", "message": message, "error": {"message": message, "code": code}}
    return str(message)
