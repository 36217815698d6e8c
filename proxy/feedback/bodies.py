"""What feedback requests may say, as pydantic models. Contract section 6 gives every rule below."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr

from proxy.wire.json_text import nested_deeper_than

__all__ = ["DEEPEST", "NewScores", "NewValue", "PropertyChange", "RatingBody", "ValueChange"]

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,4}")
_LONGEST_NUMBER: Final = 32
# Levels of arrays and objects in a body, and in metadata that comes as text.
DEEPEST: Final = 100


def _boolean(value: object) -> object:
    """The texts "true" and "false" in any case; the strict type behind refuses what is left."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


def _score(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    raise ValueError("must be an integer, a float or a boolean")


def _feedback_value(value: object) -> object:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be an integer between -10 and 10")
    return value


def _weight(value: object) -> object:
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise ValueError("must be a number between 0 and 1")
    return value


def _metadata(value: object) -> object:
    if isinstance(value, str):
        value = _object_in(value)
    elif not isinstance(value, dict | None):
        raise ValueError("must be an object, or text that holds one")
    return value


def _object_in(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict) or nested_deeper_than(value, DEEPEST):
        raise ValueError(f"must be an object, or text that holds one of at most {DEEPEST} levels")
    return value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Rating = Annotated[StrictBool, BeforeValidator(_boolean)]
ScoreValue = Annotated[bool | int | float, BeforeValidator(_score)]
Value = Annotated[int, Field(ge=-10, le=10), BeforeValidator(_feedback_value)]
Weight = Annotated[Annotated[float, Field(ge=0, le=1)] | None, BeforeValidator(_weight)]
Metadata = Annotated[dict[str, Any] | None, BeforeValidator(_metadata)]
NotBlank = Annotated[StrictStr, BeforeValidator(lambda value: _not_blank(value) if isinstance(value, str) else value)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RatingBody(_Strict):
    """``POST /v1/request/{id}/feedback`` and ``POST /v1/session/{id}/feedback``."""

    rating: Rating
    comment: StrictStr | None = None
    metadata: dict[str, Any] | None = None


class NewScores(_Strict):
    """``POST /v1/request/{id}/score``."""

    scores: dict[NotBlank, ScoreValue]


class PropertyChange(_Strict):
    """``PUT /v1/request/{id}/property``."""

    key: NotBlank
    value: StrictStr


class ValueChange(BaseModel):
    """``PUT /v1/feedback/{id}``: what is left out, or null, stays as it was."""

    value: Value
    weight: Weight = None
    metadata: Metadata = None


class NewValue(ValueChange):
    """One item of ``POST /v1/feedback``."""

    trace_id: NotBlank
