"""Every statement of the SQLite backend. Parameters are bound; only column lists and row counts are built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Final

from storage.records import Body, Call, Derived, Feedback, Usage

__all__ = [
    "ADD_FEEDBACK",
    "ADD_PROPERTIES",
    "BODY_FIELDS",
    "BODY_PATHS",
    "CALL_FIELDS",
    "CALL_PATHS",
    "COUNT_ATTEMPTS",
    "COUNT_CALLS",
    "DELETE_FEEDBACK",
    "DELETE_PIECES",
    "DERIVED_FIELDS",
    "FEEDBACK_FIELDS",
    "FIND_CALL",
    "FIND_LANDING",
    "FIND_REQUEST",
    "FIND_SESSION",
    "FIND_TRACE",
    "INSERT_PIECE",
    "LAND",
    "LOOK_AT_ARRIVALS",
    "MARK_EARLIEST_OF_SESSION",
    "MATCHED",
    "MERGE_SCORE",
    "PROMOTE_LATEST_RATING",
    "READ_BATCH",
    "READ_CALL",
    "READ_PIECES",
    "READ_SESSION_TAG",
    "REPLACE_RATINGS",
    "REPLACE_RESPONSE",
    "REPLACE_TIMES",
    "REWRITE_DERIVED",
    "SET_PROPERTY_FOR_LATER",
    "SET_PROPERTY_ON_ATTEMPTS",
    "TAG_SESSION",
    "TAKE_BACK",
    "UNMARK_SESSION",
    "UPDATE_VALUE",
    "USAGE_FIELDS",
    "insert_bodies",
    "insert_calls",
    "list_feedback",
]

_NESTED: Final = {"usage", "properties", "request", "response"}
CALL_FIELDS: Final = tuple(f.name for f in fields(Call) if f.name not in _NESTED)
USAGE_FIELDS: Final = tuple(f.name for f in fields(Usage))
BODY_FIELDS: Final = tuple(f.name for f in fields(Body) if f.name != "data")
FEEDBACK_FIELDS: Final = tuple(f.name for f in fields(Feedback))
DERIVED_FIELDS: Final = tuple(name for name in Derived.__annotations__ if name not in _NESTED)


# Every column of a call that arrives but those that its group gives it, and where its value stands in a `Call`: of the
# bodies all but these themselves, which are made into something else on their way.
CALL_PATHS: Final = {
    **{name: name for name in CALL_FIELDS if name != "is_stream"},
    **{name: f"usage.{name}" for name in USAGE_FIELDS},
}
BODY_PATHS: Final = {f"{side}_{name}": f"{side}.{name}" for side in ("request", "response") for name in BODY_FIELDS}
_FLAGS: Final = tuple(f"{side}_{name}" for side in ("request", "response") for name in ("truncated", "omitted"))


def insert_calls(columns: tuple[str, ...], rows: int) -> str:
    """One statement for ``rows`` calls, each with its attempt, whether it is a stream, and ``columns``."""
    names = ("attempt", "is_stream", *columns)
    return _insert("calls", names, "?" * len(names), rows)


def insert_bodies(columns: tuple[str, ...], rows: int) -> str:
    """The same for their bodies, each with its call's number, both bodies with their packings, and ``columns``.

    Of packings an empty text is none: the sqlite3 module binds it in a fraction of the time that None takes. Flags that
    are left out are not set.
    """
    unset = [name for name in _FLAGS if name not in columns]
    names = ("call_id", "request", "request_packing", "response", "response_packing", *columns, *unset)
    values = ("?", "?", "nullif(?, '')", "?", "nullif(?, '')", *("?" * len(columns)), *("0" * len(unset)))
    return _insert("bodies", names, values, rows)


def _insert(table: str, names: Iterable[str], values: Iterable[str], rows: int) -> str:
    row = f"({', '.join(values)})"
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES {', '.join([row] * rows)}"


_HAS_EARLIER: Final = """
EXISTS (SELECT 1 FROM calls AS k
        WHERE k.organisation = c.organisation AND k.request_id = c.request_id AND k.id < :first)
