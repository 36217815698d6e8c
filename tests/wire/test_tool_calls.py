"""Pieces of tool calls as providers send them, where the protocol's index and id don't tell them apart."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.wire.accumulate import settled
from proxy.wire.tool_calls import ToolCalls

Json = dict[str, Any]


def put_together(*deltas: list[Json]) -> list[Json]:
    calls = ToolCalls()
    for pieces in deltas:
        calls.take(pieces)
    put: list[Json] = settled(calls)
    return put


def piece(name: str | None = None, arguments: str | None = None, **more: Any) -> Json:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**more, "function": function}


def functions(calls: list[Json]) -> list[tuple[Any, ...]]:
    return [(call.get("id"), call["function"]["name"], call["function"]["arguments"]) for call in calls]


TWO = [("c1", "f", '{"a":1}'), ("c2", "f", "{}")]


@pytest.mark.parametrize(
    "deltas",
    [
        [[piece("f", '{"a":1}', index=0, id="c1")], [piece("f", "{}", index=0, id="c2")]],
        [
            [piece("f", '{"a"', index=0, id="c1")],
            [piece(None, ":1}", index=0)],
            [piece("f", "", index=0, id="c2")],
            [piece(None, "{}", index=0)],
        ],
        [[piece("f", '{"a":1}', index=0, id="c1"), piece("f", "{}", index=0, id="c2")]],
        [[piece("f", '{"a"', id="c1"), piece(None, ":1}"), piece("f", "{}", id="c2")]],
        [[piece("f", '{"a"', id="c1")], [piece("f", "{}", id="c2")], [piece(None, ":1}", id="c1")]],
        [[piece("f", '{"a"', index=None, id="c1")], [piece("f", ":1}", id="c1")], [piece("f", "{}", id="c2")]],
    ],
    ids=["whole", "in pieces", "in one delta", "last goes on", "by their ids", "all repeated"],
)
def test_calls_of_one_index_or_of_none_are_told_apart_by_their_ids(deltas: list[list[Json]]) -> None:
    assert functions(put_together(*deltas)) == TWO


@pytest.mark.parametrize("index", [{}, {"index": 0}, {"index": None, "id": ""}], ids=["none", "the same", "empty"])
@pytest.mark.parametrize("second", ["f", "g"])
@pytest.mark.parametrize("at_once", [True, False])
def test_calls_without_ids_are_told_apart_by_where_the_next_begins(index: Json, second: str, at_once: bool) -> None:
    first, then = piece("f", '{"a":1}', **index), piece(second, '{"b":2}', **index)
    calls = put_together([first, then]) if at_once else put_together([first], [then])
    assert [call["function"] for call in calls] == [
        {"name": "f", "arguments": '{"a":1}'},
        {"name": second, "arguments": '{"b":2}'},
    ]


def test_another_name_behind_arguments_begins_another_call() -> None:
    calls = put_together([piece("f", "{}")], [piece("g", "")], [piece(None, '{"b":2}')])
    assert [call["function"] for call in calls] == [
        {"name": "f", "arguments": "{}"},
        {"name": "g", "arguments": '{"b":2}'},
    ]


@pytest.mark.parametrize("name", [None, "f"])
def test_one_call_stays_one_however_often_it_is_named(name: str | None) -> None:
    deltas = [[piece("f", "")], *([piece(name, part)] for part in ['{"a": {', "}", "}", ""])]
    assert [call["function"] for call in put_together(*deltas)] == [{"name": "f", "arguments": '{"a": {}}'}]


def test_ids_that_change_with_every_piece_begin_no_call() -> None:
    """As vLLM made them up until 2025: an id of its own for each delta of a call."""
    calls = put_together([piece("f", "", index=0, id="c1")], [piece(None, "{}", index=0, id="c2")])
    assert functions(calls) == [("c1", "f", "{}")]


def test_a_name_may_come_in_pieces() -> None:
    calls = put_together([piece("get_", index=0, id="c1")], [piece("weather", index=0)], [piece(None, "{}", index=0)])
    assert functions(calls) == [("c1", "get_weather", "{}")]


@pytest.mark.parametrize("named", [{}, {"name": "sql"}])
def test_custom_tools_are_put_together_like_functions(named: Json) -> None:
    head: Json = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "sql", "input": ""}}
    pieces: list[Json] = [{"index": 0, "custom": {**named, "input": text}} for text in ("SELECT", " 1")]
    calls = put_together([head], *([piece] for piece in pieces))
    assert calls == [{"index": 0, "id": "c1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]


def test_arguments_may_be_an_object() -> None:
    [call] = put_together([{"index": 0, "id": "c1", "function": {"name": "f", "arguments": {"a": 1}}}])
    assert call["function"] == {"name": "f", "arguments": {"a": 1}}
