"""Portkey's feedback analytics. Contract sections 6 and 7; contracts/portkey 4.

Times are those of the calls ("time of generation"), and every effective item of feedback that speaks of one of the
calls counts once: values and ratings, as everywhere. A mean is Portkey's own, the plain one of value times weight.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from typing_extensions import TypedDict

from proxy.dialects import Answer, Dialect, Failed
from proxy.feedback.items import iso_time
from proxy.feedback.reading import validate_query
from proxy.operations import Operation
from proxy.reads.analytics_query import MOST_GROUPS, GraphQuery, GroupQuery
from proxy.routes import Route, RouteCall
from storage.base import Storage
from storage.filters import All, Condition, Node, Operator
from storage.filters import Field as CallField
from storage.queries import OF_FEEDBACK, Group, GroupSort, TimeBucket
from storage.records import property_key

__all__ = ["FeedbackAnalytics"]

_GROUP_FIGURES: Final = OF_FEEDBACK | {"calls", "cost", "total_tokens", "last_started_at"}
_MINUTE: Final = 60_000_000
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
# The widest bucket of which a graph still has enough.
_WIDTHS: Final = (_DAY, _HOUR, _MINUTE)
_ENOUGH: Final = 24
# A span of ten years in days.
_MOST_POINTS: Final = 3660


class Total(TypedDict):
    """How many items of feedback."""

    total: int


class Mean(TypedDict):
    """The mean of value times weight; null of no item."""

    avg: float | None


class NoSummary(TypedDict):
    """Nothing."""


class TotalPoint(TypedDict):
    """How many items from a time on."""

    timestamp: str
    total: int


class ScorePoint(TypedDict):
    """How many items have a value."""

    score: int
    total: int


class MeanPoint(TypedDict):
    """The mean from a time on."""

    timestamp: str
    avg: float | None


class ModelPoint(TypedDict):
    """How many items speak of a model's answers, and their mean."""

    ai_model: str | None
    total: int
    avg_weighted_feedback: float | None


Graph = Literal["analytics-graph"]


class Totals(TypedDict):
    """Feedback over time."""

    object: Graph
    summary: Total
    data_points: list[TotalPoint]


class Scores(TypedDict):
    """Feedback by value."""

    object: Graph
    summary: Total
    data_points: list[ScorePoint]


class Means(TypedDict):
    """The mean over time."""

    object: Graph
    summary: Mean
    data_points: list[MeanPoint]


class Models(TypedDict):
    """Feedback by model."""

    object: Graph
    summary: NoSummary
    data_points: list[ModelPoint]


class MetadataGroup(TypedDict):
    """The calls with a value of a property."""

    object: Literal["analytics-group"]
    metadata_value: str
    requests: int
    cost: float | None
    avg_tokens: float | None
    avg_weighted_feedback: float | None
    requests_with_feedback: int
    last_seen: str


class MetadataGroups(TypedDict):
    """A page of groups; `total` is of all that there are."""

    object: Literal["list"]
    total: int
    data: list[MetadataGroup]


_TOTALS: Final = Operation(
    summary="How much feedback there is over time.", query=GraphQuery, answer=Totals, failures=(400,)
)
_SCORES: Final = Operation(summary="How often each value was given.", query=GraphQuery, answer=Scores, failures=(400,))
_MEANS: Final = Operation(
    summary="The mean of value times weight over time.", query=GraphQuery, answer=Means, failures=(400,)
)
_MODELS: Final = Operation(summary="Feedback by model.", query=GraphQuery, answer=Models, failures=(400,))
_GROUPS: Final = Operation(
    summary="Calls and their feedback by the values of a property.",
    parameters={"key": "The property's name; case doesn't count."},
    query=GroupQuery,
    answer=MetadataGroups,
    failures=(400,),
)


