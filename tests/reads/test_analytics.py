"""Portkey's feedback analytics, asked by its own client. Contract section 7; contracts/portkey 4."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from portkey_ai import Portkey

from tests.conftest import Running
from tests.feedback import add_value, ask, rate
from tests.upstream import Upstream, chat_answer


@pytest.fixture
async def log(kibitz: Running, upstream: Upstream) -> Running:
    """Three calls in two teams: values 5 (weight 0.5), 5 and -1 on a trace of two calls, a good rating on the third."""
    upstream.answer = chat_answer()
    await kibitz.chat(x_portkey_trace_id="t", Helicone_Property_Team="blue")
    await kibitz.chat(x_portkey_trace_id="t", Helicone_Property_Team="blue")
    await kibitz.chat(Helicone_Request_Id="r", Helicone_Property_Team="red")
    await kibitz.chat()
    for value, weight in ((5, 0.5), (5, 1), (-1, 1)):
        await add_value(kibitz, "t", value, weight=weight)
    assert (await rate(kibitz, "r", True)).status == 200
    return kibitz


def span(**more: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "time_of_generation_min": (now - timedelta(days=2)).isoformat(),
        "time_of_generation_max": (now + timedelta(minutes=1)).isoformat(),
        **more,
    }


async def graph(kibitz: Running, name: str = "", **query: Any) -> dict[str, Any]:
    answer = await ask(kibitz, "GET", f"/analytics/graphs/feedbacks{name}?{urlencode(span(**query))}")
    assert answer.status == 200, answer.body
    body: dict[str, Any] = answer.body
    return body


async def test_portkeys_client_draws_all_four_graphs_and_the_groups(log: Running) -> None:
    def draw() -> list[dict[str, Any]]:
        client, asked = Portkey(api_key="unused", base_url=log.base_url), span()
        with client, client.openai_client:
            graphs = client.analytics.graphs
            drawn = [
                graphs.feedbacks(**asked),
                graphs.feedbacks_scores(**asked),
                graphs.feedbacks_weighted(**asked),
                graphs.feedbacks_ai_models(**asked),
                client.analytics.groups.metadata(metadata_key="Team", **asked),
            ]
        return [one.model_dump() for one in drawn]

    totals, scores, means, models, groups = await asyncio.to_thread(draw)
    assert totals["summary"] == {"total": 4}
    assert sum(point["total"] for point in totals["data_points"]) == 4
    assert len(totals["data_points"]) in (49, 50)
    assert scores["data_points"] == [{"score": -1, "total": 1}, {"score": 1, "total": 1}, {"score": 5, "total": 2}]
    assert means["summary"] == {"avg": (2.5 + 5 - 1 + 1) / 4}
    assert [point["avg"] for point in means["data_points"] if point["avg"] is not None] == [means["summary"]["avg"]]
    [model] = models["data_points"]
    assert (model["ai_model"], model["total"]) == ("gpt-4o-mini-2024-07-18", 4)
    assert groups["total"] == 2
    blue, red = groups["data"]
    assert (blue["metadata_value"], blue["requests"], blue["requests_with_feedback"]) == ("blue", 2, 2)
    assert (blue["avg_tokens"], blue["avg_weighted_feedback"]) == (12, 6.5 / 3)
    assert (red["metadata_value"], red["avg_weighted_feedback"], red["object"]) == ("red", 1, "analytics-group")


FILTERS: list[tuple[dict[str, Any], int]] = [
    ({}, 4),
    ({"trace_id": "t"}, 3),
    ({"trace_id": "t,r"}, 4),
    ({"weighted_feedback_min": 2}, 3),
    ({"weighted_feedback_max": 2}, 1),
    ({"status_code": "200"}, 4),
    ({"status_code": "429,500"}, 0),
    ({"ai_org_model": ",".join("a" * 1000)}, 0),
    # Lists, as Portkey's client for Python sends them.
    ({"status_code": str([200, 500])}, 4),
    ({"status_code": str([429])}, 0),
    ({"trace_id": str(["t", "r"])}, 4),
    ({"ai_org_model": str(["openai__gpt-4o", "gpt-4o-mini-2024-07-18"])}, 4),
    ({"total_units_min": 12, "total_units_max": 12}, 4),
    ({"prompt_token_max": 8}, 0),
    ({"completion_token_min": 4}, 0),
    ({"cost_max": 100}, 4),
    ({"metadata": '{"team": "red"}'}, 1),
    ({"ai_org_model": "127.0.0.1__gpt-4o-mini-2024-07-18"}, 4),
    ({"ai_org_model": "openai__gpt-4o,gpt-4o-mini-2024-07-18"}, 4),
    ({"ai_org_model": "openai__gpt-4o"}, 0),
    ({"prompt_slug": "p"}, 0),
    ({"span_id": "s"}, 0),
    ({"virtual_keys": "k"}, 0),
    ({"workspace_slug": "w"}, 4),
]


@pytest.mark.parametrize(("query", "total"), FILTERS, ids=[str(query) for query, _ in FILTERS])
async def test_a_graph_is_narrowed_by_each_parameter(query: dict[str, Any], total: int, log: Running) -> None:
    assert (await graph(log, **query))["summary"] == {"total": total}
    assert (await graph(log, "/scores", **query))["summary"] == {"total": total}


async def test_points_lie_as_close_as_the_span_asks_for(log: Running) -> None:
    now = datetime.now(UTC)
    for back, points in ((timedelta(hours=1), 61), (timedelta(days=1), 25), (timedelta(days=30), 31)):
        drawn = await graph(
            log, time_of_generation_min=(now - back).isoformat(), time_of_generation_max=now.isoformat()
        )
        assert len(drawn["data_points"]) in (points, points + 1)
        assert drawn["summary"] == {"total": 4}


async def test_pages_of_groups_tell_how_many_there_are(log: Running) -> None:
    query = urlencode(span(current_page=1, page_size=1))
    page = (await ask(log, "GET", f"/analytics/groups/metadata/team?{query}")).body
    assert (page["total"], [one["metadata_value"] for one in page["data"]]) == (2, ["red"])


MISTAKES: list[tuple[dict[str, str], str]] = [
    ({"time_of_generation_min": "yesterday"}, "time_of_generation_min"),
    ({"status_code": "many"}, "status_code"),
    ({"metadata": "team"}, "metadata"),
    ({"metadata": "[]"}, "metadata"),
    ({"metadata": "{team}"}, "metadata"),
    ({"cost_min": "nan"}, "cost_min"),
    ({"time_of_generation_min": "1900-01-01T00:00:00"}, "ten years"),
]


@pytest.mark.parametrize("graph", ["", "/weighted"], ids=["counts", "means"])
@pytest.mark.parametrize(("query", "said"), MISTAKES, ids=[str(query) for query, _ in MISTAKES])
async def test_what_can_not_be_asked_is_400_and_named(
    query: dict[str, str], said: str, graph: str, kibitz: Running
) -> None:
    answer = await ask(kibitz, "GET", f"/analytics/graphs/feedbacks{graph}?{urlencode(span(**query))}")
    assert answer.status == 400
    assert said in answer.body["message"]


async def test_a_graph_without_its_span_is_400(kibitz: Running) -> None:
    answer = await ask(kibitz, "GET", "/analytics/graphs/feedbacks")
    assert answer.status == 400
    assert "time_of_generation_min is required" in answer.body["message"]
