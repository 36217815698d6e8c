"""A call that was told of, as the row that it would have left had it passed through the proxy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import orjson

from proxy.auth import KeyRing
from proxy.base_url import BaseUrl
from proxy.exchange import Capture, Exchange, Failure
from proxy.headers import RequestFields, read_request_fields
from proxy.identity import Identities, Identity
from proxy.logs.bodies import CANCELLED, LATEST, LONGEST, TIMED_OUT
from proxy.pricing import Pricer
from proxy.redaction.addresses import redact_address
from proxy.redaction.credentials import NO_KEYS, carried
from proxy.redaction.redactor import Redactor
from proxy.row import build_call
from proxy.text_limits import DEFAULT_TEXT_LIMITS, TextLimits
from proxy.upstreams import provider_name
from proxy.wire import is_understood
from proxy.wire.json_text import parse, parse_object
from storage.records import Call

__all__ = [
    "Content",
    "Told",
    "build_told_call",
    "content_of",
    "names_credential",
    "names_field",
    "told_fields",
    "with_meta",
]

_OWN_PREFIXES: Final = ("helicone-", "x-portkey-")
_CREDENTIALS: Final = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "set-cookie"}
)
_METADATA: Final = b"x-portkey-metadata"
_JSON: Final = "application/json"
_JSON_LINES: Final = "application/x-ndjson"
_EVENTS: Final = "text/event-stream"
_TEXT: Final = "text/plain; charset=utf-8"
_EVENT_START: Final = re.compile(r"(data|event|id|retry)?:")
_PASSWORD: Final = re.compile(r"(?:[a-z]+:)?//[^/?#@]*?:([^/?#@]+)@", re.IGNORECASE)
_USER_INFORMATION: Final = re.compile(r"^[^/?]*@")
_UNKNOWN_PROVIDER: Final = "custom"
_OK: Final = 200
_FAILURES: Final = {
    CANCELLED: Failure("client_cancelled", "The client left, as the log of the call says."),
    TIMED_OUT: Failure("upstream_timeout", "The upstream did not answer in time, as the log of the call says."),
}


@dataclass(frozen=True, slots=True)
class Content:
    """A body that came as a JSON value, in bytes again."""

    data: bytes = b""
    content_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a log says of a call, whatever its dialect. Times in seconds.

    ``route`` is the path that it came by, which is the row's too where ``url`` leads to no API that is known.
    """

    route: str
    fields: RequestFields
    url: str
    method: str = "POST"
    provider: str | None
    request: Content
    response: Content
    status: int | None
    streamed: bool
    started_at: float
    latency: float
    time_to_first_token: float | None = None
    credentials: tuple[RequestFields, ...] = ()
    """Further fields that it tells of, for the credentials in them."""


def names_field(name: str) -> bool:
    """Whether a name in a log is that of a header field of ours."""
    return name.strip().lower().startswith(_OWN_PREFIXES)


def names_credential(name: str) -> bool:
    """Whether a name in a log is that of a header field which holds a credential and nothing else."""
    return name.strip().lower() in _CREDENTIALS


def told_fields(*sources: object) -> RequestFields:
    """The header fields that a log's objects tell of by their names."""
    members = (pair for source in sources if isinstance(source, Mapping) for pair in source.items())
    return read_request_fields([(_bytes(name), _bytes(_as_text(value))) for name, value in members])


def _bytes(text: str) -> bytes:
    return text.strip().encode("utf-8", "surrogatepass")


def with_meta(
    fields: RequestFields, meta: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
) -> RequestFields:
    """The request's own fields, with those named in the log behind them: a header field goes before its namesake.

    ``metadata`` are pairs for ``x-portkey-metadata``, which those of the header join.
    """
    own = dict(fields.own)
    for name, value in meta.items():
        lower = name.strip().lower().encode()
        if names_field(name) and value is not None:
            sent = [(name.strip().encode(), _as_text(value).encode())]
            if lower == _METADATA:
                own[lower] = sent + own.get(lower, [])
            elif not fields.own_values(lower):
                own[lower] = sent
    if metadata:
        own[_METADATA] = [(_METADATA, orjson.dumps(metadata)), *own.get(_METADATA, [])]
    return replace(fields, own=own)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode("utf-8")


