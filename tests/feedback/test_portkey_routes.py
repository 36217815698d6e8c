"""Portkey's routes: every row of contract section 6's second table, with good bodies and bad ones."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.conftest import Running
from tests.feedback import NO_BODY, Reply, add_value, ask, failure_message, listed, path_of, rate

ITEM: Final = "/feedback/{id}"

VALUES: Final = [(-10, -10), (10, 10), (0, 0), ("5", 5), ("-10", -10), (5.0, 5), (-0.0, 0)]
BAD_VALUES: Final = [11, -11, 4.5, 10.5, 1e300, "11", "4.5", "abc", "", "5.0", "NaN", True, False, None, [], [1], {}]
WEIGHTS: Final = [(None, 1.0), (0, 0.0), (1, 1.0), (0.5, 0.5), ("0.5", 0.5), ("1", 1.0), (1e-9, 1e-9)]
BAD_WEIGHTS: Final = [-0.1, 1.1, 2, "1.5", "heavy", "", "NaN", "inf", True, False, [], {}, [0.5]]
BAD_METADATA: Final = [[], ["_user"], 5, True, "not json", "", "[1]", "5", "null", '{"cut": ']
BAD_TRACE_IDS: Final[list[Any]] = ["", None, 5, True, [], ["t"], {}]
NOT_JSON: Final = [
    pytest.param(NO_BODY, id="empty body"),
    pytest.param(b"{", id="cut off"),
    pytest.param(b"{'trace_id': 't', 'value': 1}", id="single quotes"),
    pytest.param(b'{"trace_id": "t", "value": NaN}', id="NaN"),
    pytest.param(b'{"trace_id": "t", "value": 1e400}', id="a number beyond all bounds"),
    pytest.param(b'{"trace_id": "t", "value": 1} extra', id="text behind"),
    pytest.param(b'{"trace_id": "\xff", "value": 1}', id="not UTF-8"),
]
NEITHER_ID: Final = [
    {"value": 5},
    {"rating": True},
    {},
    {"0": {"value": 1}, "1": {"value": 2}, "2": 3, "x": 4, "traceid": "t"},
    {"0": {"trace_id": "t", "value": 1}, "2": {"trace_id": "t", "value": 1}},
]
BOTH_IDS: Final = [
    {"trace_id": "t", "helicone-id": "r", "value": 1, "rating": True},
    {"trace_id": "t", "helicone-id": "r"},
    {"trace_id": "t", "helicone-id": None, "value": 1},
]


def saved(reply: Reply, what: str = "saved") -> list[str]:
    """The ids that a good answer gives."""
    ids = reply.body["feedback_ids"]
    expected = {"status": "success", "message": f"Feedback successfully {what}", "feedback_ids": ids}
    assert (reply.status, reply.body) == (200, expected)
    assert all(isinstance(feedback_id, str) for feedback_id in ids)
    return list(ids)


async def create(kibitz: Running, body: Any, path: str = "/feedback") -> Reply:
    return await ask(kibitz, "POST", path, body)


async def only_item(kibitz: Running, trace_id: str = "t") -> dict[str, Any]:
    (item,) = await listed(kibitz, trace_id=trace_id)
    return item


def figures(item: dict[str, Any]) -> tuple[Any, Any, Any]:
    return item["value"], item["weight"], item["metadata"]


def bulk(*values: Any) -> list[Any]:
    return [{"trace_id": "t", "value": value} for value in values]


def numbered(items: list[Any]) -> dict[str, Any]:
    """A bulk as the Node SDK sends it."""
    renamed = [
        {{"trace_id": "traceID"}.get(name, name): value for name, value in item.items()}
        if isinstance(item, dict)
        else item
        for item in items
    ]
    return {str(number): item for number, item in enumerate(renamed)}


@pytest.mark.parametrize(
    ("body", "values"),
    [
        pytest.param({"trace_id": "t", "value": 5}, [5], id="one object"),
        pytest.param(bulk(1, -2, 3), [1, -2, 3], id="array"),
        pytest.param(bulk(7), [7], id="array of one"),
        pytest.param(numbered(bulk(1, -2, 3)), [1, -2, 3], id="Node's numbered object"),
        pytest.param(numbered(bulk(7)), [7], id="Node's numbered object of one"),
        pytest.param(numbered(bulk(*range(-5, 6))), list(range(-5, 6)), id="numbers of two digits"),
    ],
)
async def test_create_saves_and_gives_ids_in_the_order_sent(kibitz: Running, body: Any, values: list[int]) -> None:
    ids = saved(await create(kibitz, body))
    values_by_id = {item["id"]: item["value"] for item in await listed(kibitz, trace_id="t")}
    assert [values_by_id[feedback_id] for feedback_id in ids] == values
    assert len(values_by_id) == len(values)


@pytest.mark.parametrize("path", ["/feedback/", "//feedback"])
async def test_create_answers_on_every_spelling_of_its_path(kibitz: Running, path: str) -> None:
    assert len(saved(await create(kibitz, bulk(1, 2), path))) == 2


async def test_the_numbers_of_an_object_count_and_not_its_order(kibitz: Running) -> None:
    items = numbered(bulk(0, 1, 2))
    ids = saved(await create(kibitz, {key: items[key] for key in ("2", "0", "1")}))
    assert [item["id"] for item in await listed(kibitz, trace_id="t")] == ids
    assert [item["value"] for item in await listed(kibitz, trace_id="t")] == [0, 1, 2]


async def test_feedback_appends_and_each_one_counts(kibitz: Running) -> None:
    ids = [await add_value(kibitz, "t", value) for value in (5, 5, -5)]
    items = await listed(kibitz, trace_id="t")
    assert [item["id"] for item in items] == ids
    assert all(item["effective"] for item in items)


@pytest.mark.parametrize(("sent", "stored"), VALUES, ids=repr)
async def test_a_value_is_an_integer_or_says_one(kibitz: Running, sent: Any, stored: int) -> None:
    await add_value(kibitz, "t", sent)
    item = await only_item(kibitz)
    assert figures(item) == (stored, 1.0, None)
    assert isinstance(item["value"], int)


@pytest.mark.parametrize(("sent", "stored"), WEIGHTS, ids=repr)
async def test_a_weight_is_from_0_to_1_and_null_is_absent(kibitz: Running, sent: Any, stored: float) -> None:
    await add_value(kibitz, "t", 1, weight=sent)
    assert figures(await only_item(kibitz)) == (1, stored, None)


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (None, None),
        ({}, {}),
        ({"text": "irrelevant", "_user": "fef653", "nested": {"a": [1, None]}}, ...),
        ('{"text": "Größe \\ud83d\\ude42", "_prompt": "p"}', {"text": "Größe 🙂", "_prompt": "p"}),
        ("{}", {}),
    ],
    ids=["null", "empty object", "object", "text that holds one", "text that holds an empty one"],
)
async def test_metadata_is_an_object_or_text_that_holds_one(kibitz: Running, sent: Any, stored: Any) -> None:
    await add_value(kibitz, "t", 1, metadata=sent)
    assert (await only_item(kibitz))["metadata"] == (sent if stored is ... else stored)


BAD_FIELDS: Final = [
    pytest.param("value", BAD_VALUES, id="value"),
    pytest.param("weight", BAD_WEIGHTS, id="weight"),
    pytest.param("metadata", BAD_METADATA, id="metadata"),
]


@pytest.mark.parametrize(("field", "values"), [*BAD_FIELDS, pytest.param("trace_id", BAD_TRACE_IDS, id="trace_id")])
async def test_a_bad_field_is_400_and_named(kibitz: Running, field: str, values: list[Any]) -> None:
    for value in values:
        reply = await create(kibitz, {"trace_id": "t", "value": 1, field: value})
        assert (field in failure_message(reply), value) == (True, value)
    assert await listed(kibitz, trace_id="t") == []


@pytest.mark.parametrize("field", ["trace_id", "value"])
async def test_a_missing_field_is_400_and_named(kibitz: Running, field: str) -> None:
    item = {"trace_id": "t", "value": 1}
    del item[field]
    assert field in failure_message(await create(kibitz, item))
    assert await listed(kibitz, trace_id="t") == []


@pytest.mark.parametrize("body", NOT_JSON)
async def test_a_body_that_is_not_json_is_400(kibitz: Running, body: bytes) -> None:
    for method, path in (("POST", "/feedback"), ("PUT", "/feedback/x"), ("POST", "/feedback/x")):
        failure_message(await ask(kibitz, method, path, body))


@pytest.mark.parametrize("body", [None, 5, "t", True], ids=repr)
async def test_json_that_holds_no_item_is_400(kibitz: Running, body: Any) -> None:
    failure_message(await create(kibitz, body))


@pytest.mark.parametrize("body", [*BOTH_IDS, *NEITHER_ID], ids=repr)
async def test_both_or_neither_id_is_400_and_says_so(kibitz: Running, body: Any) -> None:
    await kibitz.chat(Helicone_Request_Id="r")
    message = failure_message(await create(kibitz, body))
    assert "trace_id" in message
    assert "helicone-id" in message
    assert (await listed(kibitz, trace_id="t"), await listed(kibitz, request_id="r")) == ([], [])


async def test_an_empty_bulk_is_400(kibitz: Running) -> None:
    failure_message(await create(kibitz, []))


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"trace_id": "t", "value": 11}, "value"),
        ({"trace_id": "t"}, "value"),
        ({"trace_id": "t", "value": 1, "weight": 2}, "weight"),
        ({"trace_id": "t", "value": 1, "metadata": []}, "metadata"),
        ({"value": 1}, "trace_id"),
        ({"helicone-id": "r", "rating": True}, "helicone-id"),
        (5, ""),
        (None, ""),
        ([], ""),
    ],
    ids=repr,
)
async def test_a_bulk_is_all_or_nothing(kibitz: Running, item: Any, field: str) -> None:
    for position in range(3):
        items = bulk(1, 2)
        items.insert(position, item)
        for body in (items, numbered(items)):
            message = failure_message(await create(kibitz, body))
            assert f"item {position}" in message
            assert field in message
    assert await listed(kibitz, trace_id="t") == []


@pytest.mark.parametrize("slash", ["", "/"], ids=["without slash", "with slash"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_update_answers_put_and_post_alike(kibitz: Running, method: str, slash: str) -> None:
    feedback_id = await add_value(kibitz, "t", 5)
    reply = await ask(kibitz, method, path_of(ITEM, feedback_id) + slash, {"value": -3})
    assert saved(reply, "updated") == [feedback_id]
    assert (await only_item(kibitz))["value"] == -3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"value": -3}, (-3, 0.5, {"_user": "ada"}), id="the rest left out"),
        pytest.param({"value": -3, "weight": None, "metadata": None}, (-3, 0.5, {"_user": "ada"}), id="the rest null"),
        pytest.param({"value": "7", "weight": "0.25"}, (7, 0.25, {"_user": "ada"}), id="as text"),
        pytest.param({"value": 7.0, "weight": 0}, (7, 0.0, {"_user": "ada"}), id="weight 0"),
        pytest.param({"value": 5, "metadata": {"a": 1}}, (5, 0.5, {"a": 1}), id="metadata replaced whole"),
        pytest.param({"value": 5, "metadata": '{"a": 1}'}, (5, 0.5, {"a": 1}), id="metadata as text"),
        pytest.param({"value": 5, "metadata": {}}, (5, 0.5, {}), id="metadata emptied"),
    ],
)
async def test_update_changes_what_is_sent(kibitz: Running, change: Any, expected: Any) -> None:
    feedback_id = await add_value(kibitz, "t", 5, weight=0.5, metadata={"_user": "ada"})
    before = await only_item(kibitz)
    assert (await ask(kibitz, "PUT", path_of(ITEM, feedback_id), change)).status == 200
    after = await only_item(kibitz)
    assert figures(after) == expected
    assert (after["id"], after["created_at"]) == (feedback_id, before["created_at"])
    assert after["updated_at"] >= before["updated_at"]


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_update_takes_the_id_from_the_body_when_the_path_says_undefined(kibitz: Running, method: str) -> None:
    feedback_id = await add_value(kibitz, "t", 5)
    reply = await ask(kibitz, method, "/feedback/undefined", {"feedback_id": feedback_id, "value": 3})
    assert saved(reply, "updated") == [feedback_id]
    assert (await only_item(kibitz))["value"] == 3


@pytest.mark.parametrize("feedback_id", [{}, {"feedback_id": None}, {"feedback_id": 5}, {"feedback_id": ""}], ids=repr)
async def test_an_undefined_path_without_a_feedback_id_is_400(kibitz: Running, feedback_id: Any) -> None:
    message = failure_message(await ask(kibitz, "PUT", "/feedback/undefined", {"value": 3, **feedback_id}))
    assert "feedback_id" in message


async def test_the_id_in_the_path_beats_the_one_in_the_body(kibitz: Running) -> None:
    one, other = await add_value(kibitz, "t", 1), await add_value(kibitz, "u", 1)
    await ask(kibitz, "PUT", path_of(ITEM, one), {"feedback_id": other, "value": 3})
    assert [(await only_item(kibitz, trace_id))["value"] for trace_id in ("t", "u")] == [3, 1]


@pytest.mark.parametrize(("field", "values"), BAD_FIELDS)
async def test_a_bad_update_is_400_and_changes_nothing(kibitz: Running, field: str, values: list[Any]) -> None:
    feedback_id = await add_value(kibitz, "t", 5, weight=0.5, metadata={"_user": "ada"})
    before = await only_item(kibitz)
    for value in values:
        reply = await ask(kibitz, "PUT", path_of(ITEM, feedback_id), {"value": 1, field: value})
        assert (field in failure_message(reply), value) == (True, value)
    assert "value" in failure_message(await ask(kibitz, "PUT", path_of(ITEM, feedback_id), {"weight": 1}))
    assert await only_item(kibitz) == before


@pytest.mark.parametrize("body", [None, [], [{"value": 1}], 5, "x"], ids=repr)
async def test_an_update_that_is_no_object_is_400(kibitz: Running, body: Any) -> None:
    feedback_id = await add_value(kibitz, "t", 5)
    failure_message(await ask(kibitz, "PUT", path_of(ITEM, feedback_id), body))
    assert (await only_item(kibitz))["value"] == 5


@pytest.mark.parametrize("slash", ["", "/"], ids=["without slash", "with slash"])
async def test_delete_removes_the_item(kibitz: Running, slash: str) -> None:
    kept, deleted = await add_value(kibitz, "t", 1), await add_value(kibitz, "t", 2)
    path = path_of(ITEM, deleted) + slash
    assert saved(await ask(kibitz, "DELETE", path), "deleted") == [deleted]
    assert (await only_item(kibitz))["id"] == kept
    failure_message(await ask(kibitz, "DELETE", path), 404)


async def test_deleting_the_effective_rating_brings_the_one_before_back(kibitz: Running) -> None:
    await kibitz.chat(Helicone_Request_Id="r")
    for rating in (True, False):
        await rate(kibitz, "r", rating)
    latest = (await listed(kibitz, request_id="r"))[-1]
    await ask(kibitz, "DELETE", path_of(ITEM, latest["id"]))
    assert (await kibitz.row("r"))["feedback"]["rating"] is True


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
async def test_an_unknown_feedback_id_is_404(kibitz: Running, method: str) -> None:
    body = NO_BODY if method == "DELETE" else {"value": 1}
    for feedback_id in ("nobody", "00000000-0000-0000-0000-000000000000", "ü/%", "{}"):
        failure_message(await ask(kibitz, method, path_of(ITEM, feedback_id), body), 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_request_id_is_no_feedback_id(kibitz: Running, method: str) -> None:
    await kibitz.chat(Helicone_Request_Id="r")
    await rate(kibitz, "r")
    failure_message(await ask(kibitz, method, "/feedback/r", {"value": 1}), 404)


@pytest.mark.parametrize("trace_id", ["trace/1", "a b", "ключ", "100%", "x" * 256, "chat:message", "a+b&c=d"])
async def test_a_trace_id_may_be_any_text(kibitz: Running, trace_id: str) -> None:
    feedback_id = await add_value(kibitz, trace_id, 1)
    assert (await only_item(kibitz, trace_id))["id"] == feedback_id


async def test_the_body_beats_the_trace_id_of_the_header(kibitz: Running) -> None:
    reply = await ask(kibitz, "POST", "/feedback", {"trace_id": "t", "value": 1}, x_portkey_trace_id="stale")
    assert reply.trace_id == "t"
    assert await listed(kibitz, trace_id="stale") == []


async def test_answers_name_the_trace_concerned(kibitz: Running) -> None:
    created = await create(kibitz, {"trace_id": "t", "value": 1})
    assert (created.trace_id, (await ask(kibitz, "GET", "/feedback?trace_id=t")).trace_id) == ("t", "t")


@pytest.mark.parametrize(("method", "body"), [("PUT", {"value": 2}), ("POST", {"value": 2}), ("DELETE", NO_BODY)])
async def test_answers_about_an_item_name_its_trace(kibitz: Running, method: str, body: Any) -> None:
    feedback_id = await add_value(kibitz, "t", 1)
    assert (await ask(kibitz, method, path_of(ITEM, feedback_id), body)).trace_id == "t"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/feedback", b"{"),
        ("POST", "/feedback", []),
        ("PUT", "/feedback/x", {}),
        ("DELETE", "/feedback/x", NO_BODY),
        ("GET", "/feedback", NO_BODY),
        ("PATCH", "/feedback", NO_BODY),
    ],
)
async def test_failures_carry_a_trace_id_so_that_no_sdk_sends_twice(
    kibitz: Running, method: str, path: str, body: Any
) -> None:
    first, second = [await ask(kibitz, method, path, body) for _ in range(2)]
    assert first.status >= 400
    assert first.trace_id != second.trace_id
