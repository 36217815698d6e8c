"""What groups of calls add up to, as one statement."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from storage.filters import All, Condition, Field, Figure, Kind, Node, Not, Value
from storage.filters import Any as AnyOf
from storage.queries import Dimension, FeedbackFigures, Figures, Group, GroupSort
from storage.sqlite.figures import COLUMNS
from storage.sqlite.filtering import Fragment, condition
from storage.sqlite.parts import ABOUT, DAYS, SAID, SESSIONS, Way, calls_part, feedback_parts, joined

__all__ = ["Asked", "groups_from_rows", "summary", "value_counts"]

_VALUE_COUNTS: Final = """
SELECT f.value, count(*) FROM feedback AS f
WHERE f.organisation = ? AND f.effective = 1 AND ({spoken_of}) GROUP BY f.value ORDER BY f.value
"""
_SPEAKS_OF: Final = """
EXISTS (SELECT 1 FROM calls AS c INDEXED BY {index}
        WHERE c.organisation = f.organisation AND {about} {more} AND coalesce({where}, 0))
"""
# By figure: how it is made, the columns that takes, and what stands in its place where nobody asks.
_SUMS: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "cost")
_FIGURES: Final[Mapping[str, tuple[str, tuple[str, ...], str]]] = {
    "calls": ("coalesce(sum(calls), 0)", ("calls",), "0"),
    "failed_calls": ("coalesce(sum(failed), 0)", ("failed",), "0"),
    "first_started_at": ("min(first_started_at)", ("first_started_at",), "NULL"),
    "last_started_at": ("max(last_started_at)", ("last_started_at",), "NULL"),
    "active_days": ("count(DISTINCT day)", (DAYS,), "0"),
    "sessions": ("count(DISTINCT session_id)", (SESSIONS,), "0"),
    "latency_sum": ("sum(latency)", ("latency",), "NULL"),
    "time_to_first_token_mean": (
        "sum(first_token) * 1.0 / nullif(sum(first_tokens), 0)",
        ("first_token", "first_tokens"),
        "NULL",
    ),
    **{name: (f"sum({name})", (name,), "NULL") for name in _SUMS},
}
_FEEDBACK: Final = {
    "count": "coalesce(sum(said), 0)",
    "positive": "coalesce(sum(positive), 0)",
    "negative": "coalesce(sum(negative), 0)",
    "weighted_sum": "total(weighted_sum)",
    "weights": "total(weights)",
    "rated_calls": "coalesce(sum(rated), 0)",
}
# Those that are made of others, of which.
_MADE: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "latency_mean": ("sum(latency) * 1.0 / sum(calls)", ("latency_sum", "calls")),
    "tokens_per_call": ("sum(total_tokens) * 1.0 / sum(calls)", ("total_tokens", "calls")),
    "calls_per_active_day": ("sum(calls) * 1.0 / nullif(count(DISTINCT day), 0)", ("calls", "active_days")),
}
# What makes an order of feedback's.
_OF_FEEDBACK: Final = {
    **{f"feedback_{name}": figure for name, figure in _FEEDBACK.items()},
    "weighted_mean": "total(weighted_sum) / nullif(total(weights), 0)",
    "mean_product": "total(weighted_sum) / nullif(sum(said), 0)",
}
_ORDERS: Final = {
    **{name: figure for name, (figure, _, _) in _FIGURES.items()},
    **{name: figure for name, (figure, _) in _MADE.items()},
    **_OF_FEEDBACK,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for groups; see `storage.base.Storage.summarise`."""

    organisation: str
    where: Node
    by: Sequence[Dimension]
    sort: GroupSort
    having: Node
    wanted: Collection[str]

    @property
    def needed(self) -> set[str]:
        """The figures that are wanted, and those that tell the order and which groups are meant."""
        named = {*self.wanted, *_figures_in(self.having), *filter(None, [self.sort.figure])}
        return named.union(*(_MADE[name][1] for name in named & _MADE.keys()))

    @property
    def feedback(self) -> bool:
        """Whether any of them is feedback's."""
        return not self.needed.isdisjoint(_OF_FEEDBACK)

    @property
    def columns(self) -> list[str]:
        """The columns of calls that they need; every part of a sum has one at least."""
        needed = {column for name in self.needed & _FIGURES.keys() for column in _FIGURES[name][1]}
        return [name for name in (*COLUMNS, DAYS, SESSIONS) if name in needed] or ["calls"]


