"""Header fields on their way through, sorted by whom they are for. Contract section 3.

Fields pass as the pairs of bytes that arrived, in their order, repeats and spelling kept. Clients and upstreams send
the same fields again and again, in the same order: what their names say is found out once (a layout).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Final, Generic, TypeVar

from proxy.field_names import HOP_BY_HOP, SENSITIVE, Role, request_role

__all__ = [
    "Change",
    "RawField",
    "RawHeaders",
    "RequestFields",
    "ResponseFields",
    "decode_value",
    "place_of_length",
    "read_length",
    "read_request_fields",
    "read_response_fields",
    "sensitive_names",
    "serialize",
]

RawField = tuple[bytes, bytes]
RawHeaders = Sequence[RawField]
Change = tuple[RawField, RawField]
"""A field as it was in one head, and as it is in another."""

# RFC 9110 section 5.6.2, without the quote that may stand around one.
_FIELD_NAME: Final = re.compile(rb"[\w!#$%&*+.^`|~-]+")
_IDS: Final = frozenset({b"helicone-id", b"helicone-request-id", b"helicone-status", b"x-portkey-trace-id"})
# Enough for any length there can be; Python refuses to convert very long numbers.
_MOST_DIGITS: Final = 19
_BLANKS: Final = b" \t"
_ENDS: Final = b"\r\n\0"
_UNSAFE: Final = bytes.maketrans(_ENDS, b"   ")
# Bytes of names. What somebody makes up must not fill the memory.
_MOST_NAMES_KEPT: Final = 2048
_NONE_NAMED: Final[frozenset[bytes]] = frozenset()
_first: Final = itemgetter(0)


@dataclass(slots=True)
class RequestFields:
    """A request's fields, sorted by whom they are for. Names in ``own`` and ``noted`` are lower case."""

    forward: list[RawField] = field(default_factory=list)
    own: dict[bytes, list[RawField]] = field(default_factory=dict)
    noted: dict[bytes, bytes] = field(default_factory=dict)
    credentials: Sequence[int] = ()
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

    def with_own(self, changes: Sequence[Change]) -> RequestFields:
        """These, as they are with other values of Kibitz's own fields."""
        own = dict(self.own)
        for was, now in changes:
            lower = request_role(was[0])[1]
            fields = own[lower]
            own[lower] = [now] if len(fields) == 1 else [now if field is was else field for field in fields]
        others = RequestFields(*_members_of(self))  # `replace` takes three times as long
        others.own = own
        return others

    def own_values(self, name: bytes) -> list[bytes]:
        """Every value of one of Kibitz's own fields, blank ones left out."""
        return [value for _, value in self.own.get(name, ()) if value.strip()]


_members_of: Final = attrgetter(*RequestFields.__slots__)


def sensitive_names(fields: RequestFields) -> set[bytes]:
    """The fields, in lower case, that a request itself names as sensitive, which no log may hold.

    The names come with commas between them, or as Python or JSON write a list.
    """
    return {name.lower() for value in fields.own_values(SENSITIVE) for name in _FIELD_NAME.findall(value)}


class _Layout:
    """What stands where in messages whose fields have these ``names``, of which Connection ``named`` some."""

    __slots__ = ("connections", "names")

    def __init__(self, names: Sequence[bytes], named: frozenset[bytes]) -> None:
        lower = [name.lower() for name in names]
        self.names = frozenset(lower)
        self.connections = [place for place, name in enumerate(lower) if name == b"connection"]


L = TypeVar("L", bound=_Layout)


class _Layouts(Generic[L]):
    """Layouts, kept for messages of the same names."""

    def __init__(self, make: type[L]) -> None:
        self._make = make
        self._kept = lru_cache(maxsize=256)(make)

    def find(self, raw: RawHeaders) -> L:
        """The layout of a message's fields."""
        names = tuple(map(_first, raw))
        layout = self._layout(names, _NONE_NAMED)
        if not layout.connections:
            return layout
        named = _named([raw[place][1] for place in layout.connections]) & layout.names
        return self._layout(names, named) if named else layout

    def _layout(self, names: tuple[bytes, ...], named: frozenset[bytes]) -> L:
        is_small = sum(map(len, names)) <= _MOST_NAMES_KEPT
        return self._kept(names, named) if is_small else self._make(names, named)


def _named(connections: Sequence[bytes]) -> frozenset[bytes]:
    """What the values of Connection name."""
    return frozenset(token.strip().lower() for value in connections for token in value.split(b","))


