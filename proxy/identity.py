"""Who and what a call is, from the logging headers of Helicone, Portkey and W3C. Contract section 4.

Nothing here fails a call: what can't be read is as good as not sent. To add a dialect: read its fields in one
function below and merge what it gives in `identify`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import orjson
import uuid_utils

from proxy.headers import RequestFields, decode_value
from storage.records import property_key, record

__all__ = ["Identity", "identify", "new_id", "usable_id"]

_BLANKS: Final = b" \t"
_LONGEST_ID: Final = 256
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A path segment of dots is resolved away by clients (RFC 3986 section 6.2.2.3), so no route could name them.
_NO_IDS: Final = frozenset({"", ".", ".."})
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(?P<rest>-.*)?"
)
_PROPERTY_PREFIX: Final = b"helicone-property-"


@record()
class Identity:
    """A call's ids and labels. ``*_header`` are the bytes that go back to the client."""

    request_id: str
    trace_id: str
    request_id_header: bytes
    trace_id_header: bytes
    span_id: str | None
    parent_span_id: str | None
    span_name: str | None
    session_id: str | None
    session_name: str | None
    session_path: str | None
    user_id: str | None
    prompt_id: str | None
    prompt_version: str | None
    model_override: str | None
    provider: str | None
    properties: Mapping[str, str]
    omit_request: bool
    omit_response: bool
    stream_usage: bool


def new_id() -> str:
    """A time-ordered UUID, version 7 (RFC 9562 section 5.7)."""
    return str(uuid_utils.uuid7())


def usable_id(text: str) -> bool:
    """1 to 256 characters, no control characters, not blank, not a dot segment."""
    return len(text) <= _LONGEST_ID and text.strip() not in _NO_IDS and not _CONTROL.search(text)


def identify(fields: RequestFields) -> Identity:
    """The identity that a call's header fields give it."""
    request_id, request_id_header = _id(fields, b"helicone-request-id") or _made_up()
    trace, parent_span = _trace(fields)
    trace_id, trace_id_header = trace or (request_id, request_id_header)
    metadata = _metadata(fields)
    text = _texts(fields).get
    debug_off = text(b"x-portkey-debug", "").lower() == "false"
    return Identity(
        request_id=request_id,
        trace_id=trace_id,
        request_id_header=request_id_header,
        trace_id_header=trace_id_header,
        span_id=text(b"x-portkey-span-id"),
        parent_span_id=text(b"x-portkey-parent-span-id") or parent_span,
        span_name=text(b"x-portkey-span-name"),
        session_id=text(b"helicone-session-id"),
        session_name=text(b"helicone-session-name"),
        session_path=text(b"helicone-session-path"),
        user_id=text(b"helicone-user-id") or metadata.get("_user"),
        prompt_id=text(b"helicone-prompt-id"),
        prompt_version=text(b"helicone-prompt-version"),
        model_override=text(b"helicone-model-override"),
        provider=text(b"x-portkey-provider"),
        properties=_merge(_baggage(fields), metadata, _helicone_properties(fields)),
        omit_request=debug_off or _is_true(text(b"helicone-omit-request")),
        omit_response=debug_off or _is_true(text(b"helicone-omit-response")),
        stream_usage=_is_true(text(b"helicone-stream-usage")),
    )


def _made_up() -> tuple[str, bytes]:
    text = new_id()
    return text, text.encode("ascii")


def _id(fields: RequestFields, name: bytes) -> tuple[str, bytes] | None:
    for sent in fields.own_values(name):
        value = sent.strip(_BLANKS)
        text = decode_value(value)
        if usable_id(text):
            return text, value
    return None


def _trace(fields: RequestFields) -> tuple[tuple[str, bytes] | None, str | None]:
    """The trace that the client named, and the span above this call where W3C's field named both."""
    if named := _id(fields, b"x-portkey-trace-id"):
        return named, None
    sent = fields.noted.get(b"traceparent")
    match = _TRACEPARENT.fullmatch(sent.strip()) if sent else None
    if match is None or not match["trace"].strip(b"0") or not match["span"].strip(b"0"):
        return None, None
    if match["version"] == b"00" and match["rest"]:
        return None, None
    return (match["trace"].decode("ascii"), match["trace"]), match["span"].decode("ascii")


def _clean(value: bytes) -> str:
    """A field's text, without NUL, which says nothing and ends a text in many places."""
    return decode_value(value).replace("\0", "")


def _texts(fields: RequestFields) -> dict[bytes, str]:
    """The first value that isn't blank of each of Kibitz's own fields."""
    texts = {}
    for lower, sent in fields.own.items():
        for _, value in sent:
            if text := _clean(value).strip():
                texts[lower] = text
                break
    return texts


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() == "true"


def _helicone_properties(fields: RequestFields) -> dict[str, str]:
    properties = {}
    for lower, sent in fields.own.items():
        if lower.startswith(_PROPERTY_PREFIX) and len(lower) > len(_PROPERTY_PREFIX):
            name = sent[0][0][len(_PROPERTY_PREFIX) :]
            properties[_clean(name)] = ", ".join(_clean(value) for _, value in sent)
    return properties


def _metadata(fields: RequestFields) -> dict[str, str]:
    """The pairs of ``x-portkey-metadata``, a JSON object whose values may be of any type."""
    pairs: dict[str, str] = {}
    for value in fields.own_values(b"x-portkey-metadata"):
        try:
            parsed = orjson.loads(decode_value(value))
        except orjson.JSONDecodeError:
            continue
        for name, item in parsed.items() if isinstance(parsed, dict) else ():
            if (text := _as_text(item)) is not None:
                pairs[name.replace("\0", "")] = text
    return pairs


def _as_text(item: Any) -> str | None:
    """A member's value as text; none of what says nothing, or is nested too deeply to be written again."""
    if item is None:
        return None
    try:
        text = item if isinstance(item, str) else orjson.dumps(item).decode("utf-8")
    except orjson.JSONEncodeError:
        return None
    return text.replace("\0", "")


def _baggage(fields: RequestFields) -> dict[str, str]:
    """https://www.w3.org/TR/baggage/: ``name=value;property, …``, values percent-encoded."""
    pairs: dict[str, str] = {}
    if b"baggage" not in fields.noted:
        return pairs
    for member in _clean(fields.noted[b"baggage"]).split(","):
        name, separator, value = member.partition(";")[0].partition("=")
        if separator and name.strip():
            pairs[name.strip()] = unquote(value.strip()).replace("\0", "")
    return pairs


def _merge(*sources: Mapping[str, str]) -> dict[str, str]:
    """Later sources win; names are compared without case, and kept as the winner spelt them."""
    if not any(sources):
        return {}
    merged: dict[str, tuple[str, str]] = {}
    for source in sources:
        merged |= {property_key(name): (name, value) for name, value in source.items()}
    return dict(merged.values())
