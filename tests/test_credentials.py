"""Contract sections 3 and 8: which credentials reach the upstream, and that none is kept."""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import Eventually, ask, connect, request, stored_bytes
from tests.upstream import CHAT_BODY, Connection, Script, Upstream, chat_answer, json_answer

KEY = b"kbz_right"
# As `kibitz keys` makes them.
MADE = b"kbz_SUfJE3pg1iFsId3deK3w7eZGld6oabTKYMChoPvsXuY"
KEYS = [{"name": "k", "organisation": "o", "sha256": hashlib.sha256(key).hexdigest()} for key in (KEY, MADE)]
SECRET = b"s3cr3t"
BY_HELICONE = b"Helicone-Auth: Bearer " + KEY
BY_PORTKEY = b"x-portkey-api-key: " + KEY
CREDENTIALS = ("Authorization", "x-api-key", "api-key", "x-goog-api-key", "Ocp-Apim-Subscription-Key")


async def start(start_kibitz: StartKibitz, upstream: Upstream, **settings: Any) -> Running:
    """With a configured upstream key, unless it says otherwise."""
    return await start_kibitz(upstream={"base_url": upstream.base_url, "api_key": "sk-configured"}, **settings)


async def seen_by_upstream(kibitz: Running, upstream: Upstream, *lines: bytes) -> list[bytes]:
    """The credentials that the upstream got, in their order, with their names."""
    answer = await ask(kibitz.port, request("POST", "/v1/chat/completions", *lines, body=b"{}"))
    assert answer.request_line == b"HTTP/1.1 200 OK"
    names = [name.lower().encode() for name in CREDENTIALS]
    return [b"%b: %b" % field for field in upstream.received[-1].fields if field[0].lower() in names]


UNTOUCHED = [
    (b"Authorization: Bearer sk-theirs",),
    (b"authorization: sk-theirs",),
    (b"Authorization: Basic dXNlcjpwYXNz",),
    (b"x-api-key: sk-ant-theirs",),
    (b"API-Key: azure-theirs",),
    (b"Authorization: Bearer eyJ.x.y", b"x-api-key: sk-ant-theirs", b"api-key: z"),
    (b"Authorization: Bearer OPENAI_API_KEY_2",),
    (b"Ocp-Apim-Subscription-Key: azure-theirs",),
]


@pytest.mark.parametrize("lines", UNTOUCHED, ids=lambda lines: lines[0].decode())
async def test_the_client_s_own_credentials_pass_untouched(
    start_kibitz: StartKibitz, upstream: Upstream, lines: tuple[bytes, ...]
) -> None:
    kibitz = await start(start_kibitz, upstream, keys=KEYS)
    assert await seen_by_upstream(kibitz, upstream, BY_HELICONE, *lines, BY_PORTKEY) == list(lines)


REPLACED = [
    (b"Authorization: Bearer " + KEY,),
    (b"authorization: bearer " + KEY,),
    (b"Authorization: " + KEY,),
    (b"x-api-key: " + KEY,),
    (b"api-key: " + KEY,),
    (b"Authorization: Bearer " + KEY, b"x-api-key: " + KEY),
    (BY_PORTKEY, b"Authorization: Bearer " + KEY),
    (BY_PORTKEY, b"Authorization: Bearer OPENAI_API_KEY"),
    (BY_HELICONE, b"Authorization: Bearer DUMMY-KEY"),
    (BY_PORTKEY,),
    (BY_HELICONE,),
]


@pytest.mark.parametrize("lines", REPLACED, ids=lambda lines: b" + ".join(lines).decode())
async def test_the_configured_key_stands_in_for_kibitz_s_own_and_for_placeholders(
    start_kibitz: StartKibitz, upstream: Upstream, lines: tuple[bytes, ...]
) -> None:
    kibitz = await start(start_kibitz, upstream, keys=KEYS)
    assert await seen_by_upstream(kibitz, upstream, *lines) == [b"Authorization: Bearer sk-configured"]


