"""Where a walk over many rows stands, as a text that clients hand back."""

from __future__ import annotations

import base64
import binascii

import orjson

from proxy.dialects import Failed
from storage.queries import Position

__all__ = ["read_cursor", "write_cursor"]


def write_cursor(position: Position) -> str:
    """The position as URL-safe text."""
    return base64.urlsafe_b64encode(orjson.dumps([position.value, position.number])).decode("ascii")


def read_cursor(text: str) -> Position:
    """The position that a text stands for. Raises `Failed` (400) for one that was not given by `write_cursor`."""
    try:
        value, number = orjson.loads(base64.b64decode(text, altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error):
        raise _INVALID from None
    if not isinstance(value, str | int | float | None) or type(number) is not int or abs(number) >= 2**63:
        raise _INVALID
    return Position(value, number)


_INVALID = Failed(400, "invalid_cursor", "cursor: it is none that an answer held")
