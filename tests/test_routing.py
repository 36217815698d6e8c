"""Contract section 2: where a call goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import ask, request
from tests.upstream import Received, Upstream, json_answer, running_upstream

TARGET_FIELDS = ["Helicone-Target-URL", "Helicone-OpenAI-Api-Base", "x-portkey-custom-host"]


@pytest.fixture
async def other() -> AsyncIterator[Upstream]:
    """A second upstream, that is never the default."""
    async with running_upstream() as running:
        yield running


async def ask_naming(kibitz: Running, target: str, path: str = "/v1/chat/completions", field: str = "") -> Received:
    """A call that names its upstream in a header field."""
    return await ask(kibitz.port, request("GET", path, f"{field or TARGET_FIELDS[0]}: {target}".encode("latin-1")))


def code_of(answer: Received) -> tuple[bytes, Any]:
    return answer.request_line.split(b" ")[1], orjson.loads(answer.body)["error"]["code"]


@pytest.mark.parametrize(
    ("base", "sent", "seen"),
    [
        ("/v1", "/v1/chat/completions", b"/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions", b"/v1/chat/completions"),
        ("", "/v1/chat/completions", b"/chat/completions"),
        ("", "/v1", b"/"),
        ("/openai/deployments/a%2Fb", "/v1/chat/completions?x", b"/openai/deployments/a%2Fb/chat/completions?x"),
    ],
)
async def test_a_call_goes_below_the_default_upstream_s_base(
    start_kibitz: StartKibitz, upstream: Upstream, base: str, sent: str, seen: bytes
) -> None:
    kibitz = await start_kibitz(upstream={"base_url": upstream.origin + base})
    await ask(kibitz.port, request("GET", sent))
    assert upstream.received[0].target == seen


@pytest.mark.parametrize(
    ("base", "sent", "seen"),
    [
        ("", "/anthropic/v1/messages?beta=true", b"/v1/messages?beta=true"),
        ("", "/anthropic//v1/messages", b"/v1/messages"),
        ("", "/anthropic", b"/"),
        ("/api", "/anthropic/v1%2Fmessages", b"/api/v1%2Fmessages"),
        ("/api", "/anthropic", b"/api"),
    ],
)
async def test_a_named_upstream_is_mounted_under_its_name(
    start_kibitz: StartKibitz, upstream: Upstream, other: Upstream, base: str, sent: str, seen: bytes
) -> None:
    kibitz = await start_kibitz(upstreams={"anthropic": {"base_url": other.origin + base}})
    await ask(kibitz.port, request("GET", sent, b"Helicone-Request-Id: mounted"))
    assert (upstream.received, [received.target for received in other.received]) == ([], [seen])
    assert other.received[0].values("Host") == [b"127.0.0.1:%d" % other.port]
    assert (await kibitz.row("mounted"))["provider"] == "anthropic"


@pytest.mark.parametrize("provider", ["groq", "@groq", "Groq", " groq "])
async def test_a_provider_that_is_configured_gets_the_call(
    start_kibitz: StartKibitz, upstream: Upstream, other: Upstream, provider: str
) -> None:
    kibitz = await start_kibitz(upstreams={"groq": {"base_url": f"{other.origin}/openai/v1"}})
    await ask(kibitz.port, request("GET", "/v1/models", f"x-portkey-provider: {provider}".encode()))
    assert (upstream.received, other.received[0].target) == ([], b"/openai/v1/models")


@pytest.mark.parametrize("provider", ["openai", "@my-slug", "", "groq/../x", "\xe9"])
async def test_a_provider_that_is_not_configured_means_the_default(
    start_kibitz: StartKibitz, upstream: Upstream, other: Upstream, provider: str
) -> None:
    kibitz = await start_kibitz(upstreams={"groq": {"base_url": f"{other.origin}/openai/v1"}})
    await ask(kibitz.port, request("GET", "/v1/models", f"x-portkey-provider: {provider}".encode("latin-1")))
    assert (upstream.received[0].target, other.received) == (b"/v1/models", [])


@pytest.mark.parametrize("field", [*TARGET_FIELDS, "helicone-TARGET-url"])
async def test_an_allowed_target_gets_the_call(
    start_kibitz: StartKibitz, upstream: Upstream, other: Upstream, field: str
) -> None:
    kibitz = await start_kibitz(allowed_targets=[other.base_url])
    answer = await ask_naming(kibitz, other.base_url, "/v1/models?a=%2F", field)
    assert answer.request_line == b"HTTP/1.1 200 OK"
    assert (upstream.received, other.received[0].target) == ([], b"/v1/models?a=%2F")
    assert other.received[0].fields == [(b"Host", b"127.0.0.1:%d" % other.port)]


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("", b"/v1/models"),  # an origin, Helicone's form: the path stays whole
        ("/", b"/v1/models"),
        ("/openai/v1", b"/openai/v1/models"),  # a base URL, Portkey's form
        ("/openai/v1/", b"/openai/v1/models"),
    ],
)
async def test_below_an_allowed_origin_every_base_is_allowed(
    start_kibitz: StartKibitz, other: Upstream, target: str, seen: bytes
) -> None:
    kibitz = await start_kibitz(allowed_targets=[other.origin])
    await ask_naming(kibitz, other.origin + target, "/v1/models")
    assert other.received[0].target == seen


async def test_a_target_s_address_is_compared_in_its_canonical_form(start_kibitz: StartKibitz, other: Upstream) -> None:
    kibitz = await start_kibitz(allowed_targets=[f"HTTP://127.0.0.1:{other.port}/v1/"])
    assert (await ask_naming(kibitz, other.base_url)).request_line == b"HTTP/1.1 200 OK"


async def test_a_target_never_gets_the_default_upstream_s_key(
    start_kibitz: StartKibitz, upstream: Upstream, other: Upstream
) -> None:
    key = {"base_url": upstream.base_url, "api_key": "sk-default"}
    kibitz = await start_kibitz(upstream=key, allowed_targets=[other.base_url])
    await ask_naming(kibitz, other.base_url)
    assert other.received[0].values("Authorization") == []


NOT_ALLOWED = [
    "http://127.0.0.1:{port}/v1beta",
    "http://127.0.0.1:{port}/v2",
    "http://127.0.0.1:{port}",
    "https://127.0.0.1:{port}/v1",
    "http://127.0.0.1:1/v1",
    "http://127.0.0.1/v1",
    "http://localhost:{port}/v1",
    "http://2130706433:{port}/v1",
    "http://127.1:{port}/v1",
    "http://[::1]:{port}/v1",
    "http://169.254.169.254/latest/meta-data",
    "http://0177.0.0.1:{port}/v1",
    "http://0x7f000001:{port}/v1",
    "http://0:{port}/v1",
    "http://[::ffff:127.0.0.1]:{port}/v1",
    "http://[::ffff:7f00:1]:{port}/v1",
    "http://127.0.0.1.nip.io:{port}/v1",
    "http://127.0.0.1:{port}/V1",
    "http://127.0.0.1:{port}/v10",
    "http://127.0.0.1:{port}//v1",
    "http://127.0.0.1:{port}/%76%31",
    "http://127.0.0.1:{port}/v1%2f",
    "http://127.0.0.1:{port}/v1;x",
]
MALFORMED = [
    "http://127.0.0.1:{port}/v1/../admin",
    "http://127.0.0.1:{port}/v1/%2e%2E/admin",
    "http://127.0.0.1:{port}/v1/..",
    "http://127.0.0.1:{port}/v1/..\\admin",
    "http://127.0.0.1:{port}/v1?x=1",
    "http://127.0.0.1:{port}/v1#x",
    "http://127.0.0.1:{port}@127.0.0.1:1/v1",
    "http://user:password@127.0.0.1:{port}/v1",
    "http://127.0.0.1:{port}0000/v1",
    "http:/127.0.0.1:{port}/v1",
    "//127.0.0.1:{port}/v1",
    "127.0.0.1:{port}/v1",
    "file:///etc/passwd",
    "http://[::1/v1",
    "http://",
    "\xe9\xff",
    "http://127.0.0.1\t:{port}/v1",
    "http://127.0.0.1:{port}/v1, http://127.0.0.1:{port}/v1",
    "http://127.0.0.1:{port}/v1 http://169.254.169.254/v1",
    "http://127.0.0.1:{port}/v1/..;/admin",
    "http://127.0.0.1:{port}/v1/..;a=b/admin",
    "http://127.0.0.1:{port}/v1/..%2fadmin",
    "http://127.0.0.1:{port}/v1%2f..%2fadmin",
    "http://127.0.0.1:{port}/v1/%2e%2e%5cadmin",
    "http://127.0.0.1:{port}\\@169.254.169.254/v1",
    "http://169.254.169.254\\@127.0.0.1:{port}/v1",
    "http://169.254.169.254#@127.0.0.1:{port}/v1",
    "http://127%2e0.0.1:{port}/v1",
    "http://%3127.0.0.1:{port}/v1",
    "http://127.0.0.1%00.example:{port}/v1",
    "http://127.0.0.1%2f@169.254.169.254:{port}/v1",
    "http://127。0。0。1:{port}/v1",
    "http://①27.0.0.1:{port}/v1",
    "http://[::1%25lo]:{port}/v1",
    "http://[::1%lo]:{port}/v1",
    "http://[127.0.0.1]:{port}/v1",
    "http://127.0.0.1..:{port}/v1",
    "http://127.0.0.1:+{port}/v1",
    "http://127.0.0.1:{port}:{port}/v1",
    "http://127.0.0.1:{port}/v1%0d%0aX:%20y/../..",
    "http:///127.0.0.1:{port}/v1",
    "http:\\\\127.0.0.1:{port}/v1",
    "javascript://127.0.0.1:{port}/v1",
    "gopher://127.0.0.1:{port}/v1",
    "ws://127.0.0.1:{port}/v1",
    "unix:///run/docker.sock",
]


@pytest.mark.parametrize("target", NOT_ALLOWED + MALFORMED)
async def test_any_other_target_is_refused(start_kibitz: StartKibitz, upstream: Upstream, target: str) -> None:
    kibitz = await start_kibitz(allowed_targets=[upstream.base_url])
    named = target.format(port=upstream.port).encode("utf-8")
    for field in TARGET_FIELDS:
        answer = await ask(kibitz.port, request("GET", "/v1/models", field.encode() + b": " + named))
        assert code_of(answer) == (b"403", "target_not_allowed")
    assert upstream.connections == 0


@pytest.mark.parametrize(
    "target",
    [
        *("http://127.0.0.1.:{port}/v1", "HTTP://127.0.0.1:{port}/v1/", " http://127.0.0.1:{port}/v1\t"),
        "http://127.0.0.1:{port}/v1//",
    ],
)
async def test_another_spelling_of_an_allowed_target_is_connected_to_by_its_one_spelling(
    start_kibitz: StartKibitz, other: Upstream, target: str
) -> None:
    kibitz = await start_kibitz(allowed_targets=[other.base_url])
    await ask_naming(kibitz, target.format(port=other.port), "/v1/models")
    assert (other.received[0].target, other.received[0].values("Host")) == (
        b"/v1/models",
        [b"127.0.0.1:%d" % other.port],
    )


@pytest.mark.parametrize("lines", [b"%b: %b\r\n %b", b"%b: %b\n%b", b"%b: %b\r%b", b"%b : %b%b"])
async def test_a_target_over_several_lines_is_no_target(
    start_kibitz: StartKibitz, upstream: Upstream, lines: bytes
) -> None:
    kibitz = await start_kibitz(allowed_targets=[upstream.base_url])
    line = lines % (b"Helicone-Target-URL", upstream.base_url.encode(), b"@169.254.169.254/")
    answer = await ask(kibitz.port, request("GET", "/v1/models", line))
    assert answer.request_line.split(b" ")[1] in (b"400", b"403")
    assert upstream.connections == 0


@pytest.mark.parametrize(
    "status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
async def test_a_redirect_goes_to_the_client_and_is_not_followed(
    kibitz: Running, upstream: Upstream, other: Upstream, status: str
) -> None:
    location = f"{other.base_url}/models"
    upstream.answer = json_answer(b"{}", status=status, fields=f"Location: {location}\r\n".encode())
    answer = await ask(kibitz.port, request("GET", "/v1/models", b"Helicone-Request-Id: moved"))
    assert answer.request_line == f"HTTP/1.1 {status}".encode()
    assert answer.values("Location") == [location.encode()]
    assert (len(upstream.received), other.connections) == (1, 0)
    assert (await kibitz.row("moved"))["response_status"] == int(status[:3])


@pytest.mark.parametrize(
    "target", ["http://localhost:1/v1/models", "HTTP://127.0.0.1/v1/models", "http://[::1]/v1/models"]
)
async def test_the_authority_of_an_absolute_target_chooses_no_upstream(
    kibitz: Running, upstream: Upstream, target: str
) -> None:
    assert (await ask(kibitz.port, request("GET", target))).request_line == b"HTTP/1.1 200 OK"
    assert (upstream.received[0].target, upstream.received[0].values("Host")) == (
        b"/v1/models",
        [b"127.0.0.1:%d" % upstream.port],
    )


async def test_no_target_is_allowed_unless_configured(kibitz: Running, upstream: Upstream) -> None:
    for field in TARGET_FIELDS:
        assert code_of(await ask_naming(kibitz, upstream.base_url, field=field)) == (b"403", "target_not_allowed")
    assert upstream.connections == 0


async def test_an_allowed_target_does_not_vouch_for_another(start_kibitz: StartKibitz, other: Upstream) -> None:
    kibitz = await start_kibitz(allowed_targets=[other.base_url])
    fields = [f"{field}: {other.base_url}".encode() for field in TARGET_FIELDS[1:]]
    evil = b"Helicone-Target-URL: http://169.254.169.254/v1"
    for lines in ([evil, *fields], [*fields, evil]):
        assert code_of(await ask(kibitz.port, request("GET", "/v1/models", *lines))) == (b"403", "target_not_allowed")
    assert other.connections == 0


@pytest.mark.parametrize("path", ["/", "/nowhere", "/nowhere/v1/models", "/V1/models", "/v1%2Fmodels", "/..", "*"])
async def test_a_path_that_nothing_is_mounted_on_is_an_unknown_route(
    kibitz: Running, upstream: Upstream, path: str
) -> None:
    method = "OPTIONS" if path == "*" else "GET"
    assert code_of(await ask(kibitz.port, request(method, path))) == (b"404", "unknown_route")
    assert upstream.connections == 0
