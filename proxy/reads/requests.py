"""``GET /v1/request/{id}``."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field

from proxy.dialects import Answer, Dialect, Failed
from proxy.feedback.bodies import Flag
from proxy.feedback.reading import validate_query
from proxy.operations import REQUEST, Operation
from proxy.reads.rows import row
from proxy.reads.shapes import RowAnswer
from proxy.routes import Route, RouteCall
from proxy.under_way import UnderWay
from storage.base import Storage

__all__ = ["RequestReads"]

# The largest attempt that SQLite can count to is far beyond; this one only keeps nonsense away.
_MOST_DIGITS = 9
_LARGEST = 10**_MOST_DIGITS - 1
# Understanding bodies of more bytes than this takes long enough to hold calls up; a thread does it.
_BUILD_IN_THREAD = 64 * 1024


def _digits(text: object) -> int:
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) > 0:
        return int(text)
    raise ValueError("must be a number from 1")


class RowQuery(BaseModel):
    """Which attempt, and how much of it."""

    include_body: Annotated[Flag, Field(alias="includeBody", description="`true`: with the bodies.")] = False
    attempt: Annotated[
        Annotated[int, Field(ge=1, le=_LARGEST)] | None,
        BeforeValidator(_digits, json_schema_input_type=Annotated[int, Field(ge=1, le=_LARGEST)]),
        Field(description="The first is 1; without it the latest."),
    ] = None


_READ: Final = Operation(
    summary="A call, with all that joined it.",
    parameters=REQUEST,
    query=RowQuery,
    answer=RowAnswer,
    failures=(400, 404),
)


class RequestReads:
    """Reads single rows."""

    def __init__(self, storage: Storage, under_way: UnderWay) -> None:
        self._storage = storage
        self._under_way = under_way

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [Route("GET", "/v1/request/{id}", Dialect.HELICONE, "read", _READ, self.read)]

    async def read(self, call: RouteCall) -> Answer:
        """One row: the latest attempt, or ``?attempt=n``; with ``?includeBody=true`` its bodies too."""
        query = validate_query(RowQuery, call)
        call_id = call.parameters["id"]
        await self._under_way.landed(call.organisation, call_id)
        stored = await self._storage.read_call(call.organisation, call_id, query.attempt)
        if stored is None:
            raise Failed(404, "not_found", "Request not found")
        if stored.call.request.size + stored.call.response.size > _BUILD_IN_THREAD:
            data = await asyncio.to_thread(row, stored, include_body=query.include_body)
        else:
            data = row(stored, include_body=query.include_body)
        answer: RowAnswer = {"data": data, "error": None}
        return Answer(answer, trace_id=stored.call.trace_id)