def content_of(value: Any, content_type: str | None = None, *, streamed: bool = False) -> Content:
    """The bytes of a JSON value. Text is itself, of the type that its header field gave; else of its own form."""
    if value is None:
        return Content()
    if isinstance(value, str):
        return Content(value.encode("utf-8"), content_type or (_stream_type if streamed else _text_type)(value))
    if streamed and isinstance(value, list) and value and all(isinstance(chunk, dict) for chunk in value):
        return Content(b"\n".join(orjson.dumps(chunk) for chunk in value), _JSON_LINES)
    return Content(orjson.dumps(value), _JSON)


def _text_type(text: str) -> str:
    return _JSON if isinstance(parse(text), dict | list) else _TEXT


def _stream_type(text: str) -> str:
    """Of a stream's text: the helpers join its chunks by line ends, and hand on events as they came."""
    lines = [line for line in text.split("\n") if line.strip()]
    if lines and all(parse_object(line) for line in lines):
        return _JSON_LINES
    return _EVENTS if _EVENT_START.match(text) else _text_type(text)


def build_told_call(
    told: Told,
    organisation: str,
    pricer: Pricer,
    max_logged_body: int,
    limits: TextLimits = DEFAULT_TEXT_LIMITS,
    redactor: Redactor | None = None,
    keys: KeyRing = NO_KEYS,
) -> Call:
    """The row."""
    # Cut here already, since no address is remembered by its path: what is left is still seen to be too long.
    told = replace(told, url=told.url[: limits.max_text_characters + 1])
    credentials = carried(told.fields, _query(told.url), keys=keys, told=(*told.credentials, _of_address(told.url)))
    identity = Identities(told.fields, limits).without_keys(credentials.is_repeated_by).new()
    path, target_url = _address(told)
    latency = min(max(0.0, told.latency), LONGEST)  # or a few of them would be too long to be added up
    exchange = Exchange(
        organisation=organisation,
        identity=identity,
        method=_clean(told.method).upper(),
        path=path,
        target_url=target_url,
        provider=_provider(told, identity),
        request=_capture(told.request, max_logged_body, omitted=identity.omit_request, is_whole=True),
        response=_capture(told.response, max_logged_body, omitted=identity.omit_response),
        limits=limits,
        started_at=min(told.started_at, max(0.0, LATEST - latency)),
        started=0.0,
        ended=latency,
        status=None if told.status in _FAILURES else told.status or _OK,
        failure=_FAILURES.get(told.status or _OK),
        credentials=credentials,
    )
    call = build_call(exchange, pricer, redactor)
    first_token = told.time_to_first_token
    return replace(
        call,
        is_stream=call.is_stream or told.streamed,
        time_to_first_token=round(first_token * 1_000_000) if first_token is not None else None,
    )


def _query(url: str) -> str:
    return url.partition("#")[0].partition("?")[2]


def _of_address(url: str) -> RequestFields:
    """The password in an address, as a field that holds it."""
    match = _PASSWORD.match(url)
    return read_request_fields([(b"authorization", _bytes(unquote(match[1])))] if match else [])


def _capture(content: Content, limit: int, *, omitted: bool, is_whole: bool | None = None) -> Capture:
    capture = Capture(limit=limit, content_type=content.content_type, omitted=omitted, is_whole=is_whole)
    capture.feed(content.data)
    return capture


def _clean(text: str) -> str:
    return text.replace("\0", "").strip()


def _address(told: Told) -> tuple[str, str]:
    """The row's path and its target, without what carries credentials: user names, and some of the query."""
    url = _clean(told.url)
    try:
        parts = urlsplit(url)
    except ValueError:
        return told.route, ""
    if parts.netloc:
        path = parts.path
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    else:
        path = _USER_INFORMATION.sub("", url).partition("#")[0].partition("?")[0]
        origin = ""
    query = f"?{parts.query}" if parts.query else ""
    rooted = redact_address((path if path.startswith("/") else f"/{path}") + query)
    return rooted if is_understood(rooted) else told.route, origin + redact_address(path + query)


def _provider(told: Told, identity: Identity) -> str:
    """By its name, else by the target's host."""
    named = _clean(told.provider or "") or identity.provider
    if named:
        return named.lower()
    try:
        return provider_name(BaseUrl.parse(_clean(told.url).partition("?")[0]))
    except ValueError:
        return _UNKNOWN_PROVIDER
