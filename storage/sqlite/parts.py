"""What groups of calls are added up from: calls, items of feedback, and calls that were spoken of.

Each is a part of its own. So an item that speaks of many calls counts once in a group, and so does a call of which many
items speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from storage.filters import Field, Figure, Node
from storage.queries import Dimension, TimeBucket
from storage.sqlite.covering import Cover
from storage.sqlite.figures import COLUMNS, DAY, EVERY_CALL, PROPERTY, SESSION, bucket, day
from storage.sqlite.filtering import Fragment, condition, expression

__all__ = ["ABOUT", "DAYS", "SAID", "SESSIONS", "Way", "calls_part", "feedback_parts", "joined"]

DAYS, SESSIONS = "day", "session_id"
"""Columns of calls beside those of `COLUMNS`: of what is counted once however often it comes."""

# Of an item of feedback, and of a call that was spoken of.
SAID: Final = ("said", "positive", "negative", "weighted_sum", "weights", "rated")

_OF_CALL: Final = {
    **{name: one for name, (one, _) in COLUMNS.items()},
    DAYS: day("c.started_at"),
    SESSIONS: "c.session_id",
}

# Feedback and the calls that it speaks of: by the request it names; by its trace, where that is one of several calls,
# and where it is one call by itself.
ABOUT: Final = (
    ("calls_by_request", "c.request_id = f.request_id", ""),
    ("calls_by_trace", "c.trace_id = f.trace_id AND c.trace_id <> c.request_id", "AND f.request_id IS NULL"),
    ("calls_by_request", "c.request_id = f.trace_id AND c.trace_id = c.request_id", "AND f.request_id IS NULL"),
)
_SAID: Final = """
SELECT c.id, f.number, f.value, f.weight{keys} FROM {tables}
ON c.organisation = f.organisation AND {about} {joins}
WHERE c.organisation = ? AND f.organisation = ? AND f.effective = 1 {more} AND {where}
"""
_ITEMS: Final = """
SELECT {nothing}, count(*), sum(value > 0), sum(value <= 0), sum(value * weight), sum(weight), NULL{names}
FROM (SELECT DISTINCT number, value, weight{names} FROM said) {grouped}
UNION ALL
SELECT {nothing}, NULL, NULL, NULL, NULL, NULL, count(*){names}
FROM (SELECT DISTINCT id{names} FROM said) {grouped}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """How the statement goes: what blocks have ready, and whether feedback is found from the calls or they from it."""

    cover: Cover | None = None
    from_feedback: bool = True


@dataclass(frozen=True, slots=True)
class _Properties:
    """Those that are gone by, joined once: the key and the conditions on it would look for them each by itself."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, by: Sequence[Dimension]) -> _Properties:
        return cls(tuple({one: None for one in by if isinstance(one, Field) and one.name == PROPERTY}))

    @property
    def joins(self) -> str:
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


def calls_part(
    organisation: str, where: Node, by: Sequence[Dimension], columns: Sequence[str], ready: Cover | None
) -> Fragment:
    """Rows of figures: of one call each, or of as many as blocks have together."""
    shown = ", ".join([*(_OF_CALL[name] for name in columns), *["NULL"] * len(SAID)])
    properties = _Properties.of(by)
    keys, key_values = joined([(shown, []), *(_key(one, properties) for one in by)], ", ")
    wanted, values = condition(where, properties.expression)

    def live(source: Fragment, bounds: Fragment) -> Fragment:
        tables = f"{source[0]} {properties.joins}"
        text = f"SELECT {keys} FROM {tables} WHERE c.organisation = ? AND {bounds[0]} AND {wanted}"
        return text, [*key_values, *source[1], *properties.keys, organisation, *bounds[1], *values]

    if ready is None:
        return live(("calls AS c", []), ("1", []))
    return joined([_ready(ready, by, columns), *(live(*source) for source in ready.live)], " UNION ALL ")


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


def _key(dimension: Dimension, properties: _Properties) -> Fragment:
    if isinstance(dimension, TimeBucket):
        return bucket("c.started_at", dimension.width, dimension.offset), []
    return properties.expression(dimension)


def feedback_parts(
    organisation: str,
    where: Node,
    by: Sequence[Dimension],
    names: Sequence[str],
    columns: Sequence[str],
    *,
    from_feedback: bool,
) -> tuple[Fragment, Fragment]:
    """The select of the table ``said (id, number, value, weight, *names)`` that they need, and the parts."""
    properties = _Properties.of(by)
    wanted, wanted_values = condition(where, properties.expression)
    # So wrapped it leads to no other index; and a plain 0 would make SQLite forget what a partial one stands for.
    wanted = f"coalesce({wanted}, 0)" if from_feedback else wanted
    keys, key_values = joined([("", []), *(_key(one, properties) for one in by)], ", ")
    values = [*key_values, *properties.keys, organisation, organisation, *wanted_values]
    selects = [
        (
            _SAID.format(
                keys=keys,
                tables=_tables(index, from_feedback),
                about=about,
                joins=properties.joins,
                more=more,
                where=wanted,
            ),
            values,
        )
        for index, about, more in ABOUT
    ]
    items = _ITEMS.format(
        nothing=", ".join(["NULL"] * len(columns)),
        names="".join(f", {name}" for name in names),
        grouped=f"GROUP BY {', '.join(names)}" if names else "",
    )
    return joined(selects, " UNION ALL "), (items, [])


def _tables(index: str, from_feedback: bool) -> str:
    # CROSS JOIN keeps the order.
    if from_feedback:
        return f"feedback AS f CROSS JOIN calls AS c INDEXED BY {index}"
    return "calls AS c CROSS JOIN feedback AS f"
