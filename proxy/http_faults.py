"""Requests that aiohttp's parser takes and Kibitz does not: those that another reader of HTTP may read otherwise.

Who forwards what two parties read differently lets a client put a request of its own among other people's on a
pooled connection (RFC 9112 section 11.2). So what is doubtful is refused, and its connection closed.
"""

from __future__ import annotations

from typing import Final

from proxy.dialects import Failed
from proxy.headers import RequestFields

__all__ = ["find_fault"]

_HTTP_1_0: Final = (1, 0)
_HTTP_1_1: Final = (1, 1)
_HTTP_2: Final = (2, 0)


def find_fault(method: str, target: str, version: tuple[int, int], fields: RequestFields) -> Failed | None:
    """Why a request is refused, whatever it asks for; ``None`` for one that only reads one way."""
    if not _HTTP_1_0 <= version < _HTTP_2:  # the parser takes HTTP/0.9 and more
        return Failed(400, "invalid_http", "The request is not HTTP/1.1.")
    if fields.unreadable_length:
        return Failed(400, "invalid_http", "The Content-Length of this request is no length that can be.")
    if fields.chunked and version < _HTTP_1_1:
        # RFC 9112 section 6.1: to be treated as faultily framed.
        return Failed(400, "invalid_http", "A request of HTTP/1.0 can't have a Transfer-Encoding.")
    if fields.unknown_coding:
        # Decoded but for its chunks, the body would reach the upstream as something else (RFC 9112 section 6.1).
        return Failed(501, "unsupported_transfer_coding", "The only transfer coding that is understood is chunked.")
    if method == "CONNECT":
        return Failed(405, "method_not_allowed", "Kibitz opens no tunnels.")
    if "#" in target:
        return Failed(400, "invalid_http", "The target of a request can't have a fragment.")
    return None
