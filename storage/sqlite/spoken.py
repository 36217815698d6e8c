"""What was said of groups of calls: items of feedback, and the calls that they speak of.

An item that names a request speaks of that, whose calls are its attempts. Any other speaks of a trace, and all items of
a trace speak of the same calls: so they are added up before these are looked for. From item to call it would be as many
steps as a trace has items times its calls, and it may have thousands of both.

An item that speaks of several calls of a group counts once in it, and so does a call of which several items speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from storage.filters import Node
from storage.queries import Dimension
from storage.sqlite.filtering import Fragment, condition
from storage.sqlite.parts import Properties, joined, key

__all__ = ["feedback_parts", "value_counts"]

_SUMS: Final = ("items", "positive", "negative", "weighted_sum", "weights")
# The traces of which items speak, each under the number of its first one.
_TRACES: Final = """
SELECT min(number), trace_id, count(*), sum(value > 0), sum(value <= 0), sum(value * weight), sum(weight)
FROM feedback WHERE organisation = ? AND effective = 1 AND request_id IS NULL AND {which} GROUP BY trace_id
"""
_EVERY_TRACE: Final = "trace_id IS NOT NULL"
# Those of the calls that are asked for, where these are few.
_OF_ASKED: Final = "trace_id IN (SELECT trace_id FROM asked)"
_ASKED: Final = "SELECT c.trace_id FROM calls AS c {joins} WHERE c.organisation = ? AND {where}"
# A trace of several calls, and one that is a call by itself: the index of the calls, and which they are.
_OF_TRACE: Final = (
    ("calls_by_trace", "c.trace_id = t.trace_id AND c.trace_id <> c.request_id"),
    ("calls_by_request", "c.request_id = t.trace_id AND c.trace_id = c.request_id"),
)
# CROSS JOIN keeps the order of tables.
_TRACES_SAID: Final = f"""
SELECT t.number, {", ".join(f"t.{name}" for name in _SUMS)}, c.id{{keys}}
FROM traces AS t CROSS JOIN calls AS c INDEXED BY {{index}} ON {{about}} {{joins}}
WHERE c.organisation = ? AND {{where}}
"""
_ITEMS_SAID: Final = """
SELECT f.number, 1, f.value > 0, f.value <= 0, f.value * f.weight, f.weight, c.id{keys}
FROM {tables} ON c.organisation = f.organisation AND c.request_id = f.request_id {joins}
WHERE c.organisation = ? AND f.organisation = ? AND f.effective = 1 AND {where}
"""
_FROM_FEEDBACK: Final = "feedback AS f CROSS JOIN calls AS c INDEXED BY calls_by_request"
_FROM_CALLS: Final = "calls AS c CROSS JOIN feedback AS f"
_PARTS: Final = f"""
SELECT {{nothing}}, {", ".join(f"sum({name})" for name in _SUMS)}, NULL{{names}}
FROM (SELECT DISTINCT number, {", ".join(_SUMS)}{{names}} FROM said) {{grouped}}
UNION ALL
SELECT {{nothing}}, {", ".join("NULL" for _ in _SUMS)}, count(*){{names}}
FROM (SELECT DISTINCT id{{names}} FROM said) {{grouped}}
"""
_SPEAKS_OF: Final = """
EXISTS (SELECT 1 FROM calls AS c INDEXED BY {index} WHERE c.organisation = ? AND {about} AND {where})
"""
_VALUES: Final = """
SELECT f.value, count(*) FROM feedback AS f
WHERE f.organisation = ? AND f.effective = 1 AND ({of_request} OR f.request_id IS NULL AND f.trace_id IN (
    SELECT t.trace_id FROM (
        SELECT DISTINCT trace_id FROM feedback
        WHERE organisation = ? AND effective = 1 AND request_id IS NULL AND trace_id IS NOT NULL
    ) AS t WHERE {of_trace}
)) GROUP BY f.value ORDER BY f.value
"""


def feedback_parts(
    organisation: str,
    where: Node,
    by: Sequence[Dimension],
    names: Sequence[str],
    columns: Sequence[str],
    *,
    from_feedback: bool,
) -> tuple[Fragment, Fragment]:
    """The tables that they need, and the parts: of items, and of calls that were spoken of."""
    parts = _PARTS.format(
        nothing=", ".join(["NULL"] * len(columns)),
        names="".join(f", {name}" for name in names),
        grouped=f"GROUP BY {', '.join(names)}" if names else "",
    )
    return _tables(organisation, where, by, names, from_feedback=from_feedback), (parts, [])


def value_counts(organisation: str, where: Node) -> Fragment:
    """The statement that counts, for each value, the effective items of it that speak of the calls."""
    wanted, values = condition(where)
    wanted = _only_tested(wanted)
    of_request = _SPEAKS_OF.format(index="calls_by_request", about="c.request_id = f.request_id", where=wanted)
    of_trace = [_SPEAKS_OF.format(index=index, about=about, where=wanted) for index, about in _OF_TRACE]
    text = _VALUES.format(of_request=of_request, of_trace=" OR ".join(of_trace))
    one = [organisation, *values]
    return text, [organisation, *one, organisation, *one * len(of_trace)]


def _tables(
    organisation: str, where: Node, by: Sequence[Dimension], names: Sequence[str], *, from_feedback: bool
) -> Fragment:
    """``said``, with a row for each item or trace and each of its calls, and what it is made of.

    Items are found from the calls, or these from them, as there are more of the one or of the other.
    """
    properties = Properties.of(by)
    wanted, wanted_values = condition(where, properties.expression)
    keys, key_values = joined([("", []), *(key(one, properties) for one in by)], ", ")
    calls = [*properties.keys, organisation]
    asked = _ASKED.format(joins=properties.joins, where=wanted), [*calls, *wanted_values]
    traces = _TRACES.format(which=_EVERY_TRACE if from_feedback else _OF_ASKED), [organisation]
    items = _ITEMS_SAID.format(
        keys=keys,
        tables=_FROM_FEEDBACK if from_feedback else _FROM_CALLS,
        joins=properties.joins,
        where=_only_tested(wanted) if from_feedback else wanted,
    )
    said = [(items, [*key_values, *calls, organisation, *wanted_values])]
    for index, about in _OF_TRACE:
        text = _TRACES_SAID.format(
            keys=keys, index=index, about=about, joins=properties.joins, where=_only_tested(wanted)
        )
        said.append((text, [*key_values, *calls, *wanted_values]))
    tables = [
        _table("traces", ["number", "trace_id", *_SUMS], traces),
        _table("said", ["number", *_SUMS, "id", *names], joined(said, " UNION ALL ")),
    ]
    return joined(tables if from_feedback else [_table("asked", ["trace_id"], asked), *tables], ", ")


def _table(name: str, columns: Sequence[str], select: Fragment) -> Fragment:
    text, values = select
    return f"{name} ({', '.join(columns)}) AS MATERIALIZED ({text})", values


def _only_tested(wanted: str) -> str:
    """A condition that leads to no other index; a plain 0 would make SQLite forget what a partial one stands for."""
    return f"coalesce({wanted}, 0)"
