"""What questions about many calls have in common, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = ["INVALID", "WHOLE", "HeliconeBody", "Tree"]

INVALID: Final = "invalid_query"
"""The code of a failure that tells of a body of the wrong shape."""


def _whole(value: object) -> object:
    """A float without a fraction is an integer in JSON, and a boolean is none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE: Final = BeforeValidator(_whole)
"""Lets an integer be spelt as ``1.0``; behind its bounds, which the description would not know otherwise."""

Tree = Annotated[
    Literal["all"] | dict[str, Any],
    Field(
        description='`"all"`, or a leaf `{table: {column: {operator: value}}}`, or a branch '
        '`{"left": …, "operator": "and" or "or", "right": …}`.',
        examples=["all", {"request_response_rmt": {"model": {"equals": "gpt-4o"}}}],
    ),
]


class HeliconeBody(BaseModel):
    """Names in a body are as JavaScript has them; what it has beside the known ones is ignored."""

    model_config = ConfigDict(alias_generator=to_camel, strict=True)
