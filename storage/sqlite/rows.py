"""Records to parameters and rows to records."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from storage.records import Body, Call, Feedback, NumberedCall, Score, Usage, property_key
from storage.sqlite import sql
from storage.sqlite.packing import LARGE, pack, pack_in_pieces, unpack

__all__ = [
    "arrival_parameters",
    "call_from_row",
    "derived_parameters",
    "feedback_from_row",
    "feedback_parameters",
    "has_large_body",
    "large_arrival",
    "response_parameters",
    "score_from_row",
]

_Packed = tuple[bytes | None, str | None]

_BOOLEANS = {"is_stream", "truncated", "omitted", "effective"}

_call_values = attrgetter(*sql.CALL_FIELDS)
_usage_values = attrgetter(*sql.USAGE_FIELDS)
_derived_values = attrgetter(*sql.DERIVED_FIELDS)
_body_values = attrgetter(*sql.BODY_FIELDS)


def arrival_parameters(calls: Sequence[Call]) -> list[Any]:
    """The parameters of ``sql.insert_calls(len(calls))``."""
    return [
        value for call in calls for value in _call_parameters(call, pack(call.request.data), pack(call.response.data))
    ]


def has_large_body(call: Call) -> bool:
    """Whether a call is for `large_arrival`."""
    return any(body.data is not None and len(body.data) >= LARGE for body in (call.request, call.response))


def large_arrival(call: Call) -> tuple[list[Any], list[tuple[str, Iterator[bytes | memoryview]]]]:
    """The parameters of ``sql.insert_calls(1)`` without large bodies, and these: each side with its pieces."""
    packed: list[_Packed] = []
    large: list[tuple[str, Iterator[bytes | memoryview]]] = []
    for side, data in (("request", call.request.data), ("response", call.response.data)):
        if data is None or len(data) < LARGE:
            packed.append(pack(data))
        else:
            pieces, packing = pack_in_pieces(data)
            packed.append((None, packing))
            large.append((side, pieces))
    return list(_call_parameters(call, *packed)), large


def _call_parameters(call: Call, request: _Packed, response: _Packed) -> Iterator[Any]:
    yield from _call_values(call)
    yield from _usage_values(call.usage)
    yield _json_of(call.properties) if call.properties else None
    yield from request
    yield from _body_values(call.request)
    yield from response
    yield from _body_values(call.response)


def response_parameters(call: Call, number: int) -> tuple[list[Any], Iterator[bytes | memoryview]]:
    """The parameters of ``sql.REPLACE_RESPONSE``, and the pieces of the body if it is a large one."""
    data = call.response.data
    pieces: Iterator[bytes | memoryview] = iter(())
    if data is None or len(data) < LARGE:
        packed = pack(data)
    else:
        pieces, packing = pack_in_pieces(data)
        packed = (None, packing)
    return [*packed, *_body_values(call.response), number], pieces


def _json_of(properties: Mapping[str, str]) -> str:
    # SQLite's JSON functions end a text at a NUL. Surrogates stay what they are, for SQLite to refuse.
    texts = ((name.replace("\0", ""), value.replace("\0", "")) for name, value in properties.items())
    return json.dumps({property_key(name): [name, value] for name, value in texts}, ensure_ascii=False)


def derived_parameters(row: NumberedCall) -> list[Any]:
    """The parameters of ``sql.REWRITE_DERIVED``."""
    call = row.call
    columns = [*_derived_values(call), *_usage_values(call.usage)]
    return [*columns, row.number, call.organisation, call.request_id, call.started_at]


def feedback_parameters(feedback: Feedback) -> dict[str, Any]:
    """The named parameters of ``sql.ADD_FEEDBACK``."""
    return asdict(feedback)


def feedback_from_row(values: Sequence[Any]) -> Feedback:
    """From the columns ``sql.FEEDBACK_FIELDS``, in their order."""
    return Feedback(**_typed(sql.FEEDBACK_FIELDS, values))


def call_from_row(row: sqlite3.Row, properties: Mapping[str, str], large: Mapping[str, bytes]) -> Call:
    """From a row of ``sql.READ_CALL``; ``large`` are the bodies that are stored in pieces, by their side."""
    return Call(
        **_typed(sql.CALL_FIELDS, [row[name] for name in sql.CALL_FIELDS]),
        usage=Usage(*(row[name] for name in sql.USAGE_FIELDS)),
        properties=properties,
        request=_body_from_row(row, "request", large),
        response=_body_from_row(row, "response", large),
    )


def score_from_row(values: Sequence[Any]) -> Score:
    """From a row of ``sql.READ_SCORES``."""
    name, value, is_boolean = values
    return Score(name, value, bool(is_boolean))


def _body_from_row(row: sqlite3.Row, side: str, large: Mapping[str, bytes]) -> Body:
    stored = _typed(sql.BODY_FIELDS, [row[f"{side}_{name}"] for name in sql.BODY_FIELDS])
    return Body(data=unpack(large.get(side, row[side]), row[f"{side}_packing"]), **stored)


def _typed(names: Sequence[str], values: Sequence[Any]) -> Mapping[str, Any]:
    return {name: bool(value) if name in _BOOLEANS else value for name, value in zip(names, values, strict=True)}
