"""The recorded traffic that lies beside the repository, if it does, and the server that plays it back."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

__all__ = ["TRAFFIC", "beside_the_repository", "recordings", "running_replay"]

TRAFFIC = Path(__file__).parents[3] / "shared" / "traffic"
beside_the_repository = pytest.mark.skipif(not TRAFFIC.is_dir(), reason="the recordings are not beside the repository")


@cache
def recordings() -> tuple[dict[str, Any], ...]:
    """Every recording, with ``body`` and ``request`` as bytes, and ``content_type``."""
    items = [item for file in sorted(TRAFFIC.glob("*.json")) for item in json.loads(file.read_text(encoding="utf-8"))]
    for item in items:
        item["request"] = _bytes(item, "request")
        item["body"] = _bytes(item, "response")
        fields = {name.lower(): value for name, value in item["response_headers"]}
        item["content_type"] = fields.get("content-type", "")
    return tuple(items)


def _bytes(item: dict[str, Any], side: str) -> bytes:
    body = item[f"{side}_body"]
    return base64.b64decode(body) if item[f"{side}_body_encoding"] == "base64" else body.encode()


@contextlib.asynccontextmanager
async def running_replay() -> AsyncIterator[int]:
    """The port of a server that plays the recordings, without the pauses between the events of a stream."""
    specification = importlib.util.spec_from_file_location("replay", TRAFFIC / "replay.py")
    assert specification is not None
    assert specification.loader is not None
    replay = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(replay)
    runner = web.AppRunner(replay.make_app(TRAFFIC, gap=0), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
