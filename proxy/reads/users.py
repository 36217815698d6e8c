"""Helicone's questions about users. Contract section 7; contracts/helicone 4.5."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from typing_extensions import TypedDict

from proxy.dialects import Answer, Dialect, Failed
from proxy.feedback.items import iso_time
from proxy.feedback.reading import JsonReader, validate_as_portkey
from proxy.operations import Operation
from proxy.reads.bodies import INVALID, WHOLE, HeliconeBody, Tree
from proxy.reads.figures import FeedbackFigures, feedback_figures
from proxy.reads.filters import read_group_filter
from proxy.reads.histograms import PERCENTILES, Percentile, Range, histogram
from proxy.reads.times import SecondSpan
from proxy.routes import Route, RouteCall
from storage.base import Storage
from storage.filters import All, Condition, Node, OneOf, Operator
from storage.filters import Field as CallField
from storage.queries import OF_FEEDBACK, Group, GroupSort

__all__ = ["UserQueries"]

_USER: Final = CallField("user_id")
_NAMED: Final = Condition(_USER, Operator.NOT_EQUALS, None)
_MOST_USERS: Final = 100
_LARGEST_PAGE: Final = 1000
SortName = Literal[
    "id",
    "user_id",
    "active_for",
    "first_active",
    "last_active",
    "total_requests",
    "average_requests_per_day_active",
    "average_tokens_per_request",
    "total_prompt_tokens",
    "total_completion_tokens",
    "cost",
]
Direction = Literal["asc", "desc"]
# Users that a histogram is made of: the last active ones.
_MOST_MEASURED: Final = 100_000
_TOTALS_OF: Final = frozenset({"calls", "prompt_tokens", "completion_tokens", "cost"})
_METRICS_OF: Final = OF_FEEDBACK | _TOTALS_OF | {"active_days", "first_started_at", "last_started_at", "total_tokens"}
# Helicone's names of what users can be sorted by.
_SORTS: Final[Mapping[SortName, str | None]] = {
    "id": None,
    "user_id": None,
    "active_for": "active_days",
    "first_active": "first_started_at",
    "last_active": "last_started_at",
    "total_requests": "calls",
    "average_requests_per_day_active": "calls_per_active_day",
    "average_tokens_per_request": "tokens_per_call",
    "total_prompt_tokens": "prompt_tokens",
    "total_completion_tokens": "completion_tokens",
    "cost": "cost",
}


class UserQuery(HeliconeBody):
    """Which users, and when."""

    user_ids: Annotated[list[str], Field(max_length=_LARGEST_PAGE)] | None = None
    time_filter: SecondSpan | None = None


class UserMetricsQuery(HeliconeBody):
    """Which users' calls, and which page of them."""

    filter: Tree
    offset: Annotated[int, Field(ge=0, le=10**9), WHOLE] = 0
    limit: Annotated[
        int, Field(ge=0, description=f"At most {_LARGEST_PAGE}.", json_schema_extra={"maximum": _LARGEST_PAGE}), WHOLE
    ] = 100
    time_filter: SecondSpan | None = None
    time_zone_difference_minutes: float | None = None
    sort: Annotated[dict[SortName, Direction], Field(max_length=1)] | None = None


class UserSpreadQuery(HeliconeBody):
    """Which users' calls, and how much of the spread is shown."""

    filter: Tree
    p_size: Annotated[Percentile, Field(description="The percentile up to which it is shown.")] = "p75"
    use_interquartile: bool = False


class UserSpread(TypedDict):
    """How users are spread: by their calls, and by their cost in US dollars."""

    request_count: list[Range]
    user_cost: list[Range]


class UserSpreadAnswer(TypedDict):
    """The spread of users."""

    data: UserSpread
    error: None


class UserTotals(TypedDict):
    """A user's calls, added up."""

    user_id: str
    count: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None


class UserTotalsAnswer(TypedDict):
    """Up to a hundred users, those with the most calls first."""

    data: list[UserTotals]
    error: None


class UserMetrics(TypedDict):
    """A user's calls, added up; `active_for` counts the days in UTC on which there was one."""

    id: str
    user_id: str
    active_for: int
    first_active: str
    last_active: str
    total_requests: int
    average_requests_per_day_active: float
    average_tokens_per_request: float | None
    total_prompt_tokens: int | None
    total_completion_tokens: int | None
    cost: float | None
    feedback: FeedbackFigures


class UserMetricsData(TypedDict):
    """A page of users; `count` is of all that there are."""

    users: list[UserMetrics]
    count: int
    hasUsers: bool


class UserMetricsAnswer(TypedDict):
    """Users."""

    data: UserMetricsData
    error: None


_QUERY: Final = Operation(summary="Users by their calls.", body=UserQuery, answer=UserTotalsAnswer)
_METRICS: Final = Operation(
    summary="Users with their activity, cost and feedback.", body=UserMetricsQuery, answer=UserMetricsAnswer
)


