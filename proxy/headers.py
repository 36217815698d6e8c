"""Header fields on their way through: one walk over the raw bytes each way.

Fields pass as the pairs of bytes that arrived, in their order, repeats and spelling kept. What stays behind is
named here: hop-by-hop fields (RFC 9110 section 7.6.1), message framing, and Kibitz's own. Contract section 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from typing import Final

__all__ = [
    "SENSITIVE",
    "RawHeaders",
    "RequestFields",
    "ResponseFields",
    "decode_value",
    "is_secret",
    "read_length",
    "read_request_fields",
    "read_response_fields",
    "sensitive_names",
    "serialize",
]

RawHeaders = Sequence[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade"}
)
_OWN_PREFIXES: Final = (b"helicone-", b"x-portkey-")
_CREDENTIALS: Final = frozenset(
    {b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"ocp-apim-subscription-key"}
)
# Of further fields that hold a credential, Kibitz's own and others, such as say so by their names; and of those that
# seem to, such as hold an id, a list of names or a word.
_SECRET: Final = re.compile(
    rb".*(?:(?:^|-)(?:auth|authorization|cookie|jwt|credentials?|passw(?:or)?d|(?:access|secret|virtual|api|private"
    rb"|account|subscription|posthog|lytix)-?key|config|fallbacks|account-json|webhook-enabled|csrf)(?:-.*)?"
    rb"|(?:token|secret|-key|signature))"
)
_NO_SECRETS: Final = frozenset({b"idempotency-key", b"sec-websocket-key", b"x-idempotency-key"})
_PROPERTY: Final = b"helicone-property-"
SENSITIVE: Final = b"x-portkey-sensitive-headers"
"""The field that names others."""
# RFC 9110 section 5.6.2, without the quote that may stand around one.
_FIELD_NAME: Final = re.compile(rb"[\w!#$%&*+.^`|~-]+")
# What a browser says of the page that a request comes from.
_OF_PAGES: Final = frozenset(
    {
        *(b"origin", b"referer", b"sec-fetch-site", b"sec-fetch-mode"),
        *(b"access-control-request-method", b"access-control-request-headers"),
    }
)
# Kept for the log, for `proxy.origins` and for `proxy.credentials`, and handed on like any other.
_NOTED: Final = _OF_PAGES | {
    *(b"content-type", b"content-encoding", b"traceparent", b"baggage"),
    b"sec-websocket-protocol",
}
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
    secrets: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Further fields that hold what is not to be logged, names in lower case."""
    host: bytes | None = None
    """Not in ``forward``: the upstream has another name."""
    chunked: bool = False
    unknown_coding: bool = False
    """Whether a Transfer-Encoding names more than ``chunked``, once."""
    content_length: int | None = None
    unreadable_length: bool = False
    """Whether a Content-Length is none that `content_length` can tell."""
    upgrade: bytes | None = None
    """What the client asks to switch to. Not in ``forward``: an upgrade is of one connection only."""
    expects_continue: bool = False
    """Not in ``forward``: Kibitz meets the expectation itself (RFC 9110 section 10.1.1)."""

    def own_values(self, name: bytes) -> list[bytes]:
        """Every value of one of Kibitz's own fields, blank ones left out."""
        return [value for _, value in self.own.get(name, ()) if value.strip()]


def sensitive_names(fields: RequestFields) -> set[bytes]:
    """The fields, in lower case, that a request itself names as sensitive, which no log may hold.

    The names come with commas between them, or as Python or JSON write a list.
    """
    return {name.lower() for value in fields.own_values(SENSITIVE) for name in _FIELD_NAME.findall(value)}


class _Role(Enum):
    """What is done with a field by its name; one that has no role is handed on."""

    OWN = auto()
    HOST = auto()
    HOP_BY_HOP = auto()
    FRAMING = auto()
    LENGTH = auto()
    EXPECTATION = auto()
    UPGRADE = auto()
    CREDENTIAL = auto()
    SECRET = auto()
    NOTED = auto()


def _request_role(name: bytes) -> tuple[_Role | None, bytes]:
    """A field's role in a request, and its name in lower case."""
    lower = name.lower()
    if lower.startswith(_OWN_PREFIXES):
        return _Role.OWN, lower
    if lower in _CREDENTIALS:
        return _Role.CREDENTIAL, lower
    if lower in _NOTED:
        return _Role.NOTED, lower
    return _REQUEST_ROLES.get(lower) or (_Role.SECRET if is_secret(lower) else None), lower


def is_secret(name: bytes) -> bool:
    """Whether a field holds a credential, as its name in lower case tells."""
    return _kept_is_secret(name) if len(name) <= _LONGEST_KEPT else _is_secret(name)


def _is_secret(name: bytes) -> bool:
    if name in _NO_SECRETS or name.startswith(_PROPERTY):
        return False
    return name in _CREDENTIALS or _SECRET.fullmatch(name) is not None


_REQUEST_ROLES: Final = {
    **dict.fromkeys(_HOP_BY_HOP, _Role.HOP_BY_HOP),
    b"host": _Role.HOST,
    b"transfer-encoding": _Role.FRAMING,
    b"content-length": _Role.LENGTH,
    b"expect": _Role.EXPECTATION,
    b"upgrade": _Role.UPGRADE,
}


