"""What Portkey's analytics can be asked, as pydantic models of the query. Contract section 7; contracts/portkey 4."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, BeforeValidator, Field

from proxy.dialects import Failed
from proxy.reads.times import within
from storage.filters import All, Condition, FilterError, Node, OneOf, Operator
from storage.filters import Any as AnyOf
from storage.filters import Field as CallField
from storage.records import property_key

__all__ = ["MOST_GROUPS", "GraphQuery", "GroupQuery"]

_SECOND: Final = 1_000_000
MOST_GROUPS: Final = 1000
_NOTHING: Final = AnyOf(())
_MODEL: Final = CallField("model")
_PROVIDED: Final = "__"
# All parameters together have to find room in a request's target.
_LONGEST_LIST: Final = 2000
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_STATUSES: Final = r"^(?:[0-9]{3}(?:,[0-9]{3}){0,99}|\[[0-9]{3}(?:, ?[0-9]{3}){0,99}\])$"
# How Portkey's client for Python sends a list: as Python shows it.
_SHOWN_LIST: Final = re.compile(r"\[(.*)\]", re.DOTALL)
_QUOTES: Final = " \"'"
_OBJECT: Final = r"^[ \t\r\n]*\{[\s\S]*\}[ \t\r\n]*$"
# What a field of texts or numbers has to be one of, by the parameter's name.
_LISTS: Final = {
    "trace_id": "trace_id",
    "span_id": "span_id",
    "prompt_slug": "prompt_id",
}
_RANGES: Final = {
    "weighted_feedback": "mean_product",
    "total_units": "total_tokens",
    "cost": "cost",
    "prompt_token": "prompt_tokens",
    "completion_token": "completion_tokens",
}


def _moment(text: object) -> object:
    if not isinstance(text, str) or not _DATE.match(text):
        raise ValueError("must be a time in ISO 8601")
    # In a query a plus sign is a blank; the SDKs encode the whole time once more.
    return text.replace(" ", "+") if "T" in text else text


Moment = Annotated[datetime, BeforeValidator(_moment)]
List = Annotated[str | None, Field(description="One or several, with commas between them.", max_length=_LONGEST_LIST)]
Number = Annotated[float | None, Field(ge=-(2**53), le=2**53, allow_inf_nan=False)]


class GraphQuery(BaseModel):
    """Which calls."""

    time_of_generation_min: Annotated[Moment, Field(description="The first calls that count, in ISO 8601.")]
    time_of_generation_max: Annotated[Moment, Field(description="The last calls that count, in ISO 8601.")]
    weighted_feedback_min: Annotated[Number, Field(description="The mean of value times weight.")] = None
    weighted_feedback_max: Annotated[Number, Field(description="The mean of value times weight.")] = None
    total_units_min: Annotated[Number, Field(description="Tokens.")] = None
    total_units_max: Annotated[Number, Field(description="Tokens.")] = None
    cost_min: Annotated[Number, Field(description="US dollars.")] = None
    cost_max: Annotated[Number, Field(description="US dollars.")] = None
    prompt_token_min: Annotated[Number, Field(description="Tokens.")] = None
    prompt_token_max: Annotated[Number, Field(description="Tokens.")] = None
    completion_token_min: Annotated[Number, Field(description="Tokens.")] = None
    completion_token_max: Annotated[Number, Field(description="Tokens.")] = None
    trace_id: List = None
    span_id: List = None
    prompt_slug: List = None
    status_code: Annotated[
        str | None, Field(description="One or several, with commas between them.", pattern=_STATUSES)
    ] = None
    ai_org_model: Annotated[List, Field(description="`openai__gpt-4o`, or several.")] = None
    metadata: Annotated[
        str | None,
        Field(description="A JSON object: properties and their values.", max_length=_LONGEST_LIST, pattern=_OBJECT),
    ] = None
    virtual_keys: Annotated[List, Field(description="Kibitz has none, so nothing is found.")] = None
    configs: Annotated[List, Field(description="Kibitz has none, so nothing is found.")] = None
    api_key_ids: Annotated[List, Field(description="Kibitz has none, so nothing is found.")] = None

    @property
    def span(self) -> tuple[int, int]:
        """From and to, in microseconds since the epoch."""
        return _microseconds(self.time_of_generation_min), _microseconds(self.time_of_generation_max)

    def node(self) -> Node:
        """The calls that are meant. Raises `Failed` (400)."""
        try:
            return All((within(*self.span), *self._ranges(), *self._lists(), *self._properties()))
        except FilterError as error:
            raise Failed(400, "invalid_parameter", str(error)) from None

    def _ranges(self) -> list[Node]:
        ends = (("min", Operator.GTE), ("max", Operator.LTE))
        return [
            Condition(CallField(field), operator, value)
            for name, field in _RANGES.items()
            for end, operator in ends
            if (value := getattr(self, f"{name}_{end}")) is not None
        ]

    def _lists(self) -> list[Node]:
        given = [(CallField(field), getattr(self, name)) for name, field in _LISTS.items()]
        found: list[Node] = [OneOf(field, _several(text)) for field, text in given if text]
        if self.status_code:
            statuses = [int(text) for text in _several(self.status_code)]
            equal = (Condition(CallField("status"), Operator.EQUALS, status) for status in statuses)
            found.append(AnyOf(tuple(equal)))
        if self.ai_org_model:
            found.append(_models(_several(self.ai_org_model)))
        if self.virtual_keys or self.configs or self.api_key_ids:
            found.append(_NOTHING)
        return found

    def _properties(self) -> list[Node]:
        if not self.metadata:
            return []
        try:
            pairs = orjson.loads(self.metadata)
        except orjson.JSONDecodeError:
            pairs = None
        if not isinstance(pairs, dict):
            raise Failed(400, "invalid_parameter", "metadata must be a JSON object")
        return [
            Condition(CallField("property", property_key(name)), Operator.EQUALS, _property_text(value))
            for name, value in pairs.items()
        ]


class GroupQuery(GraphQuery):
    """Which calls, and which page of groups."""

    current_page: Annotated[int, Field(ge=0, le=10**6, description="From 0.")] = 0
    page_size: Annotated[int, Field(ge=1, le=MOST_GROUPS, description="Groups on a page.")] = 50


def _microseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0, round(aware.timestamp() * _SECOND))


def _several(text: str) -> tuple[str, ...]:
    shown = _SHOWN_LIST.fullmatch(text)
    parts = shown[1].split(",") if shown else text.split(",")
    return tuple(filter(None, (part.strip(_QUOTES if shown else None) for part in parts)))


def _models(several: tuple[str, ...]) -> Node:
    """``provider__model``; a model may stand alone, and those that do are one part: there may be a thousand."""
    alone = tuple(text for text in several if _PROVIDED not in text)
    named = (text.partition(_PROVIDED) for text in several if _PROVIDED in text)
    return AnyOf((OneOf(_MODEL, alone), *(_provided(provider, model) for provider, _, model in named)))


def _provided(provider: str, model: str) -> Node:
    of_provider = Condition(CallField("provider"), Operator.EQUALS, provider)
    return All((of_provider, Condition(_MODEL, Operator.EQUALS, model)))


def _property_text(value: Any) -> str:
    """A value as properties keep it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode("utf-8")