class _RequestLayout(_Layout):
    """Where the fields stand in a request, by whom they are for."""

    __slots__ = (
        *("credentials", "expectations", "forward", "framing", "hosts"),
        *("lengths", "noted", "own", "secrets", "upgrades"),
    )

    def __init__(self, names: Sequence[bytes], named: frozenset[bytes]) -> None:
        super().__init__(names, named)
        self.forward: list[int] = []
        self.own: dict[bytes, list[int]] = {}
        self.noted: dict[bytes, list[int]] = {}
        self.credentials: list[int] = []
        self.secrets: list[tuple[bytes, int]] = []
        self.hosts: list[int] = []
        self.framing: list[int] = []
        self.lengths: list[int] = []
        self.expectations: list[int] = []
        self.upgrades: list[int] = []
        for place, name in enumerate(names):
            role, lower = request_role(name)
            self._sort(place, role, lower, lower in named)

    def _sort(self, place: int, role: Role | None, lower: bytes, is_named: bool) -> None:
        match role:
            case Role.OWN:
                self.own.setdefault(lower, []).append(place)
            case Role.HOST:
                self.hosts.append(place)
            case Role.FRAMING:
                self.framing.append(place)
            case Role.EXPECTATION:
                self.expectations.append(place)
            case Role.LENGTH:
                self.lengths.append(place)
                self.forward.append(place)
            case Role.UPGRADE if is_named:
                self.upgrades.append(place)
            case Role.UPGRADE | Role.HOP_BY_HOP:
                pass
            case Role.CREDENTIAL | Role.SECRET if is_named:
                self.secrets.append((lower, place))
            case _ if not is_named:
                self._sort_handed_on(place, role, lower)

    def _sort_handed_on(self, place: int, role: Role | None, lower: bytes) -> None:
        match role:
            case Role.CREDENTIAL:
                self.credentials.append(len(self.forward))
            case Role.SECRET:
                self.secrets.append((lower, place))
            case Role.NOTED:
                self.noted.setdefault(lower, []).append(place)
        self.forward.append(place)


_request_layouts: Final = _Layouts(_RequestLayout)


def read_request_fields(raw: RawHeaders) -> RequestFields:
    """Sort a request's fields. Never raises: a field nobody can use is one that nobody sent."""
    layout = _request_layouts.find(raw)
    fields = RequestFields(
        [raw[place] for place in layout.forward],
        {name: [raw[place] for place in places] for name, places in layout.own.items()},
        {name: b",".join([raw[place][1] for place in places]) for name, places in layout.noted.items()},
        layout.credentials,
        [(name, raw[place][1]) for name, place in layout.secrets],
    )
    if layout.hosts:
        fields.host = b",".join([raw[place][1] for place in layout.hosts])
    if layout.lengths:
        lengths = [read_length(raw[place][1]) for place in layout.lengths]
        fields.content_length, fields.unreadable_length = lengths[-1], None in lengths
    if layout.framing:
        fields.chunked = True
        fields.unknown_coding = [raw[place][1].strip(_BLANKS).lower() for place in layout.framing] != [b"chunked"]
    if layout.upgrades:
        fields.upgrade = raw[layout.upgrades[0]][1].strip()
    if layout.expectations:
        fields.expects_continue = raw[layout.expectations[-1]][1].strip().lower() == b"100-continue"
    return fields


@dataclass(slots=True)
class ResponseFields:
    """A response's fields for the client, and what the log wants to know of them."""

    forward: list[tuple[bytes, bytes]] = field(default_factory=list)
    content_length: int | None = None
    content_type: bytes | None = None
    content_encoding: bytes | None = None
    cookies: list[bytes] = field(default_factory=list)
    """What the response sets as cookies."""


_NOT_OF_RESPONSES: Final = HOP_BY_HOP | _IDS
_LENGTH: Final = b"content-length"
_LENGTH_AS_WELL: Final = _NOT_OF_RESPONSES | {_LENGTH}


class _ResponseLayout(_Layout):
    """Where the fields stand in a response that count."""

    __slots__ = ("cookies", "encoding", "forward", "length", "type")

    def __init__(self, names: Sequence[bytes], named: frozenset[bytes]) -> None:
        super().__init__(names, named)
        lower = [name.lower() for name in names]
        chunked = b"transfer-encoding" in self.names
        left_out = (named - {_LENGTH}) | (_LENGTH_AS_WELL if chunked else _NOT_OF_RESPONSES)
        places = {name: place for place, name in enumerate(lower) if name not in left_out}
        self.forward = [place for place, name in enumerate(lower) if name not in left_out]
        self.length = places.get(_LENGTH)
        self.type = places.get(b"content-type")
        self.encoding = places.get(b"content-encoding")
        self.cookies = [place for place in self.forward if lower[place] == b"set-cookie"]


_response_layouts: Final = _Layouts(_ResponseLayout)


def read_response_fields(raw: RawHeaders) -> ResponseFields:
    """Sort a response's fields. A Content-Length beside a Transfer-Encoding is none (RFC 9112 section 6.3)."""
    layout = _response_layouts.find(raw)
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


def place_of_length(fields: RawHeaders) -> int | None:
    """Where the first Content-Length stands, if there is one."""
    for place, (name, _) in enumerate(fields):
        if len(name) == len(_LENGTH) and name.lower() == _LENGTH:
            return place
    return None


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
