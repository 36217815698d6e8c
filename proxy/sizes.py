"""A bound on the size of what is sent, where a setting says how much: refused by its name, and told in the description.

Stands in the `Annotated` type of a model's field. The sizes in force come as the validation's context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from proxy.text_limits import DEFAULT_FEEDBACK_LIMITS, FeedbackLimits

__all__ = ["AtMost", "with_sizes"]

# Stands in a schema for the size itself until that is known.
_MARK: Final = "x-at-most"
# What JSON Schema calls the bound, by what is counted.
_KEYWORDS: Final = {"characters": "maxLength", "entries": "maxProperties", "items": "maxItems"}


@dataclass(frozen=True, slots=True)
class AtMost:
    """Refuses what measures more than a limit of `FeedbackLimits`."""

    setting: str
    unit: str
    measure: Callable[[Any], int] = len

    def check(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        """The value. Raises ValueError if it is too large."""
        most = getattr(info.context or DEFAULT_FEEDBACK_LIMITS, self.setting)
        if value is not None and self.measure(value) > most:
            raise ValueError(f"must be of at most {most} {self.unit} (limits.{self.setting})")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), _MARK: [self.setting, self.unit]}


def with_sizes(schema: Any, limits: FeedbackLimits) -> Any:
    """A JSON schema with the sizes that are in force."""
    if isinstance(schema, list):
        return [with_sizes(part, limits) for part in schema]
    if not isinstance(schema, dict):
        return schema
    sized = {name: with_sizes(part, limits) for name, part in schema.items() if name != _MARK}
    if _MARK not in schema:
        return sized
    setting, unit = schema[_MARK]
    most = getattr(limits, setting)
    bound = {_KEYWORDS[unit]: most} if unit in _KEYWORDS else {}
    return {**sized, **bound, "description": f"At most {most} {unit} (`limits.{setting}`)."}
