"""A filter tree as a condition in SQL on the table ``calls AS c``, every value of it bound."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from storage.filters import FIELDS, All, Condition, Field, Figure, FilterError, Kind, Node, Not, OneOf, Operator
from storage.filters import Any as AnyOf
from storage.texts import fold

__all__ = ["Expression", "Fragment", "condition", "expression"]

Fragment = tuple[str, list[Any]]
"""A piece of SQL, and the values for its question marks."""
Expression = Callable[[Field | Figure], Fragment]

_ESCAPE: Final = "\\"
# Where SQLite takes a pattern to end: what is in front of it would be found. No text of a call has it.
_END: Final = "\0"
_LIKE_SIGNS: Final = re.compile(r"[%_\\]")
# A pattern of LIKE: a character that is escaped, a sign, or what GLOB has for a sign.
_PATTERN: Final = re.compile(r"\\(.)|([%_])|([*?\[])", re.DOTALL)
_GLOB_SIGNS: Final = {"%": "*", "_": "?"}
_COMPARISONS: Final = {Operator.GT: ">", Operator.GTE: ">=", Operator.LT: "<", Operator.LTE: "<="}

# A value that names a trace speaks of all of its calls; one that turned out to name a request, of that one.
_SAID_OF_CALL: Final = """
SELECT {what} FROM (
    SELECT value, weight FROM feedback
    WHERE organisation = c.organisation AND request_id = c.request_id AND effective = 1
    UNION ALL
    SELECT value, weight FROM feedback
    WHERE organisation = c.organisation AND trace_id = c.trace_id AND request_id IS NULL AND effective = 1
)
"""
_RATING_OF: Final = """
SELECT value FROM feedback
WHERE organisation = c.organisation AND {name} = c.{name} AND kind = 'rating' AND effective = 1
"""
_SCORE_OF: Final = """
SELECT value FROM scores WHERE organisation = c.organisation AND request_id = c.request_id AND name = ?
"""
_IS_SCORED: Final = f"""
EXISTS (SELECT 1 FROM scores WHERE organisation = c.organisation AND request_id = c.request_id)
OR EXISTS ({_RATING_OF.format(name="request_id")})
"""
_IS_LATEST_ATTEMPT: Final = """
NOT EXISTS (
    SELECT 1 FROM calls AS later
    WHERE later.organisation = c.organisation AND later.request_id = c.request_id AND later.attempt > c.attempt
)
"""
# Not a plain 0, with which SQLite forgets the other conditions, and what a partial index stands for.
_NOTHING: Final = "(0 = 1)"
_GROUP: Final = 3
# Of a long text so many suffice.
_MOST_GROUPS: Final = 24
# Which side of a call a document is.
_SIDES: Final = {"request_text": "request", "response_text": "response", "text": "either"}
# The index tells which calls may have a text; those that it has not come to may have it too.
_MAY_HAVE: Final = """
(c.id IN (SELECT rowid FROM call_texts WHERE call_texts MATCH ?)
 OR c.id > (SELECT iif(version = texts_version(), last, 0) FROM text_index)
 OR c.id IN (SELECT call_id FROM text_pending))
"""
_EXPRESSIONS: Final = {
    **{name: f"c.{name}" for name in FIELDS if name not in _SIDES},
    "ended_at": "(c.started_at + c.latency)",
    "is_scored": f"({_IS_SCORED})",
    "is_latest_attempt": f"({_IS_LATEST_ATTEMPT})",
    "rating": f"({_RATING_OF.format(name='request_id')})",
    "session_tag": "(SELECT tag FROM session_tags WHERE organisation = c.organisation AND session_id = c.session_id)",
    "session_rating": f"({_RATING_OF.format(name='session_id')})",
    "weighted_mean": f"({_SAID_OF_CALL.format(what='sum(value * weight) / nullif(sum(weight), 0)')})",
    "mean_product": f"({_SAID_OF_CALL.format(what='avg(value * weight)')})",
    "property": "(SELECT value FROM properties WHERE call_id = c.id AND key = ?)",
    "score": f"({_SCORE_OF})",
}


def expression(field: Field | Figure) -> Fragment:
    """A field's value for the row ``c``. Raises `FilterError` for a document, and for what no row has."""
    if isinstance(field, Figure):
        raise FilterError(f"{field.name!r} is nothing that a single call has")
    if field.kind is Kind.DOCUMENT:
        raise FilterError(f"{field.name!r} can only be searched")
    return _EXPRESSIONS[field.name], [field.key] if field.key is not None else []


