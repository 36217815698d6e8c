"""Contract sections 3 and 8: which credentials reach the upstream."""

from __future__ import annotations

import hashlib
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import ask, request
from tests.upstream import Upstream

KEY = b"kbz_right"
# As `kibitz keys` makes them.
MADE = b"kbz_SUfJE3pg1iFsId3deK3w7eZGld6oabTKYMChoPvsXuY"
KEYS = [{"name": "k", "organisation": "o", "sha256": hashlib.sha256(key).hexdigest()} for key in (KEY, MADE)]
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


def inside_another(key: bytes) -> list[bytes]:
    """Lines with a key in what looks like one from its beginning on, or in a longer word."""
    return [b"X-A: kbz_" + key, b"X-A: kbz_1234" + key, b"X-A: %bkbz_%b" % (key[:20], key), b"X-%b: 1" % key]


def misplaced(key: bytes) -> list[bytes]:
    """Lines of fields that are not for one of Kibitz's keys, with one."""
    return [
        *(b"Cookie: " + key, b"Cookie: a=1; session=%b; b=2" % key, b'Cookie: s="%b"' % key),
        b"Cookie: s=" + b"".join(b"%%%02x" % byte for byte in key),
        *(b"Proxy-Authorization: Bearer " + key, b"Proxy-Authorization: Basic " + b64encode(b"me:" + key)),
        *(b"X-Made-Up: " + key, b"X-Made-Up: key=%b,b" % key, b"X-Comment: a (%b) b" % key, b"traceparent: " + key),
        *(b'X-JSON: {"key":"%b"}' % key, b"Referer: https://a.example/%b/?b" % key, b"Forwarded: for=me:%b" % key),
        *(b"%b: 1" % key, *(inside_another(key) if key == MADE else ())),
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


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        ("/v1/{0}/chat", ()),
        ("/v1/{0}", ()),
        ("/v1/chat/%6b{1}", ()),
        ("/v1/models/a:{0}?b=c", ()),
        ("/v1/chat", (b"Helicone-Target-URL: {2}/openai/v1/{0}",)),
    ],
)
@pytest.mark.parametrize("key", [KEY, MADE])
async def test_a_call_with_a_key_in_its_path_goes_nowhere(
    start_kibitz: StartKibitz, upstream: Upstream, target: str, lines: tuple[bytes, ...], key: bytes
) -> None:
    origin = upstream.base_url.removesuffix("/v1")
    kibitz = await start_kibitz(keys=KEYS, allowed_targets=[origin])
    parts = (key.decode(), key.decode()[1:], origin)
    named = [line.decode().format(*parts).encode() for line in lines]
    answer = await ask(kibitz.port, request("GET", target.format(*parts), BY_HELICONE, *named))
    assert answer.request_line == b"HTTP/1.1 400 Bad Request"
    assert b'"code":"misplaced_key"' in answer.body.replace(b" ", b"")
    assert key not in answer.body
    assert upstream.received == []


async def test_a_key_in_the_query_lets_nobody_in(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(keys=KEYS)
    answer = await ask(kibitz.port, request("GET", f"/v1/models?key={KEY.decode()}"))
    assert (answer.request_line, upstream.received) == (b"HTTP/1.1 401 Unauthorized", [])


async def test_with_no_key_configured_every_field_passes(kibitz: Running, upstream: Upstream) -> None:
    for line in misplaced(MADE):
        await ask(kibitz.port, request("POST", f"/v1/models?key={MADE.decode()}", line))
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
