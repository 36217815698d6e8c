"""What both log routes make of what they are told: the same rows as of calls through the proxy."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import Running, StartKibitz
from tests.feedback import SAVED, add_value, ask, rate
from tests.logs import ANSWER, ASKED, chunks, custom, portkey, send, tell_helicone, tell_portkey
from tests.raw_client import stored_bytes

# Of each route: how to tell it of one call, and where the sides of that call have their body.
Tell = Callable[..., Awaitable[dict[str, Any]]]


async def by_portkey(kibitz: Running, asked: Any = ASKED, answer: Any = ANSWER, **more: Any) -> dict[str, Any]:
    url, status, meta = more.pop("url", None), more.pop("status", 200), more.pop("meta", {})
    request = {"body": asked, "url": url} if url else {"body": asked}
    body = portkey(request=request, response={"status": status, "body": answer}, metadata=meta)
    [row] = await tell_portkey(kibitz, body, **more)
    return row


async def by_helicone(kibitz: Running, asked: Any = ASKED, answer: Any = ANSWER, **more: Any) -> dict[str, Any]:
    url, status, meta = more.pop("url", "custom-model-nopath"), more.pop("status", 200), more.pop("meta", {})
    response = {"textBody": answer, "json": {}} if isinstance(answer, str) else {"json": answer}
    request = {"json": asked, "url": url, "meta": meta}
    return await tell_helicone(kibitz, custom(request=request, response={"status": status, **response}), **more)


both = pytest.mark.parametrize("tell", [by_portkey, by_helicone])

# What has to differ between a call and the telling of it, or depends on when it was.
_OF_ITS_OWN = {
    *("request_id", "trace_id", "target_url", "provider", "request_created_at", "response_created_at", "delay_ms"),
    *("request_body_size", "response_body_size"),
}


@both
async def test_a_call_that_was_told_of_leaves_the_row_of_one_through_the_proxy(kibitz: Running, tell: Tell) -> None:
    headers = {
        "Helicone-Session-Id": "s",
        "Helicone-Property-App": "x",
        "x-portkey-metadata": '{"env": "dev", "_user": "u"}',
        "x-portkey-span-id": "7",
    }
    url = f"{kibitz.base_url}/chat/completions"
    async with kibitz.client.post(url, json=ASKED, headers=headers) as response:
        await response.read()
        passed = await kibitz.row(response.headers["Helicone-Id"])
    told = await tell(kibitz, url="https://api.openai.com/v1/chat/completions", **headers)
    assert passed["response_text"] == "Hello there."
    assert {name for name in passed if passed[name] != told[name]} <= _OF_ITS_OWN
    assert told["target_url"] == "https://api.openai.com/v1/chat/completions"
    assert told["provider"] == "openai"
    assert told["cost"] > 0


@both
async def test_the_row_is_there_for_feedback_when_the_answer_comes(kibitz: Running, tell: Tell) -> None:
    row = await tell(kibitz, Helicone_Request_Id="ticket 42/ü", x_portkey_trace_id="t")
    assert (row["request_id"], row["trace_id"], row["provider_response_id"]) == ("ticket 42/ü", "t", ANSWER["id"])
    assert (await rate(kibitz, "ticket 42/ü")).body == SAVED
    await add_value(kibitz, ANSWER["id"], 5)
    feedback = (await kibitz.row(ANSWER["id"]))["feedback"]
    assert (feedback["rating"], feedback["count"]) == (True, 2)


@both
async def test_a_rating_that_was_kept_joins_the_call_when_it_is_told_of(start_kibitz: StartKibitz, tell: Tell) -> None:
    kibitz = await start_kibitz(feedback={"unknown_request": "keep"})
    assert (await rate(kibitz, "later", False)).status == 200
    row = await tell(kibitz, Helicone_Request_Id="later")
    assert row["feedback"]["rating"] is False


@both
async def test_an_id_told_of_twice_is_a_second_attempt(kibitz: Running, tell: Tell) -> None:
    await tell(kibitz, Helicone_Request_Id="again")
    assert (await tell(kibitz, Helicone_Request_Id="again"))["attempt"] == 2


@both
async def test_what_identifies_a_call_may_stand_in_the_log_and_a_header_field_goes_before_it(
    kibitz: Running, tell: Tell
) -> None:
    meta = {
        "Helicone-Request-Id": "from-the-log",
        "helicone-user-id": "lin",
        "Helicone-Session-Id": "of-the-log",
        "Helicone-Property-Tier": "gold",
        "x-portkey-trace-id": "t-1",
        "x-portkey-metadata": '{"env": "dev", "team": "a"}',
    }
    row = await tell(kibitz, meta=meta, Helicone_Session_Id="s", x_portkey_metadata='{"team": "b"}')
    assert (row["request_id"], row["trace_id"], row["session_id"]) == ("from-the-log", "t-1", "s")
    assert row["request_user_id"] == "lin"
    assert row["properties"] == {"Tier": "gold", "env": "dev", "team": "b"}


@both
@pytest.mark.parametrize(
    ("flags", "request_kept", "response_kept"),
    [
        ({"Helicone-Omit-Request": "true"}, False, True),
        ({"Helicone-Omit-Response": "true"}, True, False),
        ({"x-portkey-debug": "false"}, False, False),
    ],
)
@pytest.mark.parametrize("in_header", [True, False])
async def test_bodies_that_are_to_be_omitted_never_reach_the_store(
    kibitz: Running,
    tmp_path: Path,
    tell: Tell,
    flags: dict[str, str],
    request_kept: bool,
    response_kept: bool,
    in_header: bool,
) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "the-question"}]}
    answer = orjson.loads(orjson.dumps(ANSWER).replace(b"Hello there.", b"the-answer"))
    more: dict[str, Any] = flags if in_header else {"meta": flags}
    row = await tell(kibitz, asked, answer, **more)
    assert (row["request_body"] is not None, row["response_body"] is not None) == (request_kept, response_kept)
    assert (row["request_model"], row["total_tokens"]) == ("m", 12)
    if not (request_kept or response_kept):
        assert b"the-question" not in stored_bytes(tmp_path)
        assert b"the-answer" not in stored_bytes(tmp_path)


@both
async def test_a_call_that_its_client_cancelled_has_no_status_and_says_so(kibitz: Running, tell: Tell) -> None:
    row = await tell(kibitz, status=-3)
    assert (row["response_status"], row["error"]["kind"]) == (None, "client_cancelled")


@both
async def test_the_status_of_an_error_and_its_body_are_kept(kibitz: Running, tell: Tell) -> None:
    row = await tell(kibitz, answer={"error": {"message": "slow down"}}, status=429)
    assert (row["response_status"], row["error"]) == (429, None)
    assert row["response_body"] == {"error": {"message": "slow down"}}


@both
@pytest.mark.parametrize(
    ("answer", "text", "finish_reason"),
    [
        (ANSWER, "Hello there.", "stop"),
        ({"object": "text_completion", "choices": [{"text": "Hi", "finish_reason": "length"}]}, "Hi", "length"),
        ({"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}, "Hi", "end_turn"),
        ({"model": "m", "usage": {"prompt_tokens": 9, "completion_tokens": 3}, "reply": "Hi"}, None, None),
    ],
)
async def test_without_an_address_an_answer_is_what_it_says_it_is(
    kibitz: Running, tell: Tell, answer: Any, text: str | None, finish_reason: str | None
) -> None:
    row = await tell(kibitz, answer=answer, url="https://llm.example.com/generate")
    assert (row["response_text"], row["finish_reason"]) == (text, finish_reason)
    assert (row["response_body"], row["target_url"]) == (answer, "https://llm.example.com/generate")
    assert row["request_model"] == "gpt-4o-mini"
    assert row["total_tokens"] == (12 if "usage" in answer else None)


@both
@pytest.mark.parametrize("url", ["https://api.openai.com/v1/chat/completions", "https://llm.example.com/generate"])
@pytest.mark.parametrize("join", ["lines", "events"])
async def test_the_text_of_a_stream_is_put_together(kibitz: Running, tell: Tell, url: str, join: str) -> None:
    lines = [orjson.dumps(chunk).decode() for chunk in chunks("Hel", "lo")]
    text = "\n".join(lines) if join == "lines" else "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
    row = await tell(kibitz, {**ASKED, "stream": True}, text, url=url)
    assert (row["is_stream"], row["response_text"], row["finish_reason"]) == (True, "Hello", "stop")
    assert row["response_body"]["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}


@both
@pytest.mark.parametrize("text", ["Once upon a time", "data: none\nat all", '{"a": 1}\nnot JSON', '"quoted"', "{"])
async def test_text_of_any_other_form_is_shown_as_it_is(kibitz: Running, tell: Tell, text: str) -> None:
    assert (await tell(kibitz, answer=text))["response_body"] == text


@both
async def test_a_body_longer_than_is_logged_is_cut_and_says_so(start_kibitz: StartKibitz, tell: Tell) -> None:
    kibitz = await start_kibitz(max_logged_body=100)
    row = await tell(kibitz, answer="x" * 1000)
    assert (row["response_body_size"], row["response_body_truncated"]) == (1000, True)
    assert row["response_body"] == "x" * 100


@both
@pytest.mark.parametrize(
    ("url", "target", "path"),
    [
        ("https://me:secret@h.test/v1/embeddings", "https://h.test/v1/embeddings", "/v1/embeddings"),
        ("https://h.test/x/embeddings?key=secret&v=1", "https://h.test/x/embeddings?key=[redacted]&v=1", None),
        ("me:secret@h.test/v1", "h.test/v1", None),
        ("chat/completions", "chat/completions", "/chat/completions"),
        ("https://[broken", "", None),
    ],
)
async def test_an_address_is_logged_without_what_carries_credentials(
    kibitz: Running, tmp_path: Path, tell: Tell, url: str, target: str, path: str | None
) -> None:
    row = await tell(kibitz, url=url)
    assert row["target_url"] == target
    assert path in (None, row["request_path"])
    assert b"secret" not in stored_bytes(tmp_path)


@pytest.mark.parametrize("path", ["/v1/logs", "/custom/v1/log"])
async def test_credentials_in_a_log_are_not_stored(kibitz: Running, tmp_path: Path, path: str) -> None:
    headers = {"Authorization": "Bearer top-secret", "x-api-key": "top-secret", "X-Anything": "top-secret"}
    secrets = {"x-portkey-api-key": "top-secret", "Helicone-Auth": "Bearer top-secret"}
    sides = {"request": {"headers": headers, "meta": {**headers, **secrets}}, "response": {"headers": headers}}
    body = portkey(**sides, metadata=secrets) if path == "/v1/logs" else custom(**sides)
    reply, _ = await send(kibitz, path, body, Authorization="Bearer top-secret")
    assert reply.status == 200
    assert b"top-secret" not in stored_bytes(tmp_path)


@pytest.mark.parametrize("path", ["/v1/logs", "/custom/v1/log"])
@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[" * 300 + b"]" * 300, b"5", b'"text"', b"{}", b"[5]"])
async def test_a_body_that_is_no_log_is_refused_in_the_dialect_of_the_route(
    kibitz: Running, path: str, body: bytes
) -> None:
    reply, fields = await send(kibitz, path, body)
    assert reply.status == 400
    assert "helicone-id" not in fields
    message = reply.body["message"] if path == "/v1/logs" else reply.body["error"]
    assert isinstance(message, str)
    assert message


@pytest.mark.parametrize("path", ["/v1/logs", "/custom/v1/log"])
async def test_a_log_has_a_limit_of_its_own(start_kibitz: StartKibitz, path: str) -> None:
    kibitz = await start_kibitz(limits={"max_log_body": 4096, "max_feedback_body": 1024})
    make = portkey if path == "/v1/logs" else custom
    small, large = ({"url": "x" * length} for length in (2048, 4096))
    assert (await send(kibitz, path, make(request=small)))[0].status == 200
    assert (await send(kibitz, path, make(request=large)))[0].status == 413


@both
async def test_a_log_of_more_than_a_quarter_of_a_mebibyte_is_taken_whole(kibitz: Running, tell: Tell) -> None:
    asked = {**ASKED, "messages": [{"role": "user", "content": "x" * 400_000}]}
    row = await tell(kibitz, asked)
    assert (row["request_body"], row["response_text"]) == (asked, "Hello there.")


@both
async def test_numbers_that_are_no_json_do_not_fail_a_log(kibitz: Running, tell: Tell) -> None:
    """Python's clients write them: `json.dumps` does."""
    body = portkey() if tell is by_portkey else custom()
    sent = orjson.dumps(body).replace(b'"created":1700000000', b'"created":NaN')
    reply, _ = await send(kibitz, "/v1/logs" if tell is by_portkey else "/custom/v1/log", sent)
    assert reply.status == 200


