"""The way in: every request is either for a route of our own or a call to forward."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Final

from proxy.alike import Beginning, begin_alike
from proxy.auth import Caller, KeyRing
from proxy.client_http import RelayedResponse, Request
from proxy.cors import Cors
from proxy.credentials import refuse_key_in_path, without_keys
from proxy.dialects import Answer, Failed, failure
from proxy.exchange import Exchange
from proxy.feedback.reading import Invalid
from proxy.forward import Forwarder, ProxiedCall, failed_response
from proxy.headers import RequestFields, read_length, read_request_fields
from proxy.http_faults import find_fault
from proxy.identity import Identities, Identity, identify, new_id, usable_id
from proxy.last_head import Recalled
from proxy.metrics import Metrics
from proxy.origins import OriginGuard
from proxy.plan import HTTP_1_1, Plan, make_plan
from proxy.redaction.credentials import CALLING, carried
from proxy.request_body import RequestBody
from proxy.responses import empty_response, own_response
from proxy.routes import Match, RouteCall, Router, read_query
from proxy.streamed import begun, send_stream
from proxy.text_limits import TextLimits
from proxy.upstreams import Mount, TargetNotAllowed, UpstreamTable, split_target
from storage.base import QueryTooSlowError, StorageError

__all__ = ["Dispatcher"]

logger = logging.getLogger(__name__)

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# A second: a lock that lasts has been waited for already.
_RETRY_AFTER: Final = ((b"Retry-After", b"1"),)
_UNAUTHORIZED: Final = Failed(401, "invalid_api_key", "No valid Kibitz key came with this request.")
_TOO_SLOW: Final = Failed(
    503,
    "query_too_slow",
    "The question took too long: narrow its filter, or its time. Texts are found sooner with search = true.",
)


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
        if (alike := self._begun_alike(request)) is not None:
            return await self._forward(request, alike)
        fields = read_request_fields(request.raw_headers)
        if fault := find_fault(request.method, request.raw_path, request.version, fields):
            return self._refuse_for_good(request, fields, fault)
        if self._cors is not None and (preflight := _cross_origin(request, fields, self._cors)):
            return preflight
        mount, query = split_target(request.raw_path)
        if match := self._router.find(request.method, mount):
            return await self._answer(request, match, fields, query)
        identities = Identities(fields, self._text_limits)
        try:
            plan = self._plan(request, mount, query, fields, identities)
        except Failed as refused:
            return self._refuse(request, identities.new(), refused)
        length = request.last_head.keep(request, plan)
        return await self._forward(request, Beginning(plan, plan.identities, plan.head, length))

    def _begun_alike(self, request: Request) -> Beginning | None:
        """The beginning of a call that begins as the last one that was planned on the connection, or nearly."""
        recalled: Recalled[Plan] | None = request.last_head.recall(request)
        if recalled is None:
            return None
        alike = begin_alike(recalled, request.raw_headers, self._text_limits, self._keys)
        if alike is not None:
            request.cross_origin = alike.plan.cross_origin
        return alike

    async def _forward(self, request: Request, beginning: Beginning) -> RelayedResponse:
        """Relay a call, unless it is too much."""
        identity = beginning.identities.new()
        try:
            call = self._call(request, beginning, identity)
        except Failed as refused:
            return self._refuse(request, identity, refused)
        self._metrics.calls_begun += 1
        try:
            return await self._forwarder.relay(call)
        except Exception:
            logger.exception("relaying a call to %s", call.upstream.base.origin)
            if request.transport is None or request.answered:
                raise  # nothing can be said any more; the broken connection tells
            failed = Failed(500, "internal_error", "Kibitz failed to relay this call.")
            return failed_response(request, identity, failed)

    def _refuse(self, request: Request, identity: Identity, refused: Failed) -> RelayedResponse:
        self._metrics.refuse(refused.code)
        return failed_response(request, identity, refused)

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
            answer = _failed_answer(match, _TOO_SLOW)
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
        CALLING.set(carried(fields, query, keys=self._keys))
        call = RouteCall(
            request,
            organisation,
            match.parameters,
            read_query(query),
            waiting_to_send=fields.content_length if fields.expects_continue else None,
            tell_to_send=partial(_meet_expectation, request, fields),
        )
        return await begun(await route.handler(call))

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

    def _plan(self, request: Request, mount: Mount, query: str, fields: RequestFields, identities: Identities) -> Plan:
        """Where a call goes, and how. Raises `Failed` for one that may go nowhere."""
        caller = self._authorize(request, fields, "proxy", is_ours=False)
        try:
            destination = self._upstreams.find(mount, fields)
        except TargetNotAllowed as error:
            raise Failed(403, "target_not_allowed", str(error)) from None
        if destination is None:
            raise Failed(404, "unknown_route", "No route and no upstream is at this path.")
        refuse_key_in_path(destination.path, self._keys)
        query = without_keys(query, self._keys)
        return make_plan(request, mount, query, destination, fields, identities, caller.organisation, self._keys)

    def _call(self, request: Request, beginning: Beginning, identity: Identity) -> ProxiedCall:
        """The call to relay. Raises `Failed` for one that is too large, or one too many."""
        plan, length = beginning.plan, beginning.length
        self._forwarder.refuse_if_full(request)
        if self._max_request_body is not None and (read_length(length) or 0) > self._max_request_body:
            text = "The request's body is larger than is allowed (limits.max_request_body)."
            raise Failed(413, "request_too_large", text)
        _meet_expectation(request, plan.fields)
        exchange = plan.exchange(identity, self._text_limits, self._max_logged_body)
        return ProxiedCall(
            request=request,
            exchange=exchange,
            upstream=plan.upstream,
            head=beginning.head.with_length(length),
            body=self._body(request, exchange) if plan.has_body else None,
            chunked=plan.fields.chunked,
            upgrade=plan.upgrade,
            asks_for_usage=identity.stream_usage and plan.can_ask_for_usage,
        )

    def _body(self, request: Request, exchange: Exchange) -> RequestBody:
        return RequestBody(request.content, exchange.request, self._max_request_body, self._upload_idle_timeout)


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


def _meet_expectation(request: Request, fields: RequestFields) -> None:
    # A client of HTTP/1.0 knows no interim answers (RFC 9110 section 10.1.1).
    if fields.expects_continue and request.version >= HTTP_1_1 and request.transport is not None:
        request.transport.write(_CONTINUE)
