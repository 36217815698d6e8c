"""Helicone's questions about sessions. Contract section 7; contracts/helicone 4.4."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field
from typing_extensions import TypedDict

from proxy.dialects import Answer, Dialect
from proxy.feedback.items import iso_time
from proxy.feedback.reading import JsonReader, validate_as_portkey
from proxy.operations import Operation
from proxy.reads.bodies import INVALID, WHOLE, HeliconeBody, Tree
from proxy.reads.figures import FeedbackFigures, feedback_figures
from proxy.reads.filters import GroupFilter, read_filter, read_group_filter
from proxy.reads.histograms import PERCENTILES, Average, Percentile, Range, average, histogram
from proxy.reads.times import MillisecondSpan
from proxy.routes import Route, RouteCall
from storage.base import Storage
from storage.filters import All, Condition, Node, OneOf, Operator
from storage.filters import Any as AnyOf
from storage.filters import Field as CallField
from storage.queries import OF_FEEDBACK, OLDEST_FIRST, Group, GroupSort, Page

__all__ = ["SessionQueries"]

_SESSION: Final = CallField("session_id")
_NAME: Final = CallField("session_name")
_RATING: Final = CallField("session_rating")
_TAG: Final = CallField("session_tag")
_OF_A_SESSION: Final = Condition(_SESSION, Operator.NOT_EQUALS, None)
_MOST_NAMES: Final = 50
# Sessions that a histogram is made of: the latest ones.
_MOST_MEASURED: Final = 100_000
_MOMENTS: Final = frozenset({"first_started_at", "last_started_at"})
_MEASURES: Final = ("calls", "first_started_at", "last_started_at", "cost")
_NAME_FIGURES: Final = _MOMENTS | {"sessions", "latency_mean"}
_FIGURES: Final = OF_FEEDBACK.union(_MEASURES, {"latency_mean", "prompt_tokens", "completion_tokens", "total_tokens"})
_NEWEST_FIRST: Final = GroupSort("first_started_at", descending=True)

Minutes = Annotated[float, Field(ge=-14 * 60, le=14 * 60, description="Has no effect: times are in UTC.")]


class _Span(HeliconeBody):
    time_filter: MillisecondSpan | None = None
    timezone_difference: Minutes = 0
    filter: Tree = "all"

    def where(self, *more: Node) -> Node:
        """The calls that are meant: those of sessions."""
        return self._of_sessions(read_filter(self.filter), *more)

    def groups(self, *more: Node) -> GroupFilter:
        """The sessions that are meant."""
        wanted = read_group_filter(self.filter, "session")
        return GroupFilter(self._of_sessions(wanted.where, *more), wanted.having)

    def _of_sessions(self, *more: Node) -> Node:
        parts = [_OF_A_SESSION, *more]
        return All((*parts, self.time_filter.node()) if self.time_filter is not None else tuple(parts))


class SessionQuery(_Span):
    """Which sessions: of those with a call that the filter means, those whose id or name contains a text."""

    search: Annotated[str, Field(max_length=1000)] = ""
    name_equals: Annotated[str, Field(max_length=1000)] | None = None
    offset: Annotated[int, Field(ge=0, le=10**9), WHOLE] = 0
    limit: Annotated[int, Field(ge=0, le=1000), WHOLE] = 50


class NameQuery(_Span):
    """Which names of sessions."""

    name_contains: Annotated[str, Field(max_length=1000)] = ""
    p_size: Percentile = "p75"
    use_interquartile: bool = False


class Session(TypedDict):
    """A session's calls, added up. `rating` is its own; `feedback` is what was said of its calls."""

    created_at: str
    latest_request_created_at: str
    session_id: str
    session_name: str | None
    total_cost: float | None
    total_requests: int
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    avg_latency: float | None
    rating: bool | None
    session_tag: str | None
    feedback: FeedbackFigures


class SessionsAnswer(TypedDict):
    """Sessions, newest first."""

    data: list[Session]
    error: None


