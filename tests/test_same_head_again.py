"""Calls of one connection whose heads are alike, or nearly: each is a call of its own, and is taken at its word."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from proxy.redaction.edits import REDACTED
from tests.conftest import Running, StartKibitz
from tests.raw_client import connect, one_value, request
from tests.upstream import Received, Upstream

PATH = "/v1/chat/completions"


async def ask_in_turn(port: int, messages: Sequence[bytes]) -> list[Received]:
    """The answers to several requests on one connection, each sent after the last one's answer."""
    answers = []
    async with connect(port) as connection:
        for message in messages:
            await connection.send(message)
            answers.append(await connection.read_request())
    return answers


def status(answer: Received) -> int:
    return int(answer.request_line.split()[1])


async def test_each_call_of_the_same_head_has_its_own_body_and_length(kibitz: Running, upstream: Upstream) -> None:
    bodies = [b"{}", b'{"model":"a"}', b"", b"{}", b'{"model":"another"}']
    await ask_in_turn(kibitz.port, [request("POST", PATH, b"X-Same: 1", body=body) for body in bodies])
    assert [received.body for received in upstream.received] == bodies
    lengths = [b"".join(received.values("Content-Length")) for received in upstream.received]
    assert lengths == [b"2", b"13", b"", b"2", b"19"]


async def test_what_stands_around_the_length_keeps_its_place(kibitz: Running, upstream: Upstream) -> None:
    heads = [
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nA: 1\r\ncontent-LENGTH: %d\r\nB: 2\r\n\r\n" % (PATH.encode(), n)
        for n in (1, 3)
    ]
    await ask_in_turn(kibitz.port, [heads[0] + b"1", heads[1] + b"123"])
    assert [received.fields[1:] for received in upstream.received] == [
        [(b"A", b"1"), (b"content-LENGTH", length), (b"B", b"2")] for length in (b"1", b"3")
    ]


async def test_another_field_in_the_place_of_the_length_is_none(kibitz: Running, upstream: Upstream) -> None:
    await ask_in_turn(kibitz.port, [request("POST", PATH, body=b"{}"), request("POST", PATH, b"X-Length: 2")])
    assert [received.fields[1:] for received in upstream.received] == [
        [(b"Content-Length", b"2")],
        [(b"X-Length", b"2")],
    ]


async def test_a_length_of_nothing_is_no_body(kibitz: Running, upstream: Upstream) -> None:
    lengths = (b"0", b"2", b"00", b"0")
    heads = [request("POST", PATH, b"Content-Length: " + length) for length in lengths]
    await ask_in_turn(kibitz.port, [heads[0], heads[1] + b"{}", heads[2], heads[3]])
    assert [received.body for received in upstream.received] == [b"", b"{}", b"", b""]


async def test_each_call_of_the_same_head_has_its_own_id_and_row(kibitz: Running, upstream: Upstream) -> None:
    bodies = [b'{"model":"one"}', b'{"model":"two"}']
    answers = await ask_in_turn(kibitz.port, [request("POST", PATH, body=body) for body in bodies])
    ids = [one_value(answer, "Helicone-Id").decode() for answer in answers]
    assert len(set(ids)) == 2
    assert [(await kibitz.row(id))["request_model"] for id in ids] == ["one", "two"]


async def test_an_id_that_the_client_names_again_is_another_attempt(kibitz: Running, upstream: Upstream) -> None:
    message = request("POST", PATH, b"Helicone-Request-Id: r", b"x-portkey-trace-id: t", body=b"{}")
    answers = await ask_in_turn(kibitz.port, [message, message])
    assert [one_value(answer, "Helicone-Id") for answer in answers] == [b"r", b"r"]
    assert [one_value(answer, "x-portkey-trace-id") for answer in answers] == [b"t", b"t"]
    assert [(await kibitz.row("r", attempt=attempt))["attempt"] for attempt in (1, 2)] == [1, 2]


@pytest.mark.parametrize("first", [b"Helicone-User-Id: one", b"X-Other: 1"])
async def test_a_field_that_changes_counts(kibitz: Running, upstream: Upstream, first: bytes) -> None:
    messages = [request("POST", PATH, field, body=b"{}") for field in (first, b"Helicone-User-Id: two", first)]
    answers = await ask_in_turn(kibitz.port, messages)
    users = [(await kibitz.row(one_value(answer, "Helicone-Id").decode()))["request_user_id"] for answer in answers]
    named = "one" if b"one" in first else None
    assert users == [named, "two", named]