"""
_IS_NAMED: Final = " OR ".join(
    f"EXISTS (SELECT 1 FROM named_ids AS n WHERE n.organisation = c.organisation AND n.id = c.{name})"
    for name in ("request_id", "provider_response_id", "session_id")
)
# Of the calls from one on: whether any is no first attempt, and the first that something was said of before, which may
# have to be joined with it. In one statement, since nearly every group has neither, and without sorting, to begin with
# which would take longer than all else of it.
LOOK_AT_ARRIVALS: Final = f"""
SELECT max({_HAS_EARLIER}), min(CASE WHEN {_IS_NAMED} THEN id END) FROM calls AS c WHERE id >= :first
"""
FIND_LANDING: Final = f"SELECT min(id) FROM calls AS c WHERE id >= ? AND ({_IS_NAMED})"
TAKE_BACK: Final = "DELETE FROM calls WHERE id >= ?"
COUNT_ATTEMPTS: Final = "SELECT coalesce(max(attempt), 0) FROM calls WHERE organisation = ? AND request_id = ?"
LAND: Final = """
INSERT INTO call_landings SELECT id, organisation, request_id, provider_response_id, session_id FROM calls WHERE id = ?
"""
# Of any number of calls by one statement: [[place, key, name, value]], where the place is a call's among those that
# were inserted with it. Before they land: what was set afterwards takes the place of what a call bore.
ADD_PROPERTIES: Final = """
INSERT OR IGNORE INTO properties (call_id, key, name, value)
SELECT :first + json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]')
FROM json_each(:properties)
"""

INSERT_PIECE: Final = "INSERT INTO body_pieces (call_id, side, data) VALUES (?, ?, ?)"
READ_PIECES: Final = "SELECT data FROM body_pieces WHERE call_id = :call_id AND side = :side ORDER BY id"

# The number of the latest call with a response id. Its index is partitioned by 65,536 calls (migration 12): from the
# last partition back, as far as the first in which it is found.
_LATEST: Final = """
WITH RECURSIVE looked (partition, found) AS (
    SELECT max(id) >> 16, NULL FROM calls
    UNION ALL
    SELECT partition - 1, (
        SELECT c.id FROM calls AS c
        WHERE c.id >> 16 = partition AND c.organisation = :organisation AND c.provider_response_id = :id AND {which}
        ORDER BY c.id DESC LIMIT 1
    ) FROM looked WHERE found IS NULL AND partition >= (SELECT min(id) >> 16 FROM calls)
)
SELECT max(found) FROM looked
"""
# A request id goes before a response id where a text is both (contract section 4); and of the calls with a response id
# the one that made the response before those that only fetched it again. The latest of each is at an end of an index:
# a test's upstream may give all of its answers one id. SQLite looks no further than the first that is there.
_NAMED: Final = f"""
SELECT request_id, trace_id, attempt FROM calls WHERE id = coalesce(
    (SELECT id FROM calls WHERE organisation = :organisation AND request_id = :id ORDER BY attempt DESC LIMIT 1),
    ({_LATEST.format(which="c.method <> 'GET'")}),
    ({_LATEST.format(which="1")})
)
"""
FIND_REQUEST: Final = f"SELECT request_id, trace_id FROM ({_NAMED})"
FIND_SESSION: Final = """
SELECT trace_id FROM calls WHERE organisation = :organisation AND session_id = :id ORDER BY started_at, id LIMIT 1
"""
FIND_TRACE: Final = "SELECT trace_id FROM call_traces WHERE organisation = :organisation AND trace_id = :id LIMIT 1"

_FEEDBACK_COLUMNS: Final = ", ".join(FEEDBACK_FIELDS)
ADD_FEEDBACK: Final = (
    f"INSERT INTO feedback ({_FEEDBACK_COLUMNS}) VALUES ({', '.join(f':{name}' for name in FEEDBACK_FIELDS)})"
)
REPLACE_RATINGS: Final = """
UPDATE feedback SET effective = 0
WHERE organisation = :organisation AND kind = 'rating' AND effective = 1
  AND request_id IS :request_id AND session_id IS :session_id
"""
PROMOTE_LATEST_RATING: Final = """
UPDATE feedback SET effective = 1 WHERE number = (
    SELECT max(number) FROM feedback
    WHERE organisation = :organisation AND kind = 'rating'
      AND request_id IS :request_id AND session_id IS :session_id
)
"""
UPDATE_VALUE: Final = """
UPDATE feedback
SET value = :value, weight = coalesce(:weight, weight), metadata = coalesce(:metadata, metadata),
    updated_at = :updated_at
WHERE organisation = :organisation AND id = :id AND kind = 'value'
RETURNING trace_id
"""
DELETE_FEEDBACK: Final = """
DELETE FROM feedback WHERE organisation = :organisation AND id = :id
RETURNING kind, request_id, trace_id, session_id
"""

# What the trigger call_landings_join_session does for calls that land after the verdict.
MARK_EARLIEST_OF_SESSION: Final = """
INSERT OR REPLACE INTO properties
SELECT c.id, 'helicone-session-feedback', 'Helicone-Session-Feedback', CAST(f.value AS TEXT)
FROM (SELECT id FROM calls WHERE organisation = :organisation AND session_id = :session_id
      ORDER BY started_at, id LIMIT 1) AS c,
     feedback AS f
