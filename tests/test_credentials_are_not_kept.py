"""Contract section 8: none of the credentials that a call carries is kept."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import Eventually, ask, connect, request, stored_bytes
from tests.upstream import CHAT_BODY, Connection, Script, Upstream, chat_answer, json_answer

# As `kibitz keys` makes them.
MADE = b"kbz_SUfJE3pg1iFsId3deK3w7eZGld6oabTKYMChoPvsXuY"
SECRET = b"s3cr3t"
SECRET_LINES = [
    b"%b: %b" % (name, value % SECRET)
    for name, value in [
        (b"Authorization", b"Bearer sk-%b"),
        (b"Proxy-Authorization", b"Basic %b"),
        (b"x-api-key", b"sk-ant-%b"),
        (b"api-key", b"%b"),
        (b"x-goog-api-key", b"%b"),
        (b"Cookie", b"session=%b"),
        (b"Helicone-Auth", b"Bearer sk-helicone-%b"),
        (b"Helicone-Jwt", b"%b"),
        (b"Helicone-Fallbacks", b'[{"headers": {"Authorization": "%b"}}]'),
        (b"Helicone-Posthog-Key", b"%b"),
        (b"Helicone-Lytix-Key", b"%b"),
        (b"Helicone-Manual-Access-Key", b"%b"),
        (b"x-portkey-api-key", b"%b"),
        (b"x-portkey-virtual-key", b"%b"),
        (b"x-portkey-config", b'{"api_key": "%b"}'),
        (b"x-portkey-aws-secret-access-key", b"%b"),
        (b"x-portkey-azure-entra-client-secret", b"%b"),
        (b"x-portkey-vertex-service-account-json", b"%b"),
    ]
]
TARGET = "/v1/chat/completions?key={0}&Api_Key={0}&%6bey={0}&a=1&access_token={0}&key=".format(SECRET.decode())
LABELLED = request(
    "POST", TARGET, b"Helicone-Request-Id: hush", b"Helicone-User-Id: in-the-open", *SECRET_LINES, body=b"{}"
)


async def cut(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=%b\r\nContent-Length: 9\r\n\r\n{" % SECRET)


async def speak_no_http(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nSet-Cookie : a=%b\r\n\r\n" % SECRET)


async def answer(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(chat_answer(CHAT_BODY, fields=b"Set-Cookie: a=%b\r\n" % SECRET))


@pytest.mark.parametrize("script", [answer, cut, speak_no_http])
async def test_no_credential_is_in_the_database_file_or_the_log(
    kibitz: Running,
    upstream: Upstream,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    eventually: Eventually,
    script: Script,
) -> None:
    upstream.script = script
    async with connect(kibitz.port) as connection:
        await connection.send(LABELLED)
        await connection.read_head()
    row = await eventually(lambda: kibitz.row("hush"))
    assert row["request_path"].startswith("/v1/chat/completions?")
    assert "a=1" in row["request_path"]
    stored = stored_bytes(tmp_path)
    assert b"in-the-open" in stored
    assert SECRET not in stored
    assert SECRET.decode() not in caplog.text


async def test_a_credential_in_a_request_that_is_no_http_is_not_logged(
    kibitz: Running, caplog: pytest.LogCaptureFixture
) -> None:
    line = b"Authorization: Bearer sk-%b\x01" % SECRET
    refused = await ask(kibitz.port, request("GET", "/v1/models", line))
    assert refused.request_line.split(b" ")[1] in (b"200", b"400")
    assert SECRET.decode() not in caplog.text


LONG = b"sk-proj-0123456789abcdef"
ECHO = b'{"error": {"message": "Incorrect API key provided: %b."}}'


@pytest.mark.parametrize(
    "field",
    [
        *(b"Authorization: Bearer ", b"x-api-key: ", b"Helicone-Auth: Bearer ", b"Authorization: "),
        *(b"CB-ACCESS-PASSPHRASE: ", b"X_Api_Key: ", b"X-Api-Keys: ", b"X-Vault-Secret-Id: ", b"X-Db-Pwd: "),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
async def test_a_key_that_is_quoted_is_kept_nowhere_and_passes(
    kibitz: Running, upstream: Upstream, tmp_path: Path, field: bytes, pack: Callable[[bytes], bytes]
) -> None:
    coding = b"Content-Encoding: gzip\r\n" if pack is gzip.compress else b""
    answer = pack(ECHO % LONG)
    upstream.answer = json_answer(answer, status="401 Unauthorized", fields=coding)
    lines = (field + LONG, b"Helicone-Request-Id: r", b"Helicone-Property-Used: " + LONG, b"Helicone-User-Id: u")
    sent = request("POST", "/v1/chat/completions?q=" + LONG.decode(), *lines, body=b'{"user": "%b"}' % LONG)
    assert (await ask(kibitz.port, sent)).body == answer
    assert upstream.received[0].body == b'{"user": "%b"}' % LONG
    row = await kibitz.row("r")
    assert row["response_body"]["error"]["message"] == "Incorrect API key provided: [redacted]."
    assert row["request_path"] == "/v1/chat/completions?q=[redacted]"
    assert (row["properties"], row["request_user_id"]) == ({"Used": "[redacted]"}, "u")
    assert row["request_body"] == {"user": "[redacted]"}
    assert LONG not in stored_bytes(tmp_path)


async def test_what_stands_in_for_a_key_is_a_word_like_any_other(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = json_answer(ECHO % b"lm-studio")
    await ask(kibitz.port, request("GET", "/v1/models", b"Authorization: Bearer lm-studio", b"Helicone-Request-Id: r"))
    assert (await kibitz.row("r"))["response_body"]["error"]["message"] == "Incorrect API key provided: lm-studio."


async def test_what_looks_like_a_key_of_kibitz_is_not_kept_wherever_it_stands(kibitz: Running, tmp_path: Path) -> None:
    key = "kbz_SUfJE3pg1iFsId3deK3w7eZGld6oabTKYMChoPvsXuY"
    message = request("POST", "/v1/chat/completions", b"Helicone-Request-Id: r", body=b'{"a": "%b"}' % key.encode())
    await ask(kibitz.port, message)
    for path, body in [
        ("/v1/request/r/feedback", {"rating": True, "comment": key, "metadata": {"a": key}}),
        ("/v1/feedback", {"trace_id": "r", "value": 1, "metadata": {key: key}}),
        ("/v1/request/r/score", {"scores": {key: 1}}),
    ]:
        async with kibitz.client.post(kibitz.url + path, json=body) as response:
            assert response.status == 200
    async with kibitz.client.put(f"{kibitz.base_url}/request/r/property", json={"key": "a", "value": key}) as response:
        assert response.status == 200
    row = await kibitz.row("r")
    assert (row["request_body"], row["properties"]) == ({"a": "[redacted]"}, {"a": "[redacted]"})
    assert key.encode() not in stored_bytes(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Type: a/b; x=" + MADE,
        b"Content-Encoding: " + MADE,
        b"Content-Encoding: rot13",
        b"Helicone-Property-%b: 1" % MADE,
    ],
)
async def test_a_key_of_kibitz_s_is_not_kept_in_what_is_told_of_a_body(
    kibitz: Running, tmp_path: Path, line: bytes
) -> None:
    await ask(kibitz.port, request("POST", "/v1/x", line, b"Helicone-Request-Id: r", body=b"it is " + MADE))
    assert (await kibitz.row("r"))["request_body"] is not None
    assert MADE not in stored_bytes(tmp_path)


@pytest.mark.parametrize(
    "path", ["chat/{0}?a={0}", "chat/%6b{1}", "chat/a%20b?q=%6B{1}&%6b{1}=1", "a?to=http://h/%6b{1}", "%6b{1}/%ff"]
)
@pytest.mark.parametrize("base", ["", "/openai/v1", "/openai/v1/" + MADE.decode()])
async def test_a_key_of_kibitz_s_is_not_kept_in_an_address_however_it_is_spelt(
    start_kibitz: StartKibitz, upstream: Upstream, tmp_path: Path, path: str, base: str
) -> None:
    origin = upstream.base_url.removesuffix("/v1")
    kibitz = await start_kibitz(allowed_targets=[origin])
    target = f"/v1/{path.format(MADE.decode(), MADE.decode()[1:])}"
    lines = (b"Helicone-Target-URL: " + (origin + base).encode(), b"Helicone-Request-Id: r")
    await ask(kibitz.port, request("GET", target, *lines))
    assert "[redacted]" in (await kibitz.row("r"))["request_path"]
    assert MADE[1:] not in stored_bytes(tmp_path)


SHORT = b"my-own-key-1"


@pytest.mark.parametrize(
    "line",
    [
        *(b"Helicone-Auth: Bearer " + SHORT, b"x-portkey-api-key: " + SHORT, b"Authorization: Bearer " + SHORT),
        b"Authorization: Bearer sk-theirs, Bearer " + SHORT,
    ],
)
async def test_a_short_key_of_kibitz_s_is_kept_nowhere_for_it_is_known(
    start_kibitz: StartKibitz, upstream: Upstream, tmp_path: Path, line: bytes
) -> None:
    sha256 = hashlib.sha256(SHORT).hexdigest()
    kibitz = await start_kibitz(keys=[{"name": "k", "organisation": "o", "sha256": sha256}])
    upstream.answer = json_answer(ECHO % SHORT)
    labels = (b"Helicone-User-Id: " + SHORT, b"Helicone-Property-A: a " + SHORT, b"Helicone-Request-Id: r")
    said = b'{"request": {"url": "https://h/%b"}, "response": {"body": "%b"}}' % (SHORT, SHORT)
    assert (await ask(kibitz.port, request("POST", "/v1/a?b=c", line, *labels, body=SHORT))).body == ECHO % SHORT
    assert (await ask(kibitz.port, request("POST", "/v1/logs", line, *labels, body=said))).request_line[9:12] == b"200"
    assert SHORT not in stored_bytes(tmp_path)


async def test_a_key_among_a_websocket_s_protocols_is_not_kept_where_the_call_repeats_it(
    kibitz: Running, tmp_path: Path
) -> None:
    lines = (b"Sec-WebSocket-Protocol: a, openai-insecure-api-key." + LONG, b"Helicone-Request-Id: r")
    await ask(kibitz.port, request("POST", "/v1/a", *lines, body=LONG))
    assert (await kibitz.row("r"))["request_body"] == "[redacted]"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"X-Model-Config", b"gpt-4o-mini-2024-07-18"),
        (b"X-Auth-Request-Email", b"someone-2024@example.com"),
        (b"X-Auth-Request-User", b"0123456789abcdef"),
        (b"Idempotency_Key", b"0123456789abcdef"),
    ],
)
async def test_what_a_field_tells_that_is_no_credential_stays_in_the_log(
    kibitz: Running, upstream: Upstream, field: bytes, value: bytes
) -> None:
    lines = (field + b": " + value, b"Helicone-Request-Id: r", b"Helicone-User-Id: " + value)
    await ask(kibitz.port, request("POST", "/v1/chat/completions", *lines, body=b'{"model": "%b"}' % value))
    row = await kibitz.row("r")
    assert (row["request_user_id"], row["request_model"]) == (value.decode(), value.decode())


@pytest.mark.parametrize("key", ["0123456789&abcdef==", "=0123456789abcdef&", "0123456789?abcdef=x&y"])
async def test_a_key_that_holds_the_marks_of_a_query_is_taken_out_of_one(kibitz: Running, key: str) -> None:
    lines = (b"x-api-key: " + key.encode(), b"Helicone-Request-Id: r")
    await ask(kibitz.port, request("GET", f"/v1/models?a=1&q={key}", *lines))
    assert (await kibitz.row("r"))["request_path"] == "/v1/models?a=1&q=[redacted]"
