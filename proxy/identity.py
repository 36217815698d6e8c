"""Who and what a call is, from the logging headers of Helicone, Portkey and W3C. Contract section 4.

Nothing here fails a call: what can't be read is as good as not sent, and what is too long is cut, and named in the
identity's ``cut``. To add a dialect: read its fields in one function below and merge what it gives in `identify`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import orjson
import uuid_utils

from proxy.field_names import SENSITIVE
from proxy.headers import RequestFields, decode_value, sensitive_names
from proxy.text_limits import DEFAULT_TEXT_LIMITS, TextLimits, cut_to
from storage.records import property_key, record

__all__ = [
    "Identities",
    "Identity",
    "identify",
    "is_label",
    "new_id",
    "usable_id",
]

_BLANKS: Final = b" \t"
_LONGEST_ID: Final = 256
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A path segment of dots is resolved away by clients (RFC 3986 section 6.2.2.3), so no route could name them.
_NO_IDS: Final = frozenset({"", ".", ".."})
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(?P<rest>-.*)?"
)
_REQUEST_FIELD: Final = b"helicone-request-id"
_PORTKEY_TRACE_FIELD: Final = b"x-portkey-trace-id"
_TRACE_FIELD: Final = b"traceparent"
_ID_FIELDS: Final = (_REQUEST_FIELD, _PORTKEY_TRACE_FIELD)
_PRIVACY: Final = frozenset({b"helicone-omit-request", b"helicone-omit-response", b"x-portkey-debug"})
_PROPERTY_PREFIX: Final = b"helicone-property-"
# The fields whose texts are labels, by what the row calls them.
_LABELS: Final = {
    b"x-portkey-span-id": "span_id",
    b"x-portkey-parent-span-id": "parent_span_id",
    b"x-portkey-span-name": "span_name",
    b"helicone-session-id": "session_id",
    b"helicone-session-name": "session_name",
    b"helicone-session-path": "session_path",
    b"helicone-user-id": "user_id",
    b"helicone-prompt-id": "prompt_id",
    b"helicone-prompt-version": "prompt_version",
    b"helicone-model-override": "model_override",
    b"x-portkey-provider": "provider",
}
_METADATA: Final = b"x-portkey-metadata"
_BAGGAGE: Final = b"baggage"
# Of Kibitz's own fields, those that only tell who and what a call is; a provider is where it goes to, too.
_ONLY_TELL: Final = frozenset((*_ID_FIELDS, *_LABELS, _METADATA)) - {b"x-portkey-provider"}
# Of what identities are made, and of which fields each is; the labels of properties and the trace, too.
_REQUEST: Final = "request"
_TRACE: Final = "trace"
_PROPERTIES: Final = "properties"
_OTHERS: Final = "labels"
_PARTS: Final = {
    _REQUEST_FIELD: _REQUEST,
    _PORTKEY_TRACE_FIELD: _TRACE,
    _TRACE_FIELD: _TRACE,
    _METADATA: _PROPERTIES,
    _BAGGAGE: _PROPERTIES,
}
_IDS_ALONE: Final = frozenset({_REQUEST})
_NONE: Final[Mapping[str, str]] = {}
_USER: Final = "user_id"


@record()
class Identity:
    """A call's ids and labels. ``*_header`` are the bytes that go back to the client.

    ``cut`` names what was too long: of an id, which then counts as not sent, and of labels and properties.
    """

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
    cut: tuple[str, ...] = ()


def new_id() -> str:
    """A time-ordered UUID, version 7 (RFC 9562 section 5.7)."""
    return str(uuid_utils.uuid7())


def usable_id(text: str) -> bool:
    """1 to 256 characters, no control characters, not blank, not a dot segment."""
    return len(text) <= _LONGEST_ID and text.strip() not in _NO_IDS and not _CONTROL.search(text)


class Identities:
    """The identities of the calls that begin with one head: an id that it doesn't name is a new one for each."""

    __slots__ = ("_cut", "_labels", "_parent_span", "_properties", "_request", "_trace")

    def __init__(self, fields: RequestFields, limits: TextLimits = DEFAULT_TEXT_LIMITS) -> None:
        if SENSITIVE in fields.own:
            fields = _without_sensitive(fields)
        cut: list[str] = []
        self._request = _id(fields, _REQUEST_FIELD, "request_id", cut)
        self._trace, self._parent_span = _trace(fields, cut)
        self._properties = _properties(fields, limits, cut)
        self._labels = _labels(fields, self._parent_span, self._properties, limits, cut)
        self._cut = tuple(dict.fromkeys(cut))

    def with_others(self, fields: RequestFields, changed: Iterable[bytes], limits: TextLimits) -> Identities:
        """Those of a head that has the same fields, of which those that are ``changed`` have other values."""
        if self._cut or SENSITIVE in fields.own:  # nobody kept for which of them what was cut
            return Identities(fields, limits)
        others, cut = self._copy(), list[str]()
        parts = set(map(_part_of, changed))
        if _REQUEST in parts:
            others._request = _id(fields, _REQUEST_FIELD, "request_id", cut)
        if _TRACE in parts:
            others._trace, others._parent_span = _trace(fields, cut)
        if _PROPERTIES in parts:
            others._properties = _properties(fields, limits, cut)
        if parts - _IDS_ALONE:
            others._labels = _labels(fields, others._parent_span, others._properties, limits, cut)
        if cut:
            others._cut = tuple(dict.fromkeys(cut))
        return others

    def _copy(self) -> Identities:
        # What `copy` does takes four times as long.
        copied: Identities = object.__new__(Identities)
        copied._request, copied._trace, copied._parent_span = self._request, self._trace, self._parent_span
        copied._properties, copied._labels, copied._cut = self._properties, self._labels, self._cut
        return copied

    def new(self) -> Identity:
        """The identity of a call that begins now."""
        request = self._request or _made_up()
        trace = self._trace or request
        return Identity(request[0], trace[0], request[1], trace[1], *(*self._labels, self._cut))

    def without_keys(self, is_key: Callable[[str], bool]) -> Identities:
        """These; an id of a call or a trace that is a credential, or holds one, counts as not sent.

        As one that is too long does: it is named in ``cut``.
        """
        request = None if self._request and is_key(self._request[0]) else self._request
        trace = None if self._trace and is_key(self._trace[0]) else self._trace
        if request is self._request and trace is self._trace:
            return self
        cut = dict.fromkeys(self._cut)
        if request is not self._request:
            cut["request_id"] = None
        if trace is not self._trace:
            cut["trace_id"] = None
        others = self._copy()
        others._request, others._trace, others._cut = request, trace, tuple(cut)
        return others