async def test_the_target_and_the_method_count(kibitz: Running, upstream: Upstream) -> None:
    lines = [("POST", "/v1/a"), ("POST", "/v1/b"), ("POST", "/v1/b?c=d"), ("PUT", "/v1/b?c=d"), ("PUT", "/v1/b?c=d")]
    await ask_in_turn(kibitz.port, [request(method, target, body=b"{}") for method, target in lines])
    assert [received.request_line for received in upstream.received] == [
        f"{method} {target} HTTP/1.1".encode() for method, target in lines
    ]


async def test_the_version_counts(kibitz: Running, upstream: Upstream) -> None:
    fields = (b"Connection: keep-alive",)
    messages = [request("GET", "/v1/models", *fields, version=version) for version in ("1.1", "1.0", "1.1")]
    answers = await ask_in_turn(kibitz.port, messages)
    assert [answer.request_line[:8] for answer in answers] == [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.1"]


async def test_who_calls_is_asked_of_each_call(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    keys = [
        {"name": name, "organisation": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": ["proxy"]}
        for name in ("kbz_acme", "kbz_beta")
    ]
    kibitz = await start_kibitz(keys=keys)
    sent = [b"kbz_acme", b"kbz_beta", b"kbz_none", b"kbz_acme"]
    messages = [request("POST", PATH, b"Helicone-Auth: Bearer " + key, body=b"{}") for key in sent]
    answers = await ask_in_turn(kibitz.port, messages)
    assert [status(answer) for answer in answers] == [200, 200, 401, 200]


async def test_the_credentials_of_each_call_are_taken_out_of_its_row(kibitz: Running, upstream: Upstream) -> None:
    secrets = [b"sk-first-0123456789abcdef", b"sk-first-0123456789abcdef", b"sk-other-0123456789abcdef"]
    messages = [
        request("POST", PATH, b"Authorization: Bearer " + secret, body=b'{"user":"%b"}' % secret) for secret in secrets
    ]
    answers = await ask_in_turn(kibitz.port, messages)
    rows = [await kibitz.row(one_value(answer, "Helicone-Id").decode()) for answer in answers]
    assert [row["request_body"] for row in rows] == [{"user": REDACTED}] * 3


async def test_a_body_that_is_too_large_is_refused_behind_one_that_is_not(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start_kibitz(limits={"max_request_body": 10})
    messages = [request("POST", PATH, body=body) for body in (b"{}", b'{"model":"a"}')]
    assert [status(answer) for answer in await ask_in_turn(kibitz.port, messages)] == [200, 413]
    assert len(upstream.received) == 1


async def test_a_length_that_can_t_be_is_refused_behind_one_that_can(kibitz: Running, upstream: Upstream) -> None:
    messages = [
        request("POST", PATH, body=b"{}"),
        request("POST", PATH, b"Content-Length: " + b"0" * 19 + b"2") + b"{}",
    ]
    assert [status(answer) for answer in await ask_in_turn(kibitz.port, messages)] == [200, 400]


async def test_a_head_too_large_to_be_remembered_is_sent_on_each_time(kibitz: Running, upstream: Upstream) -> None:
    messages = [request("POST", PATH, b"X-Long: " + b"v" * 5000, body=body) for body in (b"{}", b'{"a":1}', b"{}")]
    assert [status(answer) for answer in await ask_in_turn(kibitz.port, messages)] == [200] * 3
    assert [received.body for received in upstream.received] == [b"{}", b'{"a":1}', b"{}"]


async def test_a_client_that_expects_to_be_told_to_go_on_is_told_each_time(kibitz: Running, upstream: Upstream) -> None:
    head = request("POST", PATH, b"Expect: 100-continue", b"Content-Length: 2")
    async with connect(kibitz.port) as connection:
        for _ in range(3):
            await connection.send(head)
            assert (await connection.read_request()).request_line == b"HTTP/1.1 100 Continue"
            await connection.send(b"{}")
            assert status(await connection.read_request()) == 200


async def test_calls_of_the_same_form_are_each_logged(kibitz: Running, upstream: Upstream) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--b--\r\n'
    fields = (b"Content-Type: multipart/form-data; boundary=b",)
    messages = [
        request("POST", "/v1/audio/transcriptions", *fields, body=part % name) for name in (b"whisper-1", b"whisper-2")
    ]
    answers = await ask_in_turn(kibitz.port, messages)
    rows = [await kibitz.row(one_value(answer, "Helicone-Id").decode()) for answer in answers]
    assert [row["request_model"] for row in rows] == ["whisper-1", "whisper-2"]
