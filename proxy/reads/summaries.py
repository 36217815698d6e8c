"""``POST /v1/feedback/summary``: what feedback adds up to, by groups, and how two sides compare. Contract section 6."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import TypedDict

from proxy.dialects import Answer, Dialect
from proxy.feedback.items import iso_time
from proxy.feedback.reading import JsonReader, validate_as_portkey
from proxy.operations import Operation
from proxy.reads.bodies import INVALID, WHOLE, HeliconeBody, Tree
from proxy.reads.columns import property_field
from proxy.reads.figures import FeedbackFigures, RateInterval, feedback_figures
from proxy.reads.filters import read_filter
from proxy.reads.intervals import CONFIDENCE, difference
from proxy.routes import Route, RouteCall
from storage.base import Storage
from storage.filters import All, Node
from storage.filters import Field as CallField
from storage.queries import FIGURES, OF_FEEDBACK, Dimension, Figures, Group, GroupSort, TimeBucket

__all__ = ["FeedbackSummaries"]

_HOUR: Final = 3_600_000_000
_DAY: Final = 24 * _HOUR
_MINUTE: Final = 60_000_000
_MONDAY: Final = 4 * _DAY  # the epoch was a Thursday
_FIELDS: Final = {
    "model": CallField("model"),
    "request_model": CallField("request_model"),
    "provider": CallField("provider"),
    "user": CallField("user_id"),
    "session": CallField("session_id"),
    "session_name": CallField("session_name"),
    "trace": CallField("trace_id"),
    "trace_name": CallField("span_name"),
    "prompt": CallField("prompt_id"),
    "prompt_version": CallField("prompt_version"),
    "path": CallField("path"),
    "status": CallField("status"),
}
_WANTED: Final = OF_FEEDBACK | {"calls", "failed_calls", "cost"}
_BUCKETS: Final = {"hour": (_HOUR, 0), "day": (_DAY, 0), "week": (7 * _DAY, _MONDAY)}
_PROPERTY: Final = re.compile(r"property:(.+)", re.DOTALL)
_TIME: Final = re.compile(r"time:(\w+)")
_MOST_DIMENSIONS: Final = 4
_DIMENSIONS: Final = ", ".join([*_FIELDS, "property:NAME", *(f"time:{name}" for name in _BUCKETS)])


_DIMENSION: Final = rf"^({'|'.join(_FIELDS)}|property:[\s\S]+|time:({'|'.join(_BUCKETS)}))$"


def _known_dimension(name: str) -> str:
    time = _TIME.fullmatch(name)
    if name in _FIELDS or _PROPERTY.fullmatch(name) or (time and time[1] in _BUCKETS):
        return name
    raise ValueError(f"has {name[:80]!r}, which is none of {_DIMENSIONS}")


def _known_figure(name: str) -> str:
    if name not in FIGURES:
        raise ValueError(f"must be one of {', '.join(FIGURES)}")
    return name


DimensionName = Annotated[
    str,
    AfterValidator(_known_dimension),
    Field(examples=["model", "property:Release"], json_schema_extra={"pattern": _DIMENSION}),
]
Figure = Annotated[str, AfterValidator(_known_figure), Field(json_schema_extra={"enum": [*FIGURES]})]


class Comparison(HeliconeBody):
    """Two sides: say, the time before a release and the time after, or two values of a property."""

    model_config = ConfigDict(extra="forbid")

    before: Tree
    after: Tree


class SummaryQuery(HeliconeBody):
    """Which calls, grouped by what, and which sides to compare."""

    model_config = ConfigDict(extra="forbid")

    filter: Tree = "all"
    by: Annotated[
        list[DimensionName],
        Field(
            default_factory=list,
            max_length=_MOST_DIMENSIONS,
            description=f"Any of {_DIMENSIONS}; weeks begin Monday.",
        ),
    ]
    time_zone: Annotated[
        int, Field(ge=-14 * 60, le=14 * 60, description="Minutes east of UTC, where days begin and end."), WHOLE
    ] = 0
    compare: Comparison | None = None
    sort: Figure | None = None
    descending: bool = True
    offset: Annotated[int, Field(ge=0, le=10**9), WHOLE] = 0
    limit: Annotated[int, Field(ge=0, le=1000), WHOLE] = 100


class Summary(FeedbackFigures):
    """Figures of a group of calls."""

    calls: int
    failed_calls: int
    cost: float | None


class SummaryGroup(TypedDict):
    """What the calls of a group have in common, null where they don't know it, and their figures."""

    by: dict[str, str | int | None]
    figures: Summary


