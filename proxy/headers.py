"""Header fields on their way through: one walk over the raw bytes each way.

Fields pass as the pairs of bytes that arrived, in their order, repeats and spelling kept. What stays behind is
named here: hop-by-hop fields (RFC 9110 section 7.6.1), message framing, and Kibitz's own. Contract section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "RawHeaders",
    "RequestFields",
    "ResponseFields",
    "decode_value",
    "read_request_fields",
    "read_response_fields",
    "serialize",
]

RawHeaders = Sequence[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade"}
)
_OWN_PREFIXES: Final = (b"helicone-", b"x-portkey-")
_CREDENTIALS: Final = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"})
# Kept for the log, and handed on like any other.
_NOTED: Final = frozenset({b"content-type", b"content-encoding", b"traceparent", b"baggage"})
_IDS: Final = frozenset({b"helicone-id", b"helicone-request-id", b"helicone-status", b"x-portkey-trace-id"})
# Enough for any length there can be; Python refuses to convert very long numbers.
_MOST_DIGITS: Final = 19
_UNSAFE: Final = bytes.maketrans(b"\r\n\0", b"   ")


@dataclass(slots=True)
class RequestFields:
    """A request's fields, sorted by whom they are for. Names in ``own`` and ``noted`` are lower case."""

    forward: list[tuple[bytes, bytes]] = field(default_factory=list)
    own: dict[bytes, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    noted: dict[bytes, bytes] = field(default_factory=dict)
    credentials: list[int] = field(default_factory=list)
    """Where in ``forward`` the fields stand that authorize a call."""
    chunked: bool = False
    content_length: int | None = None
    upgrade: bytes | None = None
    """What the client asks to switch to. Not in ``forward``: an upgrade is of one connection only."""
    expects_continue: bool = False
    """Not in ``forward``: Kibitz meets the expectation itself (RFC 9110 section 10.1.1)."""

    def own_values(self, name: bytes) -> list[bytes]:
        """Every value of one of Kibitz's own fields, blank ones left out."""
        return [value for _, value in self.own.get(name, ()) if value.strip()]


def read_request_fields(raw: RawHeaders) -> RequestFields:
    """Sort a request's fields. Never raises: a field nobody can use is one that nobody sent."""
    fields = RequestFields()
    named = _named_by_connection(raw)
    for name, value in raw:
        lower = name.lower()
        if lower.startswith(_OWN_PREFIXES):
            fields.own.setdefault(lower, []).append((name, value))
        elif lower == b"transfer-encoding":
            fields.chunked = True
        elif lower == b"expect":
            fields.expects_continue = value.strip().lower() == b"100-continue"
        elif lower == b"content-length":
            fields.content_length = _length(value)
            fields.forward.append((name, value))
        elif lower in _HOP_BY_HOP or lower == b"host" or lower in named:
            if lower == b"upgrade" and lower in named:
                fields.upgrade = value.strip()
        else:
            if lower in _CREDENTIALS:
                fields.credentials.append(len(fields.forward))
            elif lower in _NOTED:
                fields.noted[lower] = value if lower not in fields.noted else fields.noted[lower] + b"," + value
            fields.forward.append((name, value))
    return fields


@dataclass(slots=True)
class ResponseFields:
    """A response's fields for the client, and what the log wants to know of them."""

    forward: list[tuple[bytes, bytes]] = field(default_factory=list)
    content_length: int | None = None
    content_type: bytes | None = None
    content_encoding: bytes | None = None


def read_response_fields(raw: RawHeaders) -> ResponseFields:
    """Sort a response's fields. A Content-Length beside a Transfer-Encoding is none (RFC 9112 section 6.3)."""
    fields = ResponseFields()
    named = _named_by_connection(raw)
    chunked = any(len(name) == 17 and name.lower() == b"transfer-encoding" for name, _ in raw)
    for name, value in raw:
        lower = name.lower()
        if lower == b"content-length":
            if chunked:
                continue
            fields.content_length = _length(value)
        elif lower in _HOP_BY_HOP or lower in _IDS or lower in named:
            continue
        elif lower == b"content-type":
            fields.content_type = value
        elif lower == b"content-encoding":
            fields.content_encoding = value
        fields.forward.append((name, value))
    return fields


def _length(value: bytes) -> int | None:
    return int(value) if len(value) <= _MOST_DIGITS and value.isdigit() else None


def _named_by_connection(raw: RawHeaders) -> frozenset[bytes]:
    tokens = [value for name, value in raw if len(name) == 10 and name.lower() == b"connection"]
    if not tokens:
        return frozenset()
    return frozenset(token.strip().lower() for value in tokens for token in value.split(b","))


def serialize(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines of a header section, without the empty one that ends it."""
    # A CR, LF or NUL inside a value is replaced by a space (RFC 9110 section 5.5): an upstream's response is
    # read leniently, and must not start a second one.
    return b"".join(b"%b: %b\r\n" % (name, value.translate(_UNSAFE)) for name, value in fields)


def decode_value(value: bytes) -> str:
    """UTF-8, else Latin-1 (contract section 4)."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
