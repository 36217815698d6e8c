"""What groups of calls are added up from: calls, or sums of theirs that blocks have ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from storage.filters import Field, Figure, Node
from storage.queries import Dimension, TimeBucket
from storage.sqlite.covering import Cover
from storage.sqlite.figures import COLUMNS, DAY, EVERY_CALL, PROPERTY, SESSION, bucket, day
from storage.sqlite.filtering import Fragment, condition, expression

__all__ = ["DAYS", "SAID", "SESSIONS", "Properties", "Way", "calls_part", "joined", "key"]

DAYS, SESSIONS = "day", "session_id"
"""Columns of calls beside those of `COLUMNS`: of what is counted once however often it comes."""

# Of an item of feedback, and of a call that was spoken of.
SAID: Final = ("said", "positive", "negative", "weighted_sum", "weights", "rated")

_OF_CALL: Final = {
    **{name: one for name, (one, _) in COLUMNS.items()},
    DAYS: day("c.started_at"),
    SESSIONS: "c.session_id",
}


@dataclass(frozen=True, slots=True)
class Way:
    """How the statement goes: what blocks have ready, and whether feedback is found from the calls or they from it.

    ``calls`` is the condition on the row ``c`` that `candidates` gives.
    """

    calls: Fragment
    cover: Cover | None = None
    from_feedback: bool = True


@dataclass(frozen=True, slots=True)
class Properties:
    """Those that are gone by, joined once: the key and the conditions on it would look for them each by itself."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, by: Sequence[Dimension]) -> Properties:
        """Those among the dimensions."""
        return cls(tuple({one: None for one in by if isinstance(one, Field) and one.name == PROPERTY}))

    @property
    def joins(self) -> str:
        """What joins them to the calls ``c``; see `keys` for its values."""
        join = "LEFT JOIN properties AS p{0} ON p{0}.call_id = c.id AND p{0}.key = ?"
        return " ".join(join.format(place) for place in range(len(self.fields)))

    @property
    def keys(self) -> list[Any]:
        """The values for its question marks."""
        return [field.key for field in self.fields]

    def expression(self, field: Field | Figure) -> Fragment:
        """A field's value for the row ``c``."""
        if field in self.fields:
            return f"p{self.fields.index(field)}.value", []
        return expression(field)


def joined(fragments: Sequence[Fragment], word: str) -> Fragment:
    """Several pieces as one."""
    return word.join(text for text, _ in fragments), [value for _, values in fragments for value in values]


def calls_part(where: Node, by: Sequence[Dimension], columns: Sequence[str], way: Way) -> Fragment:
    """Rows of figures: of one call each, or of as many as blocks have together."""
    shown = ", ".join([*(_OF_CALL[name] for name in columns), *["NULL"] * len(SAID)])
    properties = Properties.of(by)
    keys, key_values = joined([(shown, []), *(key(one, properties) for one in by)], ", ")
    wanted, values = condition(where, properties.expression)

    def live(source: Fragment, bounds: Fragment) -> Fragment:
        tables = f"{source[0]} {properties.joins}"
        text = f"SELECT {keys} FROM {tables} WHERE {way.calls[0]} AND {bounds[0]} AND {wanted}"
        return text, [*key_values, *source[1], *properties.keys, *way.calls[1], *bounds[1], *values]

    if way.cover is None:
        return live(("calls AS c", []), ("1", []))
    return joined([_ready(way.cover, by, columns), *(live(*source) for source in way.cover.live)], " UNION ALL ")


def _ready(cover: Cover, by: Sequence[Dimension], columns: Sequence[str]) -> Fragment:
    session = {SESSIONS: "r.value" if cover.goal.dimension == SESSION else "NULL"}
    shown = [*(session.get(name, f"r.{name}") for name in columns), *["NULL"] * len(SAID)]
    keys = [_ready_key(cover, one) for one in by]
    text = f"SELECT {', '.join([*shown, *keys])} FROM {cover.ready[0]} WHERE {cover.meant[0]}"
    return text, [*cover.ready[1], *cover.meant[1]]


def _ready_key(cover: Cover, dimension: Dimension) -> str:
    if isinstance(dimension, Field):
        return cover.goal.expression(dimension)[0]
    moment = "r.value" if cover.goal.dimension == EVERY_CALL else f"(r.day * {DAY})"
    return bucket(moment, dimension.width, dimension.offset)


def key(dimension: Dimension, properties: Properties) -> Fragment:
    """What the calls ``c`` are grouped by."""
    if isinstance(dimension, TimeBucket):
        return bucket("c.started_at", dimension.width, dimension.offset), []
    return properties.expression(dimension)