class FeedbackAnalytics:
    """Answers Portkey's graphs and groups of feedback."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        graphs = "/v1/analytics/graphs/feedbacks"
        table = [
            (graphs, _TOTALS, self.totals),
            (f"{graphs}/scores", _SCORES, self.scores),
            (f"{graphs}/weighted", _MEANS, self.means),
            (f"{graphs}/ai-models", _MODELS, self.models),
            ("/v1/analytics/groups/metadata/{key}", _GROUPS, self.groups),
        ]
        return [Route("GET", path, Dialect.PORTKEY, "read", said, handler) for path, said, handler in table]

    async def totals(self, call: RouteCall) -> Answer:
        """``…/feedbacks``."""
        asked = validate_query(GraphQuery, call)
        node = asked.node()  # which may be refused, before anything is begun
        points, everything = await asyncio.gather(
            self._over_time(call.organisation, asked), self._all(call.organisation, node)
        )
        answer: Totals = {
            "object": "analytics-graph",
            "summary": {"total": everything.figures.feedback.count},
            "data_points": [
                {"timestamp": moment, "total": group.figures.feedback.count if group else 0} for moment, group in points
            ],
        }
        return Answer(answer)

    async def scores(self, call: RouteCall) -> Answer:
        """``…/feedbacks/scores``."""
        counts = await self._storage.count_values(call.organisation, validate_query(GraphQuery, call).node())
        answer: Scores = {
            "object": "analytics-graph",
            "summary": {"total": sum(counts.values())},
            "data_points": [{"score": value, "total": number} for value, number in counts.items()],
        }
        return Answer(answer)

    async def means(self, call: RouteCall) -> Answer:
        """``…/feedbacks/weighted``."""
        asked = validate_query(GraphQuery, call)
        node = asked.node()
        points, everything = await asyncio.gather(
            self._over_time(call.organisation, asked), self._all(call.organisation, node)
        )
        answer: Means = {
            "object": "analytics-graph",
            "summary": {"avg": everything.figures.feedback.mean_product},
            "data_points": [
                {"timestamp": moment, "avg": group.figures.feedback.mean_product if group else None}
                for moment, group in points
            ],
        }
        return Answer(answer)

    async def models(self, call: RouteCall) -> Answer:
        """``…/feedbacks/ai-models``."""
        where = validate_query(GraphQuery, call).node()
        most = GroupSort("feedback_count", descending=True)
        groups, _ = await self._storage.summarise(
            call.organisation, where, [CallField("model")], most, limit=MOST_GROUPS, wanted=OF_FEEDBACK
        )
        answer: Models = {
            "object": "analytics-graph",
            "summary": {},
            "data_points": [_model_point(group) for group in groups if group.figures.feedback.count],
        }
        return Answer(answer)

    async def groups(self, call: RouteCall) -> Answer:
        """``…/groups/metadata/{key}``."""
        asked = validate_query(GroupQuery, call)
        field = CallField("property", property_key(call.parameters["key"]))
        where = All((asked.node(), Condition(field, Operator.NOT_EQUALS, None)))
        most = GroupSort("calls", descending=True)
        offset = asked.current_page * asked.page_size
        groups, total = await self._storage.summarise(
            call.organisation, where, [field], most, limit=asked.page_size, offset=offset, wanted=_GROUP_FIGURES
        )
        answer: MetadataGroups = {"object": "list", "total": total, "data": [_metadata_group(one) for one in groups]}
        return Answer(answer)

    async def _all(self, organisation: str, where: Node) -> Group:
        [everything], _ = await self._storage.summarise(
            organisation, where, [], GroupSort(), limit=1, wanted=OF_FEEDBACK
        )
        return everything

    async def _over_time(self, organisation: str, asked: GraphQuery) -> list[tuple[str, Group | None]]:
        """Every time bucket of the span, with its calls if there are any."""
        start, end = asked.span
        width = next((width for width in _WIDTHS if end - start >= _ENOUGH * width), _WIDTHS[-1])
        if (end - start) // width > _MOST_POINTS:
            raise Failed(400, "invalid_parameter", "the time of generation spans more than ten years")
        groups, _ = await self._storage.summarise(
            organisation, asked.node(), [TimeBucket(width)], GroupSort(), limit=_MOST_POINTS + 1, wanted=OF_FEEDBACK
        )
        found = {group.keys[0]: group for group in groups}
        return [(iso_time(moment), found.get(moment)) for moment in range(start - start % width, end + 1, width)]


def _model_point(group: Group) -> ModelPoint:
    said, model = group.figures.feedback, group.keys[0]
    return {
        "ai_model": str(model) if model is not None else None,
        "total": said.count,
        "avg_weighted_feedback": said.mean_product,
    }


def _metadata_group(group: Group) -> MetadataGroup:
    figures = group.figures
    assert figures.last_started_at is not None  # a group has a call
    return {
        "object": "analytics-group",
        "metadata_value": str(group.keys[0]),
        "requests": figures.calls,
        "cost": figures.cost,
        "avg_tokens": figures.total_tokens / figures.calls if figures.total_tokens is not None else None,
        "avg_weighted_feedback": figures.feedback.mean_product,
        "requests_with_feedback": figures.feedback.rated_calls,
        "last_seen": iso_time(figures.last_started_at),
    }
