"""Feedback read back: lists, what a row's feedback adds up to, and that no body, however odd, breaks a route."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import Launcher, Running
from tests.feedback import add_value, ask, failure_message, listed, path_of, rate
from tests.upstream import Upstream

ITEM_FIELDS: Final = {
    *("id", "kind", "value", "weight", "comment", "metadata", "request_id", "trace_id", "session_id", "source"),
    *("effective", "created_at", "updated_at"),
}


@pytest.fixture
async def mixed(kibitz: Running) -> Running:
    """A call with a rating, its trace with a value, its session with a rating."""
    await kibitz.chat(Helicone_Request_Id="r", Helicone_Session_Id="s", x_portkey_trace_id="t")
    await rate(kibitz, "r", True, comment="good", metadata={"page": 3})
    await add_value(kibitz, "t", -4, weight=0.5, metadata={"_user": "ada"})
    await ask(kibitz, "POST", "/session/s/feedback", {"rating": False})
    return kibitz


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(
            {"request_id": "r"},
            {"kind": "rating", "value": 1, "weight": 1, "comment": "good", "metadata": {"page": 3}, "request_id": "r"},
            id="request_id: the request's rating",
        ),
        pytest.param(
            {"trace_id": "t"},
            {"kind": "value", "value": -4, "weight": 0.5, "metadata": {"_user": "ada"}, "trace_id": "t"},
            id="trace_id: the trace's value",
        ),
        pytest.param(
            {"session_id": "s"},
            {"kind": "rating", "value": 0, "weight": 1, "session_id": "s"},
            id="session_id: the session's rating",
        ),
    ],
)
async def test_the_list_shows_items_whole(mixed: Running, query: dict[str, str], expected: dict[str, Any]) -> None:
    (item,) = await listed(mixed, **query)
    assert set(item) == ITEM_FIELDS
    assert {name: item[name] for name in expected} == expected
    assert item["effective"] is True
    assert item["source"]


async def test_the_times_of_an_item_are_iso_8601_in_utc(mixed: Running) -> None:
    (item,) = await listed(mixed, request_id="r")
    for name in ("created_at", "updated_at"):
        assert datetime.fromisoformat(item[name]).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "query", ["trace_id=x", "request_id=x", "session_id=x", "unmatched=true", "trace_id=t&request_id=x"]
)
async def test_a_list_of_nothing_is_empty(mixed: Running, query: str) -> None:
    reply = await ask(mixed, "GET", f"/feedback?{query}")
    assert (reply.status, reply.body) == (200, {"object": "list", "total": 0, "data": []})


async def test_the_list_answers_with_a_trailing_slash_too(mixed: Running) -> None:
    slashed = await ask(mixed, "GET", "/feedback/?trace_id=t")
    assert (slashed.status, slashed.body["total"]) == (200, 1)


@pytest.mark.parametrize("encoded", ["%C3%BC%20%26%25", "%FC+%26%25"], ids=["UTF-8", "Latin-1"])
async def test_the_list_reads_its_query_percent_decoded(kibitz: Running, encoded: str) -> None:
    await add_value(kibitz, "ü &%", 1)
    reply = await ask(kibitz, "GET", f"/feedback?trace_id={encoded}")
    assert (reply.status, reply.body["total"]) == (200, 1)


@pytest.mark.parametrize("query", ["", "?", "?trace_id=", "?limit=5", "?unmatched=false"])
async def test_a_list_of_everything_is_400(mixed: Running, query: str) -> None:
    assert "trace_id" in failure_message(await ask(mixed, "GET", f"/feedback{query}"))


async def test_the_list_takes_a_response_id_for_a_request_id(mixed: Running) -> None:
    assert [item["request_id"] for item in await listed(mixed, request_id="chatcmpl-1")] == ["r"]


async def test_the_list_holds_the_replaced_ratings_too(mixed: Running) -> None:
    await rate(mixed, "r", False)
    assert [(item["value"], item["effective"]) for item in await listed(mixed, request_id="r")] == [
        (1, False),
        (0, True),
    ]


async def test_a_row_without_feedback_says_that_it_is_unrated(kibitz: Running) -> None:
    await kibitz.chat(Helicone_Request_Id="r")
    assert (await kibitz.row("r"))["feedback"] == {
        "rating": None,
        "count": 0,
        "positive": 0,
        "negative": 0,
        "weighted_mean": None,
        "items": [],
    }


async def test_a_row_adds_up_its_rating_and_its_traces_values(mixed: Running) -> None:
    await rate(mixed, "r", False)
    await rate(mixed, "r", True)
    await add_value(mixed, "t", 10, weight=0.25)
    feedback = (await mixed.row("r"))["feedback"]
    items = feedback.pop("items")
    assert feedback == {
        "rating": True,
        "count": 3,
        "positive": 2,
        "negative": 1,
        "weighted_mean": pytest.approx((1 * 1 - 4 * 0.5 + 10 * 0.25) / (1 + 0.5 + 0.25)),
    }
    assert sorted((item["kind"], item["value"], item["effective"]) for item in items) == [
        ("rating", 0, False),
        ("rating", 1, False),
        ("rating", 1, True),
        ("value", -4, True),
        ("value", 10, True),
    ]
    assert all(set(item) == ITEM_FIELDS for item in items)


async def test_a_value_of_0_counts_as_negative(kibitz: Running) -> None:
    await kibitz.chat(Helicone_Request_Id="r")
    await add_value(kibitz, "r", 0)
    feedback = (await kibitz.row("r"))["feedback"]
    assert (feedback["count"], feedback["positive"], feedback["negative"]) == (1, 0, 1)
    assert (feedback["rating"], feedback["weighted_mean"]) == (None, 0)


async def test_a_mean_over_no_weight_is_null(kibitz: Running) -> None:
    await kibitz.chat(Helicone_Request_Id="r")
    await add_value(kibitz, "r", 5, weight=0)
    feedback = (await kibitz.row("r"))["feedback"]
    assert (feedback["count"], feedback["weighted_mean"]) == (1, None)


async def test_a_traces_value_is_shown_by_each_of_its_calls_and_a_rating_by_its_own(kibitz: Running) -> None:
    for request_id in ("r-1", "r-2"):
        await kibitz.chat(Helicone_Request_Id=request_id, x_portkey_trace_id="t")
    await kibitz.chat(Helicone_Request_Id="r-3")
    await add_value(kibitz, "t", 5)
    await rate(kibitz, "r-1", False)
    shown = [
        [item["value"] for item in (await kibitz.row(request_id))["feedback"]["items"]]
        for request_id in ("r-1", "r-2", "r-3")
    ]
    assert shown == [[5, 0], [5], []]


async def test_a_deleted_or_changed_value_is_out_of_the_sum(kibitz: Running) -> None:
    await kibitz.chat(Helicone_Request_Id="r")
    changed, deleted = await add_value(kibitz, "r", 5), await add_value(kibitz, "r", 5)
    await ask(kibitz, "PUT", path_of("/feedback/{id}", changed), {"value": -5})
    await ask(kibitz, "DELETE", path_of("/feedback/{id}", deleted))
    feedback = (await kibitz.row("r"))["feedback"]
    assert (feedback["count"], feedback["weighted_mean"]) == (1, -5)


async def test_the_answer_of_a_row_names_its_trace(mixed: Running) -> None:
    assert (await ask(mixed, "GET", "/request/r")).trace_id == "t"


async def test_a_restart_keeps_everything(launch: Launcher, upstream: Upstream) -> None:
    flags = ("--upstream", upstream.base_url, "--database", "kept.db")
    before = launch(*flags)
    identity = {"Helicone-Request-Id": "r", "Helicone-Session-Id": "s", "x-portkey-trace-id": "t"}

    def say_everything() -> list[int]:
        post, base = requests.post, before.base_url
        replies = [
            post(f"{base}/chat/completions", json={"model": "m", "messages": []}, headers=identity, timeout=10),
            post(f"{base}/request/r/feedback", json={"rating": True}, timeout=10),
            post(f"{base}/request/r/feedback", json={"rating": False, "comment": "no"}, timeout=10),
            post(f"{base}/session/s/feedback", json={"rating": True}, timeout=10),
            post(f"{base}/request/r/score", json={"scores": {"accuracy": 95, "passed": True}}, timeout=10),
            requests.put(f"{base}/request/r/property", json={"key": "Tier", "value": "gold"}, timeout=10),
            post(
                f"{base}/feedback", json=[{"trace_id": "t", "value": 5}, {"trace_id": "later", "value": 1}], timeout=10
            ),
        ]
        return [reply.status_code for reply in replies]

    def everything(base_url: str) -> list[Any]:
        queries = ("request/r", "feedback?session_id=s", "feedback?trace_id=t", "feedback?trace_id=later")
        return [requests.get(f"{base_url}/{query}", timeout=10).json() for query in queries]

    assert await asyncio.to_thread(say_everything) == [200] * 7
    kept = await asyncio.to_thread(everything, before.base_url)
    before.kill()
    after = launch(*flags)
    assert await asyncio.to_thread(everything, after.base_url) == kept
    assert kept[0]["data"]["scores"] == {"accuracy": 95, "passed": True, "helicone-score-feedback": 0}
    assert kept[0]["data"]["properties"] == {"Helicone-Session-Feedback": "1", "Tier": "gold"}
    assert [answer["total"] for answer in kept[1:]] == [1, 1, 1]


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
BOOLEANS: Final = st.booleans() | st.sampled_from(["true", "FALSE"]) | JSON
TEXTS: Final = st.text(max_size=8) | JSON
OBJECTS: Final = st.dictionaries(st.text(max_size=4), JSON, max_size=3) | JSON
SCORES: Final = st.dictionaries(st.text(max_size=4), st.floats(-1e9, 1e9) | st.booleans() | st.integers()) | JSON
VALUES: Final = st.integers(-11, 11) | JSON
WEIGHTS: Final = st.floats(0, 1) | JSON


def body_of(optional: Any = None, **fields: Any) -> st.SearchStrategy[Any]:
    """Bodies with those fields, each of them mostly as it should be."""
    return st.fixed_dictionaries(fields, optional=optional or {})


RATINGS: Final = body_of({"comment": TEXTS, "metadata": OBJECTS}, rating=BOOLEANS)
CHANGES: Final = body_of({"weight": WEIGHTS, "metadata": OBJECTS}, value=VALUES)
NEW_VALUES: Final = body_of({"weight": WEIGHTS, "metadata": OBJECTS}, value=VALUES, trace_id=st.just("t") | TEXTS)
BULKS: Final = st.lists(NEW_VALUES, max_size=3)
ROUTES: Final = [
    pytest.param("POST", "/request/r/feedback", RATINGS, id="request feedback"),
    pytest.param("POST", "/session/s/feedback", RATINGS, id="session feedback"),
    pytest.param("POST", "/request/r/score", body_of(scores=SCORES), id="request score"),
    pytest.param("PUT", "/request/r/property", body_of(key=TEXTS, value=TEXTS), id="request property"),
    pytest.param("POST", "/feedback", NEW_VALUES | BULKS, id="create"),
    pytest.param("POST", "/feedback", BULKS.map(lambda items: dict(enumerate(items))), id="create, Node's bulk"),
    pytest.param(
        "POST", "/feedback", body_of(**{"helicone-id": st.just("r") | TEXTS, "rating": BOOLEANS}), id="legacy"
    ),
    pytest.param("PUT", "/feedback/{id}", CHANGES, id="update"),
    pytest.param("POST", "/feedback/undefined", body_of(feedback_id=TEXTS, value=VALUES), id="update, id in the body"),
]


@dataclass(slots=True)
class Checker:
    """A client for a thread, because Hypothesis calls plain functions."""

    base_url: str
    session: requests.Session
    said: list[Any] = field(default_factory=list)

    def send(self, method: str, path: str, body: bytes = b"") -> requests.Response:
        return self.session.request(method, self.base_url + path, data=body, timeout=10)

    def everything(self) -> list[Any]:
        """What was said so far, as the read routes tell it."""
        answers = [self.send("GET", path) for path in ("/request/r", "/feedback?session_id=s")]
        assert [answer.status_code for answer in answers] == [200, 200]
        return [answer.json() for answer in answers]

    def check(self, method: str, path: str, body: bytes) -> None:
        before = self.said or self.everything()
        answer = self.send(method, path, body)
        assert answer.status_code in (200, 400, 404, 422), answer.text
        assert answer.headers["x-portkey-trace-id"]
        self.said = self.everything()
        assert answer.status_code == 200 or self.said == before


@pytest.mark.parametrize(("method", "path", "bodies"), ROUTES)
async def test_no_body_breaks_a_route_or_is_half_written(
    mixed: Running, method: str, path: str, bodies: st.SearchStrategy[Any]
) -> None:
    path = path.replace("{id}", await add_value(mixed, "t", 1))

    # No shrinking: what one example has written stays for the next.
    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(max_size=40) | (bodies | JSON).map(json.dumps).map(str.encode))
    def check(body: bytes) -> None:
        checker.check(method, path, body)

    with requests.Session() as session:
        checker = Checker(mixed.base_url, session)
        await asyncio.to_thread(check)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("POST", "/request/r/feedback", '{"rating": DEEP}', id="a rating"),
        pytest.param("POST", "/request/r/score", '{"scores": {"a": DEEP}}', id="a score"),
        pytest.param("PUT", "/request/r/property", '{"key": "k", "value": DEEP}', id="a property"),
        pytest.param("POST", "/feedback", '{"trace_id": "t", "value": DEEP}', id="a value"),
        pytest.param(
            "POST", "/request/r/feedback", '{"rating": true, "metadata": {"a": DEEP}}', id="a rating's metadata"
        ),
        pytest.param(
            "POST", "/session/s/feedback", '{"rating": true, "metadata": {"a": DEEP}}', id="a session's metadata"
        ),
        pytest.param(
            "POST", "/feedback", '{"trace_id": "t", "value": 1, "metadata": {"a": DEEP}}', id="a value's metadata"
        ),
        pytest.param("PUT", "/feedback/{id}", '{"value": 1, "metadata": {"a": DEEP}}', id="an update's metadata"),
        pytest.param("PUT", "/feedback/{id}", '{"value": 1, "metadata": "{\\"a\\": DEEP}"}', id="metadata as text"),
    ],
)
async def test_no_depth_breaks_a_route_or_what_reads_it_back(mixed: Running, method: str, path: str, body: str) -> None:
    path = path.replace("{id}", await add_value(mixed, "t", 1))
    with requests.Session() as session:
        checker = Checker(mixed.base_url, session)
        for depth in (1000, 250, 200, 100):
            deep = body.replace("DEEP", "[" * depth + "]" * depth).encode()
            await asyncio.to_thread(checker.check, method, path, deep)


@pytest.mark.parametrize("score", [2**63, 2**64, -(2**70), 1e20, -1e308, 5e-324, 0.1, 2**53], ids=repr)
async def test_a_score_of_any_size_is_read_back(mixed: Running, score: float) -> None:
    body = json.dumps({"scores": {"a": score}}).encode()
    reply = await ask(mixed, "POST", "/request/r/score", body)
    assert reply.status == 200
    assert (await mixed.row("r"))["scores"]["a"] == pytest.approx(score, rel=1e-12, abs=0)
