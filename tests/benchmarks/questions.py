"""Every question about many calls that Kibitz answers, as asked over HTTP: of the whole log, or of its last days."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from tests.benchmarks.population import DAY, END, START

__all__ = ["Question", "questions"]

_CALLS: Final = "request_response_rmt"
_CONDITIONS: Final[dict[str, Any]] = {
    "all": "all",
    "model": {_CALLS: {"model": {"equals": "gpt-4.1"}}},
    "status": {_CALLS: {"status": {"equals": 429}}},
    "user": {_CALLS: {"user_id": {"equals": "user-7"}}},
    "user, a rare one": {_CALLS: {"user_id": {"equals": "user-4321"}}},
    "no such user": {_CALLS: {"user_id": {"equals": "nobody"}}},
    "cost above": {_CALLS: {"cost": {"gt": 0.007}}},
    "property": {"properties": {"Team": {"equals": "b"}}},
    "property, a rare one": {"properties": {"Experiment": {"equals": "variant-7"}}},
    "no such property": {"properties": {"Nobody": {"equals": "knows"}}},
    "score": {"scores": {"accuracy": {"gt": 90}}},
    "rated well": {_CALLS: {"helicone-score-feedback": {"equals": True}}},
    "rated badly": {_CALLS: {"helicone-score-feedback": {"equals": False}}},
    "unrated": {_CALLS: {"helicone-score-feedback": {"equals": "null"}}},
    "session rated badly": {"sessions_request_response_rmt": {"session_rating": {"equals": False}}},
    "rated well, score above 90": {
        "left": {_CALLS: {"helicone-score-feedback": {"equals": True}}},
        "operator": "and",
        "right": {"scores": {"accuracy": {"gt": 90}}},
    },
    "rated badly in a release": {
        "left": {_CALLS: {"helicone-score-feedback": {"equals": False}}},
        "operator": "and",
        "right": {"properties": {"Release": {"equals": "2.3"}}},
    },
}
_TEXTS: Final[dict[str, Any]] = {
    "text of some": {_CALLS: {"request_body": {"contains": "invoice refund weather summary"}}},
    "text of one": {_CALLS: {"request_body": {"contains": "password 777777"}}},
    "text of none": {_CALLS: {"response_body": {"contains": "no such text"}}},
}
_SORTS: Final[dict[str, Any]] = {
    "oldest": {"created_at": "asc"},
    "cost": {"cost": "desc"},
    "latency": {"latency": "desc"},
    "tokens": {"total_tokens": "asc"},
    "user": {"user_id": "asc"},
    "model": {"model": "desc"},
    "rating": {"helicone-score-feedback": "asc"},
    "a score": {"scores": {"accuracy": "desc"}},
    "a property": {"properties": {"Team": "asc"}},
    "chance": {"random": "asc"},
}
_DIMENSIONS: Final = (
    "model", "provider", "user", "session", "session_name", "trace", "trace_name", "prompt", "path", "status",
    "property:Release", "property:Experiment", "time:hour", "time:day", "time:week",
)  # fmt: skip
_DIMENSIONS_TOGETHER: Final = {
    "model and day": ["model", "time:day"],
    "release and model": ["property:Release", "model"],
    "user and model": ["user", "model"],
    "session and model": ["session", "model"],
}


@dataclass(frozen=True, slots=True)
class Question:
    """One request. ``days`` is how far back it looks, if not to the log's beginning."""

    name: str
    path: str
    body: dict[str, Any] | None
    """None: a GET."""
    days: int | None


def questions(days: int | None, *, texts: bool = False) -> Iterator[Question]:
    """All of them, or those on texts."""

    def post(name: str, path: str, **body: Any) -> Question:
        return Question(name, f"/v1/{path}", body, days)

    since = START if days is None else END - days * DAY
    recent: Any = "all" if days is None else {_CALLS: {"request_created_at": {"gte": since / 1000}}}
    conditions = {name: _both(recent, condition) for name, condition in (_TEXTS if texts else _CONDITIONS).items()}
    for name, condition in conditions.items():
        yield post(f"page: {name}", "request/query", filter=condition, limit=50)
        yield post(f"count: {name}", "request/count/query", filter=condition)
    if texts:
        return
    yield from _pages(recent, post)
    yield from _groups(since, recent, days is None, post)
    yield from (Question(name, path, None, days) for name, path in _graphs(since))


