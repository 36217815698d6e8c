"""Datasets: copies of calls, put together. The part of `storage.base.Storage` that keeps them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final

import aiosqlite
import orjson

from storage.records import Body, Call, Dataset, DatasetRow, DatasetSummary, Feedback, Score, StoredCall, Usage
from storage.sqlite.packing import pack, unpack
from storage.sqlite.worker import Worker, Workers, in_transaction

__all__ = ["Datasets"]

# Rows that are removed at once: so few that nobody waits for the writer.
_STEP: Final = 100
_CREATE: Final = "INSERT INTO datasets (id, organisation, name, meta, created_at) VALUES (?, ?, ?, ?, ?)"
_FIND: Final = "SELECT number FROM datasets WHERE organisation = ? AND id = ?"
_ADD: Final = """
INSERT INTO dataset_rows (
    id, dataset, request_id, created_at, copied, request, request_packing, response, response_packing, size
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (dataset, request_id) DO NOTHING
"""
_REMOVE: Final = """
DELETE FROM dataset_rows WHERE dataset = :dataset
AND (request_id IN (SELECT value FROM json_each(:ids)) OR id IN (SELECT value FROM json_each(:ids)))
"""
_EMPTY: Final = f"""
DELETE FROM dataset_rows WHERE number IN (
    SELECT r.number FROM dataset_rows AS r JOIN datasets AS d ON d.number = r.dataset
    WHERE d.organisation = ? AND d.id = ? LIMIT {_STEP}
)
"""
_DELETE: Final = "DELETE FROM datasets WHERE organisation = ? AND id = ?"
_LIST: Final = """
SELECT id, organisation, name, meta, created_at, (SELECT count(*) FROM dataset_rows WHERE dataset = datasets.number)
FROM datasets WHERE organisation = :organisation
AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids))) ORDER BY number
"""
# Which of the rows, by their sizes alone: the bodies of no more than these are read.
_READ: Final = """
SELECT r.* FROM (
    SELECT number, sum(size) OVER (ORDER BY number) - size AS ahead FROM (
        SELECT number, size FROM dataset_rows
        WHERE dataset = (SELECT number FROM datasets WHERE organisation = :organisation AND id = :id)
        AND number > :after ORDER BY number LIMIT :most_rows OFFSET :offset
    )
) AS batch JOIN dataset_rows AS r ON r.number = batch.number WHERE ahead < :most_bytes ORDER BY r.number
"""
_FIND_ROW: Final = """
SELECT r.* FROM dataset_rows AS r JOIN datasets AS d ON d.number = r.dataset
WHERE d.organisation = :organisation AND d.id = :id AND :row IN (r.id, r.request_id)
ORDER BY r.id = :row DESC LIMIT 1
"""
_EDIT: Final = """
UPDATE dataset_rows
SET copied = ?, request = ?, request_packing = ?, response = ?, response_packing = ?, size = ? WHERE number = ?
"""


class Datasets:
    """Reads and writes them."""

    _writer: Worker
    _analyst: Workers

    async def create_dataset(self, dataset: Dataset) -> None:
        """See `Storage.create_dataset`."""
        values = [dataset.id, dataset.organisation, dataset.name, dataset.meta, dataset.created_at]
        await self._writer.run(lambda db: db.execute_fetchall(_CREATE, values))

    async def add_to_dataset(self, organisation: str, dataset_id: str, rows: Sequence[DatasetRow]) -> bool:
        """See `Storage.add_to_dataset`."""
        packed = await asyncio.to_thread(lambda: [_parameters(row) for row in rows])

        async def job(db: aiosqlite.Connection) -> bool:
            for (number,) in await db.execute_fetchall(_FIND, [organisation, dataset_id]):
                for row_id, *rest in packed:
                    await db.execute_fetchall(_ADD, [row_id, number, *rest])
                return True
            return False

        return await self._writer.run(in_transaction(job))

    async def remove_from_dataset(self, organisation: str, dataset_id: str, row_ids: Sequence[str]) -> bool:
        """See `Storage.remove_from_dataset`."""
        ids = orjson.dumps(list(row_ids)).decode()

        async def job(db: aiosqlite.Connection) -> bool:
            for (number,) in await db.execute_fetchall(_FIND, [organisation, dataset_id]):
                await db.execute_fetchall(_REMOVE, {"dataset": number, "ids": ids})
                return True
            return False

        return await self._writer.run(in_transaction(job))

    async def edit_dataset_row(
        self, organisation: str, dataset_id: str, row_id: str, *, request: str | None, response: str | None
    ) -> bool:
        """See `Storage.edit_dataset_row`."""
        key = {"organisation": organisation, "id": dataset_id, "row": row_id}

        async def job(db: aiosqlite.Connection) -> bool:
            async with db.execute(_FIND_ROW, key) as cursor:
                cursor.row_factory = sqlite3.Row
                found = await cursor.fetchone()
            if found is None:
                return False
            await db.execute_fetchall(_EDIT, await asyncio.to_thread(_edited, found, request, response))
            return True

        return await self._writer.run(in_transaction(job))

    async def delete_dataset(self, organisation: str, dataset_id: str) -> bool:
        """See `Storage.delete_dataset`."""
        key = [organisation, dataset_id]
        while await self._writer.run(in_transaction(lambda db: _change(db, _EMPTY, key))):
            pass
        return await self._writer.run(in_transaction(lambda db: _change(db, _DELETE, key))) > 0

    async def list_datasets(
        self, organisation: str, dataset_ids: Sequence[str] | None = None
    ) -> Sequence[DatasetSummary]:
        """See `Storage.list_datasets`."""
        ids = None if dataset_ids is None else orjson.dumps(list(dataset_ids)).decode()
        key = {"organisation": organisation, "ids": ids}

        async def job(db: aiosqlite.Connection) -> list[DatasetSummary]:
            return [DatasetSummary(Dataset(*row[:5]), row[5]) for row in await db.execute_fetchall(_LIST, key)]

        return await self._analyst.run(in_transaction(job, begin="BEGIN"))

    async def read_dataset(
        self,
        organisation: str,
        dataset_id: str,
        *,
        after: int = 0,
        offset: int = 0,
        most_rows: int,
        most_bytes: int,
    ) -> Sequence[DatasetRow]:
        """See `Storage.read_dataset`."""
        key = {"organisation": organisation, "id": dataset_id, "after": after, "offset": offset}
        key |= {"most_rows": most_rows, "most_bytes": most_bytes}

        async def job(db: aiosqlite.Connection) -> list[DatasetRow]:
            rows = await db.execute_fetchall(_READ, key)
            return await asyncio.to_thread(lambda: [_row(row) for row in rows])

        return await self._analyst.run(in_transaction(job, begin="BEGIN"))


async def _change(db: aiosqlite.Connection, statement: str, values: Sequence[Any]) -> int:
    """How many rows a statement changes."""
    async with db.execute(statement, values) as cursor:
        return cursor.rowcount


def _parameters(row: DatasetRow) -> list[Any]:
    """Of `_ADD`, without the dataset's number."""
    call = row.stored.call
    return [row.id, call.request_id, row.created_at, *_contents(row.stored)]


