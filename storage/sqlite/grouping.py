"""What groups of calls add up to: a statement for a page of them, and one for what was said of those.

Where feedback makes neither the order nor the choice of groups, it is looked for once the page is known. What of a
call belongs to another group need not be added up then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from storage.filters import EVERYTHING, All, Condition, Field, Figure, Kind, Node, Not, OneOf, Operator, Value
from storage.filters import Any as AnyOf
from storage.queries import Dimension, FeedbackFigures, Figures, Group, GroupSort
from storage.sqlite.figures import COLUMNS
from storage.sqlite.filtering import Fragment, condition
from storage.sqlite.parts import DAYS, SAID, SESSIONS, Way, calls_part, joined
from storage.sqlite.spoken import feedback_parts

__all__ = [
    "Asked",
    "feedback_from_rows",
    "feedback_of_groups",
    "groups_from_rows",
    "keys_of",
    "measures",
    "summary",
]

Keys = tuple[Value, ...]

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
# Both, in the order of their classes' fields, and what stands in their place where nobody asks.
_NOTHING: Final = {name: nothing for name, (_, _, nothing) in _FIGURES.items()} | dict.fromkeys(_FEEDBACK, "0")
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
_NOTHING_SAID: Final[Mapping[Keys, FeedbackFigures]] = {}
# Groups whose keys are named in a statement.
_MOST_NAMED: Final = 1000


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
    def later(self) -> Asked | None:
        """The question for what is only said of the groups of a page; None where that is nothing, or the order is."""
        told = self.needed & _OF_FEEDBACK.keys()
        if not told or not told.isdisjoint({*_figures_in(self.having), self.sort.figure}):
            return None
        return replace(self, sort=GroupSort(), having=EVERYTHING, wanted=told)

    def without(self, later: Asked | None) -> Asked:
        """The question without what is asked later."""
        return self if later is None else replace(self, wanted=set(self.wanted) - later.needed)

    def of(self, groups: Sequence[Keys]) -> Asked:
        """The question for no other groups than these, as far as that is quicker."""
        among = [
            _among(one, {keys[place] for keys in groups})
            for place, one in enumerate(self.by)
            if isinstance(one, Field) and one.kind is Kind.TEXT and len(groups) <= _MOST_NAMED
        ]
        return replace(self, where=All((self.where, *among)))

    @property
    def shown(self) -> dict[str, str]:
        """How those of the figures are made that a row shows: of feedback's all or none."""
        own = {name: figure for name, (figure, _, _) in _FIGURES.items() if name in self.needed}
        return own | (_FEEDBACK if self.feedback else {})

    @property
    def columns(self) -> list[str]:
        """The columns of calls that they need; every part of a sum has one at least."""
        needed = {column for name in self.needed & _FIGURES.keys() for column in _FIGURES[name][1]}
        return [name for name in (*COLUMNS, DAYS, SESSIONS) if name in needed] or ["calls"]


def _among(field: Field, keys: Collection[Value]) -> Node:
    named = OneOf(field, tuple(str(key) for key in keys if key is not None))
    return AnyOf((named, Condition(field, Operator.EQUALS, None))) if None in keys else named


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
    names = _names(asked.by)
    table, values = _table(asked, way)
    shown = [name if name in asked.shown else nothing for name, nothing in _NOTHING.items()]
    # A window that counts the groups takes several times as long as a table of them.
    text = f"""
        {table} SELECT {", ".join([*shown, *names])}, (SELECT count(*) FROM groups)
        FROM groups {_order(asked.sort, names)} LIMIT ? OFFSET ?
    """
    return text, [*values, limit, offset]


def measures(asked: Asked, way: Way, *, figures: Sequence[str], limit: int) -> Fragment:
    """The statement whose rows are these figures of each group, and nothing else."""
    table, values = _table(asked, way)
    text = f"{table} SELECT {', '.join(figures)} FROM groups {_order(asked.sort, _names(asked.by))} LIMIT ?"
    return text, [*values, limit]


