"""Exchanges as a relay begins them, for tests that need no relay."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.exchange import Capture, Exchange
from proxy.headers import read_request_fields
from proxy.identity import identify
from proxy.redaction.credentials import carried

__all__ = ["begun_exchange"]


def begun_exchange(lines: Sequence[tuple[bytes, bytes]], path: str, *, request: Capture, response: Capture) -> Exchange:
    """A call with such header fields, whose bodies are still to be fed."""
    fields = read_request_fields(lines)
    return Exchange(
        organisation="default",
        identity=identify(fields),
        method="POST",
        path=path,
        target_url=f"http://upstream{path}",
        provider="test",
        request=request,
        response=response,
        status=200,
        credentials=carried(fields),
    )
