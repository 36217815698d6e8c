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
from storage.sqlite.parts import Properties, Way, joined, key

__all__ = ["feedback_parts", "value_counts"]

# What an item is made of, or all items of a trace; in the order of `SAID`, which ends with the calls they speak of.
_SUMS: Final = ("items", "positive", "negative", "weighted_sum", "weights")
_ITEM: Final = "f.number, 1, f.value > 0, f.value <= 0, f.value * f.weight, f.weight"
# The traces of which items speak, each under the number of its first one: nothing else has that, since all items of a
# trace are without a request.
_TRACES: Final = """
SELECT min(number), trace_id, count(*), sum(value > 0), sum(value <= 0), sum(value * weight), sum(weight)
FROM feedback WHERE organisation = ? AND effective = 1 AND request_id IS NULL AND {which} GROUP BY trace_id
"""
_EVERY_TRACE: Final = "trace_id IS NOT NULL"
_TRACES_OF_ASKED: Final = "trace_id IN (SELECT trace_id FROM asked)"

# From feedback to calls. CROSS JOIN keeps the order of tables.
_CALLS_OF_ITEMS: Final = f"""
SELECT {_ITEM}, c.id{{keys}}
FROM feedback AS f CROSS JOIN calls AS c INDEXED BY calls_by_request
ON c.organisation = f.organisation AND c.request_id = f.request_id {{joins}}
WHERE c.organisation = ? AND f.organisation = ? AND f.effective = 1 AND {{where}}
"""
# A trace of several calls, and one that is a call by itself: the index of the calls, and which they are.
_OF_TRACE: Final = (
    ("calls_by_trace", "c.trace_id = traces.trace_id AND c.trace_id <> c.request_id"),
    ("calls_by_request", "c.request_id = traces.trace_id AND c.trace_id = c.request_id"),
)
_CALLS_OF_TRACES: Final = f"""
SELECT traces.number, {", ".join(f"traces.{name}" for name in _SUMS)}, c.id{{keys}}
FROM traces CROSS JOIN calls AS c INDEXED BY {{index}} ON {{about}} {{joins}}
WHERE c.organisation = ? AND {{where}}
"""

