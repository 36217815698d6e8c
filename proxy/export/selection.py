"""Which calls an export holds, as its parameters say."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from proxy.dialects import Failed
from proxy.reads.columns import property_field
from proxy.reads.filters import read_filter, read_moment
from storage.filters import All, Condition, FilterError, Node, Operator
from storage.filters import Field as CallField

__all__ = ["Selection"]

_RATINGS: Final = {"true": True, "false": False, "none": None}


class Selection(BaseModel):
    """What calls have to be like; all of it together."""

    model_config = ConfigDict(extra="forbid")

    filter: Annotated[str | None, Field(description="Helicone's filter tree, as JSON.")] = None
    rating: Annotated[
        Literal["true", "false", "none"] | None,
        Field(description="Rated well, rated badly, or not rated at all."),
    ] = None
    since: Annotated[str | None, Field(description="Started then or later: ISO 8601, or milliseconds.")] = None
    until: Annotated[str | None, Field(description="Started earlier than then.")] = None
    model: Annotated[str | None, Field(description="Answered by this model.")] = None
    user: Annotated[str | None, Field(description="Made for this user.")] = None
    session: Annotated[str | None, Field(description="Of this session.")] = None

    dataset: Annotated[
        str | None, Field(description="The copies of this dataset, by its id; nothing else can be asked of them.")
    ] = None

    def check(self, properties: dict[str, str]) -> None:
        """Raise `Failed` (400) for a dataset that is to be narrowed."""
        chosen = {name for name in Selection.model_fields if getattr(self, name) is not None}
        if self.dataset is not None and (properties or chosen > {"dataset"}):
            raise Failed(400, "invalid_parameter", "dataset: it is exported whole, and takes no other condition")

    def node(self, properties: dict[str, str]) -> Node:
        """As one tree, also of what ``properties`` have to be. Calls that start from now on are left out.

        Raises `Failed` (400).
        """
        self.check(properties)
        try:
            return All((self._tree(), *self._times(), *self._fields(), *_properties(properties)))
        except FilterError as error:
            raise Failed(400, "invalid_parameter", str(error)) from None

    def _tree(self) -> Node:
        try:
            tree = None if self.filter in (None, "all") else orjson.loads(self.filter)
        except ValueError as error:
            raise Failed(400, "invalid_filter", f"filter: it is no JSON: {error}") from None
        return read_filter(tree)

    def _times(self) -> list[Node]:
        bounds: list[Node] = [_started(Operator.LTE, time.time_ns() // 1000)]
        if self.since is not None:
            bounds.append(_started(Operator.GTE, read_moment(self.since)))
        if self.until is not None:
            bounds.append(_started(Operator.LT, read_moment(self.until)))
        return bounds

    def _fields(self) -> list[Node]:
        texts = {"model": self.model, "user_id": self.user, "session_id": self.session}
        found: list[Node] = [_is(CallField(name), text) for name, text in texts.items() if text is not None]
        if self.rating is not None:
            found.append(_is(CallField("rating"), _RATINGS[self.rating]))
        return found


def _properties(properties: dict[str, str]) -> list[Node]:
    return [_is(property_field(name), value) for name, value in properties.items()]


def _is(field: CallField, value: Any) -> Condition:
    return Condition(field, Operator.EQUALS, value)


def _started(operator: Operator, moment: int) -> Condition:
    return Condition(CallField("started_at"), operator, moment)
