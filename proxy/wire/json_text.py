"""JSON as it comes over the wire: read by orjson, and never an exception."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import orjson

__all__ = ["empty_below", "nested_deeper_than", "parse", "parse_object"]

_SURELY_64_BITS = 18  # digits
# Reading a text takes memory of its size.
_LARGE = 1024 * 1024
_BLANKS = 64
_OBJECT_ENDS = frozenset({"}", b"}"})
_ENDS = frozenset({("{", "}"), ("[", "]"), ('"', '"'), (b"{", b"}"), (b"[", b"]"), (b'"', b'"')})


def parse(text: bytes | str) -> Any:
    """The value of a JSON text; ``None`` where it is none."""
    if len(text) > _LARGE and not _has_both_ends(text):
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_leniently(text)


def parse_object(text: bytes | str) -> dict[str, Any]:
    """The members of a JSON object; none where the text isn't one."""
    end = text[-_BLANKS:].rstrip()
    if end[-1:] not in _OBJECT_ENDS and (end or len(text) <= _BLANKS):
        return {}  # to have that told by exceptions takes ten times as long
    value = parse(text)
    return value if isinstance(value, dict) else {}


def _has_both_ends(text: bytes | str) -> bool:
    """Whether an object, array or text begins here and ends: that of which the log has the beginning only does not."""
    start, end = text[:_BLANKS].lstrip()[:1], text[-_BLANKS:].rstrip()[-1:]
    return (start, end) in _ENDS


def _parse_leniently(text: bytes | str) -> Any:
    # NaN, halves of surrogate pairs and integers beyond 64 bits are no JSON to orjson, but they are sent.
    try:
        # A byte order mark is none either, and may be ignored (RFC 8259 section 8.1).
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = _decode_leniently(decoded)
        return orjson.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | float | None:
    return int(digits) if len(digits) <= _SURELY_64_BITS else _finite(digits)


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _unknown(_: str) -> None:
    """What NaN and the infinities stand for in a text that has no word for them."""


# Made once: `json.loads` makes one each time it is told of these, which takes longer than most texts do.
_decode_leniently: Final = json.JSONDecoder(parse_constant=_unknown, parse_int=_integer, parse_float=_finite).decode


def nested_deeper_than(value: Any, levels: int) -> bool:
    """Whether arrays and objects stand in each other more than ``levels`` deep. Writers of JSON recurse, and stop."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [inner for outer in layer for inner in _inside(outer)]
        if not layer:
            return False
    return True


def empty_below(value: Any, levels: int) -> None:
    """Empty the arrays and objects that have more than ``levels`` of them around them."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [inner for outer in layer for inner in _inside(outer)]
    for holder in layer:
        if isinstance(holder, dict | list):
            holder.clear()


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
