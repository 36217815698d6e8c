"""Records to parameters and rows to records."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from storage.records import Body, Call, Feedback, NumberedCall, Score, Usage
from storage.sqlite import sql

__all__ = [
    "body_from_row",
    "call_from_row",
    "derived_parameters",
    "feedback_from_row",
    "feedback_parameters",
    "score_from_row",
]

_BOOLEANS = {"is_stream", "truncated", "omitted", "effective"}

_usage_values = attrgetter(*sql.USAGE_FIELDS)
_derived_values = attrgetter(*sql.DERIVED_FIELDS)


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


def call_from_row(row: sqlite3.Row, properties: Mapping[str, str], request: Body, response: Body) -> Call:
    """From a row of ``sql.READ_CALL`` and its bodies."""
    return Call(
        **_typed(sql.CALL_FIELDS, [row[name] for name in sql.CALL_FIELDS]),
        usage=Usage(*(row[name] for name in sql.USAGE_FIELDS)),
        properties=properties,
        request=request,
        response=response,
    )


def score_from_row(values: Sequence[Any]) -> Score:
    """From a row of ``sql.READ_SCORES``."""
    name, value, is_boolean = values
    return Score(name, value, bool(is_boolean))


def body_from_row(row: sqlite3.Row, side: str, data: bytes | None) -> Body:
    """A side's body, from the same row and its bytes."""
    stored = _typed(sql.BODY_FIELDS, [row[f"{side}_{name}"] for name in sql.BODY_FIELDS])
    return Body(data=data, **stored)


def _typed(names: Sequence[str], values: Sequence[Any]) -> Mapping[str, Any]:
    return {name: bool(value) if name in _BOOLEANS else value for name, value in zip(names, values, strict=True)}