@pytest.mark.parametrize("lines", REPLACED, ids=lambda lines: b" + ".join(lines).decode())
async def test_without_a_configured_key_they_are_dropped(
    start_kibitz: StartKibitz, upstream: Upstream, lines: tuple[bytes, ...]
) -> None:
    kibitz = await start_kibitz(keys=KEYS)
    assert await seen_by_upstream(kibitz, upstream, *lines) == []


@pytest.mark.parametrize("placeholder", [b"OPENAI_API_KEY", b"DUMMY-KEY"])
async def test_a_placeholder_is_known_with_no_key_configured(
    start_kibitz: StartKibitz, upstream: Upstream, placeholder: bytes
) -> None:
    kibitz = await start(start_kibitz, upstream)
    line = b"Authorization: Bearer " + placeholder
    assert await seen_by_upstream(kibitz, upstream, line) == [b"Authorization: Bearer sk-configured"]


async def test_the_configured_key_takes_the_place_of_what_it_replaces(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start(start_kibitz, upstream, keys=KEYS)
    await ask(kibitz.port, request("GET", "/v1/models", b"A: 1", b"Authorization: Bearer " + KEY, b"B: 2"))
    assert [name for name, _ in upstream.received[0].fields] == [b"Host", b"A", b"Authorization", b"B"]


async def test_helicone_s_joined_authorization_goes_up_without_our_part(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start(start_kibitz, upstream, keys=KEYS)
    joined = b"Authorization: Bearer sk-theirs, Bearer " + KEY
    assert await seen_by_upstream(kibitz, upstream, joined) == [b"Authorization: Bearer sk-theirs"]


async def test_a_named_upstream_gets_its_own_key(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    groq = {"base_url": upstream.base_url, "api_key": "sk-groq"}
    kibitz = await start(start_kibitz, upstream, upstreams={"groq": groq})
    seen = await seen_by_upstream(kibitz, upstream, b"x-portkey-provider: groq", b"Authorization: Bearer DUMMY-KEY")
    assert seen == [b"Authorization: Bearer sk-groq"]


def misplaced(key: bytes) -> list[bytes]:
    """Lines of fields that are not for one of Kibitz's keys, with one."""
    return [
        *(b"Cookie: " + key, b"Cookie: a=1; session=%b; b=2" % key, b'Cookie: s="%b"' % key),
        b"Cookie: s=" + b"".join(b"%%%02x" % byte for byte in key),
        *(b"Proxy-Authorization: Bearer " + key, b"Proxy-Authorization: Basic " + b64encode(b"me:" + key)),
        *(b"X-Made-Up: " + key, b"X-Made-Up: key=%b,b" % key, b"X-Comment: a (%b) b" % key, b"traceparent: " + key),
        *(b'X-JSON: {"key":"%b"}' % key, b"Referer: https://a.example/%b/?b" % key, b"Forwarded: for=me:%b" % key),
        *(b"X-Auth-Token: token %b" % key, b"Idempotency-Key:%b" % key, b"X-Long: %b %b" % (b"x" * 500, key)),
    ]


OF_OTHERS = [
    b"Accept: application/json",
    b"User-Agent: OpenAI/Python 2.30.0",
    b"Cookie: a=1; session=kbz_rightful; b=2",
    b"X-Made-Up: kbz_",
    b"Proxy-Authorization: Basic !!!",
    b"X-Percent: 100%",
]


@pytest.mark.parametrize("key", [KEY, MADE])
async def test_a_key_in_a_field_that_is_not_for_it_stays_behind_and_nothing_else_does(
    start_kibitz: StartKibitz, upstream: Upstream, key: bytes
) -> None:
    kibitz = await start(start_kibitz, upstream, keys=KEYS)
    theirs = b"Authorization: Bearer sk-theirs"
    for line in misplaced(key):
        await ask(kibitz.port, request("GET", "/v1/models", *OF_OTHERS, line, BY_PORTKEY, theirs))
        lines = [b"%b: %b" % field for field in upstream.received[-1].fields[1:]]
        assert lines == [*OF_OTHERS, theirs], line
        await ask(kibitz.port, request("GET", "/v1/models", line, b"Authorization: Bearer " + key))
        assert upstream.received[-1].fields[1:] == [(b"Authorization", b"Bearer sk-configured")], line


@pytest.mark.parametrize("name", [name.encode() for name in CREDENTIALS])
@pytest.mark.parametrize(
    "value",
    [
        b"Basic " + b64encode(b"me:" + KEY),
        b"basic\t" + b64encode(b"me:" + MADE).rstrip(b"="),
        b"Basic " + urlsafe_b64encode(b"??>>:" + KEY),
        b"Token " + KEY,
        b"Bearer" + MADE,
        b"Bearer sk-x:" + MADE,
    ],
)
async def test_a_key_in_a_credential_of_another_kind_stays_behind_too(
    start_kibitz: StartKibitz, upstream: Upstream, name: bytes, value: bytes
) -> None:
    kibitz = await start(start_kibitz, upstream, keys=KEYS)
    seen = await seen_by_upstream(kibitz, upstream, BY_HELICONE, b"%b: %b" % (name, value))
    assert seen == [b"Authorization: Bearer sk-configured"]


async def test_a_key_of_the_server_s_is_not_sent_with_what_is_to_be_sent_back(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    kibitz = await start(start_kibitz, upstream)
    await ask(kibitz.port, request("TRACE", "/v1/models", b"X-A: 1"))
    assert upstream.received[0].fields[1:] == [(b"X-A", b"1")]


async def test_a_key_in_a_websocket_s_protocols_stays_behind(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start(start_kibitz, upstream, keys=KEYS)
    protocols = b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key." + MADE
    await ask(kibitz.port, request("GET", "/v1/realtime", BY_HELICONE, protocols))
    assert upstream.received[0].fields[1:] == [(b"Authorization", b"Bearer sk-configured")]


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        *((f"/v1/models?{pair}", ()) for pair in ("key=AIza", "a=1&Api-Key=theirs", "access_token=%20t", "k%65y=AIza")),
        (f"/v1/models?key=AIza&b={MADE.decode()}", ()),
        ("/v1/models?key=AIza", (b"Authorization: Bearer OPENAI_API_KEY",)),
        ("/v1/models?key=AIza", (b"Authorization: Bearer " + KEY,)),
        ("/v1/realtime", (b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-theirs, b",)),
        (
            "/v1/realtime",
            (
                b"Sec-WebSocket-Protocol: realtime",
                b"sec-websocket-protocol: openai-insecure-api-key.sk-",
            ),
        ),
    ],
)
async def test_the_configured_key_is_not_added_to_one_that_the_client_brought_elsewhere(
    start_kibitz: StartKibitz, upstream: Upstream, target: str, lines: tuple[bytes, ...]
) -> None:
    kibitz = await start(start_kibitz, upstream, keys=KEYS)
    await ask(kibitz.port, request("GET", target, BY_HELICONE, *lines))
    assert [value for name, value in upstream.received[0].fields if name == b"Authorization"] == []


@pytest.mark.parametrize(
    ("target", "line"),
    [
        *((f"/v1/models?{pair}", b"A: 1") for pair in ("key=", "monkey=1", "key", f"key={KEY.decode()}", "a=key")),
        *((f"/v1/models?key={text}", b"A: 1") for text in ("OPENAI_API_KEY", "DUMMY-KEY")),
        ("/v1/realtime", b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key., openai-beta.realtime-v1"),
        ("/v1/realtime", b"Sec-WebSocket-Protocol: openai-insecure-api-key." + MADE),
    ],
)
async def test_the_configured_key_is_added_where_what_came_is_no_key_of_the_client_s(
    start_kibitz: StartKibitz, upstream: Upstream, target: str, line: bytes
) -> None:
    kibitz = await start(start_kibitz, upstream, keys=KEYS)
    await ask(kibitz.port, request("GET", target, BY_HELICONE, line))
    assert (b"Authorization", b"Bearer sk-configured") in upstream.received[0].fields


async def test_a_key_among_a_websocket_s_protocols_is_not_kept_where_the_call_repeats_it(
    kibitz: Running, tmp_path: Path
) -> None:
    lines = (b"Sec-WebSocket-Protocol: a, openai-insecure-api-key." + LONG, b"Helicone-Request-Id: r")
    await ask(kibitz.port, request("POST", "/v1/a", *lines, body=LONG))
    assert (await kibitz.row("r"))["request_body"] == "[redacted]"


@pytest.mark.parametrize(
    ("query", "left"),
    [
        *(("?key={0}", ""), ("?{0}", ""), ("?a=1&key={0}&b=%2F", "?a=1&b=%2F"), ("?a=1&a=2&{0}=1", "?a=1&a=2")),
        *(("?token=Bearer%20{0}&a", "?a"), ("?a=;key={0}&b", "?b"), ("?key=%6b{1}&a=1", "?a=1")),
        *(("?key=sk-theirs&a=%20", "?key=sk-theirs&a=%20"), ("?", "?"), ("?a=kbz_&&b", "?a=kbz_&&b"), ("", "")),
    ],
)
@pytest.mark.parametrize("key", [KEY, MADE])
async def test_a_key_in_the_query_stays_behind_and_out_of_the_log(
    start_kibitz: StartKibitz, upstream: Upstream, query: str, left: str, key: bytes
) -> None:
    kibitz = await start_kibitz(keys=KEYS)
    target = "/v1/models" + query.format(key.decode(), key.decode()[1:])
    await ask(kibitz.port, request("GET", target, BY_HELICONE, b"Helicone-Request-Id: r"))
    assert upstream.received[0].target == b"/v1/models" + left.encode()
    async with kibitz.client.get(f"{kibitz.base_url}/request/r", headers={"x-portkey-api-key": KEY.decode()}) as row:
        assert key.decode()[1:] not in await row.text()


async def test_a_key_in_the_query_lets_nobody_in(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(keys=KEYS)
    answer = await ask(kibitz.port, request("GET", f"/v1/models?key={KEY.decode()}"))
    assert (answer.request_line, upstream.received) == (b"HTTP/1.1 401 Unauthorized", [])


async def test_with_no_key_configured_every_field_passes(kibitz: Running, upstream: Upstream) -> None:
    for line in misplaced(MADE):
        await ask(kibitz.port, request("GET", f"/v1/models?key={MADE.decode()}", line))
        name, _, value = line.partition(b":")
        assert (name, value.strip()) in upstream.received[-1].fields
        assert upstream.received[-1].target.endswith(MADE)


async def test_no_key_of_kibitz_s_reaches_the_upstream(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(keys=KEYS)
    everywhere = [b"%b: Bearer %b" % (name.encode(), KEY) for name in CREDENTIALS]
    await ask(kibitz.port, request("GET", "/v1/models", BY_HELICONE, BY_PORTKEY, *everywhere, *everywhere))
    assert KEY not in b"".join(name + value for name, value in upstream.received[0].fields)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
async def test_the_upstream_s_key_may_stand_in_a_file(
    start_kibitz: StartKibitz, upstream: Upstream, tmp_path: Path, end: str
) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"sk-of-the-file" + end.encode())
    kibitz = await start_kibitz(upstream={"base_url": upstream.base_url, "api_key_file": file})
    file.unlink()  # it is read at the start only
    assert await seen_by_upstream(kibitz, upstream) == [b"Authorization: Bearer sk-of-the-file"]


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
    "field", [b"Authorization: Bearer ", b"x-api-key: ", b"Helicone-Auth: Bearer ", b"Authorization: "]
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