def identify(fields: RequestFields, limits: TextLimits = DEFAULT_TEXT_LIMITS) -> Identity:
    """The identity that a call's header fields give it."""
    return Identities(fields, limits).new()


class _Properties(NamedTuple):
    properties: Mapping[str, str]
    user: str | None
    """Whom Portkey's metadata names."""


def _properties(fields: RequestFields, limits: TextLimits, cut: list[str]) -> _Properties:
    metadata = _metadata(fields, limits.max_properties, cut) if _METADATA in fields.own else _NONE
    baggage = _baggage(fields, limits.max_properties, cut) if _BAGGAGE in fields.noted else _NONE
    merged = _merge((_helicone_properties(fields), metadata, baggage), limits, cut)
    return _Properties(merged, metadata.get("_user"))


def _labels(
    fields: RequestFields, parent_span: str | None, known: _Properties, limits: TextLimits, cut: list[str]
) -> tuple[Any, ...]:
    """All of an `Identity` between its ids and its ``cut``, in its order."""
    most = limits.max_label_characters
    text = _texts(fields, most, cut).get
    debug_off = text(b"x-portkey-debug", "").lower() == "false"
    return (
        text(b"x-portkey-span-id"),
        text(b"x-portkey-parent-span-id") or parent_span,
        text(b"x-portkey-span-name"),
        text(b"helicone-session-id"),
        text(b"helicone-session-name"),
        text(b"helicone-session-path"),
        text(b"helicone-user-id") or cut_to(most, known.user, _USER, cut),
        text(b"helicone-prompt-id"),
        text(b"helicone-prompt-version"),
        text(b"helicone-model-override"),
        text(b"x-portkey-provider"),
        known.properties,
        debug_off or _is_true(text(b"helicone-omit-request")),
        debug_off or _is_true(text(b"helicone-omit-response")),
        _is_true(text(b"helicone-stream-usage")),
    )


def _part_of(lower: bytes) -> str:
    return _PARTS.get(lower) or (_PROPERTIES if lower.startswith(_PROPERTY_PREFIX) else _OTHERS)


def is_label(lower: bytes) -> bool:
    """Whether one of Kibitz's own fields is for identities alone."""
    return lower in _ONLY_TELL or lower.startswith(_PROPERTY_PREFIX)