class Compared(TypedDict):
    """The two sides, and the rate after less the rate before. `undecided`: the interval holds 0, or a side no item."""

    before: Summary
    after: Summary
    difference: float | None
    difference_interval: RateInterval | None
    verdict: Literal["better", "worse", "undecided"]


class SummaryData(TypedDict):
    """All of it: everything that the filter means together, the groups, and how many there are in all."""

    all: Summary
    groups: list[SummaryGroup]
    total: int
    comparison: Compared | None
    confidence: float


class SummaryAnswer(TypedDict):
    """The summary."""

    data: SummaryData
    error: None


_SUMMARY: Final = Operation(
    summary="What feedback adds up to: counts, rates, means and unrated calls, by groups; and how two sides compare.",
    body=SummaryQuery,
    answer=SummaryAnswer,
)


class FeedbackSummaries:
    """Sums up feedback."""

    def __init__(self, storage: Storage, reader: JsonReader) -> None:
        self._storage = storage
        self._reader = reader

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [Route("POST", "/v1/feedback/summary", Dialect.HELICONE, "read", _SUMMARY, self.summarise)]

    async def summarise(self, call: RouteCall) -> Answer:
        """The figures, from one moment's log each."""
        asked = validate_as_portkey(SummaryQuery, await self._reader.read(call), code=INVALID)
        where, sides = read_filter(asked.filter), _sides(asked.compare)
        everything, (groups, total), comparison = await asyncio.gather(
            self._all(call.organisation, where),
            self._groups(call.organisation, where, asked),
            self._compared(call.organisation, where, sides),
        )
        answer: SummaryAnswer = {
            "data": {
                "all": everything,
                "groups": [_group(asked.by, group) for group in groups],
                "total": total,
                "comparison": comparison,
                "confidence": CONFIDENCE,
            },
            "error": None,
        }
        return Answer(answer)

    async def _groups(self, organisation: str, where: Node, asked: SummaryQuery) -> tuple[Sequence[Group], int]:
        if not asked.by:
            return (), 0
        by = [_dimension(name, asked.time_zone) for name in asked.by]
        sort = GroupSort(asked.sort, asked.descending if asked.sort else False)
        return await self._storage.summarise(
            organisation, where, by, sort, limit=asked.limit, offset=asked.offset, wanted=_WANTED
        )

    async def _all(self, organisation: str, where: Node) -> Summary:
        [group], _ = await self._storage.summarise(organisation, where, [], GroupSort(), limit=1, wanted=_WANTED)
        return _figures(group.figures)

    async def _compared(self, organisation: str, where: Node, sides: tuple[Node, Node] | None) -> Compared | None:
        if sides is None:
            return None
        before, after = await asyncio.gather(
            *(self._all(organisation, All((where, side))) for side in sides),
        )
        interval = difference(before["positive"], before["count"], after["positive"], after["count"])
        change = None
        if before["rate"] is not None and after["rate"] is not None:
            change = after["rate"] - before["rate"]
        verdict: Literal["better", "worse", "undecided"] = "undecided"
        if interval is not None and not interval.low <= 0 <= interval.high:
            verdict = "better" if interval.low > 0 else "worse"
        return {
            "before": before,
            "after": after,
            "difference": change,
            "difference_interval": {"low": interval.low, "high": interval.high} if interval else None,
            "verdict": verdict,
        }


def _sides(compared: Comparison | None) -> tuple[Node, Node] | None:
    if compared is None:
        return None
    return read_filter(compared.before, "compare.before"), read_filter(compared.after, "compare.after")


def _dimension(name: str, minutes: int) -> Dimension:
    if time := _TIME.fullmatch(name):
        width, offset = _BUCKETS[time[1]]
        return TimeBucket(width, offset - minutes * _MINUTE)
    if named := _PROPERTY.fullmatch(name):
        return property_field(named[1])
    return _FIELDS[name]


def _group(names: Sequence[str], group: Group) -> SummaryGroup:
    keys = {name: _shown(name, key) for name, key in zip(names, group.keys, strict=True)}
    return {"by": keys, "figures": _figures(group.figures)}


def _shown(name: str, key: Any) -> Any:
    return iso_time(key) if _TIME.fullmatch(name) else key


def _figures(figures: Figures) -> Summary:
    return {
        "calls": figures.calls,
        "failed_calls": figures.failed_calls,
        "cost": figures.cost,
        **feedback_figures(figures),
    }
