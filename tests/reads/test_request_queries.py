"""`POST /v1/request/query` and its kin: Helicone's filter trees over calls that were made. Contract section 7."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Running, StartKibitz
from tests.feedback import ask, rate
from tests.storage import a_call
from tests.upstream import Upstream, chat_answer

CALLS: list[dict[str, str]] = [
    {
        "Helicone_User_Id": "ada",
        "Helicone_Property_Release": "2.1",
        "Helicone_Session_Id": "s1",
        "Helicone_Session_Name": "Chat",
        "Helicone_Session_Path": "/a",
        "Helicone_Prompt_Id": "p1",
    },
    {"Helicone_User_Id": "ada", "Helicone_Property_Release": "2.2"},
    {"Helicone_User_Id": "bob", "Helicone_Property_release": "2.2", "Helicone_Session_Id": "s1"},
    {"x_portkey_trace_id": "t1"},
]


@pytest.fixture
async def log(kibitz: Running, upstream: Upstream) -> Running:
    """Four calls, c0 to c3, of which c0 is rated well, c1 badly, and c2 scored."""
    upstream.answer = chat_answer()
    for number, headers in enumerate(CALLS):
        response = await kibitz.chat(Helicone_Request_Id=f"c{number}", **headers)
        assert response.status == 200
    assert (await rate(kibitz, "c0", True)).status == 200
    assert (await rate(kibitz, "c1", False)).status == 200
    scored = await ask(kibitz, "POST", "/request/c2/score", {"scores": {"accuracy": 95, "polite": True}})
    assert scored.status == 200
    return kibitz


async def found(kibitz: Running, filter: Any, path: str = "/request/query", **more: Any) -> list[str]:
    answer = await ask(kibitz, "POST", path, {"filter": filter, "sort": {"created_at": "asc"}, **more})
    assert answer.status == 200, answer.body
    assert answer.body["error"] is None
    return [row["request_id"] for row in answer.body["data"]]


def leaf(column: str, operator: str, value: Any, table: str = "request_response_rmt") -> dict[str, Any]:
    return {table: {column: {operator: value}}}


FILTERS: list[tuple[Any, list[str]]] = [
    ("all", ["c0", "c1", "c2", "c3"]),
    ({}, ["c0", "c1", "c2", "c3"]),
    (leaf("user_id", "equals", "ada"), ["c0", "c1"]),
    (leaf("user_id", "not-equals", "ada"), ["c2", "c3"]),
    (leaf("user_id", "equals", "null"), ["c3"]),
    (leaf("user_id", "like", "A%"), []),
    (leaf("user_id", "ilike", "A%"), ["c0", "c1"]),
    (leaf("model", "contains", "4O-MINI"), ["c0", "c1", "c2", "c3"]),
    (leaf("status", "gte", 200), ["c0", "c1", "c2", "c3"]),
    (leaf("status", "equals", "200", "response"), ["c0", "c1", "c2", "c3"]),
    (leaf("total_tokens", "gt", 12), []),
    (leaf("latency", "lt", 60_000), ["c0", "c1", "c2", "c3"]),
    (leaf("request_created_at", "gt", "2020-01-01T00:00:00Z"), ["c0", "c1", "c2", "c3"]),
    (leaf("request_created_at", "lt", "2020-01-01T00:00:00Z"), []),
    (leaf("request_created_at", "gt", 1_577_836_800_000), ["c0", "c1", "c2", "c3"]),
    (leaf("helicone-score-feedback", "equals", True), ["c0"]),
    (leaf("helicone-score-feedback", "equals", False), ["c1"]),
    (leaf("helicone-score-feedback", "equals", None), ["c2", "c3"]),
    (leaf("rating", "equals", True, "feedback"), ["c0"]),
    ({"request_response_rmt": {"properties": {"RELEASE": {"equals": "2.2"}}}}, ["c1", "c2"]),
    ({"properties": {"Release": {"contains": "2."}}}, ["c0", "c1", "c2"]),
    ({"request_response_rmt": {"scores": {"accuracy": {"gt": 90}}}}, ["c2"]),
    ({"request_response_rmt": {"user_id": {"equals": "ada"}, "properties": {"release": {"equals": "2.1"}}}}, ["c0"]),
    (leaf("session_session_id", "equals", "s1", "sessions_request_response_rmt"), ["c0", "c2"]),
    (leaf("trace_id", "equals", "t1"), ["c3"]),
    # What Helicone keeps among properties and scores, and its clients look for there.
    (leaf("properties", "Helicone-Session-Id", {"equals": "s1"}), ["c0", "c2"]),
    (leaf("properties", "Helicone-Session-Id", {"equals": "s1"}, "request"), ["c0", "c2"]),
    (leaf("properties", "helicone-session-id", {"equals": "null"}, "sessions_request_response_rmt"), ["c1", "c3"]),
    (leaf("search_properties", "Helicone-Session-Name", {"contains": "hat"}), ["c0"]),
    ({"properties": {"Helicone-Session-Path": {"equals": "/a"}}}, ["c0"]),
    ({"properties": {"Helicone-Prompt-Id": {"equals": "p1"}}}, ["c0"]),
    (leaf("scores", "helicone-score-feedback", {"equals": 1}), ["c0"]),
    (leaf("scores", "helicone-score-feedback", {"equals": 0}), ["c1"]),
    (leaf("scores", "helicone-score-feedback", {"equals": False}), ["c1"]),
    (leaf("scores", "helicone-score-feedback", {"gte": 0}), ["c0", "c1"]),
    (leaf("scores", "helicone-score-feedback", {"lt": 0.5}), ["c1"]),
    (leaf("scores", "helicone-score-feedback", {"gt": 1}), []),
    (leaf("scores", "helicone-score-feedback", {"not-equals": 1}), ["c1", "c2", "c3"]),
    (leaf("scores", "helicone-score-feedback", {"equals": None}), ["c2", "c3"]),
    (leaf("scores", "polite", {"equals": True}), ["c2"]),
    (leaf("scores", "polite", {"equals": False}), []),
    (leaf("scores", "polite-hcone-bool", {"equals": 1}), ["c2"]),
    # What calls here have nothing of.
    (leaf("cached", "equals", False), ["c0", "c1", "c2", "c3"]),
    (leaf("threat", "equals", True), []),
    (leaf("country_code", "equals", "FR"), []),
    (leaf("country_code", "equals", "null"), ["c0", "c1", "c2", "c3"]),
    (leaf("assets", "not-equals", "x"), ["c0", "c1", "c2", "c3"]),
    (leaf("request_referrer", "contains", "x"), []),
    (leaf("cache_reference_id", "not-contains", "x"), ["c0", "c1", "c2", "c3"]),
    (leaf("prompt", "contains", "hello", "request"), ["c0", "c1", "c2", "c3"]),
    (leaf("body_completion", "contains", "hello there", "response"), ["c0", "c1", "c2", "c3"]),
    (leaf("org_id", "equals", "default", "request"), ["c0", "c1", "c2", "c3"]),
    (leaf("user_id", "contains", "\0"), []),
    (leaf("user_id", "ilike", "%\0"), []),
    (leaf("user_id", "like", "%\0%"), []),
    (leaf("user_id", "not-contains", "\0"), ["c0", "c1", "c2", "c3"]),
    # Times beyond those of any call.
    (leaf("request_created_at", "lte", "9999-12-31T23:59:59Z"), ["c0", "c1", "c2", "c3"]),
    (leaf("request_created_at", "gt", "0001-01-01"), ["c0", "c1", "c2", "c3"]),
    (leaf("request_created_at", "gt", 9e13), []),
    (leaf("request_created_at", "gt", "1577836800000"), ["c0", "c1", "c2", "c3"]),
    (leaf("request_body", "contains", "HELLO"), ["c0", "c1", "c2", "c3"]),
    (leaf("request_body", "not-contains", "hello"), []),
    (leaf("response_body", "contains", "hello there"), ["c0", "c1", "c2", "c3"]),
    (leaf("request_body_vector", "contains", "ello", "request_response_search"), ["c0", "c1", "c2", "c3"]),
    (
        {
            "left": leaf("user_id", "equals", "ada"),
            "operator": "and",
            "right": {
                "left": leaf("helicone-score-feedback", "equals", False),
                "operator": "or",
                "right": "all",
            },
        },
        ["c0", "c1"],
    ),
]


@pytest.mark.parametrize(("filter", "wanted"), FILTERS, ids=[str(filter)[:90] for filter, _ in FILTERS])
async def test_a_filter_finds_what_it_says(filter: Any, wanted: list[str], log: Running) -> None:
    assert await found(log, filter) == wanted
    assert await found(log, filter, "/request/query-clickhouse") == wanted
    counted = await ask(log, "POST", "/request/count/query", {"filter": filter})
    assert (counted.status, counted.body) == (200, {"data": len(wanted), "error": None})


MISTAKES: list[tuple[Any, str]] = [
    ({"filter": leaf("colour", "equals", "red")}, "'colour'"),
    ({"filter": {"colours": {"red": {"equals": 1}}}}, "'colours'"),
    ({"filter": leaf("user_id", "resembles", "ada")}, "'resembles'"),
    ({"filter": leaf("user_id", "gt", "ada")}, "'gt'"),
    ({"filter": leaf("status", "equals", "many")}, "'many'"),
    (
        {"filter": leaf("request_body", "equals", "a")},
        "can't be compared by 'equals'; it can by contains, not-contains",
    ),
    ({"filter": "all", "sort": {"request_body": "asc"}}, "nothing can be sorted by 'request_text'"),
    ({"filter": leaf("request_created_at", "gt", "yesterday")}, "'yesterday'"),
    ({"filter": leaf("user_id", "equals", "x" * 10_001)}, "no more than 10000 characters"),
    ({"filter": leaf("cached", "gt", 1)}, "'cached' can't be compared by 'gt'"),
    ({"filter": leaf("scores", "helicone-score-feedback", {"gt": "x"})}, "is compared with a number"),
    ({"filter": leaf("scores", "helicone-score-feedback", {"like": "x"})}, "can't be compared by 'like'"),
    ({"filter": {"left": "all", "operator": "xor", "right": "all"}}, '"and" or "or"'),
    ({"filter": {"left": "all", "right": "all"}}, '"operator"'),
    ({"filter": {"request_response_rmt": {}}}, "request_response_rmt"),
    ({"filter": {"request_response_rmt": {"properties": "x"}}}, "properties"),
    ({"filter": 7}, "filter"),
    ({"filter": "some"}, "filter"),
    ({}, "filter is required"),
    ({"filter": "all", "limit": 1001}, "limit"),
    ({"filter": "all", "limit": -1}, "limit"),
    ({"filter": "all", "offset": -1}, "offset"),
    ({"filter": "all", "sort": {"colour": "asc"}}, "'colour'"),
    ({"filter": "all", "sort": {"created_at": "up"}}, '"asc" or "desc"'),
    ({"filter": "all", "sort": {"created_at": "asc", "latency": "asc"}}, "one column"),
    ({"filter": "all", "cursor": "bm9uZQ=="}, "cursor"),
    ({"filter": "all", "cursor": "\u0000"}, "cursor"),
]


@pytest.mark.parametrize(("body", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
async def test_what_can_not_be_asked_is_400_and_named(body: Any, said: str, kibitz: Running) -> None:
    answer = await ask(kibitz, "POST", "/request/query", body)
    assert answer.status == 400
    assert answer.body["data"] is None
    assert said in answer.body["error"]


async def test_a_cursor_walks_over_everything_in_any_order_while_calls_go_on(log: Running) -> None:
    for sort in ({"created_at": "desc"}, {"latency": "asc"}, {"properties": {"Release": "desc"}}, {"user_id": "asc"}):
        walked, cursor = [], None
        while True:
            body = {"filter": "all", "sort": sort, "limit": 3, "cursor": cursor}
            answer = await ask(log, "POST", "/request/query", body)
            walked += [row["request_id"] for row in answer.body["data"]]
            cursor = answer.body["cursor"]
            if cursor is None:
                break
        assert sorted(walked) == ["c0", "c1", "c2", "c3"]
    assert await found(log, "all", limit=2, offset=1) == ["c1", "c2"]
    assert await found(log, "all", limit=0) == []


async def test_rows_are_those_of_the_single_read_and_have_bodies_on_request(log: Running) -> None:
    for include_body in (False, True):
        body = {"filter": "all", "includeBody": include_body, "sort": {"created_at": "asc"}}
        answer = await ask(log, "POST", "/request/query", body)
        single = [await log.row(f"c{number}", includeBody=include_body) for number in range(4)]
        assert answer.body["data"] == single


# contracts/helicone.md 4.3.
HELICONES = """
request_id response_id request_created_at response_created_at updated_at request_body response_body signed_body_url
asset_ids asset_urls assets storage_location request_path target_url provider request_referrer country_code
ai_gateway_body_mapping model request_model response_model model_override llmSchema response_status delay_ms
time_to_first_token prompt_tokens completion_tokens total_tokens prompt_cache_read_tokens prompt_cache_write_tokens
prompt_audio_tokens completion_audio_tokens reasoning_tokens cost costUSD request_user_id helicone_user
request_properties properties scores feedback_created_at feedback_id feedback_rating prompt_id prompt_version
cache_enabled cache_reference_id
"""


async def test_a_row_has_every_member_of_helicones(log: Running) -> None:
    answer = await ask(log, "POST", "/request/query", {"filter": "all"})
    for row in answer.body["data"]:
        assert set(HELICONES.split()) - row.keys() == set()
        assert (row["cache_enabled"], row["assets"], row["country_code"]) == (False, [], None)


async def test_rows_come_by_request_ids_with_every_attempt(log: Running) -> None:
    await log.chat(Helicone_Request_Id="c1")
    answer = await ask(log, "POST", "/request/query-ids", {"requestIds": ["c1", "c3", "nobody's"]})
    rows = [(row["request_id"], row["attempt"]) for row in answer.body["data"]]
    assert rows == [("c1", 2), ("c3", 1), ("c1", 1)]
    assert (await ask(log, "POST", "/request/query-ids", {"requestIds": ["x"] * 1001})).status == 400


async def test_scored_cached_and_experiments_are_told_apart(log: Running) -> None:
    assert await found(log, "all", isScored=True) == ["c0", "c1", "c2"]
    assert await found(log, "all", isScored=False) == ["c3"]
    assert await found(log, "all", isCached=True) == []
    assert await found(log, "all", isCached=False, isPartOfExperiment=False) == ["c0", "c1", "c2", "c3"]


async def test_a_text_in_either_body_is_found_at_once_and_counted(log: Running) -> None:
    counted = await ask(log, "POST", "/request/count/query", {"filter": "all", "search": "no such words"})
    assert counted.body["data"] == 0
    assert await found(log, leaf("user_id", "equals", "ada"), search="hello") == ["c0", "c1"]


async def test_an_index_is_kept_behind_the_calls_where_it_is_wanted(
    start_kibitz: StartKibitz, upstream: Upstream, tmp_path: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    kibitz = await start_kibitz(search=True)
    upstream.answer = chat_answer()
    for number in range(3):
        await kibitz.chat(Helicone_Request_Id=f"c{number}")
        assert await found(kibitz, "all", search="Hello") == [f"c{one}" for one in range(number + 1)]

    async def all_are_indexed() -> None:
        with closing(sqlite3.connect(tmp_path / "kibitz.db")) as db:
            assert db.execute("SELECT last FROM text_index").fetchone() == (3,)

    await eventually(all_are_indexed)
    assert await found(kibitz, "all", search="Hello") == ["c0", "c1", "c2"]


async def test_a_sample_is_drawn_anew_each_time_and_has_nothing_behind_it(log: Running) -> None:
    body = {"filter": leaf("user_id", "not-equals", "bob"), "sort": {"random": True}, "limit": 2}
    drawn = [(await ask(log, "POST", "/request/query", body)).body for _ in range(40)]
    pages = [tuple(row["request_id"] for row in page["data"]) for page in drawn]
    assert {len(set(page)) for page in pages} == {2}
    assert {one for page in pages for one in page} == {"c0", "c1", "c3"}
    assert {page["cursor"] for page in drawn} == {None}
    walked = await ask(log, "POST", "/request/query", {"filter": "all"})
    refused = await ask(log, "POST", "/request/query", {**body, "cursor": walked.body["cursor"]})
    assert (refused.status, refused.body["error"]) == (400, "cursor: a sample has nothing behind it")


async def test_a_page_of_very_many_rows_has_each_once_and_in_order(kibitz: Running) -> None:
    calls = [a_call(f"r{place}", organisation="default", started_at=place) for place in range(300)]
    await kibitz.kibitz.storage.write_calls(calls)
    wanted = [f"r{place}" for place in range(300)]
    assert await found(kibitz, "all", limit=1000) == wanted
    assert await found(kibitz, "all", limit=130, offset=100) == wanted[100:230]