class HasSessionAnswer(TypedDict):
    """Whether there is one."""

    data: bool
    error: None


class SessionName(TypedDict):
    """The sessions of a name."""

    name: str
    created_at: str
    first_used: str
    last_used: str
    session_count: int
    avg_latency: float | None


class SessionNamesAnswer(TypedDict):
    """Up to fifty names, the last used first."""

    data: list[SessionName]
    error: None


class SessionAverages(TypedDict):
    """The means."""

    session_count: list[Average]
    session_duration: list[Average]
    session_cost: list[Average]


class SessionMetrics(TypedDict):
    """How sessions are spread: by their calls, by their milliseconds, by their cost in US dollars."""

    session_count: list[Range]
    session_duration: list[Range]
    session_cost: list[Range]
    average: SessionAverages


class SessionMetricsAnswer(TypedDict):
    """The spread of sessions."""

    data: SessionMetrics
    error: None


_QUERY: Final = Operation(summary="Sessions with what they add up to.", body=SessionQuery, answer=SessionsAnswer)
_HAS: Final = Operation(summary="Whether any call belongs to a session.", answer=HasSessionAnswer)
_NAMES: Final = Operation(summary="Names of sessions.", body=NameQuery, answer=SessionNamesAnswer)
_METRICS: Final = Operation(
    summary="How many calls sessions have, how long they last, what they cost: ten ranges of each.",
    description="`pSize` is the percentile up to which they are shown.",
    body=NameQuery,
    answer=SessionMetricsAnswer,
)


class SessionQueries:
    """Answers questions about sessions."""

    def __init__(self, storage: Storage, reader: JsonReader) -> None:
        self._storage = storage
        self._reader = reader

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        table = [
            ("/v1/session/query", _QUERY, self.query),
            ("/v1/session/name/query", _NAMES, self.names),
            ("/v1/session/metrics/query", _METRICS, self.metrics),
        ]
        asked = [Route("POST", path, Dialect.HELICONE, "read", said, handler) for path, said, handler in table]
        return [*asked, Route("GET", "/v1/session/has-session", Dialect.HELICONE, "read", _HAS, self.has_session)]

    async def has_session(self, call: RouteCall) -> Answer:
        """Whether there is one."""
        found = await self._storage.find_calls(call.organisation, _OF_A_SESSION, OLDEST_FIRST, Page(1))
        answer: HasSessionAnswer = {"data": bool(found), "error": None}
        return Answer(answer)

    async def query(self, call: RouteCall) -> Answer:
        """A page of sessions."""
        asked = validate_as_portkey(SessionQuery, await self._reader.read(call), code=INVALID)
        more: list[Node] = []
        if asked.search:
            found = (Condition(field, Operator.CONTAINS, asked.search) for field in (_SESSION, _NAME))
            more.append(AnyOf(tuple(found)))
        if asked.name_equals is not None:
            more.append(Condition(_NAME, Operator.EQUALS, asked.name_equals))
        wanted = asked.groups(*more)
        groups, _ = await self._storage.summarise(
            call.organisation,
            wanted.where,
            [_SESSION],
            _NEWEST_FIRST,
            limit=asked.limit,
            offset=asked.offset,
            having=wanted.having,
            wanted=_FIGURES,
        )
        labels = await self._labels(call.organisation, [str(group.keys[0]) for group in groups])
        answer: SessionsAnswer = {"data": [_session(group, labels) for group in groups], "error": None}
        return Answer(answer)

    async def _labels(self, organisation: str, sessions: Sequence[str]) -> Mapping[str, _Label]:
        """Name, rating and tag of some sessions: a name need not stand on every call, and the last one counts."""
        by = [_SESSION, _NAME, _RATING, _TAG]
        last_used = GroupSort("last_started_at")
        where = OneOf(_SESSION, tuple(sessions))
        groups, _ = await self._storage.summarise(organisation, where, by, last_used, limit=_MOST_MEASURED, wanted=())
        labels: dict[str, _Label] = {}
        for session, name, rating, tag in (group.keys for group in groups):
            known = labels.setdefault(str(session), _Label())
            labels[str(session)] = _Label(str(name) if name is not None else known.name, rating, tag)
        return labels

    async def names(self, call: RouteCall) -> Answer:
        """Names, with how many sessions have them."""
        asked = validate_as_portkey(NameQuery, await self._reader.read(call), code=INVALID)
        where = asked.where(_named(asked), Condition(_NAME, Operator.NOT_EQUALS, None))
        last_used = GroupSort("last_started_at", descending=True)
        groups, _ = await self._storage.summarise(
            call.organisation, where, [_NAME], last_used, limit=_MOST_NAMES, wanted=_NAME_FIGURES
        )
        answer: SessionNamesAnswer = {"data": [_name(group) for group in groups], "error": None}
        return Answer(answer)

    async def metrics(self, call: RouteCall) -> Answer:
        """Histograms over the sessions."""
        asked = validate_as_portkey(NameQuery, await self._reader.read(call), code=INVALID)
        wanted = asked.groups(_named(asked)) if asked.name_contains else asked.groups()
        measured = await self._storage.measure(
            call.organisation,
            wanted.where,
            [_SESSION],
            _NEWEST_FIRST,
            _MEASURES,
            limit=_MOST_MEASURED,
            having=wanted.having,
        )
        answer: SessionMetricsAnswer = {"data": await asyncio.to_thread(_spread, measured, asked), "error": None}
        return Answer(answer)