def _figures_in(node: Node) -> Iterator[str]:
    """Those that a condition on groups names."""
    match node:
        case Condition(Figure(name)):
            yield name
        case Not(part):
            yield from _figures_in(part)
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from _figures_in(part)


def summary(asked: Asked, way: Way, *, limit: int, offset: int) -> Fragment:
    """The statement whose rows `groups_from_rows` reads; each ends with how many groups there are in all."""
    names = [f"k{place}" for place in range(len(asked.by))]
    said, parts = _parts(asked, names, way)
    meant, meant_values = condition(asked.having, _figure)
    text = f"""
        WITH {said[0]} parts ({", ".join([*asked.columns, *SAID, *names])}) AS ({parts[0]})
        SELECT {", ".join([*_shown(asked), *names])}, count(*) OVER () FROM parts
        {f"GROUP BY {', '.join(names)}" if names else ""} HAVING {meant} {_order(asked.sort, names)} LIMIT ? OFFSET ?
    """
    return text, [*said[1], *parts[1], *meant_values, limit, offset]


def _parts(asked: Asked, names: Sequence[str], way: Way) -> tuple[Fragment, Fragment]:
    """A table that the parts need, if there is one, and the parts."""
    calls = calls_part(asked.organisation, asked.where, asked.by, asked.columns, way.cover)
    if not asked.feedback:
        return ("", []), calls
    said, items = feedback_parts(
        asked.organisation, asked.where, asked.by, names, asked.columns, from_feedback=way.from_feedback
    )
    listed = ", ".join(["id", "number", "value", "weight", *names])
    return (f"said ({listed}) AS MATERIALIZED ({said[0]}),", said[1]), joined([calls, items], " UNION ALL ")


def _shown(asked: Asked) -> list[str]:
    own = [figure if name in asked.needed else nothing for name, (figure, _, nothing) in _FIGURES.items()]
    return [*own, *_FEEDBACK.values()]


def value_counts(organisation: str, where: Node) -> Fragment:
    """The statement that counts, for each value, the effective items of it that speak of the calls."""
    text, values = condition(where)
    ways = [_SPEAKS_OF.format(index=index, about=about, more=more, where=text) for index, about, more in ABOUT]
    return _VALUE_COUNTS.format(spoken_of=" OR ".join(ways)), [organisation, *values * len(ways)]


def _figure(figure: Field | Figure) -> Fragment:
    return f"({_ORDERS[figure.name]})", []


def _order(sort: GroupSort, names: Sequence[str]) -> str:
    direction = "DESC" if sort.descending else "ASC"
    keys = [f"{name} {direction}" for name in names] if sort.figure is None else names
    figure = [] if sort.figure is None else [f"{_ORDERS[sort.figure]} {direction} NULLS LAST"]
    ordered = [*figure, *keys]
    return f"ORDER BY {', '.join(ordered)}" if ordered else ""


def groups_from_rows(rows: Sequence[Sequence[Any]], by: Sequence[Dimension]) -> list[Group]:
    """From rows of `summary`'s statement for these dimensions."""
    return [_group(row, by) for row in rows]


def _group(row: Sequence[Any], by: Sequence[Dimension]) -> Group:
    own, end = len(_FIGURES), len(_FIGURES) + len(_FEEDBACK)  # these in the order of their class's fields
    keys = tuple(_value(dimension, key) for dimension, key in zip(by, row[end:-1], strict=True))
    figures = dict(zip(_FIGURES, row, strict=False))
    return Group(keys, Figures(**figures, feedback=FeedbackFigures(*row[own:end])))


def _value(dimension: Dimension, key: Value) -> Value:
    is_boolean = isinstance(dimension, Field) and dimension.kind is Kind.BOOLEAN
    return bool(key) if is_boolean and key is not None else key