# Clients spell the same few names again and again; what others make up must not fill the memory.
_LONGEST_KEPT: Final = 64
_kept_request_role = lru_cache(maxsize=2048)(_request_role)
_kept_is_secret = lru_cache(maxsize=2048)(_is_secret)


def read_request_fields(raw: RawHeaders) -> RequestFields:
    """Sort a request's fields. Never raises: a field nobody can use is one that nobody sent."""
    fields = RequestFields()
    named = _named_by_connection(raw)
    for field_ in raw:
        name = field_[0]
        role, lower = _kept_request_role(name) if len(name) <= _LONGEST_KEPT else _request_role(name)
        if role is None:
            if lower not in named:
                fields.forward.append(field_)
        else:
            _sort_request_field(fields, field_, role, lower, lower in named)
    return fields


def _sort_request_field(
    fields: RequestFields, field_: tuple[bytes, bytes], role: _Role, lower: bytes, is_named: bool
) -> None:
    """Sort a field that has a role; ``is_named`` tells whether the field Connection names it."""
    value = field_[1]
    match role:
        case _Role.OWN:
            fields.own.setdefault(lower, []).append(field_)
        case _Role.HOST:
            fields.host = value if fields.host is None else fields.host + b"," + value
        case _Role.FRAMING:
            fields.unknown_coding = fields.chunked or value.strip(b" \t").lower() != b"chunked"
            fields.chunked = True
        case _Role.EXPECTATION:
            fields.expects_continue = value.strip().lower() == b"100-continue"
        case _Role.LENGTH:
            fields.content_length = read_length(value)
            fields.unreadable_length = fields.unreadable_length or fields.content_length is None
            fields.forward.append(field_)
        case _Role.UPGRADE if is_named and fields.upgrade is None:
            fields.upgrade = value.strip()
        case _Role.CREDENTIAL if not is_named:
            fields.credentials.append(len(fields.forward))
            fields.forward.append(field_)
        case _Role.CREDENTIAL | _Role.SECRET:
            fields.secrets.append((lower, value))
            if not is_named:
                fields.forward.append(field_)
        case _Role.NOTED if not is_named:
            fields.noted[lower] = value if lower not in fields.noted else fields.noted[lower] + b"," + value
            fields.forward.append(field_)


@dataclass(slots=True)
class ResponseFields:
    """A response's fields for the client, and what the log wants to know of them."""

    forward: list[tuple[bytes, bytes]] = field(default_factory=list)
    content_length: int | None = None
    content_type: bytes | None = None
    content_encoding: bytes | None = None
    cookies: list[bytes] = field(default_factory=list)
    """What the response sets as cookies."""


def _response_role(name: bytes) -> tuple[_Role | None, bytes]:
    lower = name.lower()
    return _RESPONSE_ROLES.get(lower), lower


_RESPONSE_ROLES: Final = {
    **dict.fromkeys((*_HOP_BY_HOP, *_IDS), _Role.HOP_BY_HOP),
    b"content-length": _Role.LENGTH,
    b"content-type": _Role.NOTED,
    b"content-encoding": _Role.NOTED,
    b"set-cookie": _Role.SECRET,
}


_kept_response_role = lru_cache(maxsize=2048)(_response_role)


def read_response_fields(raw: RawHeaders) -> ResponseFields:
    """Sort a response's fields. A Content-Length beside a Transfer-Encoding is none (RFC 9112 section 6.3)."""
    fields = ResponseFields()
    named = _named_by_connection(raw)
    chunked = any(len(name) == 17 and name.lower() == b"transfer-encoding" for name, _ in raw)
    for field_ in raw:
        name = field_[0]
        role, lower = _kept_response_role(name) if len(name) <= _LONGEST_KEPT else _response_role(name)
        if role is _Role.LENGTH:
            if chunked:
                continue
            fields.content_length = read_length(field_[1])
        elif role is _Role.HOP_BY_HOP or lower in named:
            continue
        elif lower == b"content-type":
            fields.content_type = field_[1]
        elif lower == b"content-encoding":
            fields.content_encoding = field_[1]
        elif role is _Role.SECRET:
            fields.cookies.append(field_[1])
        fields.forward.append(field_)
    return fields


def read_length(value: bytes) -> int | None:
    """What a Content-Length says; ``None`` for one that is no length."""
    return int(value) if len(value) <= _MOST_DIGITS and value.isdigit() else None


def _named_by_connection(raw: RawHeaders) -> frozenset[bytes]:
    tokens = [value for name, value in raw if len(name) == 10 and name.lower() == b"connection"]
    if not tokens:
        return frozenset()
    return frozenset(token.strip().lower() for value in tokens for token in value.split(b","))


def serialize(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines of a header section, without the empty one that ends it."""
    lines = [b"%b: %b\r\n" % field for field in fields]
    text = b"".join(lines)
    if text.count(b"\n") == text.count(b"\r") == len(lines) and b"\0" not in text:
        return text
    # A CR, LF or NUL inside a value is replaced by a space (RFC 9110 section 5.5): an upstream's response is
    # read leniently, and must not start a second one.
    return b"".join(b"%b\r\n" % line[:-2].translate(_UNSAFE) for line in lines)


def decode_value(value: bytes) -> str:
    """UTF-8, else Latin-1 (contract section 4)."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
