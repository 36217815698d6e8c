"""`POST /v1/feedback/summary`: figures by groups, and the comparison of two sides. Contract section 6."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.reads.intervals import CONFIDENCE, difference, wilson
from tests.conftest import Running
from tests.feedback import add_value, ask, rate
from tests.upstream import Upstream, chat_answer

# How often each release was called, and rated well and badly.
RELEASES = {"2.1": (12, 9, 1), "2.2": (12, 1, 9)}


@pytest.fixture
async def log(kibitz: Running, upstream: Upstream) -> Running:
    upstream.answer = chat_answer()
    for release, (calls, well, badly) in RELEASES.items():
        for number in range(calls):
            user = "ada" if number % 2 else "bob"
            name = f"{release}-{number}"
            await kibitz.chat(Helicone_Request_Id=name, Helicone_Property_Release=release, Helicone_User_Id=user)
            if number < well + badly:
                assert (await rate(kibitz, name, number < well)).status == 200
    await kibitz.chat(Helicone_Request_Id="bare", x_portkey_trace_id="t")
    await add_value(kibitz, "t", -4, weight=0.5)
    return kibitz


async def summary(kibitz: Running, **body: Any) -> dict[str, Any]:
    answer = await ask(kibitz, "POST", "/feedback/summary", body)
    assert answer.status == 200, answer.body
    data: dict[str, Any] = answer.body["data"]
    return data


def side(release: str) -> dict[str, Any]:
    return {"properties": {"Release": {"equals": release}}}


async def test_all_of_it_adds_up_with_unrated_calls_apart_from_negative_ones(log: Running) -> None:
    everything = (await summary(log))["all"]
    interval = wilson(10, 21)
    assert interval is not None
    assert everything | {"cost": None} == {
        "calls": 25,
        "rated_calls": 21,
        "unrated_calls": 4,
        "failed_calls": 0,
        "cost": None,
        "count": 21,
        "positive": 10,
        "negative": 11,
        "rate": 10 / 21,
        "rate_interval": {"low": interval.low, "high": interval.high},
        "weighted_mean": (10 - 4 * 0.5) / 20.5,
    }


async def test_groups_are_by_any_of_several_things_at_once(log: Running) -> None:
    data = await summary(log, by=["property:release", "user"], sort="feedback_positive")
    rows = [(*group["by"].values(), group["figures"]["positive"]) for group in data["groups"]]
    assert rows == [("2.1", "bob", 5), ("2.1", "ada", 4), ("2.2", "bob", 1), (None, None, 0), ("2.2", "ada", 0)]
    assert data["total"] == 5
    page = await summary(log, by=["property:release", "user"], sort="feedback_positive", offset=1, limit=2)
    assert page["groups"] == data["groups"][1:3]
    [day] = (await summary(log, by=["time:day"]))["groups"]
    assert day["by"]["time:day"].endswith("T00:00:00.000Z")
    [eastern] = (await summary(log, by=["time:day"], timeZone=330))["groups"]
    assert eastern["by"]["time:day"].endswith("T18:30:00.000Z")
    await log.chat(Helicone_Session_Id="s")
    sessions = await summary(log, by=["property:Helicone-Session-Id"])
    assert [group["by"]["property:Helicone-Session-Id"] for group in sessions["groups"]] == [None, "s"]


async def test_a_version_that_is_worse_is_a_number(log: Running) -> None:
    compared = (await summary(log, compare={"before": side("2.1"), "after": side("2.2")}))["comparison"]
    assert (compared["before"]["rate"], compared["after"]["rate"]) == (0.9, 0.1)
    assert compared["difference"] == pytest.approx(-0.8)
    assert compared["verdict"] == "worse"
    turned = (await summary(log, compare={"before": side("2.2"), "after": side("2.1")}))["comparison"]
    assert turned["verdict"] == "better"
    assert turned["difference_interval"]["low"] == pytest.approx(-compared["difference_interval"]["high"])
    same = (await summary(log, compare={"before": side("2.1"), "after": side("2.1")}))["comparison"]
    assert same["verdict"] == "undecided"
    nobody = (await summary(log, compare={"before": side("2.1"), "after": side("3.0")}))["comparison"]
    assert (nobody["difference"], nobody["difference_interval"], nobody["verdict"]) == (None, None, "undecided")


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"by": ["colour"]}, "'colour'"),
    ({"by": ["time:month"]}, "'time:month'"),
    ({"by": ["model"] * 5}, "by"),
    ({"filter": side("1") | {"colours": {"a": {"equals": 1}}}}, "'colours'"),
    ({"compare": {"before": "all"}}, "compare.after is required"),
    ({"compare": {"before": "all", "after": {"colours": {"a": {"equals": 1}}}}}, "compare.after"),
    ({"sort": "colour"}, "sort"),
    ({"timeZone": 1000}, "timeZone"),
    ({"groupBy": ["model"]}, "groupBy"),
]


@pytest.mark.parametrize(("body", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
async def test_what_can_not_be_asked_is_400_and_named(body: dict[str, Any], said: str, kibitz: Running) -> None:
    answer = await ask(kibitz, "POST", "/feedback/summary", body)
    assert answer.status == 400
    assert said in answer.body["error"]


# Wilson's interval as R's prop.test(correct = FALSE) and binom.confint(methods = "wilson") give it; Newcombe's own
# examples (1998, table II, method 10).
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_that_of_the_literature(successes: int, trials: int, low: float, high: float) -> None:
    assert CONFIDENCE == 0.95
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [((48, 80), (56, 70), -0.3339, -0.0524), ((3, 10), (9, 10), -0.8090, -0.1705), ((0, 20), (10, 10), -1.0, -0.6786)],
)
def test_newcombes_interval_is_that_of_the_literature(
    one: tuple[int, int], other: tuple[int, int], low: float, high: float
) -> None:
    assert difference(*other, *one) == pytest.approx((low, high), abs=5e-4)


def test_there_is_no_interval_of_nothing() -> None:
    assert wilson(0, 0) is None
    assert difference(0, 0, 1, 2) is None
