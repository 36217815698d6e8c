"""Writing anew what a row says of a response that had not ended when the row was written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import aiosqlite

from storage.records import Call, NumberedCall
from storage.sqlite import sql
from storage.sqlite.packing import LARGE, pack, pack_in_pieces
from storage.sqlite.rederive import rewrite_derived
from storage.sqlite.texts import note_change
from storage.texts import TextReader

__all__ = ["replace_response"]

_body_values = attrgetter(*sql.BODY_FIELDS)


async def replace_response(db: aiosqlite.Connection, call: Call, texts: TextReader) -> bool:
    """See `storage.base.Storage.replace_response`; to be called in a transaction."""
    key = {"organisation": call.organisation, "request_id": call.request_id, "started_at": call.started_at}
    for (number,) in await db.execute_fetchall(sql.FIND_CALL, key):
        times = {"id": number, "latency": call.latency, "time_to_first_token": call.time_to_first_token}
        parameters, pieces = await asyncio.to_thread(_parameters, call, number)
        await note_change(db, number, texts)
        await db.execute_fetchall(sql.REPLACE_TIMES, times)
        await rewrite_derived(db, [NumberedCall(number, call)])
        await db.execute_fetchall(sql.REPLACE_RESPONSE, parameters)
        await db.execute_fetchall(sql.DELETE_PIECES, (number, "response"))
        await db.executemany(sql.INSERT_PIECE, ((number, "response", piece) for piece in pieces))
        return True
    return False


def _parameters(call: Call, number: int) -> tuple[list[Any], Iterator[bytes | memoryview]]:
    """The parameters of ``sql.REPLACE_RESPONSE``, and the pieces of the body if it is a large one."""
    data = call.response.data
    pieces: Iterator[bytes | memoryview] = iter(())
    if data is None or len(data) < LARGE:
        packed = pack(data)
    else:
        pieces, packing = pack_in_pieces(data)
        packed = (None, packing)
    return [*packed, *_body_values(call.response), number], pieces