def _contents(stored: StoredCall) -> list[Any]:
    call = stored.call
    copied = asdict(stored)
    bodies = [pack(copied["call"][side].pop("data")) for side in ("request", "response")]
    size = sum(len(body.data or b"") for body in (call.request, call.response))
    return [orjson.dumps(copied).decode(), *bodies[0], *bodies[1], size]


def _row(row: sqlite3.Row) -> DatasetRow:
    return DatasetRow(id=row["id"], created_at=row["created_at"], stored=_stored(row), number=row["number"])


def _stored(row: sqlite3.Row) -> StoredCall:
    copied = orjson.loads(row["copied"])
    call = _known(Call, copied["call"])
    for side in ("request", "response"):
        body = _known(Body, call[side])
        call[side] = Body(**{**body, "data": unpack(row[side], row[f"{side}_packing"])})
    call["usage"] = Usage(**_known(Usage, call["usage"]))
    return StoredCall(
        call=Call(**call),
        attempt=copied["attempt"],
        scores=tuple(Score(**_known(Score, one)) for one in copied["scores"]),
        feedback=tuple(Feedback(**_known(Feedback, one)) for one in copied["feedback"]),
    )


def _known(kind: Any, members: dict[str, Any]) -> dict[str, Any]:
    """Those that a record still has: a copy may be older than this version."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in members.items() if name in names}


def _edited(row: sqlite3.Row, request: str | None, response: str | None) -> list[Any]:
    """The parameters of `_EDIT`."""
    stored = _stored(row)
    call = {field.name: getattr(stored.call, field.name) for field in fields(Call)}
    for side, text in (("request", request), ("response", response)):
        if text is not None:
            data = text.encode("utf-8")
            call[side] = Body(data, len(data), content_type="application/json")
    return [*_contents(StoredCall(Call(**call), stored.attempt, stored.scores, stored.feedback)), row["number"]]
