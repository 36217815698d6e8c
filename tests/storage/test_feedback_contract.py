"""What every backend promises of feedback, scores and properties (`storage.base.Storage`)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage import Storage
from storage.base import RefusedRowError
from storage.records import Found, Score
from tests.storage import (
    ACME,
    NOW,
    UNSTORABLE,
    VERDICT,
    a_call,
    a_rating,
    a_session_rating,
    a_value,
    add_values,
    feedback_of,
    listed,
    row,
)


async def test_the_last_rating_is_effective_and_every_one_is_kept(store: Storage) -> None:
    await store.write_calls([a_call(provider_response_id="resp"), a_call()])
    ratings = [a_rating("f1", comment="no", value=0), a_rating("f2", "resp", metadata='{"a":1}'), a_rating("f3")]
    assert [await store.add_rating(rating, known=False) for rating in ratings] == [Found("r1")] * 3
    assert feedback_of(await row(store, attempt=1)) == {"f1": False, "f2": False, "f3": True}
    assert feedback_of(await row(store, attempt=2)) == await listed(store, request_id="r1")
    assert list((await row(store)).feedback) == list(await store.list_feedback(ACME, request_id="r1"))
    assert (await row(store)).feedback[1] == replace(ratings[1], request_id="r1", effective=False)


async def test_a_rating_replaces_none_of_another_request_or_session(store: Storage) -> None:
    for id in ("r1", "r2"):
        await store.add_rating(a_rating(f"f.{id}", id), known=True)
        await store.add_session_rating(a_session_rating(f"s.{id}", id), known=True)
    assert await listed(store) == {"f.r1": True, "s.r1": True, "f.r2": True, "s.r2": True}


async def test_feedback_of_what_nobody_knows_is_turned_away_and_not_kept(store: Storage) -> None:
    assert not await store.add_rating(a_rating("f1"), known=False)
    assert not await store.add_session_rating(a_session_rating("f2", "s"), known=False)
    assert not await store.merge_scores(ACME, "r1", [Score("a", 1)], **NOW)
    assert not await store.set_property(ACME, "r1", "a", "b", **NOW)
    assert await listed(store) == {}
    await store.write_calls([a_call(session_id="s")])
    stored = await row(store)
    assert (stored.feedback, stored.scores, stored.call.properties) == ((), (), {})


@pytest.mark.parametrize("named", ["r1", "resp"], ids=["request id", "response id"])
async def test_what_is_said_of_a_known_call_joins_its_row_when_that_lands(store: Storage, named: str) -> None:
    assert await store.add_rating(a_rating("f1", named), known=True)
    assert await store.merge_scores(ACME, named, [Score("accuracy", 95)], known=True, updated_at=2)
    assert await store.set_property(ACME, named, "Stage", "late", known=True, updated_at=2)
    assert await listed(store, unmatched=True) == {"f1": True}
    await store.write_calls([a_call(provider_response_id="resp", properties={"stage": "sent", "a": "b"})])
    assert await listed(store, unmatched=True) == {}
    stored = await row(store)
    assert feedback_of(stored) == {"f1": True}
    assert stored.scores == (Score("accuracy", 95),)
    assert stored.call.properties == {"Stage": "late", "a": "b"}


@pytest.mark.parametrize("first", ["r1", "resp"])
async def test_of_ratings_kept_under_both_ids_of_a_call_the_later_one_is_effective(store: Storage, first: str) -> None:
    second = "resp" if first == "r1" else "r1"
    await store.add_rating(a_rating("f1", first), known=True)
    await store.add_rating(a_rating("f2", second, value=0), known=True)
    await store.write_calls([a_call(provider_response_id="resp")])
    assert feedback_of(await row(store)) == {"f1": False, "f2": True}


@pytest.mark.parametrize("first", ["r1", "resp"])
async def test_of_what_was_set_under_both_ids_of_a_call_the_last_one_stands(store: Storage, first: str) -> None:
    for moment, id in enumerate([first, "resp" if first == "r1" else "r1"]):
        await store.merge_scores(ACME, id, [Score("a", moment)], known=True, updated_at=moment)
        await store.set_property(ACME, id, "a", str(moment), known=True, updated_at=moment)
    await store.write_calls([a_call(provider_response_id="resp")])
    stored = await row(store)
    assert (stored.scores, stored.call.properties) == ((Score("a", 1),), {"a": "1"})


async def test_whoever_speaks_of_what_is_known_learns_its_trace(store: Storage) -> None:
    assert await store.add_rating(a_rating("f0"), known=True) == Found()
    assert await store.add_session_rating(a_session_rating("f1", "s"), known=True) == Found()
    await store.write_calls([a_call(trace_id="t", session_id="s", provider_response_id="resp")])
    await add_values(store, a_value("v1", "t"))
    for id in ("r1", "resp"):
        assert await store.add_rating(a_rating(f"f.{id}", id), known=False) == Found("t")
        assert await store.merge_scores(ACME, id, [Score("a", 1)], **NOW) == Found("t")
        assert await store.set_property(ACME, id, "a", "b", **NOW) == Found("t")
    assert await store.add_session_rating(a_session_rating("f2", "s"), known=False) == Found("t")
    assert await store.update_value(ACME, "v1", value=1, weight=1, metadata=None, updated_at=2) == Found("t")
    assert await store.delete_feedback(ACME, "v1") == Found("t")


async def verdicts(store: Storage, *request_ids: str) -> list[str | None]:
    return [(await row(store, request_id)).call.properties.get(VERDICT) for request_id in request_ids]


async def test_a_session_rating_marks_the_earliest_call_of_the_session(store: Storage) -> None:
    times = {"later": 20, "earliest": 10, "latest": 30}
    await store.write_calls([a_call(id, session_id="s", started_at=time) for id, time in times.items()])
    assert await store.add_session_rating(a_session_rating("f1", "s", 1), known=False)
    assert await verdicts(store, "earliest", "later", "latest") == ["1", None, None]
    assert await store.add_session_rating(a_session_rating("f2", "s", 0), known=False)
    assert await verdicts(store, "earliest", "later", "latest") == ["0", None, None]
    assert await listed(store, session_id="s") == {"f1": False, "f2": True}


async def test_a_call_that_lands_later_but_began_earlier_takes_the_verdict_over(store: Storage) -> None:
    await store.add_session_rating(a_session_rating("f1", "s"), known=True)
    await store.write_calls([a_call("a", session_id="s", started_at=20), a_call("b", session_id="s", started_at=30)])
    assert await verdicts(store, "a", "b") == ["1", None]
    await store.write_calls([a_call("c", session_id="s", started_at=10)])
    assert await verdicts(store, "c", "a", "b") == ["1", None, None]


@pytest.mark.parametrize("text", ["t", "r1", "resp"], ids=["trace", "request id", "response id"])
@pytest.mark.parametrize("before", [True, False], ids=["before the call", "after the call"])
async def test_a_value_joins_its_trace_else_the_call_of_that_id(store: Storage, text: str, *, before: bool) -> None:
    values = [a_value("v1", text, -3, weight=0.5, metadata='{"_user":"u"}'), a_value("v2", text)]
    if before:
        await add_values(store, *values)
        assert await listed(store, unmatched=True) == {"v1": True, "v2": True}
    await store.write_calls([a_call(trace_id="t", provider_response_id="resp"), a_call("r2")])
    if not before:
        await add_values(store, *values)
    assert await listed(store, unmatched=True) == {}
    assert feedback_of(await row(store, "r1")) == {"v1": True, "v2": True}
    assert feedback_of(await row(store, "r2")) == {}
    first = (await row(store)).feedback[0]
    assert first == replace(values[0], request_id=None if text == "t" else "r1")


async def test_a_trace_goes_before_a_request_of_the_same_id(store: Storage) -> None:
    await store.write_calls([a_call("x", trace_id="t"), a_call("r2", trace_id="x"), a_call("r3", trace_id="x")])
    await add_values(store, a_value("v1", "x"))
    assert [feedback_of(await row(store, id)) for id in ("x", "r2", "r3")] == [{}, {"v1": True}, {"v1": True}]


async def test_a_value_that_has_found_its_call_stays_with_it(store: Storage) -> None:
    await store.write_calls([a_call(provider_response_id="resp")])
    await add_values(store, a_value("v1", "resp"))
    await store.write_calls([a_call("r2", provider_response_id="resp"), a_call("resp", trace_id="t")])
    assert [feedback_of(await row(store, id)) for id in ("r1", "r2", "resp")] == [{"v1": True}, {}, {}]


async def test_a_trace_in_flight_counts_as_a_trace(store: Storage) -> None:
    await store.write_calls([a_call("x", trace_id="t")])
    await add_values(store, a_value("v1", "x"), in_flight=frozenset({"x"}))
    await store.write_calls([a_call("r2", trace_id="x")])
    assert [feedback_of(await row(store, id)) for id in ("x", "r2")] == [{}, {"v1": True}]


async def test_values_are_added_all_or_none(store: Storage) -> None:
    with pytest.raises(RefusedRowError):
        await add_values(store, a_value("v1", "t"), a_value("v2", "t", metadata=UNSTORABLE))
    assert await listed(store) == {}


@pytest.mark.parametrize(
    ("given", "weight", "metadata"),
    [
        ((None, None), 0.5, '{"a":1}'),
        ((0.25, None), 0.25, '{"a":1}'),
        ((None, "{}"), 0.5, "{}"),
        ((0.0, "{}"), 0, "{}"),
    ],
)
async def test_an_update_leaves_what_is_not_given(
    store: Storage, given: tuple[float | None, str | None], weight: float, metadata: str
) -> None:
    value = a_value("v1", "t", 3, weight=0.5, metadata='{"a":1}')
    await add_values(store, value, a_value("v2", "t"))
    assert await store.update_value(ACME, "v1", value=-4, weight=given[0], metadata=given[1], updated_at=9)
    changed = replace(value, value=-4, weight=weight, metadata=metadata, updated_at=9)
    assert await store.list_feedback(ACME, trace_id="t") == [changed, a_value("v2", "t")]


async def test_only_a_value_that_is_there_can_be_updated(store: Storage) -> None:
    await store.add_rating(a_rating("f1"), known=True)
    for id in ("f1", "v1"):
        assert not await store.update_value(ACME, id, value=0, weight=None, metadata=None, updated_at=9)
    assert await store.list_feedback(ACME) == [a_rating("f1")]


async def test_deleting_the_effective_rating_restores_the_one_before(store: Storage) -> None:
    await store.write_calls([a_call()])
    for number in range(4):
        await store.add_rating(a_rating(f"f{number}", value=number % 2), known=False)
    left = []
    for id in ("f3", "f1", "f2", "f0"):
        assert await store.delete_feedback(ACME, id)
        left.append(feedback_of(await row(store)))
    assert left == [{"f0": False, "f1": False, "f2": True}, {"f0": False, "f2": True}, {"f0": True}, {}]
    assert not await store.delete_feedback(ACME, "f0")


async def test_deleting_a_session_rating_restores_the_verdict_before(store: Storage) -> None:
    await store.write_calls([a_call(session_id="s")])
    await store.add_session_rating(a_session_rating("f1", "s", 0), known=False)
    await store.add_session_rating(a_session_rating("f2", "s", 1), known=False)
    assert await store.delete_feedback(ACME, "f2")
    assert (await listed(store), await verdicts(store, "r1")) == ({"f1": True}, ["0"])
    assert await store.delete_feedback(ACME, "f1")
    assert (await listed(store), await verdicts(store, "r1")) == ({}, [None])


async def test_deleting_a_value_leaves_the_others_alone(store: Storage) -> None:
    await store.add_rating(a_rating("f1"), known=True)
    await add_values(store, a_value("v1", "r1"), a_value("v2", "r1"))
    assert await store.delete_feedback(ACME, "v1")
    assert await listed(store) == {"f1": True, "v2": True}


async def test_a_list_holds_what_names_all_that_is_asked_for_oldest_first(store: Storage) -> None:
    await store.write_calls([a_call(session_id="s", trace_id="t", provider_response_id="resp")])
    await add_values(store, a_value("z", "t"), a_value("a", "r1"), a_value("w", "nobody"))
    await store.add_rating(a_rating("f1"), known=False)
    await store.add_session_rating(a_session_rating("f2", "s"), known=False)
    assert list(await listed(store)) == ["z", "a", "w", "f1", "f2"]
    assert list(await listed(store, trace_id="r1", request_id="r1")) == ["a"]
    assert list(await listed(store, request_id="r1")) == ["a", "f1"]
    assert list(await listed(store, request_id="resp")) == ["a", "f1"]
    assert list(await listed(store, session_id="s")) == ["f2"]
    assert list(await listed(store, trace_id="t", session_id="s")) == []
    assert list(await listed(store, unmatched=True)) == ["w"]
    assert list(await listed(store, trace_id="t", unmatched=True)) == []


async def test_scores_are_merged_by_name_and_the_last_one_stands(store: Storage) -> None:
    await store.write_calls([a_call(provider_response_id="resp"), a_call()])
    assert await store.merge_scores(ACME, "r1", [Score("accuracy", 95), Score("passed", 1, is_boolean=True)], **NOW)
    assert await store.merge_scores(ACME, "resp", [Score("passed", 0.25), Score("Passed", 2)], **NOW)
    for attempt in (1, 2):
        scores = {score.name: score for score in (await row(store, attempt=attempt)).scores}
        assert scores == {
            "accuracy": Score("accuracy", 95),
            "passed": Score("passed", 0.25),
            "Passed": Score("Passed", 2),
        }


@pytest.mark.parametrize("value", [0.1 + 0.2, 1 / 3, 1234567890123456.0, float(2**53), -1e300, 5e-324])
async def test_figures_come_back_as_they_were_given(store: Storage, value: float) -> None:
    await store.write_calls([a_call(cost=value)])
    await store.merge_scores(ACME, "r1", [Score("a", value)], **NOW)
    await add_values(store, a_value("v1", "r1", weight=value))
    stored = await row(store)
    assert (stored.call.cost, stored.scores, stored.feedback[0].weight) == (value, (Score("a", value),), value)


async def test_a_property_is_set_on_every_attempt_landed_or_to_come(store: Storage) -> None:
    await store.write_calls([a_call(provider_response_id="resp", properties={"stage": "dev"}), a_call()])
    assert await store.set_property(ACME, "resp", "Stage", "prod", **NOW)
    assert await store.set_property(ACME, "r1", "new", "1", **NOW)
    await store.write_calls(
        [a_call(properties={"STAGE": "dev", "own": "2"}), a_call("r2", properties={"stage": "dev"})]
    )
    assert [(await row(store, attempt=n)).call.properties.get("new") for n in (1, 2, 3)] == ["1"] * 3
    assert (await row(store)).call.properties == {"Stage": "prod", "new": "1", "own": "2"}
    assert {k.lower(): v for k, v in (await row(store, attempt=1)).call.properties.items()} == {
        "stage": "prod",
        "new": "1",
    }
    assert (await row(store, "r2")).call.properties == {"stage": "dev"}


async def test_a_property_kept_for_a_response_id_reaches_later_attempts_of_its_request(store: Storage) -> None:
    await store.set_property(ACME, "resp", "Stage", "late", known=True, updated_at=2)
    await store.write_calls([a_call(provider_response_id="resp"), a_call()])
    assert [(await row(store, attempt=n)).call.properties for n in (1, 2)] == [{"Stage": "late"}] * 2


async def test_property_names_are_compared_without_case_in_any_script(store: Storage) -> None:
    await store.write_calls([a_call(properties={"Größe": "1", "ЦВЕТ": "1"})])
    await store.set_property(ACME, "r1", "größe", "2", **NOW)
    await store.set_property(ACME, "r1", "Цвет", "2", **NOW)
    assert (await row(store)).call.properties == {"größe": "2", "Цвет": "2"}


async def test_a_row_has_all_that_was_said_of_its_request_and_of_its_trace_in_order(store: Storage) -> None:
    await store.write_calls([a_call(), a_call("r2", trace_id="t2")])
    said: dict[str, bool] = {}
    for turn in range(60):
        await add_values(store, a_value(f"v{turn}", "t2"))
        await store.add_rating(a_rating(f"f{turn}", "r2"), known=False)
        said |= {f"v{turn}": True, f"f{turn}": turn == 59}
    assert list(feedback_of(await row(store, "r2")).items()) == list(said.items())
    assert feedback_of(await row(store)) == {}
