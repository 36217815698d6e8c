"""The way in: every request is either for a route of our own or a call to forward."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from proxy import stream_usage
from proxy.auth import Caller, KeyRing
from proxy.client_http import RelayedResponse, Request
from proxy.cors import Cors
from proxy.credentials import refuse_key_in_path, settle_credentials, without_keys
from proxy.dialects import Answer, Failed, failure
from proxy.exchange import Capture, Exchange
from proxy.feedback.reading import Invalid
from proxy.form_capture import FormCapture, is_form
from proxy.forward import Forwarder, ProxiedCall, failed_response
from proxy.headers import RequestFields, decode_value, read_request_fields, serialize
from proxy.http_faults import find_fault
from proxy.identity import Identity, identify, new_id, usable_id
from proxy.metrics import Metrics
from proxy.origins import OriginGuard
from proxy.redaction.addresses import redact_address
from proxy.redaction.credentials import carried
from proxy.request_body import RequestBody
from proxy.responses import empty_response, own_response
from proxy.routes import Match, RouteCall, Router, read_query
from proxy.streamed import begun, send_stream
from proxy.text_limits import TextLimits
from proxy.upstreams import Destination, Mount, TargetNotAllowed, UpstreamTable, split_target
from storage.base import QueryTooSlowError, StorageError

__all__ = ["Dispatcher"]

logger = logging.getLogger(__name__)

_HTTP_1_1: Final = (1, 1)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# A second: a lock that lasts has been waited for already.
_RETRY_AFTER: Final = ((b"Retry-After", b"1"),)
_UNAUTHORIZED: Final = Failed(401, "invalid_api_key", "No valid Kibitz key came with this request.")


class Dispatcher:
    """Tells our own routes from calls to forward, and lets nobody in who may not.

    ``guard`` is for a server without keys, ``cors`` for one that pages of other origins may use.
    """

    def __init__(
        self,
        router: Router,
        forwarder: Forwarder,
        upstreams: UpstreamTable,
        keys: KeyRing,
        metrics: Metrics,
        text_limits: TextLimits,
        *,
        guard: OriginGuard | None,
        cors: Cors | None,
        max_logged_body: int,
        max_request_body: int | None,
        upload_idle_timeout: float,
    ) -> None:
        self._router = router
        self._forwarder = forwarder
        self._upstreams = upstreams
        self._keys = keys
        self._metrics = metrics
        self._guard = guard
        self._cors = cors
        self._text_limits = text_limits
        self._max_logged_body = max_logged_body
        self._max_request_body = max_request_body
        self._upload_idle_timeout = upload_idle_timeout

    async def handle(self, request: Request) -> RelayedResponse:
        """Answer one request."""
        fields = read_request_fields(request.raw_headers)
        if fault := find_fault(request.method, request.raw_path, request.version, fields):
            return self._refuse_for_good(request, fields, fault)
        if self._cors is not None and (preflight := _cross_origin(request, fields, self._cors)):
            return preflight
        mount, query = split_target(request.raw_path)
        if match := self._router.find(request.method, mount):
            return await self._answer(request, match, fields, query)
        identity = identify(fields, self._text_limits)
        try:
            call = self._admit(request, mount, query, fields, identity)
        except Failed as refused:
            self._metrics.refuse(refused.code)
            return failed_response(request, identity, refused)
        self._metrics.calls_begun += 1
        try:
            return await self._forwarder.relay(call)
        except Exception:
            logger.exception("relaying a call to %s", call.upstream.base)
            if request.transport is None or request.answered:
                raise  # nothing can be said any more; the broken connection tells
            failed = Failed(500, "internal_error", "Kibitz failed to relay this call.")
            return failed_response(request, identity, failed)

    def _refuse_for_good(self, request: Request, fields: RequestFields, fault: Failed) -> RelayedResponse:
        """Refuse a request behind which nothing on its connection can be trusted."""
        request.end_connection()
        self._metrics.refuse(fault.code)
        return failed_response(request, identify(fields), fault)

    async def _answer(self, request: Request, match: Match, fields: RequestFields, query: str) -> RelayedResponse:
        """Answer on a route of our own; whatever fails, fails in its dialect."""
        try:
            answer = await self._call_route(request, match, fields, query)
        except Failed as failed:
            answer = _failed_answer(match, failed)
        except QueryTooSlowError:
            slow = Failed(503, "query_too_slow", "The question took too long: narrow its filter, or its time.")
            answer = _failed_answer(match, slow)
        except StorageError as error:
            logger.error("%s %s: %s", request.method, match.route and match.route.path, error)
            unavailable = Failed(503, "store_unavailable", "The store does not answer; nothing was written.")
            answer = replace(_failed_answer(match, unavailable), fields=_RETRY_AFTER)
        except Exception:
            logger.exception("%s %s", request.method, match.route and match.route.path)
            answer = _failed_answer(match, Failed(500, "internal_error", "Kibitz failed to answer this request."))
        if match.route is not None:
            self._metrics.answered(match.route.method, match.route.path, answer.status)
        trace_id = answer.trace_id if answer.trace_id and usable_id(answer.trace_id) else new_id()
        extra = [(b"x-portkey-trace-id", trace_id.encode("utf-8")), *answer.fields]
        if answer.allow:
            extra.append((b"Allow", ", ".join(answer.allow).encode("ascii")))
        if answer.stream is not None:
            return await send_stream(request, answer, answer.stream, extra)
        return own_response(request, answer.status, answer.body, extra, answer.media_type)

    async def _call_route(self, request: Request, match: Match, fields: RequestFields, query: str) -> Answer:
        route = match.route
        if route is None:
            methods = ", ".join(match.methods)
            failed = Failed(405, "method_not_allowed", f"This path answers {methods}.")
            return _failed_answer(match, failed, allow=match.methods)
        organisation = ""
        if route.scope is not None:
            organisation = self._authorize(request, fields, route.scope, is_ours=True).organisation
        _meet_expectation(request, fields)
        return await begun(await route.handler(RouteCall(request, organisation, match.parameters, read_query(query))))

    def _authorize(self, request: Request, fields: RequestFields, scope: str, *, is_ours: bool) -> Caller:
        """Who asks. Raises `Failed` for one who may not."""
        if self._guard is not None:
            self._guard.check(request.method, request.raw_path, fields, is_ours=is_ours)
        caller = self._keys.identify(fields)
        if caller is None:
            raise _UNAUTHORIZED
        if scope not in caller.scopes:
            raise Failed(403, "insufficient_scope", f"This key does not have the scope {scope!r}.")
        return caller

    def _admit(
        self, request: Request, mount: Mount, query: str, fields: RequestFields, identity: Identity
    ) -> ProxiedCall:
        """The call to relay. Raises `Failed` for one that goes nowhere."""
        caller = self._authorize(request, fields, "proxy", is_ours=False)
        self._forwarder.refuse_if_full(request)
        try:
            destination = self._upstreams.find(mount, fields)
        except TargetNotAllowed as error:
            raise Failed(403, "target_not_allowed", str(error)) from None
        if destination is None:
            raise Failed(404, "unknown_route", "No route and no upstream is at this path.")
        refuse_key_in_path(destination.path, self._keys)
        if self._max_request_body is not None and (fields.content_length or 0) > self._max_request_body:
            text = "The request's body is larger than is allowed (limits.max_request_body)."
            raise Failed(413, "request_too_large", text)
        _meet_expectation(request, fields)
        query = without_keys(query, self._keys)
        exchange = self._exchange(request, mount, query, destination, fields, identity, caller)
        has_body = fields.chunked or bool(fields.content_length)
        upgrade = None if has_body else _websocket(request, fields)
        return ProxiedCall(
            request=request,
            exchange=exchange,
            upstream=destination.upstream,
            head=self._head(request, destination, query, fields, upgrade),
            body=self._body(request, exchange) if has_body else None,
            chunked=fields.chunked,
            upgrade=upgrade,
            asks_for_usage=identity.stream_usage and has_body and _can_ask_for_usage(exchange),
        )

    def _body(self, request: Request, exchange: Exchange) -> RequestBody:
        return RequestBody(request.content, exchange.request, self._max_request_body, self._upload_idle_timeout)

    def _head(
        self,
        request: Request,
        destination: Destination,
        query: str,
        fields: RequestFields,
        upgrade: bytes | None,
    ) -> bytes:
        """The request's head as the upstream gets it."""
        upstream = destination.upstream
        # TRACE has the fields of the request sent back (RFC 9110 section 9.3.8): no place for a key of the server's.
        receiver = replace(upstream, api_key=None) if request.method == "TRACE" else upstream
        target = (destination.path + query).encode("utf-8", "surrogateescape")
        head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b" % (
            request.method.encode("ascii"),
            target,
            upstream.base.authority.encode("ascii"),
            serialize(settle_credentials(fields, self._keys, receiver, query)),
        )
        if upgrade is not None:
            return head + b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % upgrade
        return head + (b"Transfer-Encoding: chunked\r\n\r\n" if fields.chunked else b"\r\n")

    def _exchange(
        self,
        request: Request,
        mount: Mount,
        query: str,
        destination: Destination,
        fields: RequestFields,
        identity: Identity,
        caller: Caller,
    ) -> Exchange:
        upstream = destination.upstream
        return Exchange(
            organisation=caller.organisation,
            identity=identity,
            method=request.method,
            path=redact_address(_printable(f"/{mount.name}{mount.rest}{query}")),
            target_url=upstream.base.origin + redact_address(_printable(destination.path + query)),
            provider=upstream.name,
            request=_request_capture(fields, self._max_logged_body, omitted=identity.omit_request),
            response=Capture(limit=self._max_logged_body, omitted=identity.omit_response),
            limits=self._text_limits,
            credentials=carried(fields, query, upstream.api_key, self._keys),
        )


