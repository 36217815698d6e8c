"""Contract section 8: what is too large in feedback is refused, in the route's dialect and by the limit's name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.conftest import Running, StartKibitz

LABEL, TEXT = 256, 300
LIMITS = {
    "max_label_characters": LABEL,
    "max_text_characters": TEXT,
    "max_comment_characters": 10,
    "max_metadata_bytes": 20,
    "max_scores": 2,
    "max_bulk_items": 2,
}
# As JSON of 20 and of 22 bytes.
METADATA, LARGER_METADATA = {"a": "ü" * 6}, {"a": "ü" * 7}
LONG = "n" * (LABEL + 1)

RATE, SCORE, PROPERTY = "/request/rated/feedback", "/request/rated/score", "/request/rated/property"


def rating(**members: Any) -> dict[str, Any]:
    return {"rating": True, **members}


def scores(*names: str) -> dict[str, Any]:
    return {"scores": dict.fromkeys(names, 1)}


def pair(key: str, value: str) -> dict[str, str]:
    return {"key": key, "value": value}


def value(**members: Any) -> dict[str, Any]:
    return {"trace_id": "t", "value": 1, **members}


LARGEST = [
    (RATE, rating(comment="ü" * 10), rating(comment="ü" * 11), "comment", "max_comment_characters"),
    (RATE, rating(metadata=METADATA), rating(metadata=LARGER_METADATA), "metadata", "max_metadata_bytes"),
    (SCORE, scores("a", "b"), scores("a", "b", "c"), "scores", "max_scores"),
    (SCORE, scores(LONG[1:]), scores(LONG), f"scores.{LONG}", "max_label_characters"),
    (PROPERTY, pair(LONG[1:], ""), pair(LONG, ""), "key", "max_label_characters"),
    (PROPERTY, pair("k", "v" * TEXT), pair("k", "v" * (TEXT + 1)), "value", "max_text_characters"),
]
LARGEST_VALUES: list[tuple[Any, Any, str, str]] = [
    (value(trace_id=LONG[1:]), value(trace_id=LONG), "trace_id", "max_label_characters"),
    (value(metadata=METADATA), value(metadata=LARGER_METADATA), "metadata", "max_metadata_bytes"),
    (value(metadata='{"a": 1}'), value(metadata='{"a":"bbbbbbbbbbbbb"}'), "metadata", "max_metadata_bytes"),
    ([value()] * 2, [value(), value(metadata=LARGER_METADATA)], "item 1: metadata", "max_metadata_bytes"),
    ([value()] * 2, [value()] * 3, "", "max_bulk_items"),
    ({"0": value(), "1": value()}, {"0": value(), "1": value(), "2": value()}, "", "max_bulk_items"),
]


async def send(kibitz: Running, method: str, path: str, body: Any) -> tuple[int, Any]:
    async with kibitz.client.request(method, kibitz.base_url + path, data=orjson.dumps(body)) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(("path", "largest", "larger", "field", "setting"), LARGEST)
async def test_what_is_too_large_for_helicones_routes_is_422_by_its_field_and_limit(
    start_kibitz: StartKibitz, path: str, largest: Any, larger: Any, field: str, setting: str
) -> None:
    method = "PUT" if path == PROPERTY else "POST"
    kibitz = await start_kibitz(limits=LIMITS)
    await kibitz.chat(Helicone_Request_Id="rated")
    status, answer = await send(kibitz, method, path, larger)
    assert (status, answer["message"]) == (422, "Validation Failed")
    [(name, detail)] = answer["details"].items()
    assert name == f"requestBody.{field}"
    assert detail["message"].endswith(f"(limits.{setting})")
    before = await kibitz.row("rated")
    assert (before["feedback"]["count"], before["scores"], before["properties"]) == (0, {}, {})
    assert await send(kibitz, method, path, largest) == (200, {"data": None, "error": None})


@pytest.mark.parametrize(("largest", "larger", "field", "setting"), LARGEST_VALUES)
async def test_what_is_too_large_for_portkeys_route_is_400_by_its_field_and_limit(
    start_kibitz: StartKibitz, largest: Any, larger: Any, field: str, setting: str
) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    status, answer = await send(kibitz, "POST", "/feedback", larger)
    assert (status, answer["status"]) == (400, "failure")
    assert answer["message"].startswith(field)
    assert f"(limits.{setting})" in answer["message"]
    status, answer = await send(kibitz, "POST", "/feedback", largest)
    assert (status, answer["status"]) == (200, "success")


async def test_a_change_of_a_value_is_held_to_the_same(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    _, answer = await send(kibitz, "POST", "/feedback", value())
    [feedback_id] = answer["feedback_ids"]
    change: dict[str, Any] = {"value": 2, "metadata": LARGER_METADATA}
    status, answer = await send(kibitz, "PUT", f"/feedback/{feedback_id}", change)
    assert status == 400
    assert "(limits.max_metadata_bytes)" in answer["message"]
    change["metadata"] = METADATA
    assert (await send(kibitz, "PUT", f"/feedback/{feedback_id}", change))[0] == 200


async def test_a_rating_in_helicones_old_form_is_held_to_the_same(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    await kibitz.chat(Helicone_Request_Id="rated")
    body = {"helicone-id": "rated", "rating": True, "comment": "c" * 11}
    assert (await send(kibitz, "POST", "/feedback", body))[0] == 422
    assert (await send(kibitz, "POST", "/feedback", {**body, "comment": "c" * 10}))[0] == 200


@pytest.mark.parametrize("path", ["/request/{}/feedback", "/session/{}/feedback"])
async def test_nothing_is_kept_for_an_id_that_is_too_long_to_come(start_kibitz: StartKibitz, path: str) -> None:
    kibitz = await start_kibitz(limits=LIMITS, feedback={"unknown_request": "keep"})
    assert (await send(kibitz, "POST", path.format("i" * (LABEL + 1)), {"rating": True}))[0] == 404
    assert (await send(kibitz, "POST", path.format("i" * LABEL), {"rating": True}))[0] == 200


async def test_more_logs_than_may_come_at_once_are_refused_together(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    log: dict[str, Any] = {"request": {"body": {}}, "response": {"body": {}}}
    status, answer = await send(kibitz, "POST", "/logs", [log] * 3)
    assert status == 400
    assert "(limits.max_bulk_items)" in answer["message"]
    assert (await send(kibitz, "POST", "/logs", [log] * 2))[0] == 200


async def test_a_large_fault_is_not_told_at_large(kibitz: Running) -> None:
    status, answer = await send(kibitz, "POST", "/request/x/feedback", {"rating": "ü" * 100_000})
    assert status == 422
    assert len(orjson.dumps(answer)) < 3000


async def test_of_very_many_faults_the_first_are_told(kibitz: Running) -> None:
    faulty = {"scores": {str(number): "bad" for number in range(10_000)}}
    status, answer = await send(kibitz, "POST", "/request/x/score", faulty)
    assert status == 422
    assert 0 < len(answer["details"]) <= 100
    status, answer = await send(kibitz, "POST", "/request/x/score", {"scores": {"n" * 100_000: 1}})
    assert status == 422
    assert len(orjson.dumps(answer)) < 5000
