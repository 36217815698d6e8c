"""What web pages can do to Kibitz, and with it: DNS rebinding, blind requests, and CORS as a browser goes about it."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import orjson
import pytest

from proxy.dialects import Dialect
from proxy.routes import Route
from tests.browser import Blocked, Page
from tests.conftest import Launcher, Running, StartKibitz
from tests.raw_client import ask, connect, one_value, request
from tests.upstream import Received, Upstream, chat_answer, chat_events, sse_answer
from tests.websocket_bytes import forever, handshake, open_websocket, speaking

APP: Final = Page("https://app.example")
EVIL: Final = Page("https://evil.example")
FEEDBACK_ONLY: Final = "kbz_in-the-browser"
PROXY_ONLY: Final = "kbz_for-calls"
KEYS: Final = [
    {
        "name": scope,
        "organisation": "acme",
        "sha256": hashlib.sha256(secret.encode()).hexdigest(),
        "scopes": [scope],
    }
    for secret, scope in ((FEEDBACK_ONLY, "feedback"), (PROXY_ONLY, "proxy"))
]
IDS: Final = {"helicone-id", "helicone-request-id", "helicone-status", "x-portkey-trace-id"}
CHAT: Final = b'{"model": "gpt-4o-mini", "messages": []}'
OF_UPSTREAM: Final = (
    b"Access-Control-Allow-Origin: *\r\naccess-control-expose-headers: X-Request-Id\r\n"
    b"Access-Control-Allow-Credentials: true\r\nX-Request-Id: req_1\r\n"
)


def told(answer: Received, code: str) -> Any:
    """A refusal's status and code, in OpenAI's shape."""
    assert (answer.request_line.split(b" ")[1], orjson.loads(answer.body)["error"]["code"]) == (b"403", code)
    return answer


def named_host(host: str, method: str, path: str, *lines: str, body: bytes = b"") -> bytes:
    """A request to a host of that name."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, *([f"Content-Length: {len(body)}"] if body else [])]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def access_control(answer: Received) -> list[tuple[bytes, bytes]]:
    return [field for field in answer.fields if field[0].lower().startswith(b"access-control-")]


# --- A server without keys -------------------------------------------------------------------------------------------


def _told_in_its_dialect(route: Route, body: Any) -> bool:
    match route.dialect:
        case Dialect.HELICONE:
            return set(body) == {"data", "error"} and isinstance(body["error"], str)
        case Dialect.PORTKEY:
            return bool(body["error"]["code"] == "host_not_allowed" and body["status"] == "failure")
        case _:
            return bool(body["error"]["code"] == "host_not_allowed")


async def test_no_route_answers_to_a_foreign_name_but_those_for_probes(kibitz: Running) -> None:
    for route in kibitz.kibitz.router.routes:
        path = re.sub(r"\{\w+\}", "x", route.path)
        answer = await ask(kibitz.port, named_host("evil.example", route.method, path))
        status = answer.request_line.split(b" ")[1]
        if route.scope is None:
            assert (path, status) in (("/healthz", b"200"), ("/readyz", b"200"))
        else:
            assert status == b"403", path
            assert _told_in_its_dialect(route, orjson.loads(answer.body))
            assert one_value(answer, "x-portkey-trace-id")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
async def test_a_call_by_a_foreign_name_goes_nowhere(kibitz: Running, upstream: Upstream, method: str) -> None:
    told(await ask(kibitz.port, named_host("evil.example", method, "/v1/models")), "host_not_allowed")
    told(await ask(kibitz.port, named_host("localhost", method, "http://evil.example/v1/models")), "host_not_allowed")
    told(await ask(kibitz.port, named_host("evil.example", method, "/nowhere")), "host_not_allowed")
    assert upstream.connections == 0
    async with kibitz.client.get(f"{kibitz.url}/metrics") as response:
        assert 'kibitz_calls_refused_total{code="host_not_allowed"} 3.0' in await response.text()