def _without_sensitive(fields: RequestFields) -> RequestFields:
    """The fields but for those that the request itself names as sensitive, which no log may hold.

    The names come with commas between them, or as Python or JSON write a list. What asks for less to be kept stays.
    """
    named = sensitive_names(fields) - _PRIVACY
    return replace(
        fields,
        own={name: sent for name, sent in fields.own.items() if name not in named},
        noted={name: value for name, value in fields.noted.items() if name not in named},
    )


def _made_up() -> tuple[str, bytes]:
    text = new_id()
    return text, text.encode("ascii")


def _id(fields: RequestFields, field: bytes, name: str, cut: list[str]) -> tuple[str, bytes] | None:
    for sent in fields.own_values(field):
        value = sent.strip(_BLANKS)
        text = decode_value(value)
        if usable_id(text):
            return text, value
        if len(text) > _LONGEST_ID:
            cut.append(name)
    return None


def _trace(fields: RequestFields, cut: list[str]) -> tuple[tuple[str, bytes] | None, str | None]:
    """The trace that the client named, and the span above this call where W3C's field named both."""
    if named := _id(fields, _PORTKEY_TRACE_FIELD, "trace_id", cut):
        return named, None
    sent = fields.noted.get(_TRACE_FIELD)
    match = _TRACEPARENT.fullmatch(sent.strip()) if sent else None
    if match is None or not match["trace"].strip(b"0") or not match["span"].strip(b"0"):
        return None, None
    if match["version"] == b"00" and match["rest"]:
        return None, None
    return (match["trace"].decode("ascii"), match["trace"]), match["span"].decode("ascii")


def _clean(value: bytes) -> str:
    """A field's text, without NUL, which says nothing and ends a text in many places."""
    return decode_value(value).replace("\0", "")


def _texts(fields: RequestFields, most: int, cut: list[str]) -> dict[bytes, str]:
    """The first value that isn't blank of each of Kibitz's own fields; of labels at most so many characters."""
    texts = {}
    for lower, sent in fields.own.items():
        for _, value in sent:
            if text := _clean(value).strip():
                if len(text) > most and lower in _LABELS:
                    text = text[:most]
                    cut.append(_LABELS[lower])
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


def _metadata(fields: RequestFields, most: int, cut: list[str]) -> dict[str, str]:
    """The first pairs of ``x-portkey-metadata``, a JSON object whose values may be of any type, and the user's.

    More than can be kept are not even read: whoever may not call would make much work with them.
    """
    pairs: dict[str, str] = {}
    for value in fields.own_values(_METADATA):
        try:
            parsed = orjson.loads(decode_value(value))
        except orjson.JSONDecodeError:
            continue
        if not isinstance(parsed, dict):
            continue
        if len(parsed) > most:
            cut.append(_PROPERTIES)
            parsed = {**dict(islice(parsed.items(), most)), "_user": parsed.get("_user")}
        for name, item in parsed.items():
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


def _baggage(fields: RequestFields, most: int, cut: list[str]) -> dict[str, str]:
    """https://www.w3.org/TR/baggage/: ``name=value;property, …``, values percent-encoded; the first of them."""
    pairs: dict[str, str] = {}
    members = _clean(fields.noted[_BAGGAGE]).split(",", most)
    if len(members) > most:
        cut.append(_PROPERTIES)
        members.pop()
    for member in members:
        name, separator, value = member.partition(";")[0].partition("=")
        if separator and name.strip():
            pairs[name.strip()] = unquote(value.strip()).replace("\0", "")
    return pairs


def _merge(sources: Sequence[Mapping[str, str]], limits: TextLimits, cut: list[str]) -> dict[str, str]:
    """Earlier sources win; names are compared without case, and kept as the winner spelt them."""
    if not any(sources):
        return {}
    merged: dict[str, tuple[str, str]] = {}
    for source in sources:
        for key, pair in {property_key(name): (name, value) for name, value in source.items()}.items():
            merged.setdefault(key, pair)
    properties = dict(merged.values())
    if _are_within(properties, limits):
        return properties
    cut.append(_PROPERTIES)
    return _cut_to_limits(properties, limits)


def _are_within(properties: Mapping[str, str], limits: TextLimits) -> bool:
    return (
        len(properties) <= limits.max_properties
        and max(map(len, properties)) <= limits.max_label_characters
        and max(map(len, properties.values())) <= limits.max_text_characters
    )


def _cut_to_limits(properties: Mapping[str, str], limits: TextLimits) -> dict[str, str]:
    """The first of them, and the beginnings of their values. What a name was cut to would be another name: none is."""
    longest = limits.max_text_characters
    named = ((name, value) for name, value in properties.items() if len(name) <= limits.max_label_characters)
    return {name: value[:longest] for name, value in islice(named, limits.max_properties)}
