"""JSON as it comes over the wire: read by orjson, and never an exception."""

from __future__ import annotations

import json
from typing import Any

import orjson

__all__ = ["parse", "parse_object"]


def parse(text: bytes | str) -> Any:
    """The value of a JSON text; ``None`` where it is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_leniently(text)


def parse_object(text: bytes | str) -> dict[str, Any]:
    """The members of a JSON object; none where the text isn't one."""
    value = parse(text)
    return value if isinstance(value, dict) else {}


def _parse_leniently(text: bytes | str) -> Any:
    # NaN, lone surrogates and integers beyond 64 bits are no JSON to orjson, but they are sent.
    try:
        value = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
        return orjson.loads(json.dumps(value, allow_nan=False).encode("utf-8"))
    except (ValueError, RecursionError):
        return None
