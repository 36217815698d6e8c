"""Secrets out of what is logged of an address. Contract section 8."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

__all__ = ["redact_query"]

_SECRET_PARAMETERS: Final = frozenset(
    {"key", "api_key", "api-key", "apikey", "access_token", "token", "sig", "signature", "password", "secret"}
)
_REDACTED: Final = "[redacted]"


def redact_query(query: str) -> str:
    """A query, its question mark included, without the values of parameters that carry credentials."""
    if "=" not in query:
        return query
    return "?" + "&".join(_redact(pair) for pair in query.removeprefix("?").split("&"))


def _redact(pair: str) -> str:
    name, separator, _ = pair.partition("=")
    secret = separator and unquote(name).strip().lower() in _SECRET_PARAMETERS
    return f"{name}={_REDACTED}" if secret else pair