# From calls to feedback, where they are fewer: each is looked at once.
_ASKED: Final = """
SELECT c.id, c.request_id, c.trace_id{keys} FROM calls AS c {joins} WHERE {calls} AND {where}
"""
_ITEMS_OF_ASKED: Final = f"""
SELECT {_ITEM}, asked.id{{names}}
FROM asked CROSS JOIN feedback AS f
ON f.organisation = ? AND f.request_id = asked.request_id AND f.effective = 1
"""
# Both sorted by their traces: neither table has an index to find the other's rows by, and a trace may have many calls
# that nobody asks for.
_TRACES_OF_CALLS: Final = f"""
SELECT * FROM (
    SELECT max(number) OVER trace AS number, {", ".join(f"max({name}) OVER trace" for name in _SUMS)}, id{{names}}
    FROM (
        SELECT trace_id, number, {", ".join(_SUMS)}, NULL AS id{{nothing}} FROM traces
        UNION ALL SELECT trace_id, NULL, {", ".join("NULL" for _ in _SUMS)}, id{{names}} FROM asked
    ) WINDOW trace AS (PARTITION BY trace_id)
) WHERE id IS NOT NULL AND number IS NOT NULL
"""
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
    SELECT traces.trace_id FROM (
        SELECT DISTINCT trace_id FROM feedback
        WHERE organisation = ? AND effective = 1 AND request_id IS NULL AND trace_id IS NOT NULL
    ) AS traces WHERE {of_trace}
)) GROUP BY f.value ORDER BY f.value
"""


def feedback_parts(
    organisation: str,
    where: Node,
    by: Sequence[Dimension],
    names: Sequence[str],
    columns: Sequence[str],
    way: Way,
) -> tuple[Fragment, Fragment]:
    """The tables that the parts of a sum need, and these: of items, and of calls that were spoken of."""
    parts = _PARTS.format(
        nothing=", ".join(["NULL"] * len(columns)),
        names=_listed(names),
        grouped=f"GROUP BY {', '.join(names)}" if names else "",
    )
    return _tables(organisation, where, by, names, way), (parts, [])


def value_counts(organisation: str, where: Node) -> Fragment:
    """The statement that counts, for each value, the effective items of it that speak of the calls."""
    wanted, values = condition(where)
    wanted = _only_tested(wanted)
    of_request = _SPEAKS_OF.format(index="calls_by_request", about="c.request_id = f.request_id", where=wanted)
    of_trace = [_SPEAKS_OF.format(index=index, about=about, where=wanted) for index, about in _OF_TRACE]
    text = _VALUES.format(of_request=of_request, of_trace=" OR ".join(of_trace))
    one = [organisation, *values]
    return text, [organisation, *one, organisation, *one * len(of_trace)]


def _tables(organisation: str, where: Node, by: Sequence[Dimension], names: Sequence[str], way: Way) -> Fragment:
    """``said``, with a row for each item or trace and each of its calls, and what that is made of.

    Calls are found from feedback, or it from them, as there is less of the one or of the other.
    """
    properties = Properties.of(by)
    wanted = condition(where, properties.expression)
    keys = joined([("", []), *(key(one, properties) for one in by)], ", ")
    if way.from_feedback:
        found, said = _from_feedback(organisation, wanted, properties, keys)
    else:
        found, said = _from_calls(organisation, way.calls, wanted, properties, keys, names)
    return joined([*found, _table("said", ["number", *_SUMS, "id", *names], joined(said, " UNION ALL "))], ", ")


def _from_feedback(
    organisation: str, wanted: Fragment, properties: Properties, keys: Fragment
) -> tuple[list[Fragment], list[Fragment]]:
    """The tables that ``said`` needs, and its selects."""
    parts = {"keys": keys[0], "joins": properties.joins, "where": _only_tested(wanted[0])}
    of_calls = [*keys[1], *properties.keys, organisation]
    said = [(_CALLS_OF_ITEMS.format(**parts), [*of_calls, organisation, *wanted[1]])]
    for index, about in _OF_TRACE:
        said.append((_CALLS_OF_TRACES.format(index=index, about=about, **parts), [*of_calls, *wanted[1]]))
    return [_traces(organisation, _EVERY_TRACE)], said


def _from_calls(
    organisation: str, calls: Fragment, wanted: Fragment, properties: Properties, keys: Fragment, names: Sequence[str]
) -> tuple[list[Fragment], list[Fragment]]:
    """The same."""
    asked = _ASKED.format(keys=keys[0], joins=properties.joins, calls=calls[0], where=wanted[0])
    values = [*keys[1], *properties.keys, *calls[1], *wanted[1]]
    tables = [
        _table("asked", ["id", "request_id", "trace_id", *names], (asked, values)),
        _traces(organisation, _TRACES_OF_ASKED),
    ]
    of_items = _ITEMS_OF_ASKED.format(names=_listed([f"asked.{name}" for name in names]))
    of_traces = _TRACES_OF_CALLS.format(names=_listed(names), nothing=_listed([f"NULL AS {name}" for name in names]))
    return tables, [(of_items, [organisation]), (of_traces, [])]


def _traces(organisation: str, which: str) -> Fragment:
    return _table("traces", ["number", "trace_id", *_SUMS], (_TRACES.format(which=which), [organisation]))


def _listed(names: Sequence[str]) -> str:
    return "".join(f", {name}" for name in names)


def _table(name: str, columns: Sequence[str], select: Fragment) -> Fragment:
    text, values = select
    return f"{name} ({', '.join(columns)}) AS MATERIALIZED ({text})", values


def _only_tested(wanted: str) -> str:
    """A condition that leads to no other index; a plain 0 would make SQLite forget what a partial one stands for."""
    return f"coalesce({wanted}, 0)"
