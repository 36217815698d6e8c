"""Contract section 2: an upstream is reached over TLS, and only one whose certificate is good."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import trustme

from tests.conftest import Launcher, Process
from tests.raw_client import ask, request
from tests.upstream import CHAT_BODY, Upstream, chat_events, running_upstream, sse_answer

CALL = request("POST", "/v1/chat/completions", b"Helicone-Request-Id: secured", body=b'{"stream": true}')


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secured(authority: trustme.CA) -> AsyncIterator[Upstream]:
    """An upstream over TLS, with a certificate for localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with running_upstream(context) as upstream:
        yield upstream


async def start(launch: Launcher, upstream: Upstream, host: str, directory: Path, trusted: trustme.CA) -> Process:
    """A Kibitz that trusts an authority, and forwards to that host."""
    bundle = directory / "authorities.pem"
    trusted.cert_pem.write_to_path(bundle)
    flags = ("--upstream", f"https://{host}:{upstream.port}/v1", "--database", str(directory / "kibitz.db"))
    return await asyncio.to_thread(lambda: launch(*flags, SSL_CERT_FILE=str(bundle)))


async def test_calls_pass_over_tls_again_and_again(
    launch: Launcher, secured: Upstream, tmp_path: Path, authority: trustme.CA
) -> None:
    kibitz = await start(launch, secured, "localhost", tmp_path, authority)
    for _ in range(3):
        assert (await ask(kibitz.port, CALL)).body == CHAT_BODY
    assert secured.connections == 1
    events = chat_events("Hello", " there.")
    secured.answer = sse_answer(*events)
    assert (await ask(kibitz.port, CALL)).body == b"".join(events)
    assert secured.received[-1].values("Host") == [b"localhost:%d" % secured.port]


@pytest.mark.parametrize("fault", ["unknown-authority", "other-host"])
async def test_an_upstream_whose_certificate_is_not_good_gets_no_call(
    launch: Launcher, secured: Upstream, tmp_path: Path, authority: trustme.CA, fault: str
) -> None:
    host, trusted = ("localhost", trustme.CA()) if fault == "unknown-authority" else ("127.0.0.1", authority)
    kibitz = await start(launch, secured, host, tmp_path, trusted)
    answer = await ask(kibitz.port, CALL)
    assert answer.request_line.startswith(b"HTTP/1.1 502 ")
    told = orjson.loads(answer.body)["error"]
    assert told["code"] == "upstream_unreachable"
    assert "certificate" in told["message"].lower()
    assert secured.received == []