async def test_names_that_are_configured_are_answered(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(allowed_hosts=["Host.Docker.Internal"])
    answer = await ask(kibitz.port, named_host("host.docker.internal:8787", "GET", "/v1/models"))
    assert answer.request_line == b"HTTP/1.1 200 OK"
    told(await ask(kibitz.port, named_host("evil.example", "GET", "/v1/models")), "host_not_allowed")


async def test_a_client_of_http_1_0_need_not_name_the_host(kibitz: Running) -> None:
    answer = await ask(kibitz.port, b"GET /v1/models HTTP/1.0\r\n\r\n")
    assert answer.request_line == b"HTTP/1.0 200 OK"


async def test_with_keys_the_key_decides_and_no_name_or_page_does(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(keys=KEYS)
    lines = ("Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
    key = f"Authorization: Bearer {PROXY_ONLY}"
    answers = [
        await ask(kibitz.port, named_host("kibitz.example", "GET", "/v1/models", *lines, *keys))
        for keys in ((key,), ())
    ]
    assert [answer.request_line.split(b" ")[1] for answer in answers] == [b"200", b"401"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/request/r/feedback", b'{"rating": false}'),
        ("POST", "/v1/feedback", b'{"trace_id": "r", "value": -10}'),
        ("POST", "/v1/chat/completions", CHAT),
        ("GET", "/v1/models", b""),
    ],
)
async def test_what_a_page_sends_blindly_changes_nothing_and_costs_nothing(
    kibitz: Running, upstream: Upstream, method: str, path: str, body: bytes
) -> None:
    await kibitz.chat(Helicone_Request_Id="r")
    answer = await EVIL.send_blindly(kibitz.port, method, path, body)
    assert answer.request_line == b"HTTP/1.1 403 Forbidden"
    assert access_control(answer) == []
    assert len(upstream.received) == 1
    assert (await kibitz.row("r"))["feedback"]["items"] == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_an_image_s_address_is_no_call(kibitz: Running, upstream: Upstream, site: str) -> None:
    lines = (f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image")
    told(await ask(kibitz.port, named_host("localhost", "GET", "/v1/models", *lines)), "origin_not_allowed")
    assert upstream.connections == 0


async def test_a_page_can_not_open_a_websocket(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(cors_origins=[APP.origin])
    upstream.script = speaking(forever, upstream)
    told(await ask(kibitz.port, handshake(b"Origin: https://evil.example")), "origin_not_allowed")
    assert upstream.connections == 0
    async with connect(kibitz.port) as client:
        answer = await open_websocket(client, b"Origin: https://app.example")
    assert answer.request_line == b"HTTP/1.1 101 Switching Protocols"
    assert upstream.received[0].values("Origin") == [b"https://app.example"]


async def test_a_configured_page_may_use_a_server_without_keys(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(cors_origins=[APP.origin])
    json = {"Content-Type": "application/json"}
    called = await APP.fetch(kibitz.port, "POST", "/v1/chat/completions", json, CHAT)
    rated = await APP.fetch(
        kibitz.port, "POST", f"/v1/request/{called.fields['helicone-id']}/feedback", json, b'{"rating": true}'
    )
    assert (called.status, rated.status) == (200, 200)
    with pytest.raises(Blocked):
        await EVIL.fetch(kibitz.port, "POST", "/v1/chat/completions", json, CHAT)


# --- CORS ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def for_pages(start_kibitz: StartKibitz) -> Running:
    """A Kibitz with keys that pages of the app may use."""
    return await start_kibitz(keys=KEYS, cors_origins=[APP.origin, "http://localhost:3000"])


async def test_a_page_calls_learns_the_ids_and_rates(for_pages: Running) -> None:
    fields = {"Authorization": f"Bearer {PROXY_ONLY}", "Content-Type": "application/json", "x-stainless-lang": "js"}
    called = await APP.fetch(for_pages.port, "POST", "/v1/chat/completions", fields, CHAT)
    assert called.fields.keys() >= IDS
    by_helicone = {"Helicone-Auth": f"Bearer {FEEDBACK_ONLY}", "Content-Type": "application/json"}
    path = f"/v1/request/{called.fields['helicone-id']}/feedback"
    rated = await APP.fetch(for_pages.port, "POST", path, by_helicone, b'{"rating": true}')
    by_portkey = {"x-portkey-api-key": FEEDBACK_ONLY, "Content-Type": "application/json"}
    value = orjson.dumps({"trace_id": called.fields["x-portkey-trace-id"], "value": 5})
    valued = await APP.fetch(for_pages.port, "POST", "/v1/feedback", by_portkey, value)
    (feedback_id,) = orjson.loads(valued.body)["feedback_ids"]
    changed = await APP.fetch(for_pages.port, "PUT", f"/v1/feedback/{feedback_id}", by_portkey, b'{"value": 4}')
    deleted = await APP.fetch(for_pages.port, "DELETE", f"/v1/feedback/{feedback_id}", by_portkey)
    assert [answer.status for answer in (called, rated, valued, changed, deleted)] == [200] * 5
    assert rated.fields["x-portkey-trace-id"] == called.fields["x-portkey-trace-id"]


async def test_a_stream_is_readable_too(for_pages: Running, upstream: Upstream) -> None:
    events = chat_events("Hel", "lo")
    upstream.answer = sse_answer(*events)
    fields = {"Authorization": f"Bearer {PROXY_ONLY}", "Content-Type": "application/json"}
    answer = await APP.fetch(for_pages.port, "POST", "/v1/chat/completions", fields, CHAT)
    assert (answer.body, answer.fields.keys() >= IDS) == (b"".join(events), True)


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("POST", "/v1/chat/completions", "kbz_wrong", 401),
        ("POST", "/v1/chat/completions", FEEDBACK_ONLY, 403),
        ("POST", "/v1/request/r/feedback", "kbz_wrong", 401),
        ("POST", "/v1/request/r/feedback", PROXY_ONLY, 403),
        ("POST", "/v1/request/r/feedback", FEEDBACK_ONLY, 422),
        ("PATCH", "/v1/request/r/feedback", FEEDBACK_ONLY, 405),
        ("DELETE", "/v1/feedback/nobody", FEEDBACK_ONLY, 404),
        ("POST", "/nowhere", PROXY_ONLY, 404),
        ("GET", "/gone/models", PROXY_ONLY, 502),
    ],
)
async def test_failures_are_readable(start_kibitz: StartKibitz, method: str, path: str, key: str, status: int) -> None:
    nobody = {"base_url": "http://127.0.0.1:1/v1"}
    kibitz = await start_kibitz(keys=KEYS, cors_origins=[APP.origin], upstreams={"gone": nobody})
    fields = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = await APP.fetch(kibitz.port, method, path, fields, b"{}" if method == "POST" else b"")
    assert answer.status == status
    assert answer.fields["x-portkey-trace-id"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback", "/v1/request/r/feedback", "/healthz"])
async def test_a_preflight_is_answered_here_without_a_key(for_pages: Running, upstream: Upstream, path: str) -> None:
    lines = (
        b"Origin: http://localhost:3000",
        b"Access-Control-Request-Method: PUT",
        b"Access-Control-Request-Headers: authorization,x-odd",
    )
    async with connect(for_pages.port) as connection:
        for _ in range(2):  # the connection goes on
            await connection.send(request("OPTIONS", path, *lines))
            answer = await connection.read_request()
            assert answer.request_line == b"HTTP/1.1 204 No Content"
            assert [field for field in answer.fields if field[0] != b"Date"] == [
                (b"Access-Control-Allow-Origin", b"http://localhost:3000"),
                (b"Access-Control-Allow-Methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
                (b"Access-Control-Max-Age", b"7200"),
                (b"Vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
                (b"Access-Control-Allow-Headers", b"authorization,x-odd"),
            ]
    assert upstream.connections == 0


async def test_an_options_request_that_is_no_preflight_goes_where_it_went(
    for_pages: Running, upstream: Upstream
) -> None:
    lines = (b"Origin: https://app.example", b"Authorization: Bearer " + PROXY_ONLY.encode())
    assert (await ask(for_pages.port, request("OPTIONS", "/v1/models", *lines))).request_line == b"HTTP/1.1 200 OK"
    assert upstream.received[0].method == b"OPTIONS"


async def test_what_an_upstream_exposes_stays_exposed(for_pages: Running, upstream: Upstream) -> None:
    upstream.answer = chat_answer(fields=OF_UPSTREAM)
    answer = await APP.fetch(for_pages.port, "GET", "/v1/models", {"Authorization": f"Bearer {PROXY_ONLY}"})
    assert answer.fields.keys() >= {"x-request-id", *IDS}


async def test_another_origin_gets_no_access_from_kibitz_nor_from_the_upstream(
    for_pages: Running, upstream: Upstream
) -> None:
    upstream.answer = chat_answer(fields=OF_UPSTREAM)
    with pytest.raises(Blocked) as blocked:
        await EVIL.fetch(for_pages.port, "GET", "/v1/models", {"Authorization": f"Bearer {PROXY_ONLY}"})
    assert (blocked.value.answer.request_line, upstream.connections) == (b"HTTP/1.1 401 Unauthorized", 0)
    lines = (b"Origin: https://evil.example", b"Authorization: Bearer " + PROXY_ONLY.encode())
    answer = await ask(for_pages.port, request("GET", "/v1/models", *lines))
    assert (access_control(answer), answer.values("Vary")) == ([], [b"Origin"])
    assert one_value(answer, "X-Request-Id") == b"req_1"


async def test_who_is_no_page_gets_the_upstreams_answer_as_it_came(for_pages: Running, upstream: Upstream) -> None:
    upstream.answer = chat_answer(fields=OF_UPSTREAM)
    key = b"Authorization: Bearer " + PROXY_ONLY.encode()
    answer = await ask(for_pages.port, request("GET", "/v1/models", key))
    assert access_control(answer) == [
        (b"Access-Control-Allow-Origin", b"*"),
        (b"access-control-expose-headers", b"X-Request-Id"),
        (b"Access-Control-Allow-Credentials", b"true"),
    ]
    assert answer.values("Vary") == []


async def test_without_origins_nothing_is_added_and_a_preflight_is_the_upstreams(
    kibitz: Running, upstream: Upstream
) -> None:
    upstream.answer = chat_answer(fields=OF_UPSTREAM)
    lines = (b"Origin: http://localhost", b"Access-Control-Request-Method: POST")
    for method in ("OPTIONS", "GET"):
        answer = await ask(kibitz.port, request(method, "/v1/models", *lines))
        assert len(access_control(answer)) == 3
        assert answer.values("Vary") == []
    assert [received.method for received in upstream.received] == [b"OPTIONS", b"GET"]
    own = await ask(kibitz.port, request("OPTIONS", "/v1/feedback", *lines))
    assert (own.request_line, access_control(own)) == (b"HTTP/1.1 405 Method Not Allowed", [])


async def test_every_page_may_with_a_key_where_that_is_configured(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(keys=KEYS, cors_origins=["*"])
    fields = {"Helicone-Auth": f"Bearer {FEEDBACK_ONLY}", "Content-Type": "application/json"}
    value = b'{"trace_id": "t", "value": 1}'
    for origin in ("https://any.example", "null", "chrome-extension://abc"):
        assert (await Page(origin).fetch(kibitz.port, "POST", "/v1/feedback", fields, value)).status == 200
        assert (await Page(origin).fetch(kibitz.port, "POST", "/v1/feedback", {}, value)).status == 401


# --- A process -------------------------------------------------------------------------------------------------------


async def test_beyond_loopback_any_name_will_do_unless_some_are_told_and_pages_stay_out(launch: Launcher) -> None:
    open_to_all = ("--host", "0.0.0.0", "--insecure-open")
    process = launch(*open_to_all, "--database", "one.db")
    by_name = named_host("kibitz.example", "GET", "/v1/request/x")
    assert (await ask(process.port, by_name)).request_line == b"HTTP/1.1 404 Not Found"
    assert (await EVIL.send_blindly(process.port, "GET", "/v1/request/x")).request_line == b"HTTP/1.1 403 Forbidden"
    process = launch(*open_to_all, "--database", "two.db", KIBITZ_ALLOWED_HOSTS='["kibitz.example"]')
    assert (await ask(process.port, by_name)).request_line == b"HTTP/1.1 404 Not Found"
    by_another = named_host("evil.example", "GET", "/v1/request/x")
    assert (await ask(process.port, by_another)).request_line == b"HTTP/1.1 403 Forbidden"


async def test_loopback_is_guarded_in_every_worker(launch: Launcher) -> None:
    process = launch("--workers", "2", "--insecure-open")
    for _ in range(20):
        answer = await ask(process.port, named_host("evil.example", "GET", "/v1/models"))
        assert answer.request_line == b"HTTP/1.1 403 Forbidden"