def _pages(recent: Any, post: Any) -> Iterator[Question]:
    for name, sort in _SORTS.items():
        yield post(f"page by {name}", "request/query", filter=recent, sort=sort, limit=50)
    yield post("page of 1000", "request/query", filter=recent, limit=1000)
    yield post("page at offset 10,000", "request/query", filter=recent, offset=10_000, limit=50)
    yield post("page far down", "request/query", filter=recent, offset=500_000, limit=50)
    yield post(
        "dataset's ids of a filter", "request/query", filter=_both(recent, _CONDITIONS["rated well"]), limit=1000
    )


def _groups(since: int, recent: Any, is_whole: bool, post: Any) -> Iterator[Question]:
    milliseconds = {"startTimeUnixMs": since / 1000, "endTimeUnixMs": END / 1000}
    seconds = {"startTimeUnixSeconds": since / 1e6, "endTimeUnixSeconds": END / 1e6}
    texts = {"start": _iso(since), "end": _iso(END)}
    spans = [{} if is_whole else {"timeFilter": span} for span in (milliseconds, seconds, texts)]
    yield post("sessions", "session/query", **spans[0])
    yield post("sessions far down", "session/query", offset=2000, limit=1000, **spans[0])
    yield post("sessions that contain", "session/query", search="flow 7", **spans[0])
    dear = {"sessions_request_response_rmt": {"session_total_cost": {"gt": 0.05}}}
    yield post("sessions by cost", "session/query", filter=dear, **spans[0])
    yield post("session names", "session/name/query", **spans[0])
    yield post("session metrics", "session/metrics/query", **spans[0])
    yield post("users", "user/query", **spans[1])
    yield post("user metrics", "user/metrics/query", filter="all", **spans[1])
    yield post("user metrics by cost", "user/metrics/query", filter="all", sort={"cost": "desc"}, **spans[1])
    many = {"users_view": {"user_total_requests": {"gt": 100}}}
    yield post("user metrics of some", "user/metrics/query", filter=many, **spans[1])
    yield post("user spread", "user/metrics-overview/query", filter=recent)
    yield post("property values", "property/Experiment/search", searchTerm="ant-1")
    yield post("property names", "property/query")
    yield post("dearest values", "property/Team/top-costs/query", **spans[2])
    yield post("commonest values", "property/Experiment/top-requests/query", **spans[2])
    yield post("summary", "feedback/summary", filter=recent)
    for dimension in _DIMENSIONS:
        yield post(f"summary by {dimension}", "feedback/summary", filter=recent, by=[dimension])
    for name, by in _DIMENSIONS_TOGETHER.items():
        yield post(f"summary by {name}", "feedback/summary", filter=recent, by=by)
    of_release = _both(recent, {"properties": {"Release": {"equals": "2.10"}}})
    of_model = _both(recent, _CONDITIONS["model"])
    yield post("summary of a release by model", "feedback/summary", filter=of_release, by=["model"])
    yield post("summary of a model by user", "feedback/summary", filter=of_model, by=["user"])
    yield post("summary by user, worst", "feedback/summary", filter=recent, by=["user"], sort="feedback_negative")
    releases = [{"properties": {"Release": {"equals": name}}} for name in ("2.10", "2.11")]
    yield post("two releases", "feedback/summary", filter=recent, compare=_sides(releases))
    yield post("two releases of a model", "feedback/summary", filter=of_model, compare=_sides(releases))
    yield post("two releases by model", "feedback/summary", filter=recent, by=["model"], compare=_sides(releases))
    middle = END / 1000 - 3 * DAY / 1000
    periods = [{_CALLS: {"request_created_at": {operator: middle}}} for operator in ("lt", "gte")]
    yield post("two periods", "feedback/summary", filter=recent, compare=_sides(periods))


def _graphs(since: int) -> Iterator[tuple[str, str]]:
    span = urlencode({"time_of_generation_min": _iso(since), "time_of_generation_max": _iso(END)})
    for graph in ("", "/scores", "/weighted", "/ai-models"):
        yield f"graph{graph}", f"/v1/analytics/graphs/feedbacks{graph}?{span}"
    yield "groups of metadata", f"/v1/analytics/groups/metadata/Release?{span}"
    yield "groups of rare metadata", f"/v1/analytics/groups/metadata/Experiment?{span}"


def _sides(filters: list[Any]) -> dict[str, Any]:
    return {"before": filters[0], "after": filters[1]}


def _both(one: Any, other: Any) -> Any:
    if "all" in (one, other):
        return other if one == "all" else one
    return {"left": one, "operator": "and", "right": other}


def _iso(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1e6, UTC).isoformat()
