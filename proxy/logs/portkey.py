"""``POST /v1/logs``: one call or an array of them, as Portkey's users, its logger and its agent handlers send it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from typing_extensions import TypedDict

from proxy.dialects import Answer, Dialect, Failed
from proxy.feedback.reading import validate_as_portkey
from proxy.headers import RequestFields
from proxy.logs.bodies import PortkeyLog
from proxy.logs.calls import Told, content_of, names_credential, names_field, told_fields, with_meta
from proxy.logs.intake import INVALID, Intake
from proxy.operations import Link, Operation
from proxy.routes import Route, RouteCall
from proxy.sizes import AtMost

__all__ = ["PortkeyLogs", "read_logs"]

_PATH: Final = "/v1/logs"
_REQUEST_ID: Final = b"helicone-request-id"
# The header fields of a trace, and what a log calls them.
_TRACE_FIELDS: Final = {
    b"x-portkey-trace-id": ("trace_id", "traceId"),
    b"x-portkey-span-id": ("span_id", "spanId"),
    b"x-portkey-parent-span-id": ("parent_span_id", "parentSpanId"),
    b"x-portkey-span-name": ("span_name", "spanName"),
}
_TRACE_NAMES: Final = frozenset(name for names in _TRACE_FIELDS.values() for name in names)
# What the LangChain handler makes of a parent that isn't there.
_NO_ID: Final = frozenset({"", "None"})
# The span exporter of Portkey's instrumentation tells its times in nanoseconds; smaller numbers are something else.
_OPENTELEMETRY_START: Final = "startTime"
_NANOSECONDS: Final = range(10**17, 10**19)


class LogsSaved(TypedDict):
    """All went well; the ids are in the order of the items sent."""

    status: Literal["success"]
    message: str
    request_ids: list[str]


_LOG: Final = Operation(
    summary="Tells of calls that went another way, in Portkey's form.",
    description="All items of an array are saved, or none. Header fields identify the call as they do a proxied one.",
    body=PortkeyLog | Annotated[list[PortkeyLog], Field(min_length=1), AtMost("max_bulk_items", "items")],
    answer=LogsSaved,
    links=(
        Link("GET", "/v1/request/{id}", "$response.body#/request_ids/0"),
        Link("POST", "/v1/request/{id}/feedback", "$response.body#/request_ids/0"),
    ),
)


class PortkeyLogs:
    """Takes Portkey's logs."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [Route("POST", _PATH, Dialect.PORTKEY, "proxy", _LOG, self.log)]

    async def log(self, call: RouteCall) -> Answer:
        """``POST /v1/logs``: all of the items, or none."""
        rows = await self._intake.take(call, read_logs)
        ids = [row.request_id for row in rows]
        saved: LogsSaved = {"status": "success", "message": "Logs successfully saved", "request_ids": ids}
        return Answer(saved, trace_id=rows[0].trace_id)


def read_logs(body: Any, fields: RequestFields) -> list[Told]:
    """The calls of a body, each with its own identity beside that of the header fields. Raises `Failed`."""
    if not isinstance(body, list):
        return [_told(body, fields, "")]
    if not body:
        raise Failed(400, INVALID, "The body holds no log.")
    if len(body) > 1:  # the items are different calls, and not attempts of one
        fields = replace(fields, own={name: sent for name, sent in fields.own.items() if name != _REQUEST_ID})
    return [_told(item, fields, f"item {number}: ") for number, item in enumerate(body)]


def _told(item: Any, fields: RequestFields, where: str) -> Told:
    log = validate_as_portkey(PortkeyLog, item, where, code=INVALID)
    request, response = log.request, log.response
    asked_to_stream = isinstance(request.body, dict) and request.body.get("stream") is True
    streamed = asked_to_stream or bool(response.streaming_mode)
    latency = (response.response_time or 0) / 1000
    return Told(
        route=_PATH,
        fields=_identifying(log, fields),
        url=request.url or "",
        method=request.method or "POST",
        provider=request.provider,
        request=content_of(request.body, request.content_type),
        response=content_of(response.body, response.content_type, streamed=streamed),
        status=response.status,
        streamed=streamed,
        started_at=_started_at(log, latency),
        latency=latency,
        credentials=(told_fields(request.headers), told_fields(response.headers), told_fields(log.metadata)),
    )


def _started_at(log: PortkeyLog, latency: float) -> float:
    if log.start_time is not None:
        return log.start_time
    nanoseconds = (log.metadata or {}).get(_OPENTELEMETRY_START)
    if isinstance(nanoseconds, int) and nanoseconds in _NANOSECONDS:
        return nanoseconds / 1e9
    return time.time() - latency


def _identifying(log: PortkeyLog, fields: RequestFields) -> RequestFields:
    """The header fields that identify the call, and behind them what the log itself says."""
    metadata = log.metadata or {}
    labels = {name: value for name, value in metadata.items() if _is_label(name)}
    told = with_meta(fields, metadata, labels)
    for field, names in _TRACE_FIELDS.items():
        if text := _first_id(names, metadata, log.model_extra or {}):
            told.own[field] = [*told.own.get(field, []), (field, text.encode())]
    return told


def _is_label(name: str) -> bool:
    return not (name in _TRACE_NAMES or names_field(name) or names_credential(name))


def _first_id(names: tuple[str, ...], *sources: Mapping[str, Any]) -> str | None:
    """The first text or number of one of the names."""
    for source in sources:
        for name in names:
            value = source.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value) not in _NO_ID:
                return str(value)
    return None
