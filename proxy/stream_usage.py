"""``Helicone-Stream-Usage: true``: a streamed chat asked to tell its usage. Contract section 3.

It is the one change of a body that there is, and only where the header asks for it: ``stream_options`` gets
``"include_usage": true`` (https://platform.openai.com/docs/api-reference/chat/create). The other APIs' streams tell
their usage unasked. Every other byte stays as the client sent it.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.json_splice import last_value, with_new_member, with_other_value
from proxy.wire.facts import as_object
from proxy.wire.json_text import parse_object
from proxy.wire.media_types import media_type_of

__all__ = ["LARGEST", "can_ask", "with_length", "with_usage_asked"]

LARGEST: Final = 4 * 1024 * 1024
"""Bytes of a body that is read whole to be changed; a larger one passes as it is."""

_PATH: Final = re.compile(r"[^?]*/completions/?(\?.*)?")
_ASKING: Final = b'{"include_usage":true}'
_CONTENT_LENGTH: Final = re.compile(rb"(\r\ncontent-length:[ \t]*)\d+", re.IGNORECASE)


def can_ask(path: str, content_type: str | None, content_encoding: str | None) -> bool:
    """Whether a request is of an API that has the option, in a body that can be read."""
    plain = (content_encoding or "identity").strip().lower() == "identity"
    return plain and media_type_of(content_type).endswith("json") and _PATH.fullmatch(path) is not None


def with_usage_asked(body: bytes) -> bytes | None:
    """The body asking for usage too, ``None`` where it is no stream's, asks already, or is not JSON."""
    members = parse_object(body)
    if members.get("stream") is not True:
        return None
    options = members.get("stream_options")
    if options is not None and not isinstance(options, dict):
        return None  # for the provider to refuse
    return (
        None
        if as_object(options).get("include_usage") is True
        else _asking(body, has_options="stream_options" in members)
    )


def _asking(body: bytes, *, has_options: bool) -> bytes | None:
    start = body.index(b"{")
    options = last_value(body, start, "stream_options") if has_options else None
    if options is None:
        return with_new_member(body, start, "stream_options", _ASKING)
    if body.startswith(b"null", options):
        return with_other_value(body, options, _ASKING)
    if not body.startswith(b"{", options):
        return None  # NaN and the like, which JSON does not have and lenient parsers take for null
    asked = last_value(body, options, "include_usage")
    if asked is None:
        return with_new_member(body, options, "include_usage", b"true")
    return with_other_value(body, asked, b"true")


def with_length(head: bytes, length: int) -> bytes:
    """A request's head with another Content-Length in the place of its own, if it has one."""
    return _CONTENT_LENGTH.sub(rb"\g<1>%d" % length, head)
