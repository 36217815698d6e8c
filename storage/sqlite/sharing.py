"""Bodies of requests kept as what they add to a later request's, and made whole again.

The rule it keeps: only a body that nobody needs is made to need another one, which is whole and is checked to be there
in the very transaction. So whoever reads one follows one step, never a chain.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

import aiosqlite

from storage.sqlite.moving import change_bodies
from storage.sqlite.packing import SHARED, pack, pack_against, unpack, unpack_against
from storage.sqlite.worker import Worker, Workers, in_transaction

__all__ = ["Sharing", "shared_request", "stand_alone"]

# Of one step: rows looked at; of these, those that belong to a session or trace; bytes of their bodies.
_LOOKED_AT: Final = 500
_MOST_CALLS: Final = 20
_MOST_BYTES: Final = 2 * 1024 * 1024
# Bytes of a packed body from which it is left alone; and to how much of it sharing has to bring it.
_SMALLEST: Final = 400
_LARGEST: Final = 256 * 1024
_WORTH_SHARING: Final = 0.7

_NEXT: Final = """
SELECT id, organisation, session_id, trace_id, request_id, path, session_path, started_at FROM calls
WHERE id > (SELECT reached FROM sharing) ORDER BY id LIMIT ?
"""
_WHOLE: Final = f"(request_packing IS NULL OR request_packing = 'zstd') AND length(request) <= {_LARGEST}"
_LATEST_OF: Final = """
SELECT id FROM calls WHERE organisation = ? AND {group} = ? AND path = ? AND session_path IS ?
ORDER BY started_at DESC, id DESC LIMIT 1
"""
_BY_SESSION: Final = _LATEST_OF.format(group="session_id")
_BY_TRACE: Final = _LATEST_OF.format(group="trace_id <> request_id AND trace_id")
# A body and its base to be, where both are such that one may be kept against the other.
_PAIR: Final = f"""
SELECT own.call_id, own.request, own.request_packing, base.call_id, base.request, base.request_packing
FROM (SELECT * FROM bodies WHERE call_id = ? AND {_WHOLE} AND length(request) >= {_SMALLEST}) AS own
JOIN (SELECT * FROM bodies WHERE call_id = ? AND {_WHOLE}) AS base
WHERE NOT EXISTS (SELECT 1 FROM body_bases WHERE base = own.call_id)
"""
_SHARE: Final = f"UPDATE moved SET request = ?, request_packing = '{SHARED}' WHERE call_id = ?"
_INSERT_BASE: Final = "INSERT INTO body_bases VALUES (?, ?)"
# Not beyond the last call: the numbers of calls that have gone from the end are given again.
_REACH: Final = "UPDATE sharing SET reached = min(?, coalesce((SELECT max(id) FROM calls), 0))"
_BASE_OF: Final = """
SELECT request, request_packing FROM bodies WHERE call_id = (SELECT base FROM body_bases WHERE call_id = ?)
"""
_IN_NEED: Final = """
SELECT call_id FROM body_bases WHERE base IN (SELECT id FROM going) AND call_id NOT IN (SELECT id FROM going)
"""
_REQUEST: Final = "SELECT request FROM bodies WHERE call_id = ?"
_MAKE_WHOLE: Final = "UPDATE bodies SET request = ?, request_packing = ? WHERE call_id = ?"
_DELETE_BASE: Final = "DELETE FROM body_bases WHERE call_id = ?"


@dataclass(frozen=True, slots=True)
class _Pair:
    number: int
    body: bytes
    base: int
    base_body: bytes
    as_found: tuple[Any, ...]
    packed: bytes = b""


class Sharing:
    """The part of `storage.base.Storage` that keeps repeated bodies once."""

    _writer: Worker
    _analyst: Workers

    async def share_bodies(self, before: int) -> bool:
        """See `Storage.share_bodies`."""
        pairs, reached = await self._analyst.run(in_transaction(lambda db: _look(db, before), begin="BEGIN"))
        if reached is None:
            return False
        shared = await asyncio.to_thread(_worth_sharing, pairs)

        async def job(db: aiosqlite.Connection) -> None:
            await _share(db, shared)
            await db.execute_fetchall(_REACH, (reached,))

        await self._writer.run(in_transaction(job))
        return True


async def _share(db: aiosqlite.Connection, pairs: Sequence[tuple[_Pair, bytes]]) -> None:
    """Write those of the pairs that still are as they were found."""
    as_found = []
    for pair, packed in pairs:
        rows = await db.execute_fetchall(_PAIR, (pair.number, pair.base))
        if [tuple(row) for row in rows] == [pair.as_found]:
            as_found.append((pair, packed))
    if not as_found:
        return
    changes = [(packed, pair.number) for pair, packed in as_found]
    await change_bodies(db, [number for _, number in changes], _SHARE, changes)
    await db.executemany(_INSERT_BASE, [(pair.number, pair.base) for pair, _ in as_found])


async def _look(db: aiosqlite.Connection, before: int) -> tuple[list[_Pair], int | None]:
    """The next bodies that may be shared, and up to which call that is; ``None`` where none is old enough."""
    found = await db.execute_fetchall(_NEXT, (_LOOKED_AT,))
    rows = list(takewhile(lambda row: row["started_at"] < before, found))
    pairs: list[_Pair] = []
    looked, size = 0, 0
    for row in rows:
        if row["session_id"] is None and row["trace_id"] == row["request_id"]:
            continue
        looked += 1
        if pair := await _pair(db, row):
            pairs.append(pair)
            size += len(pair.body) + len(pair.base_body)
        if looked == _MOST_CALLS or size >= _MOST_BYTES:
            return pairs, row["id"]
    return pairs, rows[-1]["id"] if rows else None


async def _pair(db: aiosqlite.Connection, row: sqlite3.Row) -> _Pair | None:
    """The body of a call and that of the latest one of its session or trace, if it is to be tried."""
    latest, group = (_BY_TRACE, row["trace_id"]) if row["session_id"] is None else (_BY_SESSION, row["session_id"])
    for (base,) in await db.execute_fetchall(latest, (row["organisation"], group, row["path"], row["session_path"])):
        if base == row["id"]:
            return None
        for found in await db.execute_fetchall(_PAIR, (row["id"], base)):
            number, body, packing, base, base_body, base_packing = found
            whole, base_whole = unpack(body, packing), unpack(base_body, base_packing)
            if whole is not None and base_whole is not None:
                return _Pair(number, whole, base, base_whole, tuple(found))
    return None


def _worth_sharing(pairs: Sequence[_Pair]) -> list[tuple[_Pair, bytes]]:
    """Those that take much less against their base; a base in this step stays whole."""
    bases = {pair.base for pair in pairs}
    found = []
    for pair in pairs:
        packed = pack_against(pair.body, pair.base_body)
        if pair.number not in bases and len(packed) < _WORTH_SHARING * len(pair.as_found[1]):
            found.append((pair, packed))
    return found


async def shared_request(db: aiosqlite.Connection, number: int, packed: bytes | None) -> bytes | None:
    """The body of a request that is packed as ``SHARED``, of the call of that number."""
    for base, packing in await db.execute_fetchall(_BASE_OF, (number,)):
        whole = unpack(base, packing)
        if packed is not None and whole is not None:
            return unpack_against(packed, whole)
    return None


async def stand_alone(db: aiosqlite.Connection) -> None:
    """Make whole what needs the bodies of calls that are ``going``, in the transaction in which they go."""
    for (number,) in list(await db.execute_fetchall(_IN_NEED)):
        [(packed,)] = await db.execute_fetchall(_REQUEST, (number,))
        data, packing = pack(await shared_request(db, number, packed))
        await db.execute_fetchall(_MAKE_WHOLE, (data, packing, number))
        await db.execute_fetchall(_DELETE_BASE, (number,))
