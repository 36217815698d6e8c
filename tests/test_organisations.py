"""Contract section 8: what belongs to one organisation is neither seen nor changed, nor betrayed, by another."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson
import pytest

from tests.conftest import Running, StartKibitz
from tests.upstream import Connection, Upstream, chat_answer, chat_events

ACME: Final = "kbz_acme-secret"
BETA: Final = "kbz_beta-secret"
CHAT: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
IDS: Final = {"Helicone-Request-Id": "r", "Helicone-Session-Id": "s", "x-portkey-trace-id": "t"}
# What a body names that the path doesn't, by route; `{}` stands for the id.
BODIES: Final[dict[str, Any]] = {
    "POST /v1/request/{id}/feedback": {"rating": False},
    "POST /v1/session/{id}/feedback": {"rating": False},
    "POST /v1/request/{id}/score": {"scores": {"a": 1}},
    "PUT /v1/request/{id}/property": {"key": "k", "value": "v"},
    "PUT /v1/feedback/{id}": {"value": -10},
    "POST /v1/feedback/{id}": {"value": -10},
}


def keys() -> list[dict[str, Any]]:
    everything = ["proxy", "feedback", "read"]
    return [
        {"name": name, "organisation": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": everything}
        for key, name in ((ACME, "acme"), (BETA, "beta"))
    ]


@pytest.fixture(params=["reject", "keep"])
async def shared(start_kibitz: StartKibitz, request: pytest.FixtureRequest) -> Running:
    """A Kibitz with two organisations."""
    return await start_kibitz(keys=keys(), feedback={"unknown_request": request.param})


@asynccontextmanager
async def asking(
    kibitz: Running, key: str, method: str, path: str, body: Any = None, **fields: str
) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"x-portkey-api-key": key, **fields}
    async with kibitz.client.request(method, kibitz.url + path, json=body, headers=headers) as response:
        yield response


async def ask(kibitz: Running, key: str, method: str, path: str, body: Any = None) -> tuple[int, str, frozenset[str]]:
    """The status, the body and the names of the fields of an answer."""
    async with asking(kibitz, key, method, path, body) as response:
        return response.status, await response.text(), frozenset(response.headers)


async def call(kibitz: Running, key: str, body: Any = CHAT) -> None:
    async with asking(kibitz, key, "POST", "/v1/chat/completions", body, **IDS) as response:
        await response.read()
        assert response.status == 200


async def data(kibitz: Running, key: str, path: str) -> Any:
    status, body, _ = await ask(kibitz, key, "GET", path)
    assert status == 200, body
    return orjson.loads(body)["data"]


async def value_of(kibitz: Running, key: str, trace_id: str, value: int) -> str:
    _, body, _ = await ask(kibitz, key, "POST", "/v1/feedback", {"trace_id": trace_id, "value": value})
    (feedback_id,) = orjson.loads(body)["feedback_ids"]
    assert isinstance(feedback_id, str)
    return feedback_id


async def everything(kibitz: Running, key: str) -> Any:
    """What an organisation can see of the call, its session and its trace."""
    row = await data(kibitz, key, "/v1/request/r?includeBody=true")
    return row, [await data(kibitz, key, f"/v1/feedback?{query}") for query in ("trace_id=t", "session_id=s")]


def without(text: str, identifier: str) -> str:
    """An answer without the id that was asked for, and without what is new each time."""
    uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    return re.sub(rf"(?<![\w-])({re.escape(identifier)}|{uuid})(?![\w-])", "ID", text)


async def test_an_id_of_another_organisation_is_answered_like_one_that_nobody_has(shared: Running) -> None:
    """By every route that takes an id; and nothing comes of it."""
    await call(shared, ACME)
    feedback_id = await value_of(shared, ACME, "t", 5)
    before = await everything(shared, ACME)
    routes = [route for route in shared.kibitz.router.routes if "{id}" in route.path]
    assert {f"{route.method} {route.path}" for route in routes} >= BODIES.keys()
    for route in routes:
        body = BODIES.get(f"{route.method} {route.path}")
        foreign = feedback_id if route.path.startswith("/v1/feedback") else "s" if "session" in route.path else "r"
        for one, other in ((foreign, "nobody"), ("chatcmpl-1", "chatcmpl-0")):
            answers = [
                await ask(shared, BETA, route.method, route.path.replace("{id}", named), body) for named in (one, other)
            ]
            status, text, names = answers[0]
            assert (status, without(text, one), names) == (answers[1][0], without(answers[1][1], other), answers[1][2])
    assert await everything(shared, ACME) == before


@pytest.mark.parametrize("identifier", ["r", "s", "t", "chatcmpl-1"])
async def test_a_list_or_a_new_value_tells_nothing_of_another_organisation_s_ids(
    shared: Running, identifier: str
) -> None:
    await call(shared, ACME)
    await value_of(shared, ACME, "t", 5)
    for kind in ("trace_id", "request_id", "session_id"):
        listed = [await ask(shared, BETA, "GET", f"/v1/feedback?{kind}={named}") for named in (identifier, "nobody")]
        assert listed[0] == listed[1]
    created = [
        await ask(shared, BETA, "POST", "/v1/feedback", {"trace_id": named, "value": -10})
        for named in (identifier, "nobody")
    ]
    assert len({(status, without(text, "-"), names) for status, text, names in created}) == 1
    row = await data(shared, ACME, "/v1/request/r")
    assert [item["value"] for item in row["feedback"]["items"]] == [5]


async def test_the_old_route_and_the_id_in_the_body_are_no_way_around(shared: Running) -> None:
    await call(shared, ACME)
    feedback_id = await value_of(shared, ACME, "t", 5)
    old = [await ask(shared, BETA, "POST", "/v1/feedback", {"helicone-id": named, "rating": False}) for named in "rn"]
    in_body = [
        await ask(shared, BETA, "PUT", "/v1/feedback/undefined", {"feedback_id": named, "value": -10})
        for named in (feedback_id, "01a1ff67-d86c-7632-9278-f063061aa94b")
    ]
    assert old[0][0] == old[1][0]
    assert {(status, without(text, "-"), names) for status, text, names in in_body} == {
        (404, without(in_body[0][1], "-"), in_body[0][2])
    }
    row = await data(shared, ACME, "/v1/request/r")
    assert [item["value"] for item in row["feedback"]["items"]] == [5]


class Gate:
    """An upstream that answers a call only once it is let, with a stream whose id comes first."""

    def __init__(self, upstream: Upstream) -> None:
        self._open = asyncio.Event()
        upstream.script = self._answer

    def open(self) -> None:
        self._open.set()

    async def _answer(self, connection: Connection) -> None:
        while True:
            await connection.read_request()
            first, *others = chat_events("Hello", id="chatcmpl-1")
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            await connection.send(head + b"%x\r\n%b\r\n" % (len(first), first))
            await self._open.wait()
            await connection.send(b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in others) + b"0\r\n\r\n")


async def test_what_is_in_flight_is_known_to_its_own_organisation_only(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz, gate = await start_kibitz(keys=keys()), Gate(upstream)
    async with asking(kibitz, ACME, "POST", "/v1/chat/completions", CHAT, **IDS) as response:
        await response.content.readany()  # the stream has told its id
        paths = ("/v1/request/r/feedback", "/v1/request/chatcmpl-1/feedback", "/v1/session/s/feedback")
        of_beta = [await ask(kibitz, BETA, "POST", path, {"rating": False}) for path in paths]
        unknown = [
            await ask(kibitz, BETA, "POST", re.sub(r"/(r|s|chat\S+)/f", "/n/f", path), {"rating": False})
            for path in paths
        ]
        assert (of_beta, [status for status, _, _ in of_beta]) == (unknown, [404] * 3)
        of_acme = [await ask(kibitz, ACME, "POST", path, {"rating": True}) for path in paths]
        assert [status for status, _, _ in of_acme] == [200] * 3
        gate.open()
        await response.read()
    row = await data(kibitz, ACME, "/v1/request/r")
    assert (row["feedback"]["rating"], row["feedback"]["negative"]) == (True, 0)
    assert row["properties"]["Helicone-Session-Feedback"] == "1"


async def test_two_organisations_use_the_same_ids_at_the_same_time(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz, gate = await start_kibitz(keys=keys()), Gate(upstream)
    values = {ACME: 5, BETA: -5}
    async with (
        asking(kibitz, ACME, "POST", "/v1/chat/completions", CHAT | {"user": "ann"}, **IDS) as first,
        asking(kibitz, BETA, "POST", "/v1/chat/completions", CHAT | {"user": "bob"}, **IDS) as second,
    ):
        for response in (first, second):
            await response.content.readany()
        for key, value in values.items():
            good = value > 0
            told = [
                await ask(kibitz, key, "POST", "/v1/request/r/feedback", {"rating": good}),
                await ask(kibitz, key, "POST", "/v1/session/s/feedback", {"rating": good}),
                await ask(kibitz, key, "POST", "/v1/request/r/score", {"scores": {"grade": value}}),
                await ask(kibitz, key, "PUT", "/v1/request/r/property", {"key": "Team", "value": f"team {value}"}),
                await ask(kibitz, key, "POST", "/v1/feedback", {"trace_id": "t", "value": value}),
            ]
            assert [status for status, _, _ in told] == [200] * 5
        gate.open()
        for response in (first, second):
            await response.read()
    for key, value in values.items():
        for path in ("/v1/request/r", "/v1/request/chatcmpl-1"):
            row = await data(kibitz, key, path)
            assert (row["attempt"], row["request_user_id"]) == (1, "ann" if key == ACME else "bob")
            assert row["feedback"]["rating"] is (value > 0)
            assert sorted(item["value"] for item in row["feedback"]["items"]) == sorted([value, int(value > 0)])
            assert row["scores"] == {"grade": value, "helicone-score-feedback": int(value > 0)}
            assert row["properties"] == {"Helicone-Session-Feedback": str(int(value > 0)), "Team": f"team {value}"}


async def test_a_call_that_is_told_of_under_another_organisation_s_id_is_a_call_of_its_own(shared: Running) -> None:
    await call(shared, ACME)
    before = await everything(shared, ACME)
    log = {
        "request": {"url": "https://api.openai.com/v1/chat/completions", "body": CHAT},
        "response": {"status": 200, "body": orjson.loads(chat_answer().partition(b"\r\n\r\n")[2])},
    }
    async with asking(shared, BETA, "POST", "/v1/logs", log, **IDS) as response:
        assert response.status == 200
    assert await everything(shared, ACME) == before
    assert (await data(shared, BETA, "/v1/request/r"))["attempt"] == 1


async def test_two_keys_of_an_organisation_see_the_same(start_kibitz: StartKibitz) -> None:
    second = {**keys()[1], "organisation": "acme"}
    kibitz = await start_kibitz(keys=[keys()[0], second])
    await call(kibitz, ACME)
    assert await everything(kibitz, BETA) == await everything(kibitz, ACME)
