"""Whatever a body is, no route fails over it with a status of 500, and no proxied call loses its row."""

from __future__ import annotations

import io
import logging
from itertools import chain
from typing import Any

import orjson
import pytest

from tests.conftest import Running
from tests.hostile.bodies import ENCODED, ODD
from tests.upstream import Upstream, chat_answer

_CONTENT_TYPES = (
    "application/json",
    "text/event-stream",
    "text/plain; charset=utf-16",
    "multipart/form-data; boundary=a",
)
ALL: dict[str, tuple[str | None, bytes]] = {**{name: (None, body) for name, body in ODD.items()}, **ENCODED}
every_body = pytest.mark.parametrize(("encoding", "body"), ALL.values(), ids=ALL)

OWN_ROUTES = [
    ("POST", "/v1/request/odd/feedback"),
    ("POST", "/v1/session/odd/feedback"),
    ("POST", "/v1/request/odd/score"),
    ("PUT", "/v1/request/odd/property"),
    ("POST", "/v1/feedback"),
    ("PUT", "/v1/feedback/odd"),
    ("POST", "/v1/feedback/odd"),
    ("DELETE", "/v1/feedback/odd"),
    ("POST", "/v1/logs"),
    ("POST", "/custom/v1/log"),
    ("GET", "/v1/feedback?trace_id=odd"),
    ("GET", "/v1/request/odd"),
    ("GET", "/healthz"),
]


def fields(encoding: str | None, content_type: str) -> dict[str, str]:
    coded = {"Content-Encoding": encoding} if encoding else {}
    return {"Content-Type": content_type, **coded}


def assert_nothing_was_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@every_body
async def test_no_route_of_ours_fails_over_a_body(
    kibitz: Running, encoding: str | None, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await kibitz.chat(Helicone_Request_Id="odd", Helicone_Session_Id="odd")
    for method, path in OWN_ROUTES:
        async with kibitz.client.request(
            method, kibitz.url + path, data=io.BytesIO(body), headers=fields(encoding, "application/json")
        ) as answer:
            assert answer.status < 500, (method, path)
            orjson.loads(await answer.read())
    assert_nothing_was_logged(caplog)


@every_body
async def test_no_call_loses_its_row_over_a_body(
    kibitz: Running, upstream: Upstream, encoding: str | None, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    coded = b"Content-Encoding: %b\r\n" % encoding.encode("latin-1") if encoding else b""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n"
    for attempt, content_type in enumerate(_CONTENT_TYPES, 1):
        upstream.answer = head % (content_type.encode(), coded, len(body)) + body
        sent = {**fields(encoding, content_type), "Helicone-Request-Id": "odd", "Helicone-Stream-Usage": "true"}
        url = f"{kibitz.base_url}/chat/completions"
        async with kibitz.client.post(url, data=io.BytesIO(body), headers=sent) as answer:
            assert (answer.status, await answer.read()) == (200, body)
        assert upstream.received[-1].body == body
        row = await kibitz.row("odd")
        assert (row["attempt"], row["request_body_size"], row["response_body_size"]) == (attempt, len(body), len(body))
    await feedback_joins(kibitz)
    assert_nothing_was_logged(caplog)


async def feedback_joins(kibitz: Running) -> None:
    async with kibitz.client.post(f"{kibitz.base_url}/request/odd/feedback", json={"rating": True}) as answer:
        assert answer.status == 200
    assert (await kibitz.row("odd"))["feedback"]["rating"] is True


HARMLESS = {name: body for name, body in ODD.items() if len(body) < 10_000}
TEXTS = [
    "a\0b",
    "a\r\nX-Evil: y",
    "\u2028\x85\x1b[2J",
    "x" * 10_000,
    "  ",
    "'; DROP TABLE calls; --",
    "\U0001f600",
    "é",
]


@pytest.mark.parametrize("text", TEXTS)
async def test_every_text_that_feedback_and_logs_hold_is_read_back(kibitz: Running, text: str) -> None:
    log = {
        "request": {"url": text, "method": text, "provider": text, "body": {"model": text, "user": text}},
        "response": {"status": 200, "body": {"id": text, "model": text, "choices": [{"finish_reason": text}]}},
        "metadata": {"Helicone-Request-Id": "odd", "_user": text, text: text, "trace_id": text, "span_id": text},
    }
    posts: list[tuple[str, str, Any]] = [
        ("POST", "/v1/logs", log),
        ("POST", "/v1/request/odd/feedback", {"rating": True, "comment": text, "metadata": {text: text}}),
        ("POST", "/v1/request/odd/score", {"scores": {text or "x": 1.5}}),
        ("PUT", "/v1/request/odd/property", {"key": text or "x", "value": text}),
        ("POST", "/v1/feedback", {"trace_id": text, "value": 5, "metadata": {"_user": text}}),
    ]
    for method, path, body in posts:
        async with kibitz.client.request(method, kibitz.url + path, json=body) as answer:
            assert answer.status in (200, 400, 422), await answer.text()
            assert "X-Evil" not in answer.headers
    row = await kibitz.row("odd")
    assert row["feedback"]["items"][0]["comment"] == text
    async with kibitz.client.get(f"{kibitz.base_url}/feedback", params={"request_id": "odd"}) as answer:
        assert answer.status == 200
        assert (await answer.json())["data"]


async def test_odd_bodies_one_after_another_on_one_connection(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = chat_answer()
    for number, body in enumerate(chain.from_iterable([HARMLESS.values()] * 2)):
        sent = {"Helicone-Request-Id": f"odd-{number}", "Content-Type": "application/json"}
        async with kibitz.client.post(f"{kibitz.base_url}/chat/completions", data=body, headers=sent) as answer:
            assert answer.status == 200
        assert (await kibitz.row(f"odd-{number}"))["response_text"] == "Hello there."


async def test_of_countless_faults_only_their_number_is_told(kibitz: Running) -> None:
    await kibitz.chat(Helicone_Request_Id="odd")
    body = {"rating": True, **{str(number): number for number in range(10_000)}}
    async with kibitz.client.post(f"{kibitz.base_url}/request/odd/feedback", json=body) as answer:
        assert answer.status == 422
        assert (await answer.json())["details"] == {"requestBody": {"message": "more than 100 faults"}}
