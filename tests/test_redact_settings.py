"""`[redact]`: what it names is in no row, what passes stays as it is, and the rest of the row is as without it."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.app import new_redactor, open_store
from proxy.config import Settings
from proxy.feedback.redacting import redacting
from proxy.pricing import Pricer
from proxy.redaction.redactor import Redactor
from proxy.redaction.rules import Rules
from proxy.row import derive_again
from tests.conftest import Running, StartKibitz
from tests.raw_client import Eventually, connect, request
from tests.upstream import CHAT_BODY, Connection, Upstream, chat_answer, chat_events, json_answer, sse_answer

RULES = {"fields": ["password"], "patterns": [r"pin-\d{4}"]}
# It takes for ever on what comes here, whichever machine it runs on.
ENDLESS = {"patterns": ["(a|aa)+$"]}
ENDLESS_TEXT = "a" * 60 + "b"


async def call(kibitz: Running, body: bytes = b"{}", path: str = "/v1/chat/completions", **headers: str) -> bytes:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with kibitz.client.post(f"{kibitz.url}{path}", data=body, headers=fields) as response:
        return await response.read()


async def test_bytes_pass_as_they_are_and_the_row_is_redacted(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(redact=RULES)
    answer = CHAT_BODY.replace(b"Hello there.", b"it is pin-1234")
    upstream.answer = chat_answer(answer)
    asked = b'{"model": "gpt-4o-mini", "n": 1.10, "user": "pin-0000", "password" : ["x", 1], "q":"pi\\u006e-1234"}'
    assert await call(kibitz, asked, "/v1/chat/completions?at=pin-7777", Helicone_Request_Id="r") == answer
    assert upstream.received[0].body == asked
    assert upstream.received[0].target == b"/v1/chat/completions?at=pin-7777"
    row = await kibitz.row("r")
    assert row["request_body"] == {
        "model": "gpt-4o-mini",
        "n": 1.1,
        "user": "[redacted]",
        "password": "[redacted]",
        "q": "[redacted]",
    }
    assert row["response_text"] == "it is [redacted]"
    assert (row["request_path"], row["request_user_id"]) == ("/v1/chat/completions?at=[redacted]", "[redacted]")
    assert (row["prompt_tokens"], row["completion_tokens"], row["response_id"]) == (9, 3, "chatcmpl-1")
    assert row["cost"] is not None
    assert row["request_body_size"] == len(asked)
    assert not row["request_body_truncated"]


async def test_a_body_with_nothing_to_redact_is_kept_byte_for_byte(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(redact=RULES)
    body = b'{ "a":1.10,"a" : "\\u0041", "n": 123456789012345678901234567890, "f": 1E400 }\n'
    await call(kibitz, body, Helicone_Request_Id="r")
    stored = await kibitz.kibitz.storage.read_call("default", "r", None)
    assert stored is not None
    assert stored.call.request.data == body


async def test_a_redacted_stream_is_a_stream_still(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(redact=RULES)
    events = chat_events("it is p", "in-12", "34, sir")
    upstream.answer = sse_answer(*events)
    assert await call(kibitz, b'{"stream": true}', Helicone_Request_Id="r") == b"".join(events)
    row = await kibitz.row("r")
    assert row["response_text"] == "it is [redacted], sir"
    assert (row["is_stream"], row["finish_reason"], row["completion_tokens"]) == (True, "stop", 3)
    assert row["time_to_first_token"] is not None


async def test_what_comes_behind_the_last_event_is_redacted_too(
    start_kibitz: StartKibitz, upstream: Upstream, eventually: Eventually
) -> None:
    kibitz = await start_kibitz(redact=RULES)
    upstream.answer = sse_answer(*chat_events("Hello"), b": it is pin-1234\n\n")
    await call(kibitz, b'{"stream": true}', Helicone_Request_Id="r")

    async def is_amended() -> None:
        stored = await kibitz.kibitz.storage.read_call("default", "r", None)
        assert stored is not None
        assert (stored.call.response.data or b"").endswith(b": it is [redacted]\n\n")

    await eventually(is_amended)


@pytest.mark.parametrize("size", [0, 20_000_000])
async def test_a_packed_body_is_kept_unpacked_as_far_as_it_was_searched(
    start_kibitz: StartKibitz, upstream: Upstream, eventually: Eventually, size: int
) -> None:
    kibitz = await start_kibitz(redact=RULES)
    packed = gzip.compress(b"pin-1234 " + b" " * size + b"pin-5678")
    upstream.answer = json_answer(packed, fields=b"Content-Encoding: gzip\r\n")
    assert await call(kibitz, Helicone_Request_Id="r") == packed

    async def row() -> Any:
        return await kibitz.row("r")

    found = await eventually(row)
    assert found["response_body"].startswith("[redacted] ")
    assert found["response_body"].endswith(" [redacted]" if not size else " ")
    assert found["response_body_truncated"] == bool(size)
    assert found["response_body_size"] == len(packed)


@pytest.mark.parametrize("coding", ["rot13", "gzip, rot13", "gzip"])
async def test_what_cannot_be_unpacked_is_not_kept(start_kibitz: StartKibitz, upstream: Upstream, coding: str) -> None:
    kibitz = await start_kibitz(redact=RULES)
    upstream.answer = json_answer(b"pin-1234", fields=b"Content-Encoding: %b\r\n" % coding.encode())
    await call(kibitz, Helicone_Request_Id="r")
    stored = await kibitz.kibitz.storage.read_call("default", "r", None)
    assert stored is not None
    assert (stored.call.response.data, stored.call.response.omitted, stored.call.response.size) == (None, True, 8)


FORM = b"application/x-www-form-urlencoded"
LONG = b"Content-Length: 40"


@pytest.mark.parametrize(
    ("lines", "body", "kept"),
    [
        ([b"Content-Length: 17", FORM], b"name=pip&lang=pin", "name=pip&lang=pin"),
        ([b"Content-Length: 8", b"text/plain"], b"many pin", "many pin"),
        ([LONG, FORM], b"name=pi&lang=pin", "name=pi&lang=[redacted]"),
        ([LONG, b"text/plain"], b"many pin-12", "many [redacted]"),
    ],
)
async def test_a_request_is_cut_only_if_its_upload_broke_off(
    start_kibitz: StartKibitz, upstream: Upstream, lines: list[bytes], body: bytes, kept: str, eventually: Eventually
) -> None:
    """And not if the call failed in another way."""
    kibitz = await start_kibitz(redact=RULES)

    async def leave(connection: Connection) -> None:
        await connection.read_head()
        await connection.reader.readexactly(len(body))

    upstream.script = leave
    head = request("POST", "/v1/x", b"Helicone-Request-Id: r", lines[0], b"Content-Type: " + lines[1])
    async with connect(kibitz.port) as client:
        await client.send(head + body)
        await client.read_head()

    async def row() -> Any:
        return await kibitz.row("r")

    found = await eventually(row)
    assert found["error"] is not None
    assert found["request_body"] == kept


async def test_the_facts_of_an_omitted_body_are_redacted_as_well(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(redact=RULES)
    upstream.answer = json_answer(b'{"error": {"message": "no pin-1234"}, "model": "pin-9999"}')
    body = b'{"user": "pin-0000", "model": "pin-1111"}'
    await call(kibitz, body, Helicone_Request_Id="r", Helicone_Omit_Request="true", Helicone_Omit_Response="true")
    row = await kibitz.row("r")
    assert (row["request_user_id"], row["request_model"]) == ("[redacted]", "[redacted]")
    assert (row["request_body"], row["response_body"]) == (None, None)
    assert "pin-" not in str(row)


async def test_ids_stay_and_labels_do_not(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(redact=RULES)
    labels: dict[str, Any] = {
        "Helicone_Session_Id": "pin-2222 a",
        "Helicone_Property_Password": "x",
        "Helicone_User_Id": "u pin-3333",
    }
    await call(kibitz, Helicone_Request_Id="pin-1111", x_portkey_trace_id="pin-4444", **labels)
    row = await kibitz.row("pin-1111")
    assert (row["request_id"], row["trace_id"]) == ("pin-1111", "pin-4444")
    assert (row["session_id"], row["request_user_id"]) == ("[redacted] a", "u [redacted]")
    assert row["properties"] == {"Password": "[redacted]"}


async def test_feedback_finds_what_it_means_by_the_words_it_was_given(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(redact=RULES)
    await call(kibitz, Helicone_Request_Id="pin-1111", Helicone_Session_Id="pin-2222")
    body = orjson.dumps({"rating": True, "comment": "pin-5555!", "metadata": {"password": [1], "a": "pin-6666"}})
    assert b'"error":null' in await call(kibitz, body, "/v1/request/pin-1111/feedback")
    assert b'"error":null' in await call(kibitz, body, "/v1/session/pin-2222/feedback")
    async with kibitz.client.get(f"{kibitz.base_url}/feedback?session_id=pin-2222") as response:
        [listed] = (await response.json())["data"]
    assert (listed["comment"], listed["session_id"]) == ("[redacted]!", "[redacted]")
    row = await kibitz.row("pin-1111")
    [item] = row["feedback"]["items"]
    assert (item["comment"], item["metadata"]) == ("[redacted]!", {"password": "[redacted]", "a": "[redacted]"})
    assert row["properties"] == {"Helicone-Session-Feedback": "1"}


async def test_a_pattern_without_end_holds_nobody_up_and_keeps_what_it_could_not_search_out(
    start_kibitz: StartKibitz, caplog: pytest.LogCaptureFixture
) -> None:
    kibitz = await start_kibitz(redact=ENDLESS)
    body = orjson.dumps({"a": ENDLESS_TEXT})
    labels: dict[str, Any] = {f"Helicone_Property_{number}": ENDLESS_TEXT for number in range(100)}
    calling = asyncio.create_task(call(kibitz, body, Helicone_Request_Id="r", Helicone_User_Id=ENDLESS_TEXT, **labels))
    answered = 0
    while not calling.done():
        async with kibitz.client.get(f"{kibitz.url}/healthz") as response:
            answered += response.status == 200
    await calling
    assert answered > 10
    row = await kibitz.row("r")
    assert (row["request_body"], row["request_user_id"]) == (None, "[redacted]")
    assert set(row["properties"].values()) == {"[redacted]"}
    assert row["response_text"] == "Hello there."
    assert caplog.text.count("redact.patterns.0 takes too long") == 1
    assert ENDLESS_TEXT not in caplog.text


async def test_reparse_finds_redacted_rows_as_they_are(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(redact=RULES)
    asked = b'{"model": "gpt-4o-mini", "user": "pin-0000", "password": 1}'
    for number, answer in enumerate(
        [
            chat_answer(CHAT_BODY.replace(b"Hello", b"pin-1234")),
            sse_answer(*chat_events("pi", "n-1234")),
            json_answer(b'{"error": {"message": "no pin-1234"}}'),
            json_answer(gzip.compress(CHAT_BODY), fields=b"Content-Encoding: gzip\r\n"),
            json_answer(b"?", fields=b"Content-Encoding: unknown\r\n"),
        ]
    ):
        upstream.answer = answer
        await call(kibitz, asked, Helicone_Request_Id=f"r{number}")
        assert (await kibitz.row(f"r{number}"))["request_user_id"] == "[redacted]"
    batch = await kibitz.kibitz.storage.read_batch(0, most_calls=100, most_bytes=2**20)
    assert len(batch) == 5
    assert [derive_again(row.call, Pricer({})) for row in batch] == [row.call for row in batch]


async def test_of_a_call_that_its_client_left_no_half_of_a_match_is_kept(
    start_kibitz: StartKibitz, upstream: Upstream, eventually: Eventually
) -> None:
    kibitz = await start_kibitz(redact=RULES)
    upstream.answer = sse_answer(*chat_events("it is ", "pin-1"))[:-300]
    async with connect(kibitz.port) as connection:
        message = request("POST", "/v1/chat/completions", b"Helicone-Request-Id: r", body=b'{"stream": true}')
        await connection.send(message)
        await connection.reader.readuntil(b"pin-1")

    async def row() -> Any:
        return await kibitz.row("r")

    found = await eventually(row)
    assert found["error"]["kind"] == "client_cancelled"
    assert found["response_text"] == "it is [redacted]"


def test_without_rules_there_is_nothing_to_do() -> None:
    assert new_redactor(Settings()) is None
    assert new_redactor(Settings(redact={"fields": ["a"]})) is not None


async def test_what_the_store_does_in_threads_does_not_wait_for_searches_in_feedback(tmp_path: Path) -> None:
    async with open_store(Settings(database=str(tmp_path / "kibitz.db"))) as storage:
        writing = redacting(storage, Redactor(Rules((), ENDLESS["patterns"])))
        searching = [
            asyncio.create_task(
                writing.update_value("acme", "none", value=1, weight=None, metadata=ENDLESS_TEXT, updated_at=0)
            )
            for _ in range(13)
        ]
        await asyncio.sleep(0)
        await asyncio.to_thread(int)
        assert not any(task.done() for task in searching)
        assert await asyncio.gather(*searching) == [None] * 13