def _table(asked: Asked, way: Way) -> Fragment:
    """What a statement begins with that reads groups by the names of their figures."""
    names = _names(asked.by)
    said, parts = _parts(asked, names, way)
    meant, meant_values = condition(asked.having, _figure)
    # Something has to be added up, or rows would be no group. Of parts that are only read on the way to their groups
    # SQLite would make a table first, as long as there are calls.
    place = _ORDERS[asked.sort.figure] if asked.sort.figure else "count(*)"
    text = f"""
        WITH {said[0]} parts ({", ".join([*asked.columns, *SAID, *names])}) AS NOT MATERIALIZED ({parts[0]}),
        groups ({", ".join([*asked.shown, *names, "place"])}) AS MATERIALIZED (
            SELECT {", ".join([*asked.shown.values(), *names, place])} FROM parts {_grouped(names)} HAVING {meant}
        )
    """
    return text, [*said[1], *parts[1], *meant_values]


def feedback_of_groups(asked: Asked, way: Way) -> Fragment:
    """The statement whose rows `feedback_from_rows` reads: no group of which nothing was said is among them."""
    names = _names(asked.by)
    said, items = _feedback_parts(asked, names, way)
    text = f"""
        WITH {said[0]} parts ({", ".join([*asked.columns, *SAID, *names])}) AS NOT MATERIALIZED ({items[0]})
        SELECT {", ".join([*_FEEDBACK.values(), *names])} FROM parts {_grouped(names)}
    """
    return text, [*said[1], *items[1]]


def _names(by: Sequence[Dimension]) -> list[str]:
    return [f"k{place}" for place in range(len(by))]


def _grouped(names: Sequence[str]) -> str:
    return f"GROUP BY {', '.join(names)}" if names else ""


def _parts(asked: Asked, names: Sequence[str], way: Way) -> tuple[Fragment, Fragment]:
    """A table that the parts need, if there is one, and the parts."""
    calls = calls_part(asked.where, asked.by, asked.columns, way)
    if not asked.feedback:
        return ("", []), calls
    said, items = _feedback_parts(asked, names, way)
    return said, joined([calls, items], " UNION ALL ")


def _feedback_parts(asked: Asked, names: Sequence[str], way: Way) -> tuple[Fragment, Fragment]:
    tables, items = feedback_parts(asked.organisation, asked.where, asked.by, names, asked.columns, way)
    return (f"{tables[0]},", tables[1]), items


def _figure(figure: Field | Figure) -> Fragment:
    return f"({_ORDERS[figure.name]})", []


def _order(sort: GroupSort, names: Sequence[str]) -> str:
    direction = "DESC" if sort.descending else "ASC"
    keys = [f"{name} {direction}" for name in names] if sort.figure is None else names
    figure = [] if sort.figure is None else [f"place {direction} NULLS LAST"]
    ordered = [*figure, *keys]
    return f"ORDER BY {', '.join(ordered)}" if ordered else ""


def keys_of(row: Sequence[Any]) -> Keys:
    """The keys of a row of `summary`'s statement, as SQLite has them."""
    return tuple(row[len(_NOTHING) : -1])


def feedback_from_rows(rows: Sequence[Sequence[Any]]) -> dict[Keys, FeedbackFigures]:
    """By their keys as SQLite has them, from rows of `feedback_of_groups`'s statement."""
    number = len(_FEEDBACK)
    return {tuple(row[number:]): FeedbackFigures(*row[:number]) for row in rows}


def groups_from_rows(
    rows: Sequence[Sequence[Any]], by: Sequence[Dimension], said: Mapping[Keys, FeedbackFigures] = _NOTHING_SAID
) -> list[Group]:
    """From rows of `summary`'s statement for these dimensions, and what was said of some of them."""
    truths = [place for place, one in enumerate(by) if isinstance(one, Field) and one.kind is Kind.BOOLEAN]
    return [_group(row, truths, said) for row in rows]


def _group(row: Sequence[Any], truths: Sequence[int], said: Mapping[Keys, FeedbackFigures]) -> Group:
    own, end = len(_FIGURES), len(_NOTHING)
    keys = row[end:-1]
    feedback = said.get(tuple(keys)) or FeedbackFigures(*row[own:end])
    figures = [*row[:own], feedback]
    return Group(_values(keys, truths), Figures(*figures))


def _values(keys: Sequence[Value], truths: Sequence[int]) -> Keys:
    """With a boolean where SQLite has a number for it."""
    values = list(keys)
    for place in truths:
        values[place] = None if values[place] is None else bool(values[place])
    return tuple(values)
