"""What follows from a request's head alone: whose call it is, where it goes, with what head, and what is logged of it.

Nothing in a plan depends on when the call comes, or on its body, so it serves for each call that begins with the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from proxy import stream_usage
from proxy.auth import KeyRing
from proxy.client_http import Request
from proxy.cors import CrossOrigin
from proxy.credentials import settle_credentials
from proxy.exchange import Capture, Exchange
from proxy.form_capture import FormCapture, is_form
from proxy.headers import RequestFields, decode_value, read_length
from proxy.identity import Identities, Identity
from proxy.redaction.addresses import redact_address
from proxy.redaction.credentials import Credentials, carried
from proxy.request_head import RequestHead
from proxy.text_limits import TextLimits
from proxy.upstreams import Destination, Mount, Upstream

__all__ = ["HTTP_1_1", "Plan", "make_plan"]

HTTP_1_1: Final = (1, 1)


@dataclass(slots=True)
class Plan:
    """A call as far as its head tells. ``path`` and ``target_url`` are what the log may know of its address."""

    fields: RequestFields
    organisation: str
    identities: Identities
    method: str
    upstream: Upstream
    path: str
    target_url: str
    head: RequestHead
    credentials: Credentials
    content_type: str | None
    content_encoding: str | None
    is_form: bool
    has_body: bool
    upgrade: bytes | None
    """The protocol to switch to, if that is WebSocket."""
    can_ask_for_usage: bool
    cross_origin: CrossOrigin | None

    def fits(self, length: bytes) -> bool:
        """Whether this is for a head, too, that has another Content-Length."""
        size = read_length(length) if length else 0
        return size is not None and (self.fields.chunked or bool(size) == self.has_body)

    def exchange(self, identity: Identity, limits: TextLimits, max_logged_body: int) -> Exchange:
        """A call of this plan, which begins now."""
        return Exchange(
            organisation=self.organisation,
            identity=identity,
            method=self.method,
            path=self.path,
            target_url=self.target_url,
            provider=self.upstream.name,
            request=self._request_capture(max_logged_body, omitted=identity.omit_request),
            response=Capture(max_logged_body, omitted=identity.omit_response),
            limits=limits,
            credentials=self.credentials,
        )

    def _request_capture(self, limit: int, *, omitted: bool) -> Capture:
        if self.is_form:
            return FormCapture(limit, self.fields.noted[b"content-type"], self.content_encoding, omitted=omitted)
        return Capture(limit, self.content_type, self.content_encoding, omitted)


def make_plan(
    request: Request,
    mount: Mount,
    query: str,
    destination: Destination,
    fields: RequestFields,
    identities: Identities,
    organisation: str,
    keys: KeyRing,
) -> Plan:
    """The plan of a request that is admitted. ``query`` is what may be passed on of it."""
    upstream = destination.upstream
    content_type = _noted(fields, b"content-type")
    content_encoding = _noted(fields, b"content-encoding")
    has_body = fields.chunked or bool(fields.content_length)  # without one, frames of a WebSocket may come
    upgrade = None if has_body else _websocket(request, fields)
    head = _head(request, destination, query, fields, upgrade, keys)
    credentials = carried(fields, query, upstream.api_key, keys)
    path = redact_address(_printable(f"/{mount.name}{mount.rest}{query}"))
    return Plan(
        fields=fields,
        organisation=organisation,
        identities=identities.without_keys(credentials.is_repeated_by),
        method=request.method,
        upstream=upstream,
        path=path,
        target_url=upstream.base.origin + redact_address(_printable(destination.path + query)),
        head=head,
        credentials=credentials,
        content_type=content_type,
        content_encoding=content_encoding,
        is_form=has_body and content_type is not None and is_form(content_type),
        has_body=has_body,
        upgrade=upgrade,
        can_ask_for_usage=has_body and stream_usage.can_ask(path, content_type, content_encoding),
        cross_origin=request.cross_origin,
    )


def _head(
    request: Request,
    destination: Destination,
    query: str,
    fields: RequestFields,
    upgrade: bytes | None,
    keys: KeyRing,
) -> RequestHead:
    upstream = destination.upstream
    # TRACE has the fields of the request sent back (RFC 9110 section 9.3.8): no place for a key of the server's.
    receiver = replace(upstream, api_key=None) if request.method == "TRACE" else upstream
    line = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (
        request.method.encode("ascii"),
        (destination.path + query).encode("utf-8", "surrogateescape"),
        upstream.base.authority.encode("ascii"),
    )
    if upgrade is not None:
        end = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % upgrade
    else:
        end = b"Transfer-Encoding: chunked\r\n\r\n" if fields.chunked else b"\r\n"
    return RequestHead(line, settle_credentials(fields, keys, receiver, query), end)


def _websocket(request: Request, fields: RequestFields) -> bytes | None:
    """The protocol that a request wants to switch to, spelt its way, if it opens a WebSocket (RFC 6455 section 4.1)."""
    asked = fields.upgrade
    opens = asked is not None and asked.lower() == b"websocket" and request.method == "GET"
    return asked if opens and request.version >= HTTP_1_1 else None


def _noted(fields: RequestFields, name: bytes) -> str | None:
    value = fields.noted.get(name)
    return decode_value(value) if value is not None else None


def _printable(text: str) -> str:
    """A request target as text that can be stored: odd bytes come as surrogates, which no store takes."""
    return text if text.isascii() else decode_value(text.encode("utf-8", "surrogateescape"))
