"""Helicone's questions about sessions, users and properties. Contract section 7; contracts/helicone 4.4 and 4.5."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from proxy.reads.histograms import average, histogram
from tests.conftest import Running
from tests.feedback import ask, rate
from tests.logs import custom, send
from tests.upstream import Upstream, chat_answer, json_answer

CALLS: list[dict[str, str]] = [
    {"Helicone_Session_Id": "s1", "Helicone_Session_Name": "Chat", "Helicone_User_Id": "ada"},
    {"Helicone_Session_Id": "s1", "Helicone_User_Id": "ada", "Helicone_Property_Team": "blue"},
    {"Helicone_Session_Id": "s2", "Helicone_Session_Name": "Agent", "Helicone_Property_Team": "blue"},
    {"Helicone_Session_Id": "s3", "Helicone_Session_Name": "Chat", "Helicone_User_Id": "bob"},
    {"Helicone_Property_Zone": "n", "Helicone_Property_Team": "red"},
]


@pytest.fixture
async def log(kibitz: Running, upstream: Upstream) -> Running:
    upstream.answer = chat_answer()
    for number, headers in enumerate(CALLS):
        await kibitz.chat(Helicone_Request_Id=f"c{number}", **headers)
    assert (await rate(kibitz, "c0", False)).status == 200
    assert (await ask(kibitz, "POST", "/session/s2/feedback", {"rating": True})).status == 200
    return kibitz


async def data(kibitz: Running, path: str, **body: Any) -> Any:
    answer = await ask(kibitz, "POST", path, body)
    assert answer.status == 200, answer.body
    assert answer.body["error"] is None
    return answer.body["data"]


async def test_sessions_come_newest_first_with_what_they_add_up_to(log: Running) -> None:
    sessions = await data(log, "/session/query")
    shown = [(one["session_id"], one["session_name"], one["total_requests"], one["rating"]) for one in sessions]
    assert shown == [("s3", "Chat", 1, None), ("s2", "Agent", 1, True), ("s1", "Chat", 2, None)]
    last = sessions[-1]
    assert (last["prompt_tokens"], last["completion_tokens"], last["total_tokens"]) == (18, 6, 24)
    assert last["total_cost"] > 0
    assert last["avg_latency"] > 0
    assert last["created_at"] < last["latest_request_created_at"]
    feedback = last["feedback"]
    assert (feedback["negative"], feedback["rate"], feedback["unrated_calls"]) == (1, 0, 1)


SESSIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({"search": "AGE"}, ["s2"]),
    ({"search": "s3"}, ["s3"]),
    ({"nameEquals": "Chat"}, ["s3", "s1"]),
    ({"filter": {"properties": {"team": {"equals": "blue"}}}}, ["s2", "s1"]),
    ({"filter": {"sessions_request_response_rmt": {"session_rating": {"equals": True}}}}, ["s2"]),
    ({"limit": 1, "offset": 1}, ["s2"]),
    ({"filter": {"sessions_request_response_rmt": {"session_total_requests": {"gt": 1}}}}, ["s1"]),
    ({"filter": {"sessions_request_response_rmt": {"session_total_tokens": {"lt": 13}}}}, ["s3", "s2"]),
    ({"filter": {"sessions_request_response_rmt": {"session_total_cost": {"equals": None}}}}, []),
    ({"filter": {"sessions_request_response_rmt": {"session_created_at": {"gt": "2020-01-01"}}}}, ["s3", "s2", "s1"]),
    ({"filter": {"sessions_request_response_rmt": {"session_latest_request_created_at": {"lt": "2020-01-01"}}}}, []),
    ({"filter": {"sessions_request_response_rmt": {"session_avg_latency": {"lt": 60_000}}}}, ["s3", "s2", "s1"]),
    (
        {
            "filter": {
                "left": {"sessions_request_response_rmt": {"session_total_requests": {"equals": 1}}},
                "operator": "and",
                "right": {"properties": {"team": {"equals": "blue"}}},
            }
        },
        ["s2", "s1"],  # one call of each is of that team
    ),
    ({"timeFilter": {"startTimeUnixMs": 0, "endTimeUnixMs": 1}}, []),
    ({"timeFilter": {"startTimeUnixMs": 1.7e12, "endTimeUnixMs": 4e12}, "timezoneDifference": 0}, ["s3", "s2", "s1"]),
]


@pytest.mark.parametrize(("body", "wanted"), SESSIONS, ids=[str(body) for body, _ in SESSIONS])
async def test_sessions_are_found_by_what_is_asked(body: dict[str, Any], wanted: list[str], log: Running) -> None:
    assert [one["session_id"] for one in await data(log, "/session/query", **body)] == wanted


async def test_names_of_sessions_count_their_sessions(log: Running) -> None:
    names = await data(log, "/session/name/query", nameContains="")
    assert [(one["name"], one["session_count"]) for one in names] == [("Chat", 2), ("Agent", 1)]
    assert all(one["first_used"] <= one["last_used"] for one in names)
    assert [one["name"] for one in await data(log, "/session/name/query", nameContains="gen")] == ["Agent"]


async def test_sessions_spread_by_calls_duration_and_cost(log: Running) -> None:
    metrics = await data(log, "/session/metrics/query", nameContains="", pSize="p99.9")
    for name in ("session_count", "session_duration", "session_cost"):
        assert len(metrics[name]) == 10
        assert sum(one["value"] for one in metrics[name]) == 3
    assert metrics["average"]["session_count"] == [{"average": 4 / 3}]
    nothing = await data(log, "/session/metrics/query", nameContains="none", useInterquartile=True)
    assert (nothing["session_cost"], nothing["average"]["session_cost"]) == ([], [{"average": None}])


async def test_users_add_up_and_calls_of_nobody_are_left_out(log: Running) -> None:
    users = await data(log, "/user/query")
    assert [(one["user_id"], one["count"], one["prompt_tokens"]) for one in users] == [("ada", 2, 18), ("bob", 1, 9)]
    assert [one["user_id"] for one in await data(log, "/user/query", userIds=["bob", "eve"])] == ["bob"]
    span = {"startTimeUnixSeconds": time.time() - 60, "endTimeUnixSeconds": time.time() + 60}
    assert len(await data(log, "/user/query", timeFilter=span)) == 2
    assert await data(log, "/user/query", timeFilter={"startTimeUnixSeconds": 0, "endTimeUnixSeconds": 1}) == []


async def test_users_have_their_activity_and_feedback(log: Running) -> None:
    found = await data(log, "/user/metrics/query", filter="all", sort={"total_requests": "desc"}, limit=1)
    assert (found["count"], found["hasUsers"]) == (2, True)
    [ada] = found["users"]
    assert (ada["id"], ada["active_for"], ada["total_requests"]) == ("ada", 1, 2)
    assert (ada["average_requests_per_day_active"], ada["average_tokens_per_request"]) == (2, 12)
    assert (ada["feedback"]["negative"], ada["feedback"]["unrated_calls"]) == (1, 1)
    behind = await data(log, "/user/metrics/query", filter="all", offset=10)
    assert behind == {"users": [], "count": 2, "hasUsers": True}
    too_many = await ask(log, "POST", "/user/metrics/query", {"filter": "all", "limit": 1001})
    assert (too_many.status, too_many.body["error"]) == (400, "Limit cannot be greater than 1000")
    for figure in ("id", "average_requests_per_day_active", "average_tokens_per_request"):
        ordered = await data(log, "/user/metrics/query", filter="all", sort={figure: "desc"})
        figures = [one[figure] for one in ordered["users"]]
        assert figures == sorted(figures, reverse=True)
    unknown = await ask(log, "POST", "/user/metrics/query", {"filter": "all", "sort": {"colour": "asc"}})
    assert unknown.status == 400


async def test_properties_are_named_and_searched(log: Running) -> None:
    named = [one["property"] for one in await data(log, "/property/query")]
    assert named == ["Helicone-Session-Feedback", "Team", "Zone"]
    assert await data(log, "/property/TEAM/search", searchTerm="") == ["blue", "red"]
    assert await data(log, "/property/team/search", searchTerm="LU") == ["blue"]
    assert await data(log, "/property/none/search", searchTerm="") == []
    assert await data(log, "/property/Helicone-Session-Id/search", searchTerm="2") == ["s2"]


async def test_the_top_values_of_a_property_leave_the_others_together(log: Running) -> None:
    assert await data(log, "/property/team/top-requests/query") == [
        {"value": "blue", "count": 2},
        {"value": "red", "count": 1},
    ]
    for number in range(12):
        await log.chat(Helicone_Property_Team=f"team {number}")
    counts = await data(
        log, "/property/team/top-requests/query", timeFilter={"start": "2020-01-01", "end": "2999-01-01"}
    )
    assert len(counts) == 11
    assert counts[-1] == {"value": "Other", "count": 4}
    costs = await data(log, "/property/team/top-costs/query")
    assert costs[0]["value"] == "blue"
    assert costs[-1]["value"] == "Other"
    assert costs[-1]["cost"] == pytest.approx(costs[-2]["cost"] * 4)


def test_a_histogram_has_every_value_once_in_ranges_without_gaps() -> None:
    spread = histogram([5.0, 1.0, 2.0, 11.0, 3.0], 1.0, interquartile=False)
    assert [one["value"] for one in spread] == [1, 1, 1, 0, 1, 0, 0, 0, 0, 1]
    assert [one["range_end"] for one in spread[:-1]] == [one["range_start"] for one in spread[1:]]
    assert [one["value"] for one in histogram([7.0, 7.0], 1.0, interquartile=False)] == [2] + [0] * 9
    assert sum(one["value"] for one in histogram([*range(100)], 0.75, interquartile=False)) == 75
    assert sum(one["value"] for one in histogram([*range(10), 1000], 1.0, interquartile=True)) == 10
    assert histogram([], 0.5, interquartile=True) == []
    assert average([]) == [{"average": None}]


USERS: list[tuple[str, Any, list[str]]] = [
    ("user_total_requests", {"gte": 2}, ["ada"]),
    ("user_cost", {"lt": 1000}, ["ada", "bob"]),
    ("user_active_for", {"equals": 2}, []),
    ("user_average_requests_per_day_active", {"lt": 2}, ["bob"]),
    ("user_average_tokens_per_request", {"equals": 12}, ["ada", "bob"]),
    ("user_first_active", {"gt": "2020-01-01T00:00:00Z"}, ["ada", "bob"]),
    ("user_user_id", {"equals": "bob"}, ["bob"]),
]


@pytest.mark.parametrize(("column", "compared", "wanted"), USERS, ids=[column for column, _, _ in USERS])
async def test_users_are_found_by_what_they_add_up_to(
    column: str, compared: dict[str, Any], wanted: list[str], log: Running
) -> None:
    found = await data(log, "/user/metrics/query", filter={"users_view": {column: compared}}, sort={"user_id": "asc"})
    assert [user["user_id"] for user in found["users"]] == wanted
    assert found["count"] == len(wanted)


TOTAL: dict[str, Any] = {"sessions_request_response_rmt": {"session_total_cost": {"gt": 0}}}
MIXED: dict[str, Any] = {"left": TOTAL, "operator": "or", "right": {"properties": {"team": {"equals": "blue"}}}}
NOT_THERE: list[tuple[str, Any, str]] = [
    ("/session/query", MIXED, 'joined by "and" only'),
    ("/request/query", TOTAL, "'cost' of a session can be asked for where sessions are, and not here"),
    ("/session/name/query", TOTAL, "and not here"),
    ("/user/metrics/query", TOTAL, "and not here"),
    ("/session/query", {"users_view": {"user_cost": {"gt": 0}}}, "'cost' of a user"),
]


@pytest.mark.parametrize(("path", "filter", "said"), NOT_THERE)
async def test_totals_are_asked_for_where_they_are(path: str, filter: Any, said: str, kibitz: Running) -> None:
    answer = await ask(kibitz, "POST", path, {"filter": filter, "nameContains": ""})
    assert answer.status == 400
    assert said in answer.body["error"]


async def test_a_session_has_the_tag_that_it_was_given_last(log: Running) -> None:
    path = "/session/s1/tag"
    assert await asked(log, "GET", path) is None
    for tag in ("spam", "good"):
        assert (await ask(log, "POST", path, {"tag": tag})).status == 200
        assert await asked(log, "GET", path) == tag
    shown = {one["session_id"]: one["session_tag"] for one in await data(log, "/session/query")}
    assert shown == {"s1": "good", "s2": None, "s3": None}
    tagged = {"sessions_request_response_rmt": {"session_tag": {"equals": "good"}}}
    assert [one["session_id"] for one in await data(log, "/session/query", filter=tagged)] == ["s1"]
    unknown = await ask(log, "POST", "/session/nobody/tag", {"tag": "x"})
    assert (unknown.status, unknown.body["error"]) == (404, "No request found")
    assert (await ask(log, "POST", path, {"tag": 7})).status == 422


async def test_whether_there_are_sessions_is_told(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = chat_answer()
    await kibitz.chat()
    assert await asked(kibitz, "GET", "/session/has-session") is False
    await kibitz.chat(Helicone_Session_Id="s")
    assert await asked(kibitz, "GET", "/session/has-session") is True


async def asked(kibitz: Running, method: str, path: str) -> Any:
    answer = await ask(kibitz, method, path)
    assert answer.status == 200, answer.body
    return answer.body["data"]


async def test_users_spread_by_calls_and_cost(log: Running) -> None:
    spread = await data(log, "/user/metrics-overview/query", filter="all", pSize="p99.9")
    ranges = spread["request_count"]
    assert (ranges[0]["range_start"], ranges[-1]["range_end"]) == (1, 2)
    assert [one["value"] for one in ranges] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert sum(one["value"] for one in spread["user_cost"]) == 2
    busy = {"users_view": {"user_total_requests": {"gt": 1}}}
    assert sum(one["value"] for one in (await data(log, "/user/metrics-overview/query", filter=busy))["user_cost"]) == 1


async def test_figures_that_can_not_be_leave_a_log_that_adds_up(kibitz: Running, upstream: Upstream) -> None:
    usage = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 2**63 - 1)
    upstream.answer = json_answer(orjson.dumps({"object": "chat.completion", "choices": [], "usage": usage}))
    for _ in range(2):
        await kibitz.chat(Helicone_User_Id="huge")
    timing = {
        "startTime": {"seconds": 0, "milliseconds": 0},
        "endTime": {"seconds": 253_402_300_799, "milliseconds": 0},
    }
    for _ in range(40):  # of as many microseconds as these last, 2**63 is not enough
        logged, _ = await send(kibitz, "/custom/v1/log", custom(timing=timing))
        assert logged.status == 200, logged
    summary = await data(kibitz, "/feedback/summary")
    assert summary["all"]["calls"] == 42
    [huge] = await data(kibitz, "/user/query", userIds=["huge"])
    assert (huge["count"], huge["prompt_tokens"]) == (2, None)
