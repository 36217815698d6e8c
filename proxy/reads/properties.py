"""Helicone's questions about properties. Contract section 7; contracts/helicone 4.5."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from proxy.dialects import Answer, Dialect
from proxy.feedback.reading import JsonReader, validate_as_portkey
from proxy.operations import Operation
from proxy.reads.bodies import INVALID, HeliconeBody
from proxy.reads.columns import property_field
from proxy.reads.times import within
from proxy.routes import Route, RouteCall
from storage.base import Storage
from storage.filters import EVERYTHING, All, Condition, Node, Operator
from storage.filters import Field as CallField
from storage.queries import Group, GroupSort

__all__ = ["PropertyQueries"]

_KEY: Final = {"key": "The property's name; case doesn't count."}
_MOST_VALUES: Final = 25
_TOP: Final = 10
_OTHER: Final = "Other"
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


class PropertyQuery(HeliconeBody):
    """Nothing is asked beside the route."""


class SearchQuery(HeliconeBody):
    """What values are to contain; case doesn't count."""

    search_term: Annotated[str, Field(max_length=1000)]


def _moment(text: object) -> object:
    return datetime.fromisoformat(text) if isinstance(text, str) and _DATE.match(text) else text


Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=datetime)]


class TextSpan(HeliconeBody):
    """From and to, as ISO 8601 times."""

    start: Moment
    end: Moment

    def node(self) -> Node:
        """The calls that started in it."""
        return within(_microseconds(self.start), _microseconds(self.end))


class TopQuery(HeliconeBody):
    """When."""

    time_filter: TextSpan | None = None


class PropertyName(TypedDict):
    """A property."""

    property: str


class PropertyNames(TypedDict):
    """The names of all properties."""

    data: list[PropertyName]
    error: None


class PropertyValues(TypedDict):
    """Values of a property."""

    data: list[str]
    error: None


class TopCost(TypedDict):
    """What the calls with a value cost; null where no cost is known."""

    value: str
    cost: float | None


class TopCosts(TypedDict):
    """The values that cost the most, and all others together."""

    data: list[TopCost]
    error: None


class TopCount(TypedDict):
    """How many calls have a value."""

    value: str
    count: int


class TopCounts(TypedDict):
    """The values with the most calls, and all others together."""

    data: list[TopCount]
    error: None


_NAMES: Final = Operation(summary="The names of all properties.", body=PropertyQuery, answer=PropertyNames)
_SEARCH: Final = Operation(
    summary=f"Up to {_MOST_VALUES} values of a property that contain a text, those of most calls first.",
    parameters=_KEY,
    body=SearchQuery,
    answer=PropertyValues,
)
_COSTS: Final = Operation(
    summary="The values of a property that cost the most.", parameters=_KEY, body=TopQuery, answer=TopCosts
)
_REQUESTS: Final = Operation(
    summary="The values of a property with the most calls.", parameters=_KEY, body=TopQuery, answer=TopCounts
)


class PropertyQueries:
    """Answers questions about properties."""

    def __init__(self, storage: Storage, reader: JsonReader) -> None:
        self._storage = storage
        self._reader = reader

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        table = [
            ("/v1/property/query", _NAMES, self.names),
            ("/v1/property/{key}/search", _SEARCH, self.search),
            ("/v1/property/{key}/top-costs/query", _COSTS, self.top_costs),
            ("/v1/property/{key}/top-requests/query", _REQUESTS, self.top_requests),
        ]
        return [Route("POST", path, Dialect.HELICONE, "read", said, handler) for path, said, handler in table]

    async def names(self, call: RouteCall) -> Answer:
        """All names."""
        validate_as_portkey(PropertyQuery, await self._reader.read(call), code=INVALID)
        names = await self._storage.property_names(call.organisation)
        answer: PropertyNames = {"data": [{"property": name} for name in names], "error": None}
        return Answer(answer)

    async def search(self, call: RouteCall) -> Answer:
        """Some values."""
        asked = validate_as_portkey(SearchQuery, await self._reader.read(call), code=INVALID)
        field = _field(call)
        wanted = Condition(field, Operator.CONTAINS, asked.search_term)
        groups, _ = await self._storage.summarise(
            call.organisation, wanted, [field], GroupSort("calls", descending=True), limit=_MOST_VALUES, wanted=()
        )
        answer: PropertyValues = {"data": [str(group.keys[0]) for group in groups], "error": None}
        return Answer(answer)

    async def top_costs(self, call: RouteCall) -> Answer:
        """The dearest values."""
        top, rest = await self._top(call, "cost")
        listed: list[TopCost] = [{"value": str(group.keys[0]), "cost": group.figures.cost} for group in top]
        if rest is not None:
            listed.append({"value": _OTHER, "cost": rest.figures.cost})
        answer: TopCosts = {"data": listed, "error": None}
        return Answer(answer)

    async def top_requests(self, call: RouteCall) -> Answer:
        """The values that are called with the most."""
        top, rest = await self._top(call, "calls")
        listed: list[TopCount] = [{"value": str(group.keys[0]), "count": group.figures.calls} for group in top]
        if rest is not None:
            listed.append({"value": _OTHER, "count": rest.figures.calls})
        answer: TopCounts = {"data": listed, "error": None}
        return Answer(answer)

    async def _top(self, call: RouteCall, figure: str) -> tuple[list[Group], Group | None]:
        """The first values by a figure, and all others as one group if there are any."""
        asked = validate_as_portkey(TopQuery, await self._reader.read(call), code=INVALID)
        field = _field(call)
        there = Condition(field, Operator.NOT_EQUALS, None)
        where = All((there, asked.time_filter.node() if asked.time_filter else EVERYTHING))
        most = GroupSort(figure, descending=True)
        top, number = await self._storage.summarise(
            call.organisation, where, [field], most, limit=_TOP, wanted=(figure,)
        )
        if number <= len(top):
            return list(top), None
        named = [Condition(field, Operator.NOT_EQUALS, group.keys[0]) for group in top]
        others = All((where, *named))
        [rest], _ = await self._storage.summarise(call.organisation, others, [], GroupSort(), limit=1, wanted=(figure,))
        return list(top), rest


def _field(call: RouteCall) -> CallField:
    return property_field(call.parameters["key"])


def _microseconds(moment: datetime) -> float:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, aware.timestamp() * 1_000_000)
