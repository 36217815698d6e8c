"""Bodies made to keep busy whoever searches them for keys: other calls are answered all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Launcher
from tests.raw_client import ask, request
from tests.upstream import Upstream

MiB = 2**20
PATH = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"text/event-stream", b"\\" * MiB),
        (b"application/json", b"[" + b"\\" * MiB),
        (b"text/plain", b"kbz_" * (MiB // 4 - 1) + b"!" * 8),
        (b"text/plain", b"kbz_" + b"\\" * (MiB - 6) + b"!" * 8),
        (b"text/event-stream", b"%" + b"25" * (MiB // 2)),
        (b"application/json", b'{"a": "' + b"%25" * (MiB // 4) + b'"}'),
    ],
)
async def test_no_body_holds_up_other_calls_for_long(
    upstream: Upstream, launch: Launcher, tmp_path: Path, content_type: bytes, body: bytes
) -> None:
    process = launch(KIBITZ_UPSTREAM__BASE_URL=upstream.base_url, KIBITZ_MAX_LOGGED_BODY=str(MiB))
    bearer = b"Authorization: Bearer sk-0123456789abcdef"
    fields = (bearer, b"Content-Type: " + content_type, b"Helicone-Request-Id: costly")
    for message in (
        request("POST", PATH, *fields, body=body),
        request("GET", "/v1/request/costly"),
        request("POST", PATH, bearer, body=b"{}"),
    ):
        assert (await ask(process.port, message)).request_line == b"HTTP/1.1 200 OK"
