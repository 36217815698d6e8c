"""What feedback requests may say, as pydantic models. Contract section 6 gives every rule below.

Where a validator takes more than the type that it makes, ``json_schema_input_type`` says so to ``/openapi.json``.

How long texts may be is told by the `FeedbackLimits` in the validation's context: too long is refused, never cut.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr

from proxy.sizes import AtMost
from proxy.wire.json_text import nested_deeper_than

__all__ = [
    "BLANKS",
    "DEEPEST",
    "Flag",
    "ListQuery",
    "NewFeedback",
    "NewScores",
    "NewValue",
    "OldRating",
    "PropertyChange",
    "RatingBody",
    "SessionTag",
    "ValueChange",
]

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,4}")
_LONGEST_NUMBER: Final = 32
# Levels of arrays and objects in a body, and in metadata that comes as text.
DEEPEST: Final = 100


def _json_size(value: Any) -> int:
    return len(orjson.dumps(value))


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


BLANKS: Final = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What `str.strip` takes away; ``\\s`` is something else in the expressions of JSON Schema."""
BooleanText = Annotated[str, Field(pattern=r"^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$")]
ValueText = Annotated[str, Field(pattern=r"^[ \t\r\n]*[+-]?(0{0,3}[0-9]|0{0,2}10)[ \t\r\n]*$")]
# As Python and JavaScript write them.
WeightText = Annotated[str, Field(pattern=r"^(0|1|1\.0|0\.[0-9]{1,17}|[0-9](\.[0-9]{1,16})?e-[0-9]*[1-9])$")]
ObjectText = Annotated[
    str,
    Field(
        pattern=r"^[ \t\r\n]*\{[\s\S]*\}[ \t\r\n]*$",
        json_schema_extra={"contentMediaType": "application/json", "contentSchema": {"type": "object"}},
    ),
]
NotBlankText = Annotated[str, Field(pattern=f"[^{BLANKS}]")]
ValueNumber = Annotated[int, Field(ge=-10, le=10)]
WeightNumber = Annotated[float, Field(ge=0, le=1)]

Rating = Annotated[StrictBool, BeforeValidator(_boolean, json_schema_input_type=bool | BooleanText)]
ScoreValue = Annotated[bool | int | float, BeforeValidator(_score, json_schema_input_type=bool | float)]
Value = Annotated[ValueNumber, BeforeValidator(_feedback_value, json_schema_input_type=ValueNumber | ValueText)]
Weight = Annotated[
    WeightNumber | None, BeforeValidator(_weight, json_schema_input_type=WeightNumber | WeightText | None)
]
_Small = AtMost("max_metadata_bytes", "bytes as JSON", _json_size)
Metadata = Annotated[
    dict[str, Any] | None,
    BeforeValidator(_metadata, json_schema_input_type=dict[str, Any] | ObjectText | None),
    _Small,
]
Comment = Annotated[StrictStr | None, AtMost("max_comment_characters", "characters")]
NotBlank = Annotated[
    StrictStr,
    BeforeValidator(
        lambda value: _not_blank(value) if isinstance(value, str) else value, json_schema_input_type=NotBlankText
    ),
    AtMost("max_label_characters", "characters"),
]

Flag = Annotated[bool, BeforeValidator(lambda text: str(text).lower() == "true", json_schema_input_type=bool | str)]
"""A parameter of a query that is set by ``true``, in any case; by nothing else."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RatingBody(_Strict):
    """``POST /v1/request/{id}/feedback`` and ``POST /v1/session/{id}/feedback``."""

    rating: Rating
    comment: Comment = None
    metadata: Annotated[dict[str, Any] | None, _Small] = None


class OldRating(RatingBody):
    """``POST /v1/feedback`` as Helicone's old proxy had it."""

    model_config = ConfigDict(extra="ignore")

    request_id: Annotated[StrictStr, Field(alias="helicone-id", min_length=1)]


class NewScores(_Strict):
    """``POST /v1/request/{id}/score``."""

    scores: Annotated[dict[NotBlank, ScoreValue], AtMost("max_scores", "entries")]


class PropertyChange(_Strict):
    """``PUT /v1/request/{id}/property``."""

    key: NotBlank
    value: Annotated[StrictStr, AtMost("max_text_characters", "characters")]


class SessionTag(_Strict):
    """``POST /v1/session/{id}/tag``."""

    tag: Annotated[StrictStr, AtMost("max_text_characters", "characters")]


class ValueChange(BaseModel):
    """``PUT /v1/feedback/{id}``: what is left out, or null, stays as it was."""

    value: Value
    weight: Weight = None
    metadata: Metadata = None


class NewValue(ValueChange):
    """One item of ``POST /v1/feedback``."""

    trace_id: NotBlank


class NodeValue(ValueChange):
    """One of the numbered items that the Node SDK makes of an array; it spells their names so."""

    trace_id: Annotated[NotBlank, Field(alias="traceID")]


_Number = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,5})$")]
NewFeedback = (
    NewValue
    | OldRating
    | Annotated[list[NewValue], Field(min_length=1), AtMost("max_bulk_items", "items")]
    | Annotated[dict[_Number, NewValue | NodeValue], Field(min_length=1), AtMost("max_bulk_items", "entries")]
)
"""All that ``POST /v1/feedback`` takes: one item, a rating, an array of items, an object of numbered ones."""


class ListQuery(BaseModel):
    """Whose feedback is listed; one of them has to be named."""

    trace_id: Annotated[str, Field(description="A trace, or what stands in for one.")] = ""
    request_id: Annotated[str, Field(description="A request, or a response by the provider's id.")] = ""
    session_id: Annotated[str, Field(description="A session.")] = ""
    unmatched: Annotated[Flag, Field(description="`true`: what matches no call yet.")] = False
