"""What questions about many calls have in common, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = ["INVALID", "HeliconeBody", "Tree"]

INVALID: Final = "invalid_query"
"""The code of a failure that tells of a body of the wrong shape."""

Tree = Annotated[
    dict[str, Any] | str,
    Field(
        description='`"all"`, or a leaf `{table: {column: {operator: value}}}`, or a branch '
        '`{"left": …, "operator": "and" or "or", "right": …}`.',
        examples=["all", {"request_response_rmt": {"model": {"equals": "gpt-4o"}}}],
    ),
]


class HeliconeBody(BaseModel):
    """Names in a body are as JavaScript has them; what it has beside the known ones is ignored."""

    model_config = ConfigDict(alias_generator=to_camel)