def _spread(measured: Sequence[Sequence[Any]], asked: NameQuery) -> SessionMetrics:
    """Of rows of `_MEASURES`; durations are from the first call to the last, in milliseconds."""
    counts = [float(row[0]) for row in measured]
    durations = [(row[2] - row[1]) / 1000 for row in measured]
    costs = [row[3] for row in measured if row[3] is not None]

    def spread(values: Sequence[float]) -> list[Range]:
        return histogram(values, PERCENTILES[asked.p_size], interquartile=asked.use_interquartile)

    return {
        "session_count": spread(counts),
        "session_duration": spread(durations),
        "session_cost": spread(costs),
        "average": {
            "session_count": average(counts),
            "session_duration": average(durations),
            "session_cost": average(costs),
        },
    }


@dataclass(frozen=True, slots=True)
class _Label:
    name: str | None = None
    rating: Any = None
    tag: Any = None


def _named(asked: NameQuery) -> Node:
    return Condition(_NAME, Operator.CONTAINS, asked.name_contains)


def _session(group: Group, labels: Mapping[str, _Label]) -> Session:
    figures, session = group.figures, str(group.keys[0])
    label = labels.get(session, _Label())
    return {
        "created_at": _moment(figures.first_started_at),
        "latest_request_created_at": _moment(figures.last_started_at),
        "session_id": session,
        "session_name": label.name,
        "total_cost": figures.cost,
        "total_requests": figures.calls,
        "prompt_tokens": figures.prompt_tokens,
        "completion_tokens": figures.completion_tokens,
        "total_tokens": figures.total_tokens,
        "avg_latency": _milliseconds(figures.latency_mean),
        "rating": label.rating,
        "session_tag": label.tag,
        "feedback": feedback_figures(figures),
    }


def _name(group: Group) -> SessionName:
    figures = group.figures
    return {
        "name": str(group.keys[0]),
        "created_at": _moment(figures.first_started_at),
        "first_used": _moment(figures.first_started_at),
        "last_used": _moment(figures.last_started_at),
        "session_count": figures.sessions,
        "avg_latency": _milliseconds(figures.latency_mean),
    }


def _moment(microseconds: int | None) -> str:
    assert microseconds is not None  # a group has a call
    return iso_time(microseconds)


def _milliseconds(microseconds: float | None) -> float | None:
    return microseconds / 1000 if microseconds is not None else None