def condition(node: Node, of: Expression = expression) -> Fragment:
    """What is true of the rows that are meant; of others it is false, or unknown, which WHERE takes for false.

    ``of`` gives the value of a field.
    """
    match node:
        case Condition():
            return _compared(node, of)
        case OneOf(_, ()):
            return _NOTHING, []
        case OneOf(field, several):
            text, values = of(field)
            return f"{text} IN ({', '.join('?' * len(several))})", [*values, *several]
        case Not(part):
            text, values = condition(part, of)
            return f"NOT coalesce({text}, 0)", values
        case All(parts):
            return _joined(parts, " AND ", "1", of)
        case AnyOf(parts):
            return _joined(parts, " OR ", _NOTHING, of)


def _joined(parts: tuple[Node, ...], word: str, nothing: str, of: Expression) -> Fragment:
    if not parts:
        return nothing, []
    fragments = [condition(part, of) for part in parts]
    return f"({word.join(text for text, _ in fragments)})", [value for _, values in fragments for value in values]


def _compared(one: Condition, of: Expression) -> Fragment:
    if one.operator is Operator.NOT_CONTAINS:
        return condition(Not(Condition(one.field, Operator.CONTAINS, one.value)), of)
    if one.field.kind is Kind.DOCUMENT:
        return _searched(one)
    text, values = of(one.field)
    match one.operator:
        case Operator.EQUALS if one.value is None:
            return f"{text} IS NULL", values
        case Operator.EQUALS:  # not IS, which looks in no partial index
            return f"{text} = ?", [*values, one.value]
        case Operator.NOT_EQUALS:
            return f"{text} IS NOT ?", [*values, one.value]
        case Operator.LIKE | Operator.ILIKE | Operator.CONTAINS if _END in str(one.value):
            return _NOTHING, []
        case Operator.LIKE:  # SQLite's own LIKE is blind to case
            return f"{text} GLOB ?", [*values, _PATTERN.sub(_as_glob, str(one.value))]
        case Operator.ILIKE:
            return f"{text} LIKE ? ESCAPE '{_ESCAPE}'", [*values, one.value]
        case Operator.CONTAINS:
            return f"{text} LIKE ? ESCAPE '{_ESCAPE}'", [*values, _anywhere(str(one.value))]
        case _:
            return f"{text} {_COMPARISONS[one.operator]} ?", [*values, one.value]


def _searched(one: Condition) -> Fragment:
    wanted = fold(str(one.value))
    has, values = "call_text_has(c.id, ?, ?)", [_SIDES[one.field.name], wanted]
    match = _of_groups(wanted)
    return (f"({_MAY_HAVE} AND {has})", [match, *values]) if match else (has, values)


def _of_groups(folded: str) -> str:
    """FTS5's query for the calls that have a text's groups of three characters; empty for a shorter text."""
    groups = list(dict.fromkeys(folded[place : place + _GROUP] for place in range(len(folded) - _GROUP + 1)))
    quoted = ('"' + group.replace('"', '""') + '"' for group in groups[:: max(1, len(groups) // _MOST_GROUPS)])
    return " AND ".join(quoted)


def _anywhere(text: str) -> str:
    return f"%{_LIKE_SIGNS.sub(lambda sign: _ESCAPE + sign[0], text)}%"


def _as_glob(found: re.Match[str]) -> str:
    escaped, sign, special = found.groups()
    if sign:
        return _GLOB_SIGNS[sign]
    character = escaped or special
    return f"[{character}]" if character in "*?[" else str(character)