WHERE f.organisation = :organisation AND f.session_id = :session_id AND f.effective = 1
"""
UNMARK_SESSION: Final = """
DELETE FROM properties WHERE key = 'helicone-session-feedback' AND call_id = (
    SELECT id FROM calls WHERE organisation = :organisation AND session_id = :session_id
    ORDER BY started_at, id LIMIT 1)
"""

MERGE_SCORE: Final = """
INSERT OR REPLACE INTO scores (organisation, request_id, name, value, is_boolean, updated_at)
VALUES (:organisation, :request_id, :name, :value, :is_boolean, :updated_at)
"""
SET_PROPERTY_FOR_LATER: Final = """
INSERT OR REPLACE INTO request_properties (organisation, request_id, key, name, value, updated_at)
VALUES (:organisation, :request_id, :key, :name, :value, :updated_at)
"""
SET_PROPERTY_ON_ATTEMPTS: Final = """
INSERT OR REPLACE INTO properties (call_id, key, name, value)
SELECT id, :key, :name, :value FROM calls WHERE organisation = :organisation AND request_id = :request_id
"""

TAG_SESSION: Final = """
INSERT OR REPLACE INTO session_tags (organisation, session_id, tag, updated_at)
VALUES (:organisation, :session_id, :tag, :updated_at)
"""
READ_SESSION_TAG: Final = "SELECT tag FROM session_tags WHERE organisation = :organisation AND session_id = :session_id"

# Of feedback as f: whether there is a call that it speaks of.
MATCHED: Final = """
EXISTS (SELECT 1 FROM calls AS c WHERE c.organisation = f.organisation AND c.request_id = f.request_id)
OR EXISTS (SELECT 1 FROM call_traces AS c WHERE c.organisation = f.organisation AND c.trace_id = f.trace_id)
OR EXISTS (SELECT 1 FROM calls AS c WHERE c.organisation = f.organisation AND c.session_id = f.session_id)
"""


def list_feedback(names: tuple[str, ...], *, unmatched: bool) -> str:
    """Feedback whose columns ``names`` equal the parameters of those names."""
    conditions = ["f.organisation = :organisation", *(f"f.{name} = :{name}" for name in names)]
    if unmatched:
        conditions.append(f"NOT ({MATCHED})")
    return f"SELECT {_FEEDBACK_COLUMNS} FROM feedback AS f WHERE {' AND '.join(conditions)} ORDER BY number"


# A response id means the very row that carries it; a request id the latest attempt, unless one is asked for.
READ_CALL: Final = f"""
SELECT c.*, b.*
FROM ({_NAMED}) AS named JOIN calls AS c ON c.organisation = :organisation AND c.request_id = named.request_id
     AND c.attempt = coalesce(:attempt, named.attempt)
JOIN bodies AS b ON b.call_id = c.id
"""
COUNT_CALLS: Final = "SELECT count(*) FROM calls"
# Which rows, by their sizes alone: the bodies of no more than these are read.
READ_BATCH: Final = """
SELECT c.*, b.* FROM (
    SELECT call_id, sum(size) OVER (ORDER BY call_id) - size AS ahead FROM (
        SELECT call_id, request_size + response_size AS size FROM bodies
        WHERE call_id > :after ORDER BY call_id LIMIT :most_calls
    )
) AS batch JOIN calls AS c ON c.id = batch.call_id JOIN bodies AS b ON b.call_id = batch.call_id
WHERE ahead < :most_bytes ORDER BY c.id
"""
# A row that has gone may have left its number to another one.
REWRITE_DERIVED: Final = f"""
UPDATE calls SET {", ".join(f"{name} = ?" for name in (*DERIVED_FIELDS, *USAGE_FIELDS))}
WHERE id = ? AND organisation = ? AND request_id = ? AND started_at = ?
"""

# A row that was written before its response had ended.
FIND_CALL: Final = """
SELECT id FROM calls WHERE organisation = :organisation AND request_id = :request_id AND started_at = :started_at
ORDER BY attempt DESC LIMIT 1
"""
REPLACE_TIMES: Final = "UPDATE calls SET latency = :latency, time_to_first_token = :time_to_first_token WHERE id = :id"
_RESPONSE_COLUMNS: Final = ("response", "response_packing", *(f"response_{name}" for name in BODY_FIELDS))
_SET_RESPONSE: Final = ", ".join(f"{name} = ?" for name in _RESPONSE_COLUMNS)
REPLACE_RESPONSE: Final = f"UPDATE bodies SET {_SET_RESPONSE} WHERE call_id = ?"
DELETE_PIECES: Final = "DELETE FROM body_pieces WHERE call_id = ? AND side = ?"
