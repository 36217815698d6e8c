"""Helicone's questions about many calls: ``POST /v1/request/query`` and its kin. Contract section 7."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from proxy.dialects import Answer, Dialect, Failed
from proxy.feedback.reading import JsonReader, validate_as_portkey
from proxy.operations import Operation
from proxy.reads.bodies import INVALID, WHOLE, HeliconeBody, Tree
from proxy.reads.cursors import read_cursor, write_cursor
from proxy.reads.filters import read_filter, read_sort
from proxy.reads.pages import rows_as_json
from proxy.reads.shapes import CountAnswer, RowsAnswer
from proxy.routes import Route, RouteCall
from storage.base import Storage
from storage.filters import All, Condition, Node, OneOf, Operator
from storage.filters import Any as AnyOf
from storage.filters import Field as CallField
from storage.queries import Page, Position, Shuffled, Sort

__all__ = ["Filter", "RequestQueries"]

_LARGEST_PAGE: Final = 1000
_LARGEST_OFFSET: Final = 10**9
_NONE: Final = AnyOf(())


class Filter(HeliconeBody):
    """Which calls."""

    filter: Tree
    is_cached: bool | None = None
    is_scored: bool | None = None
    is_part_of_experiment: bool | None = None
    search: Annotated[
        str, Field(max_length=1000, description="What the text of the request or of the answer contains, in any case.")
    ] = ""

    def node(self) -> Node:
        """All of it as one tree. Raises `proxy.dialects.Failed` (400)."""
        parts = [read_filter(self.filter)]
        if self.is_cached or self.is_part_of_experiment:
            parts.append(_NONE)  # there are neither caches nor experiments
        if self.is_scored is not None:
            parts.append(Condition(CallField("is_scored"), Operator.EQUALS, self.is_scored))
        if self.search:
            parts.append(Condition(CallField("text"), Operator.CONTAINS, self.search))
        return All(tuple(parts))


class RequestQuery(Filter):
    """Which calls, in what order, and how many of them."""

    sort: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description='`{column: "asc" or "desc"}`; newest first without it, a sample with `random`.',
        ),
    ]
    offset: Annotated[int, Field(ge=0, le=_LARGEST_OFFSET), WHOLE] = 0
    limit: Annotated[int, Field(ge=0, le=_LARGEST_PAGE), WHOLE] = 10
    include_body: Annotated[bool, Field(description="With the bodies.")] = False
    cursor: Annotated[
        str | None, Field(description="Where the last answer ended: go on behind it, in the same order.")
    ] = None


class RequestIds(HeliconeBody):
    """Which calls, by request ids."""

    request_ids: Annotated[list[str], Field(max_length=_LARGEST_PAGE)]
    include_body: bool = False


_QUERY: Final = Operation(
    summary="Calls that a filter means.",
    description="Walks over any number of them: hand the `cursor` of each answer back with the same filter and sort.",
    body=RequestQuery,
    answer=RowsAnswer,
)
_COUNT: Final = Operation(summary="How many calls a filter means.", body=Filter, answer=CountAnswer)
_BY_IDS: Final = Operation(
    summary="Calls by request ids, every attempt, newest first.", body=RequestIds, answer=RowsAnswer
)


class RequestQueries:
    """Answers questions about many calls."""

    def __init__(self, storage: Storage, reader: JsonReader) -> None:
        self._storage = storage
        self._reader = reader

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        table = [
            ("/v1/request/query", _QUERY, self.query),
            ("/v1/request/query-clickhouse", _QUERY, self.query),
            ("/v1/request/count/query", _COUNT, self.count),
            ("/v1/request/query-ids", _BY_IDS, self.by_ids),
        ]
        return [Route("POST", path, Dialect.HELICONE, "read", said, handler) for path, said, handler in table]

    async def query(self, call: RouteCall) -> Answer:
        """A page of rows, and the cursor behind it."""
        asked = validate_as_portkey(RequestQuery, await self._reader.read(call), code=INVALID)
        where, sort = asked.node(), read_sort(asked.sort)
        after = read_cursor(asked.cursor) if asked.cursor is not None else None
        is_sample = isinstance(sort, Shuffled)
        if is_sample and after is not None:
            raise Failed(400, "invalid_cursor", "cursor: a sample has nothing behind it")
        page = Page(asked.limit, asked.offset, after)
        found = await self._storage.find_calls(call.organisation, where, sort, page)
        return await self._rows(call, found, include_body=asked.include_body, goes_on=not is_sample)

    async def count(self, call: RouteCall) -> Answer:
        """A number."""
        asked = validate_as_portkey(Filter, await self._reader.read(call), code=INVALID)
        number = await self._storage.count_matching(call.organisation, asked.node())
        answer: CountAnswer = {"data": number, "error": None}
        return Answer(answer)

    async def by_ids(self, call: RouteCall) -> Answer:
        """The rows of up to a thousand request ids."""
        asked = validate_as_portkey(RequestIds, await self._reader.read(call), code=INVALID)
        wanted = OneOf(CallField("request_id"), tuple(asked.request_ids))
        newest_first = Sort(CallField("started_at"), descending=True)
        found = await self._storage.find_calls(call.organisation, wanted, newest_first, Page(_LARGEST_PAGE))
        return await self._rows(call, found, include_body=asked.include_body)

    async def _rows(
        self, call: RouteCall, found: Sequence[Position], *, include_body: bool, goes_on: bool = True
    ) -> Answer:
        numbers = [position.number for position in found]
        rows = await rows_as_json(self._storage, call.organisation, numbers, include_body=include_body)
        answer: RowsAnswer = {
            "data": rows,
            "error": None,
            "cursor": write_cursor(found[-1]) if found and goes_on else None,
        }
        return Answer(answer)