_SPREAD: Final = Operation(
    summary="How many calls users make and what they cost: ten ranges of each.",
    body=UserSpreadQuery,
    answer=UserSpreadAnswer,
)


class UserQueries:
    """Answers questions about users; calls that name none are nobody's."""

    def __init__(self, storage: Storage, reader: JsonReader) -> None:
        self._storage = storage
        self._reader = reader

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [
            Route("POST", "/v1/user/query", Dialect.HELICONE, "read", _QUERY, self.query),
            Route("POST", "/v1/user/metrics/query", Dialect.HELICONE, "read", _METRICS, self.metrics),
            Route("POST", "/v1/user/metrics-overview/query", Dialect.HELICONE, "read", _SPREAD, self.spread),
        ]

    async def query(self, call: RouteCall) -> Answer:
        """Totals of a few users."""
        asked = validate_as_portkey(UserQuery, await self._reader.read(call), code=INVALID)
        parts: list[Node] = [_NAMED]
        if asked.user_ids is not None:
            parts.append(OneOf(_USER, tuple(asked.user_ids)))
        if asked.time_filter is not None:
            parts.append(asked.time_filter.node())
        most_calls = GroupSort("calls", descending=True)
        groups, _ = await self._storage.summarise(
            call.organisation, All(tuple(parts)), [_USER], most_calls, limit=_MOST_USERS, wanted=_TOTALS_OF
        )
        answer: UserTotalsAnswer = {"data": [_totals(group) for group in groups], "error": None}
        return Answer(answer)

    async def spread(self, call: RouteCall) -> Answer:
        """Histograms over the users."""
        asked = validate_as_portkey(UserSpreadQuery, await self._reader.read(call), code=INVALID)
        wanted = read_group_filter(asked.filter, "user")
        measured = await self._storage.measure(
            call.organisation,
            All((_NAMED, wanted.where)),
            [_USER],
            GroupSort("last_started_at", descending=True),
            ("calls", "cost"),
            limit=_MOST_MEASURED,
            having=wanted.having,
        )
        answer: UserSpreadAnswer = {"data": await asyncio.to_thread(_spread, measured, asked), "error": None}
        return Answer(answer)

    async def metrics(self, call: RouteCall) -> Answer:
        """A page of users with their activity."""
        asked = validate_as_portkey(UserMetricsQuery, await self._reader.read(call), code=INVALID)
        if asked.limit > _LARGEST_PAGE:
            raise Failed(400, INVALID, f"Limit cannot be greater than {_LARGEST_PAGE}")
        wanted = read_group_filter(asked.filter, "user")
        parts: list[Node] = [_NAMED, wanted.where]
        if asked.time_filter is not None:
            parts.append(asked.time_filter.node())
        groups, count = await self._storage.summarise(
            call.organisation,
            All(tuple(parts)),
            [_USER],
            _sort(asked.sort or {}),
            limit=asked.limit,
            offset=asked.offset,
            having=wanted.having,
            wanted=_METRICS_OF,
        )
        users = [_metrics(group) for group in groups]
        answer: UserMetricsAnswer = {
            "data": {"users": users, "count": count, "hasUsers": count > 0},
            "error": None,
        }
        return Answer(answer)


def _spread(measured: Sequence[Sequence[Any]], asked: UserSpreadQuery) -> UserSpread:
    """Of rows of calls and cost."""
    counts = [float(calls) for calls, _ in measured]
    costs = [cost for _, cost in measured if cost is not None]
    percentile, interquartile = PERCENTILES[asked.p_size], asked.use_interquartile
    return {
        "request_count": histogram(counts, percentile, interquartile=interquartile),
        "user_cost": histogram(costs, percentile, interquartile=interquartile),
    }


def _sort(sort: Mapping[SortName, Direction]) -> GroupSort:
    for name, direction in sort.items():
        return GroupSort(_SORTS[name], direction == "desc")
    return GroupSort("last_started_at", descending=True)


def _totals(group: Group) -> UserTotals:
    figures = group.figures
    return {
        "user_id": _text(group.keys[0]),
        "count": figures.calls,
        "prompt_tokens": figures.prompt_tokens,
        "completion_tokens": figures.completion_tokens,
        "cost": figures.cost,
    }


def _metrics(group: Group) -> UserMetrics:
    figures, user = group.figures, _text(group.keys[0])
    assert figures.first_started_at is not None
    assert figures.last_started_at is not None
    tokens = figures.total_tokens
    return {
        "id": user,
        "user_id": user,
        "active_for": figures.active_days,
        "first_active": iso_time(figures.first_started_at),
        "last_active": iso_time(figures.last_started_at),
        "total_requests": figures.calls,
        "average_requests_per_day_active": figures.calls / figures.active_days,
        "average_tokens_per_request": tokens / figures.calls if tokens is not None else None,
        "total_prompt_tokens": figures.prompt_tokens,
        "total_completion_tokens": figures.completion_tokens,
        "cost": figures.cost,
        "feedback": feedback_figures(figures),
    }


def _text(value: Any) -> str:
    return str(value)
