"""Writing anew what a row says of a response that had not ended when the row was written."""

from __future__ import annotations

import asyncio

import aiosqlite

from storage.records import Call, NumberedCall
from storage.sqlite import sql
from storage.sqlite.rederive import rewrite_derived
from storage.sqlite.rows import response_parameters

__all__ = ["replace_response"]


async def replace_response(db: aiosqlite.Connection, call: Call) -> bool:
    """See `storage.base.Storage.replace_response`; to be called in a transaction."""
    key = {"organisation": call.organisation, "request_id": call.request_id, "started_at": call.started_at}
    for (number,) in await db.execute_fetchall(sql.FIND_CALL, key):
        times = {"id": number, "latency": call.latency, "time_to_first_token": call.time_to_first_token}
        parameters, pieces = await asyncio.to_thread(response_parameters, call, number)
        await db.execute_fetchall(sql.REPLACE_TIMES, times)
        await rewrite_derived(db, [NumberedCall(number, call)])
        await db.execute_fetchall(sql.REPLACE_RESPONSE, parameters)
        await db.execute_fetchall(sql.DELETE_PIECES, (number, "response"))
        await db.executemany(sql.INSERT_PIECE, ((number, "response", piece) for piece in pieces))
        return True
    return False
