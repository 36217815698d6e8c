"""That the bodies are described as they are taken: what a schema allows a model takes, and nothing else.

Left out are texts in unusual forms that pydantic reads as numbers (``1_0``, ``1e5``), and what is wrong inside a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel, ValidationError

from proxy.dialects import Dialect
from proxy.feedback.bodies import NewScores, NewValue, OldRating, PropertyChange, RatingBody, SessionTag, ValueChange
from proxy.logs.bodies import HeliconeLog, PortkeyLog
from proxy.openapi import describe
from proxy.operations import Endpoint, Operation

NUMBERS: list[Any] = [
    *(0, 1, -1, 5, 10, 11, -10, -11, 5.0, 5.5, 0.5, 1.5, 99, 100, 200, 999, 1000, -2, -3, -4, 2**53, 1e12)
]
TEXTS: list[Any] = [
    *("", "x", "a b", "\0", "é", "\ufeff", "true", "TRUE", "False", "yes", "Off", "truest", "null", "nan", "inf"),
    *("0", "1", "5", " 5 ", "+5", "-10", "11", "-11", "0010", "5.0", "0.5", "1.0", "1.5", "1e-05", "200"),
    *("{}", "[]", ' {"a": 1}\n', "{", "12345678901", "12.5"),
    *("n" * size for size in (1024, 1025, 8192, 8193, 16384, 16385)),
    *(chr(code) for code in range(0x10000) if chr(code).isspace()),
]
OTHERS: list[Any] = [
    None,
    True,
    False,
    [],
    [1],
    {},
    {"a": 1},
    {"": 1},
    {" ": True},
    {"a": "x"},
    {"a": 1, "b": None},
    {"n" * 1025: 1},
    dict.fromkeys(map(str, range(101)), 1),
]
MOMENT = {"seconds": 1, "milliseconds": 2}
BODIES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (RatingBody, {"rating": True, "comment": "", "metadata": {}}),
    (OldRating, {"helicone-id": "r", "rating": True, "comment": "", "metadata": {}}),
    (NewScores, {"scores": {"a": 1}}),
    (PropertyChange, {"key": "k", "value": "v"}),
    (SessionTag, {"tag": "t"}),
    (ValueChange, {"value": 1, "weight": 1, "metadata": {}}),
    (NewValue, {"trace_id": "t", "value": 1, "weight": 1, "metadata": {}}),
    (PortkeyLog, {"request": {}, "response": {}, "metadata": {}, "start_time": 1}),
    (HeliconeLog, {"providerRequest": {"json": 1}, "providerResponse": {}, "timing": None, "provider": "p"}),
]
NESTED: list[tuple[type[BaseModel], str, dict[str, Any]]] = [
    (PortkeyLog, "request", {"url": "u", "method": "m", "provider": "p", "headers": {}, "body": 1}),
    (PortkeyLog, "response", {"status": 200, "response_time": 1, "streamingMode": True, "headers": {}, "body": 1}),
    (HeliconeLog, "providerRequest", {"url": "u", "json": 1, "meta": {}}),
    (HeliconeLog, "providerResponse", {"status": 200, "json": 1, "textBody": ""}),
    (HeliconeLog, "timing", {"startTime": MOMENT, "endTime": MOMENT, "timeToFirstToken": 1}),
    (HeliconeLog, "timing", {"startTime": MOMENT, "endTime": MOMENT}),
]


def description(model: type[BaseModel]) -> jsonschema_rs.Validator:
    operation = Operation(summary="Takes it.", body=model, answer=str)
    document = describe([Endpoint("POST", "/x", Dialect.OPENAI, None, operation)], "0")
    schema = document["paths"]["/x"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})


def is_taken(model: type[BaseModel], body: Any) -> bool:
    try:
        model.model_validate(body)
    except ValidationError:
        return False
    return True


def variations(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Bodies with one member that is odd, missing or not known."""
    yield body
    yield {**body, "unknown": 1}
    for name in body:
        yield {known: value for known, value in body.items() if known != name}
        for odd in (*NUMBERS, *TEXTS, *OTHERS):
            yield {**body, name: odd}


@pytest.mark.parametrize(("model", "body"), BODIES, ids=lambda part: getattr(part, "__name__", ""))
def test_a_body_is_described_as_what_is_taken(model: type[BaseModel], body: dict[str, Any]) -> None:
    described = description(model)
    misdescribed = [one for one in variations(body) if described.is_valid(one) != is_taken(model, one)]
    assert misdescribed == []


@pytest.mark.parametrize(("model", "name", "part"), NESTED)
def test_a_part_of_a_log_is_described_as_what_is_taken(model: type[BaseModel], name: str, part: dict[str, Any]) -> None:
    described = description(model)
    body = dict(BODIES)[model]
    bodies = [{**body, name: one} for one in variations(part)]
    assert [one for one in bodies if described.is_valid(one) != is_taken(model, one)] == []
