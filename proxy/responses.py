"""Heads of responses: those of proxied answers, and whole answers of Kibitz's own."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import HttpVersion, HttpVersion10, HttpVersion11

from proxy.client_http import RelayedResponse, Request
from proxy.dialects import JSON
from proxy.headers import serialize
from proxy.identity import Identity

__all__ = ["empty_response", "id_fields", "own_response", "response_head"]

_HTTP_1_1: Final = (1, 1)
# Characters of a reason. What an upstream makes up must not fill the memory.
_LONGEST_KEPT: Final = 64


def response_head(
    request: Request,
    status: int,
    reason: str,
    fields: Sequence[tuple[bytes, bytes]],
    *,
    chunked: bool,
    keep_alive: bool,
) -> bytes:
    """A response's head up to and with the empty line, in the client's version of HTTP/1."""
    if request.cross_origin is not None:
        fields = request.cross_origin.settle(fields)
    status_line = _kept_status_line if len(reason) <= _LONGEST_KEPT else _status_line
    lines = [status_line(request.version, status, reason), serialize(fields)]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if not keep_alive:
        lines.append(b"Connection: close\r\n")
    elif request.version < _HTTP_1_1:
        lines.append(b"Connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def _status_line(version: HttpVersion, status: int, reason: str) -> bytes:
    """With the reason as it came, but for a NUL, which none may hold (RFC 9112 section 4)."""
    version = min(max(version, HttpVersion10), HttpVersion11)
    text = reason.encode("utf-8", "surrogateescape").replace(b"\0", b" ")
    return b"HTTP/%d.%d %d %b\r\n" % (version.major, version.minor, status, text)


_kept_status_line = lru_cache(maxsize=256)(_status_line)


def id_fields(identity: Identity, status: bytes) -> list[tuple[bytes, bytes]]:
    """The fields by which a client learns a call's ids (contract section 4), with Helicone's word for how it went."""
    return [
        (b"Helicone-Id", identity.request_id_header),
        (b"Helicone-Request-Id", identity.request_id_header),
        (b"Helicone-Status", status),
        (b"x-portkey-trace-id", identity.trace_id_header),
    ]


def own_response(
    request: Request, status: int, body: Any, fields: Sequence[tuple[bytes, bytes]], media_type: str = JSON
) -> RelayedResponse:
    """An answer of Kibitz's own, JSON or text, with ``fields`` beside those that every such answer has."""
    content = _content(body, media_type)
    keep_alive = request.keep_alive
    own = [
        (b"Content-Type", media_type.encode("ascii")),
        (b"Content-Length", b"%d" % len(content)),
        (b"Date", formatdate(usegmt=True).encode("ascii")),
        *fields,
    ]
    head = response_head(request, status, HTTPStatus(status).phrase, own, chunked=False, keep_alive=keep_alive)
    content = b"" if request.method == "HEAD" else content
    return RelayedResponse(request, status, head, chunked=False, keep_alive=keep_alive, body=content)


def _content(body: Any, media_type: str) -> bytes:
    if isinstance(body, bytes):
        return body
    return orjson.dumps(body) if media_type == JSON else str(body).encode("utf-8")


def empty_response(request: Request, status: int, fields: Sequence[tuple[bytes, bytes]]) -> RelayedResponse:
    """An answer of Kibitz's own that has no body by its status (RFC 9110 section 8.6)."""
    keep_alive = request.keep_alive
    own = [(b"Date", formatdate(usegmt=True).encode("ascii")), *fields]
    head = response_head(request, status, HTTPStatus(status).phrase, own, chunked=False, keep_alive=keep_alive)
    return RelayedResponse(request, status, head, chunked=False, keep_alive=keep_alive)
