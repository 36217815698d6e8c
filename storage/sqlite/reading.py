"""Rows of calls to records, with the bodies that lie in pieces or need another's."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Literal

import aiosqlite

from storage.records import Body, Call
from storage.sqlite import sql
from storage.sqlite.packing import IN_PIECES, SHARED, unpack
from storage.sqlite.rows import body_from_row, call_from_row
from storage.sqlite.sharing import shared_request

__all__ = ["Side", "whole_body", "whole_call"]

Side = Literal["request", "response"]


async def whole_call(db: aiosqlite.Connection, row: sqlite3.Row, properties: Mapping[str, str]) -> Call:
    """From a row of ``sql.READ_CALL`` or ``sql.READ_BATCH``, in the transaction that gave it."""
    return call_from_row(row, properties, await whole_body(db, row, "request"), await whole_body(db, row, "response"))


async def whole_body(db: aiosqlite.Connection, row: sqlite3.Row, side: Side) -> Body:
    """One of its bodies, from such a row or one of the table ``bodies``."""
    return body_from_row(row, side, await _data(db, row, side))


async def _data(db: aiosqlite.Connection, row: sqlite3.Row, side: Side) -> bytes | None:
    packed, packing = row[side], row[f"{side}_packing"]
    if packing == SHARED:
        return await shared_request(db, row["call_id"], packed)
    if packing in IN_PIECES:
        key = {"call_id": row["call_id"], "side": side}
        packed = b"".join(piece for (piece,) in await db.execute_fetchall(sql.READ_PIECES, key))
    return unpack(packed, packing)