def _cross_origin(request: Request, fields: RequestFields, cors: Cors) -> RelayedResponse | None:
    """Answer a preflight; of another request that a web page made, note what its answer is to say to the browser."""
    origin = fields.noted.get(b"origin")
    if origin is None:
        return None
    if request.method == "OPTIONS" and (answer := cors.preflight(origin, fields.noted)):
        return empty_response(request, 204, answer)
    request.cross_origin = cors.about(origin)
    return None


def _failed_answer(match: Match, failed: Failed, allow: tuple[str, ...] = ()) -> Answer:
    if isinstance(failed, Invalid):
        return Answer({"message": failed.message, "details": failed.details}, status=failed.status)
    return Answer(failure(failed.dialect or match.dialect, failed), status=failed.status, allow=allow)


def _request_capture(fields: RequestFields, limit: int, *, omitted: bool) -> Capture:
    content_type = _noted(fields.noted, b"content-type")
    content_encoding = _noted(fields.noted, b"content-encoding")
    has_body = fields.chunked or bool(fields.content_length)  # without one, frames of a WebSocket may come
    if has_body and content_type is not None and is_form(content_type):
        return FormCapture(limit, fields.noted[b"content-type"], content_encoding, omitted=omitted)
    return Capture(limit=limit, content_type=content_type, content_encoding=content_encoding, omitted=omitted)


def _can_ask_for_usage(exchange: Exchange) -> bool:
    request = exchange.request
    return stream_usage.can_ask(exchange.path, request.content_type, request.content_encoding)


def _meet_expectation(request: Request, fields: RequestFields) -> None:
    # A client of HTTP/1.0 knows no interim answers (RFC 9110 section 10.1.1).
    if fields.expects_continue and request.version >= _HTTP_1_1 and request.transport is not None:
        request.transport.write(_CONTINUE)


def _websocket(request: Request, fields: RequestFields) -> bytes | None:
    """The protocol that a request wants to switch to, spelt its way, if it opens a WebSocket (RFC 6455 section 4.1)."""
    asked = fields.upgrade
    opens = asked is not None and asked.lower() == b"websocket" and request.method == "GET"
    return asked if opens and request.version >= _HTTP_1_1 else None


def _noted(noted: dict[bytes, bytes], name: bytes) -> str | None:
    value = noted.get(name)
    return decode_value(value) if value is not None else None


def _printable(text: str) -> str:
    """A request target as text that can be stored: odd bytes come as surrogates, which no store takes."""
    return text if text.isascii() else decode_value(text.encode("utf-8", "surrogateescape"))
