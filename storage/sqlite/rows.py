"""Records to parameters and rows to records."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from storage.records import Body, Call, Feedback, Score, Usage, property_key
from storage.sqlite import sql
from storage.sqlite.packing import pack, unpack

__all__ = ["arrival_parameters", "call_from_row", "feedback_from_row", "feedback_parameters", "score_from_row"]

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
    yield _json_of(call.properties) if call.properties else None
    for body in (call.request, call.response):
        yield from pack(body.data)
        yield from _body_values(body)


def _json_of(properties: Mapping[str, str]) -> str:
    # SQLite's JSON functions end a text at a NUL. Surrogates stay what they are, for SQLite to refuse.
    texts = ((name.replace("\0", ""), value.replace("\0", "")) for name, value in properties.items())
    return json.dumps({property_key(name): [name, value] for name, value in texts}, ensure_ascii=False)


def feedback_parameters(feedback: Feedback) -> dict[str, Any]:
    """The named parameters of ``sql.ADD_FEEDBACK``."""
    return asdict(feedback)


def feedback_from_row(values: Sequence[Any]) -> Feedback:
    """From the columns ``sql.FEEDBACK_FIELDS``, in their order."""
    return Feedback(**_typed(sql.FEEDBACK_FIELDS, values))


def call_from_row(row: sqlite3.Row, properties: Mapping[str, str]) -> Call:
    """From a row of ``sql.READ_CALL``."""
    return Call(
        **_typed(sql.CALL_FIELDS, [row[name] for name in sql.CALL_FIELDS]),
        usage=Usage(*(row[name] for name in sql.USAGE_FIELDS)),
        properties=properties,
        request=_body_from_row(row, "request"),
        response=_body_from_row(row, "response"),
    )


def score_from_row(values: Sequence[Any]) -> Score:
    """From a row of ``sql.READ_SCORES``."""
    name, value, is_boolean = values
    return Score(name, value, bool(is_boolean))


def _body_from_row(row: sqlite3.Row, side: str) -> Body:
    stored = _typed(sql.BODY_FIELDS, [row[f"{side}_{name}"] for name in sql.BODY_FIELDS])
    return Body(data=unpack(row[side], row[f"{side}_packing"]), **stored)


def _typed(names: Sequence[str], values: Sequence[Any]) -> Mapping[str, Any]:
    return {name: bool(value) if name in _BOOLEANS else value for name, value in zip(names, values, strict=True)}
