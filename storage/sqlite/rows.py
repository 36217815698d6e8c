"""Records to parameters and rows to records."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from storage.records import Body, Call, Feedback, Score, StoredCall, Usage
from storage.sqlite import sql
from storage.sqlite.packing import pack, unpack

__all__ = ["arrival_parameters", "feedback_from_row", "feedback_parameters", "stored_call_from_row"]

_BOOLEANS = {"is_stream", "truncated", "omitted", "effective"}

_call_values = attrgetter(*sql.CALL_FIELDS)
_usage_values = attrgetter(*sql.USAGE_FIELDS)
_body_values = attrgetter(*sql.BODY_FIELDS)


def arrival_parameters(calls: Sequence[Call]) -> list[Any]:
    """The parameters of ``sql.insert_calls(len(calls))``."""
    return [value for call in calls for value in _call_parameters(call)]


def _call_parameters(call: Call) -> Iterator[Any]:
    yield from _call_values(call)
    yield from _usage_values(call.usage)
    yield json.dumps(call.properties) if call.properties else None
    for body in (call.request, call.response):
        yield from pack(body.data)
        yield from _body_values(body)


def feedback_parameters(feedback: Feedback) -> dict[str, Any]:
    """The named parameters of ``sql.ADD_FEEDBACK``."""
    return asdict(feedback)


def feedback_from_row(values: Sequence[Any]) -> Feedback:
    """From the columns ``sql.FEEDBACK_FIELDS``, in their order."""
    return Feedback(**_typed(sql.FEEDBACK_FIELDS, values))


def stored_call_from_row(row: sqlite3.Row) -> StoredCall:
    """From a row of ``sql.READ_CALL``."""
    call = Call(
        **_typed(sql.CALL_FIELDS, [row[name] for name in sql.CALL_FIELDS]),
        usage=Usage(*(row[name] for name in sql.USAGE_FIELDS)),
        properties=json.loads(row["properties"]),
        request=_body_from_row(row, "request"),
        response=_body_from_row(row, "response"),
    )
    return StoredCall(
        call=call,
        attempt=row["attempt"],
        scores=tuple(Score(name, value, bool(flag)) for name, value, flag in json.loads(row["scores"])),
        feedback=tuple(feedback_from_row(values) for values in json.loads(row["feedback"])),
    )


def _body_from_row(row: sqlite3.Row, side: str) -> Body:
    stored = _typed(sql.BODY_FIELDS, [row[f"{side}_{name}"] for name in sql.BODY_FIELDS])
    return Body(data=unpack(row[side], row[f"{side}_packing"]), **stored)


def _typed(names: Sequence[str], values: Sequence[Any]) -> Mapping[str, Any]:
    return {name: bool(value) if name in _BOOLEANS else value for name, value in zip(names, values, strict=True)}