def run_sql(directory: Path, statement: str) -> Any:
    with contextlib.closing(sqlite3.connect(directory / "kibitz.db")) as connection, connection:
        return connection.execute(statement).fetchone()


@pytest.mark.parametrize("path", ["/v1/logs", "/custom/v1/log"])
async def test_an_answer_means_committed_with_relaxed_durability_too(
    start_kibitz: StartKibitz, tmp_path: Path, path: str
) -> None:
    kibitz = await start_kibitz(durability="relaxed")
    await send(kibitz, path, portkey() if path == "/v1/logs" else custom())
    assert run_sql(tmp_path, "SELECT count(*) FROM calls") == (1,)


@pytest.mark.parametrize("path", ["/v1/logs", "/custom/v1/log"])
async def test_a_log_that_the_store_does_not_take_fails(kibitz: Running, tmp_path: Path, path: str) -> None:
    run_sql(tmp_path, "ALTER TABLE bodies RENAME TO gone")
    reply, fields = await send(kibitz, path, portkey() if path == "/v1/logs" else custom())
    assert (reply.status, "helicone-id" in fields) == (503, False)
    assert reply.body["error"]


async def test_a_log_needs_a_key_where_calls_do(start_kibitz: StartKibitz) -> None:
    key = {"name": "k", "organisation": "acme", "sha256": "0" * 64, "scopes": ["read"]}
    kibitz = await start_kibitz(keys=[key])
    reply, _ = await send(kibitz, "/custom/v1/log", custom(), Authorization="Bearer wrong")
    assert reply.status == 401
    assert reply.body["trace"] == "isAuthenticated.error"
    assert (await ask(kibitz, "POST", "/logs", portkey())).status == 401
