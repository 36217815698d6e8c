"""What groups of calls add up to, as one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from storage.filters import Field, Figure, Kind, Node, Value
from storage.queries import Dimension, FeedbackFigures, Figures, Group, GroupSort, TimeBucket
from storage.sqlite.filtering import Fragment, condition, expression

__all__ = ["group_from_row", "summary", "value_counts"]

_DAY: Final = 86_400_000_000
_SUMMED: Final = ("latency", "prompt_tokens", "completion_tokens", "total_tokens", "cost")
# Each call is one part, each item of feedback another, each call that was spoken of a third: so an item that speaks
# of many calls counts once, and so does a call of which many items speak.
_PARTS: Final = """
WITH matched AS MATERIALIZED (
    SELECT c.id, c.request_id, c.trace_id, c.session_id, c.started_at, c.time_to_first_token, {summed},
           c.error_kind IS NOT NULL OR coalesce(c.status, 0) >= 400 AS failed{keys}
    FROM calls AS c WHERE c.organisation = ? AND {where}
),
said AS MATERIALIZED (
    SELECT m.id, f.number, f.value, f.weight{names}
    FROM matched AS m JOIN feedback AS f ON f.organisation = ? AND f.request_id = m.request_id WHERE f.effective = 1
    UNION ALL
    SELECT m.id, f.number, f.value, f.weight{names}
    FROM matched AS m JOIN feedback AS f ON f.organisation = ? AND f.trace_id = m.trace_id
    WHERE f.effective = 1 AND f.request_id IS NULL
),
parts AS (
    SELECT 1 AS call, failed, session_id, started_at, time_to_first_token, {summed_names},
           NULL AS value, NULL AS weight, 0 AS rated{names} FROM matched
    UNION ALL
    SELECT 0, 0, NULL, NULL, NULL, {nothing}, value, weight, 0{names}
    FROM (SELECT DISTINCT number, value, weight{names} FROM said)
    UNION ALL
    SELECT 0, 0, NULL, NULL, NULL, {nothing}, NULL, NULL, 1{names} FROM (SELECT DISTINCT id{names} FROM said)
)
"""
_VALUE_COUNTS: Final = """
SELECT value, count(*) FROM (
    SELECT f.number, f.value FROM calls AS c
    JOIN feedback AS f ON f.organisation = c.organisation AND f.request_id = c.request_id
    WHERE c.organisation = ? AND f.effective = 1 AND {where}
    UNION
    SELECT f.number, f.value FROM calls AS c
    JOIN feedback AS f ON f.organisation = c.organisation AND f.trace_id = c.trace_id AND f.request_id IS NULL
    WHERE c.organisation = ? AND f.effective = 1 AND {where}
) GROUP BY value ORDER BY value
"""
_FIGURES: Final = {
    "calls": "coalesce(sum(call), 0)",
    "failed_calls": "coalesce(sum(failed), 0)",
    "first_started_at": "min(started_at)",
    "last_started_at": "max(started_at)",
    "active_days": f"count(DISTINCT started_at / {_DAY})",
    "sessions": "count(DISTINCT session_id)",
    "time_to_first_token_mean": "avg(time_to_first_token)",
    "latency_sum": "sum(latency)",
    **{name: f"sum({name})" for name in _SUMMED[1:]},
}
_FEEDBACK: Final = {
    "count": "count(value)",
    "positive": "coalesce(sum(value > 0), 0)",
    "negative": "coalesce(sum(value <= 0), 0)",
    "weighted_sum": "total(value * weight)",
    "weights": "total(weight)",
    "rated_calls": "coalesce(sum(rated), 0)",
}
_ORDERS: Final = {
    **_FIGURES,
    **{f"feedback_{name}": figure for name, figure in _FEEDBACK.items()},
    "latency_mean": "sum(latency) * 1.0 / sum(call)",
    "weighted_mean": "total(value * weight) / nullif(total(weight), 0)",
    "mean_product": "avg(value * weight)",
    "tokens_per_call": "sum(total_tokens) * 1.0 / sum(call)",
    "calls_per_active_day": f"sum(call) * 1.0 / nullif(count(DISTINCT started_at / {_DAY}), 0)",
}


def summary(
    organisation: str,
    where: Node,
    by: Sequence[Dimension],
    sort: GroupSort,
    having: Node,
    *,
    limit: int,
    offset: int,
) -> Fragment:
    """The statement whose rows `group_from_row` reads; each ends with how many groups there are in all."""
    names = [f"k{place}" for place in range(len(by))]
    keys = [_key(dimension) for dimension in by]
    condition_text, condition_values = condition(where)
    listed = "".join(f", {name}" for name in names)
    parts = _PARTS.format(
        summed=", ".join(f"c.{name}" for name in _SUMMED),
        summed_names=", ".join(_SUMMED),
        nothing=", ".join(["NULL"] * len(_SUMMED)),
        keys="".join(f", {text} AS {name}" for (text, _), name in zip(keys, names, strict=True)),
        names=listed,
        where=condition_text,
    )
    figures = ", ".join([*_FIGURES.values(), *_FEEDBACK.values()])
    group_by = f"GROUP BY {', '.join(names)}" if names else ""
    meant, meant_values = condition(having, _figure)
    rest = f"{group_by} HAVING {meant} {_order(sort, names)} LIMIT ? OFFSET ?"
    text = f"{parts} SELECT {figures}{listed}, count(*) OVER () FROM parts {rest}"
    key_values = [value for _, values in keys for value in values]
    return text, [
        *key_values,
        organisation,
        *condition_values,
        organisation,
        organisation,
        *meant_values,
        limit,
        offset,
    ]


def value_counts(organisation: str, where: Node) -> Fragment:
    """The statement that counts, for each value, the effective items of it that speak of the calls."""
    text, values = condition(where)
    return _VALUE_COUNTS.format(where=text), [organisation, *values, organisation, *values]


def _key(dimension: Dimension) -> Fragment:
    if isinstance(dimension, TimeBucket):
        width = dimension.width
        # SQLite's remainder has the sign of what is divided.
        return f"(c.started_at - ((c.started_at - {dimension.offset}) % {width} + {width}) % {width})", []
    return expression(dimension)


def _figure(figure: Field | Figure) -> Fragment:
    return f"({_ORDERS[figure.name]})", []


def _order(sort: GroupSort, names: Sequence[str]) -> str:
    direction = "DESC" if sort.descending else "ASC"
    keys = [f"{name} {direction}" for name in names] if sort.figure is None else names
    figure = [] if sort.figure is None else [f"{_ORDERS[sort.figure]} {direction} NULLS LAST"]
    ordered = [*figure, *keys]
    return f"ORDER BY {', '.join(ordered)}" if ordered else ""


def group_from_row(row: Sequence[Any], by: Sequence[Dimension]) -> Group:
    """From a row of `summary`'s statement for these dimensions."""
    figures = dict(zip(_FIGURES, row, strict=False))
    said = dict(zip(_FEEDBACK, row[len(_FIGURES) :], strict=False))
    keys = row[len(_FIGURES) + len(_FEEDBACK) : -1]
    return Group(
        keys=tuple(_value(dimension, key) for dimension, key in zip(by, keys, strict=True)),
        figures=Figures(**figures, feedback=FeedbackFigures(**said)),
    )


def _value(dimension: Dimension, key: Value) -> Value:
    is_boolean = isinstance(dimension, Field) and dimension.kind is Kind.BOOLEAN
    return bool(key) if is_boolean and key is not None else key
