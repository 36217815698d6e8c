"""Rows of calls to records, with the bodies that lie in pieces."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace

import aiosqlite

from storage.records import Call
from storage.sqlite import sql
from storage.sqlite.packing import IN_PIECES, SHARED
from storage.sqlite.rows import call_from_row
from storage.sqlite.sharing import shared_request

__all__ = ["whole_call"]


async def whole_call(db: aiosqlite.Connection, row: sqlite3.Row, properties: Mapping[str, str]) -> Call:
    """From a row of ``sql.READ_CALL`` or ``sql.READ_BATCH``, in the transaction that gave it."""
    apart = await _large_bodies(db, row)
    if row["request_packing"] != SHARED:
        return call_from_row(row, properties, apart)
    request = await shared_request(db, row["call_id"], row["request"])
    call = call_from_row(row, properties, apart)
    return replace(call, request=replace(call.request, data=request))


async def _large_bodies(db: aiosqlite.Connection, row: sqlite3.Row) -> dict[str, bytes]:
    """The bodies of a call that are stored in pieces, by their side."""
    bodies = {}
    for side in ("request", "response"):
        if row[f"{side}_packing"] in IN_PIECES:
            key = {"call_id": row["call_id"], "side": side}
            bodies[side] = b"".join(piece for (piece,) in await db.execute_fetchall(sql.READ_PIECES, key))
    return bodies
