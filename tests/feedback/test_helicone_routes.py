"""Helicone's routes: every row of contract section 6's first table, with good bodies and bad ones."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson
import pytest

from tests.conftest import Running
from tests.feedback import NO_BODY, SAVED, Reply, ask, failure_message, listed, path_of, rate, row_of
from tests.upstream import CHAT_BODY, Upstream, chat_answer

REQUEST: Final = "/request/{id}/feedback"
SESSION: Final = "/session/{id}/feedback"
SCORE: Final = "/request/{id}/score"
PROPERTY: Final = "/request/{id}/property"

GOOD_BODIES: Final[dict[str, Any]] = {
    REQUEST: {"rating": True},
    SESSION: {"rating": True},
    SCORE: {"scores": {"accuracy": 95, "passed": True}},
    PROPERTY: {"key": "Reviewer", "value": "Ada"},
}
METHODS: Final = {REQUEST: "POST", SESSION: "POST", SCORE: "POST", PROPERTY: "PUT"}
FIRST_FOUR: Final = [pytest.param(template, id=template.strip("/").replace("/{id}/", " ")) for template in GOOD_BODIES]
NAMES_A_REQUEST: Final = [case for case in FIRST_FOUR if case.values[0] != SESSION]

NOT_JSON: Final = [
    pytest.param(NO_BODY, id="empty body"),
    pytest.param(b"{", id="cut off"),
    pytest.param(b"{'rating': true}", id="single quotes"),
    pytest.param(b"rating=true", id="a form"),
    pytest.param(b'{"rating": NaN}', id="NaN"),
    pytest.param(b'\xff\xfe{"rating": true}', id="not UTF-8"),
]
BAD_RATINGS: Final = [
    pytest.param(None, id="null"),
    pytest.param(1, id="1"),
    pytest.param(0, id="0"),
    pytest.param(1.0, id="1.0"),
    pytest.param("yes", id="yes"),
    pytest.param("1", id="text 1"),
    pytest.param("", id="empty text"),
    pytest.param({}, id="object"),
    pytest.param([True], id="array"),
]


@pytest.fixture
async def rated(kibitz: Running) -> Running:
    """A Kibitz with one call: request `r`, trace `t`, session `s`."""
    await kibitz.chat(Helicone_Request_Id="r", Helicone_Session_Id="s", x_portkey_trace_id="t")
    return kibitz


async def send(kibitz: Running, template: str, body: Any, name: str | None = None, slash: str = "") -> Reply:
    name = name or ("s" if template == SESSION else "r")
    return await ask(kibitz, METHODS[template], path_of(template, name) + slash, body)


def details(reply: Reply) -> dict[str, Any]:
    """What a 422 finds wrong, by field."""
    assert reply.status == 422, reply
    assert reply.body == {"message": "Validation Failed", "details": reply.body["details"]}
    found: dict[str, Any] = reply.body["details"]
    assert all(detail["message"] for detail in found.values())
    return found


def verdicts(row: dict[str, Any]) -> list[tuple[int, bool]]:
    return [(item["value"], item["effective"]) for item in row["feedback"]["items"]]


@pytest.mark.parametrize("slash", ["", "/"], ids=["without slash", "with slash"])
@pytest.mark.parametrize("template", FIRST_FOUR)
async def test_a_good_body_is_saved(rated: Running, template: str, slash: str) -> None:
    reply = await send(rated, template, GOOD_BODIES[template], slash=slash)
    assert (reply.status, reply.body) == (200, SAVED)


@pytest.mark.parametrize("path", ["/feedback", "/feedback/", "//feedback"])
async def test_the_legacy_route_saves_a_rating(rated: Running, path: str) -> None:
    reply = await ask(rated, "POST", path, {"helicone-id": "r", "rating": False})
    assert (reply.status, reply.body) == (200, {"message": "Feedback added successfully.", "helicone_id": "r"})
    assert verdicts(await rated.row("r")) == [(0, True)]


@pytest.mark.parametrize(
    ("rating", "value"),
    [(True, 1), (False, 0), ("true", 1), ("false", 0), ("True", 1), ("FALSE", 0)],
    ids=["true", "false", "text true", "text false", "text True", "text FALSE"],
)
async def test_a_rating_is_a_boolean_or_its_name_in_any_case(rated: Running, rating: Any, value: int) -> None:
    for template in (REQUEST, SESSION):
        assert (await send(rated, template, {"rating": rating})).status == 200
    assert (await ask(rated, "POST", "/feedback", {"helicone-id": "r", "rating": rating})).status == 200
    row = await rated.row("r")
    assert verdicts(row) == [(value, False), (value, True)]
    assert row["scores"] == {"helicone-score-feedback": value}
    assert row["properties"] == {"Helicone-Session-Feedback": str(value)}


@pytest.mark.parametrize("rating", BAD_RATINGS)
async def test_any_other_rating_is_422_and_writes_nothing(rated: Running, rating: Any) -> None:
    replies = [
        await send(rated, REQUEST, {"rating": rating}),
        await send(rated, SESSION, {"rating": rating}),
        await ask(rated, "POST", "/feedback", {"helicone-id": "r", "rating": rating}),
    ]
    for reply in replies:
        detail = details(reply)["requestBody.rating"]
        assert detail == {"message": detail["message"], "value": rating}
    await assert_untouched(rated)


async def assert_untouched(kibitz: Running) -> None:
    row = await kibitz.row("r")
    assert (row["feedback"]["items"], row["scores"], row["properties"]) == ([], {}, {})
    assert await listed(kibitz, session_id="s") == []


@pytest.mark.parametrize("template", FIRST_FOUR)
async def test_a_missing_key_is_422_and_named(rated: Running, template: str) -> None:
    required = GOOD_BODIES[template]
    assert set(details(await send(rated, template, {}))) == {f"requestBody.{name}" for name in required}
    await assert_untouched(rated)


@pytest.mark.parametrize("template", FIRST_FOUR)
async def test_an_unknown_key_is_422_and_named(rated: Running, template: str) -> None:
    reply = await send(rated, template, {**GOOD_BODIES[template], "reason": "slow"})
    assert set(details(reply)) == {"requestBody.reason"}
    await assert_untouched(rated)


async def test_the_legacy_route_overlooks_unknown_keys(rated: Running) -> None:
    reply = await ask(rated, "POST", "/feedback", {"helicone-id": "r", "rating": True, "reason": "fast"})
    assert reply.status == 200


@pytest.mark.parametrize("body", [None, [], "rating", 5, True], ids=repr)
async def test_json_that_is_no_object_is_422(rated: Running, body: Any) -> None:
    for template in GOOD_BODIES:
        details(await send(rated, template, body))
    await assert_untouched(rated)


@pytest.mark.parametrize("body", NOT_JSON)
async def test_a_body_that_is_not_json_is_400(rated: Running, body: bytes) -> None:
    for template in GOOD_BODIES:
        reply = await send(rated, template, body)
        assert reply.status == 400
        assert reply.body == {"data": None, "error": reply.body["error"]}
        assert isinstance(reply.body["error"], str)
    await assert_untouched(rated)


@pytest.mark.parametrize(
    ("field", "value"), [("comment", 5), ("comment", {}), ("metadata", "text"), ("metadata", [1]), ("metadata", 5)]
)
async def test_a_comment_is_text_and_metadata_an_object(rated: Running, field: str, value: Any) -> None:
    for template in (REQUEST, SESSION):
        assert f"requestBody.{field}" in details(await send(rated, template, {"rating": True, field: value}))
    await assert_untouched(rated)


async def test_a_rating_keeps_its_comment_and_metadata(rated: Running) -> None:
    await rate(rated, "r", True, comment="Schön!\n🙂", metadata={"page": {"n": 3}, "tags": ["a", None]})
    (item,) = await listed(rated, request_id="r")
    assert (item["comment"], item["metadata"]) == ("Schön!\n🙂", {"page": {"n": 3}, "tags": ["a", None]})


@pytest.mark.parametrize("template", NAMES_A_REQUEST)
async def test_an_unknown_request_is_404(rated: Running, template: str) -> None:
    reply = await send(rated, template, GOOD_BODIES[template], name="nobody")
    assert (reply.status, reply.body) == (404, {"data": None, "error": "Request not found"})
    assert await listed(rated, request_id="nobody") == []


async def test_an_unknown_request_on_the_legacy_route_is_404(rated: Running) -> None:
    reply = await ask(rated, "POST", "/feedback", {"helicone-id": "nobody", "rating": True})
    assert (reply.status, reply.body) == (404, {"data": None, "error": "Request not found"})


async def test_an_unknown_session_is_404(rated: Running) -> None:
    reply = await send(rated, SESSION, {"rating": True}, name="nobody")
    assert (reply.status, reply.body) == (404, {"data": None, "error": "No request found"})


@pytest.mark.parametrize("helicone_id", [None, 5, "", [], {}], ids=repr)
async def test_a_helicone_id_that_is_no_text_is_400(rated: Running, helicone_id: Any) -> None:
    failure_message(await ask(rated, "POST", "/feedback", {"helicone-id": helicone_id, "rating": True}))


async def test_the_latest_rating_is_effective_and_the_earlier_ones_are_history(rated: Running) -> None:
    for rating in (True, True, False):
        await rate(rated, "r", rating)
    row = await rated.row("r")
    assert verdicts(row) == [(1, False), (1, False), (0, True)]
    assert (row["feedback"]["rating"], row["feedback"]["count"]) == (False, 1)
    assert row["scores"]["helicone-score-feedback"] == 0


async def test_of_ratings_sent_at_once_exactly_one_is_effective(rated: Running) -> None:
    await asyncio.gather(*(rate(rated, "r", bool(number % 2)) for number in range(20)))
    assert sorted(effective for _, effective in verdicts(await rated.row("r"))) == [False] * 19 + [True]


async def test_a_rating_speaks_of_every_attempt_past_and_to_come(rated: Running) -> None:
    await rated.chat(Helicone_Request_Id="r")
    await rate(rated, "r", False)
    await rated.chat(Helicone_Request_Id="r")
    ratings = [(await rated.row("r", attempt=number))["feedback"]["rating"] for number in (1, 2, 3)]
    assert ratings == [False, False, False]


async def test_a_session_rating_marks_the_earliest_request_only(rated: Running) -> None:
    await rated.chat(Helicone_Request_Id="r-2", Helicone_Session_Id="s")
    for rating, text in ((True, "1"), (False, "0")):
        await send(rated, SESSION, {"rating": rating})
        assert (await rated.row("r"))["properties"] == {"Helicone-Session-Feedback": text}
    assert (await rated.row("r-2"))["properties"] == {}
    assert (await rated.row("r"))["feedback"]["items"] == []


async def test_scores_are_merged_by_name_and_the_last_one_stands(rated: Running) -> None:
    await send(rated, SCORE, {"scores": {"accuracy": 95, "passed": True, "speed": 1}})
    await send(rated, SCORE, {"scores": {"accuracy": 0.5, "passed": False, "größe": -3}})
    scores = (await rated.row("r"))["scores"]
    expected = {"accuracy": 0.5, "passed": False, "speed": 1, "größe": -3}
    assert scores == expected
    assert {name: type(score) for name, score in scores.items()} == {
        name: type(score) for name, score in expected.items()
    }


@pytest.mark.parametrize("score", ["5", None, {}, [1], "high"], ids=repr)
async def test_one_bad_score_is_422_and_none_is_written(rated: Running, score: Any) -> None:
    found = details(await send(rated, SCORE, {"scores": {"good": 1, "bad": score}}))
    assert any(name.startswith("requestBody.scores") for name in found)
    await assert_untouched(rated)


@pytest.mark.parametrize("scores", [None, [], "a", 5], ids=repr)
async def test_scores_that_are_no_object_are_422(rated: Running, scores: Any) -> None:
    assert "requestBody.scores" in details(await send(rated, SCORE, {"scores": scores}))


@pytest.mark.parametrize(("first", "again"), [("Tier", "tier"), ("Größe", "GRÖßE")], ids=["ASCII", "beyond ASCII"])
async def test_a_property_is_overwritten_whatever_its_case(kibitz: Running, first: str, again: str) -> None:
    await kibitz.chat(Helicone_Request_Id="r", Helicone_Property_Other="kept")
    await send(kibitz, PROPERTY, {"key": first, "value": "gold"})
    await send(kibitz, PROPERTY, {"key": again, "value": "silver"})
    properties = (await kibitz.row("r"))["properties"]
    assert sorted(properties.values()) == ["kept", "silver"]
    assert {name.lower() for name in properties} == {"other", first.lower()}


async def test_a_property_sent_with_the_call_is_overwritten(kibitz: Running) -> None:
    await kibitz.chat(Helicone_Request_Id="r", Helicone_Property_Tier="gold")
    await send(kibitz, PROPERTY, {"key": "TIER", "value": "silver"})
    assert list((await kibitz.row("r"))["properties"].values()) == ["silver"]


@pytest.mark.parametrize(
    ("body", "field"),
    [({"key": 5, "value": "v"}, "key"), ({"key": "k", "value": 5}, "value"), ({"key": "k", "value": None}, "value")],
    ids=["key a number", "value a number", "value null"],
)
async def test_a_property_that_is_no_text_is_422(rated: Running, body: Any, field: str) -> None:
    assert set(details(await send(rated, PROPERTY, body))) == {f"requestBody.{field}"}
    await assert_untouched(rated)


@pytest.mark.parametrize(
    "request_id",
    [
        *("ticket-42-1700000000", "a/b", "a b", "100%", "a%2Fb", "{}", "{id}", "schlüssel-ключ-鍵", "a?b#c", "a+b"),
        *("a;b=c", "a/feedback", "/", "...", "x" * 256, '"quoted"\\'),
    ],
)
async def test_an_odd_id_is_logged_rated_scored_and_read(kibitz: Running, request_id: str) -> None:
    await kibitz.chat(Helicone_Request_Id=request_id)
    for template in (REQUEST, SCORE, PROPERTY):
        assert (await send(kibitz, template, GOOD_BODIES[template], name=request_id)).status == 200
    row = await row_of(kibitz, request_id)
    assert row["request_id"] == request_id
    assert row["scores"] == {"accuracy": 95, "passed": True, "helicone-score-feedback": 1}
    assert row["properties"] == {"Reviewer": "Ada"}
    assert [item["request_id"] for item in await listed(kibitz, request_id=request_id)] == [request_id]


@pytest.mark.parametrize("request_id", ["%00", "%FF", "%", "%zz", "%2E%2E", "x" * 5000])
async def test_an_id_that_no_call_can_have_is_404(rated: Running, request_id: str) -> None:
    reply = await ask(rated, "POST", f"/request/{request_id}/feedback", {"rating": True})
    assert (reply.status, reply.body) == (404, {"data": None, "error": "Request not found"})


async def test_a_response_id_serves_in_every_route_that_takes_a_request_id(rated: Running) -> None:
    for template in (REQUEST, SCORE, PROPERTY):
        assert (await send(rated, template, GOOD_BODIES[template], name="chatcmpl-1")).status == 200
    reply = await ask(rated, "POST", "/feedback", {"helicone-id": "chatcmpl-1", "rating": False})
    assert reply.status == 200
    for row in (await rated.row("r"), await rated.row("chatcmpl-1")):
        assert row["request_id"] == "r"
        assert row["scores"] == {"accuracy": 95, "passed": True, "helicone-score-feedback": 0}
        assert row["properties"] == {"Reviewer": "Ada"}
        assert verdicts(row) == [(1, False), (0, True)]


@pytest.mark.parametrize("order", [["r-1", "r-2"], ["r-2", "r-1"]], ids=["request id later", "request id first"])
async def test_a_request_id_goes_before_a_response_id(kibitz: Running, upstream: Upstream, order: list[str]) -> None:
    """The answer to `r-1` has the id `r-2`, which another call has as its request id."""
    answers = {"r-1": chat_answer(orjson.dumps({**orjson.loads(CHAT_BODY), "id": "r-2"})), "r-2": chat_answer()}
    for request_id in order:
        upstream.answer = answers[request_id]
        await kibitz.chat(Helicone_Request_Id=request_id)
    await rate(kibitz, "r-2")
    assert (await kibitz.row("r-2"))["request_id"] == "r-2"
    assert [(await kibitz.row(request_id))["feedback"]["rating"] for request_id in ("r-1", "r-2")] == [None, True]


@pytest.mark.parametrize("template", NAMES_A_REQUEST)
async def test_the_answer_names_the_trace_of_the_request(rated: Running, template: str) -> None:
    assert (await send(rated, template, GOOD_BODIES[template])).trace_id == "t"


async def test_the_legacy_answer_names_the_trace_of_the_request(rated: Running) -> None:
    assert (await ask(rated, "POST", "/feedback", {"helicone-id": "r", "rating": True})).trace_id == "t"


@pytest.mark.parametrize("template", FIRST_FOUR)
async def test_a_failure_carries_a_new_trace_id(rated: Running, template: str) -> None:
    replies = [await send(rated, template, body) for body in (NO_BODY, b"{")]
    assert len({reply.trace_id for reply in replies}) == 2
