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
from operator import itemgetter
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
    rb".*(?:(?:^|-)(?:auth|authorization|bearer|cookie|jwt|credentials?|passw(?:or)?d|passphrase|pwd"
    rb"|(?:access|secret|virtual|api|private|account|subscription|posthog|lytix)-?keys?"
    rb"|config|fallbacks|account-json|webhook-enabled|csrf)(?:-.*)?"
    rb"|(?:token|secret|secret-id|-key|signature|password|passphrase))"
)
_NO_SECRETS: Final = re.compile(
    rb"(?:x-)?idempotency-key|sec-websocket-key"
    # Of whom a proxy in front has let in: what it tells is a label too.
    rb"|x-auth-(?:request-)?(?:user|user-id|username|preferred-username|email|groups|provider)"
)
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
_ENDS: Final = b"\r\n\0"
_UNSAFE: Final = bytes.maketrans(_ENDS, b"   ")


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
    name = name.replace(b"_", b"-")
    if name.startswith(_PROPERTY) or _NO_SECRETS.fullmatch(name) is not None:
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


_NOT_OF_RESPONSES: Final = _HOP_BY_HOP | _IDS
_LENGTH: Final = b"content-length"
_LENGTH_AS_WELL: Final = _NOT_OF_RESPONSES | {_LENGTH}
# Bytes of names. What an upstream makes up must not fill the memory.
_MOST_NAMES_KEPT: Final = 2048


class _Layout:
    """Where the fields stand in a response that count, by their names, and by those that its Connection ``named``."""

    __slots__ = ("connections", "cookies", "encoding", "forward", "length", "type")

    def __init__(self, names: Sequence[bytes], named: frozenset[bytes]) -> None:
        lower = [name.lower() for name in names]
        chunked = b"transfer-encoding" in lower
        left_out = (named - {_LENGTH}) | (_LENGTH_AS_WELL if chunked else _NOT_OF_RESPONSES)
        places = {name: place for place, name in enumerate(lower) if name not in left_out}
        self.forward = [place for place, name in enumerate(lower) if name not in left_out]
        self.length = places.get(_LENGTH)
        self.type = places.get(b"content-type")
        self.encoding = places.get(b"content-encoding")
        self.cookies = [place for place in self.forward if lower[place] == b"set-cookie"]
        self.connections = [place for place, name in enumerate(lower) if name == b"connection"]


def _layout(names: tuple[bytes, ...], named: frozenset[bytes] = frozenset()) -> _Layout:
    """An upstream's answers have the same fields again and again, in the same order."""
    is_small = sum(map(len, names)) + sum(map(len, named)) <= _MOST_NAMES_KEPT
    return _kept_layout(names, named) if is_small else _Layout(names, named)


_kept_layout = lru_cache(maxsize=256)(_Layout)
_first: Final = itemgetter(0)


def read_response_fields(raw: RawHeaders) -> ResponseFields:
    """Sort a response's fields. A Content-Length beside a Transfer-Encoding is none (RFC 9112 section 6.3)."""
    names = tuple(map(_first, raw))
    layout = _layout(names)
    if layout.connections:
        layout = _layout(names, _named([raw[place][1] for place in layout.connections]))
    return ResponseFields(
        [raw[place] for place in layout.forward],
        None if layout.length is None else read_length(raw[layout.length][1]),
        None if layout.type is None else raw[layout.type][1],
        None if layout.encoding is None else raw[layout.encoding][1],
        [raw[place][1] for place in layout.cookies],
    )


def read_length(value: bytes) -> int | None:
    """What a Content-Length says; ``None`` for one that is no length."""
    return int(value) if len(value) <= _MOST_DIGITS and value.isdigit() else None


def _named_by_connection(raw: RawHeaders) -> frozenset[bytes]:
    return _named([value for name, value in raw if len(name) == 10 and name.lower() == b"connection"])


def _named(connections: Sequence[bytes]) -> frozenset[bytes]:
    """What the values of Connection name."""
    if not connections:
        return frozenset()
    return frozenset(token.strip().lower() for value in connections for token in value.split(b","))


def serialize(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines of a header section, without the empty one that ends it."""
    lines = list(map(b": ".join, fields))
    text = b"\r\n".join((*lines, b""))
    if len(text.translate(None, _ENDS)) == len(text) - 2 * len(lines):
        return text
    # A CR, LF or NUL inside a value is replaced by a space (RFC 9110 section 5.5): an upstream's response is
    # read leniently, and must not start a second one.
    return b"".join(b"%b\r\n" % line.translate(_UNSAFE) for line in lines)


def decode_value(value: bytes) -> str:
    """UTF-8, else Latin-1 (contract section 4)."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
