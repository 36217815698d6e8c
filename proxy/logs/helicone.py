"""``POST /custom/v1/log``: what Helicone's helper packages send for any model."""

from __future__ import annotations

import time
from typing import Any, Final, Literal

from proxy.dialects import Answer, Dialect
from proxy.feedback.reading import validate_as_portkey
from proxy.headers import RequestFields
from proxy.logs.bodies import HeliconeLog, Moment
from proxy.logs.calls import Content, Told, content_of, told_fields, with_meta
from proxy.logs.intake import INVALID, Intake
from proxy.operations import Link, Operation
from proxy.routes import Route, RouteCall

__all__ = ["HeliconeLogs", "read_log"]

_PATH: Final = "/custom/v1/log"
_TEXT: Final = "text/plain; charset=utf-8"
_NO_URL: Final = "custom-model-nopath"
_REQUEST_ID: Final = "Helicone-Id"

_LOG: Final = Operation(
    summary="Tells of a call that went another way, in Helicone's form.",
    description="Header fields identify the call as they do a proxied one.",
    body=HeliconeLog,
    answer=Literal["ok"],
    media_type=_TEXT,
    fields={_REQUEST_ID: "The request's id."},
    links=(
        Link("GET", "/v1/request/{id}", f"$response.header.{_REQUEST_ID}"),
        Link("POST", "/v1/request/{id}/feedback", f"$response.header.{_REQUEST_ID}"),
    ),
)


class HeliconeLogs:
    """Takes Helicone's logs."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [Route("POST", _PATH, Dialect.HELICONE, "proxy", _LOG, self.log)]

    async def log(self, call: RouteCall) -> Answer:
        """``POST /custom/v1/log``: one call."""
        [row] = await self._intake.take(call, read_log)
        fields = ((_REQUEST_ID.encode("ascii"), row.request_id.encode("utf-8")),)
        return Answer("ok", trace_id=row.trace_id, media_type=_TEXT, fields=fields)


def read_log(body: Any, fields: RequestFields) -> list[Told]:
    """The one call of a body. Raises `Failed`."""
    log = validate_as_portkey(HeliconeLog, body, code=INVALID)
    asked = log.request.body
    first_token = log.timing.time_to_first_token if log.timing else None
    streamed = first_token is not None or (isinstance(asked, dict) and asked.get("stream") is True)
    started_at = _seconds(log.timing.start) if log.timing else time.time()
    return [
        Told(
            route=_PATH,
            fields=with_meta(fields, log.request.meta or {}),
            url=log.request.url or _NO_URL,
            provider=log.provider,
            request=content_of(asked),
            response=_answer(log, streamed=streamed),
            status=log.response.status,
            streamed=streamed,
            started_at=started_at,
            latency=_seconds(log.timing.end) - started_at if log.timing else 0.0,
            time_to_first_token=first_token / 1000 if first_token is not None else None,
            credentials=(
                told_fields(log.request.meta),
                told_fields(log.request.headers),
                told_fields(log.response.headers),
            ),
        )
    ]


def _seconds(moment: Moment) -> float:
    return moment.seconds + moment.milliseconds / 1000


def _answer(log: HeliconeLog, *, streamed: bool) -> Content:
    response = log.response
    return content_of(response.body if response.text is None else response.text, streamed=streamed)
