"""``/v1/helicone-dataset...``: Helicone's routes for datasets. Contract section 7, contracts/helicone.md 4.6."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel

from proxy.datasets.bodies import DatasetChange, DatasetPage, DatasetsQuery, NewDataset, RowEdit
from proxy.datasets.copying import NO_DATASET, copy_found, copy_numbers, numbers_of
from proxy.datasets.shapes import (
    CountAnswer,
    DatasetAnswer,
    DatasetItem,
    DatasetRowItem,
    DatasetRowsAnswer,
    DatasetsAnswer,
)
from proxy.dialects import Answer, Dialect, Failed
from proxy.feedback.clock import now
from proxy.feedback.items import iso_time
from proxy.feedback.reading import JsonReader, validate_as_portkey
from proxy.feedback.shapes import Done
from proxy.identity import new_id
from proxy.operations import Operation
from proxy.reads.bodies import INVALID
from proxy.reads.filters import read_filter
from proxy.reads.rows import row
from proxy.routes import Route, RouteCall
from storage.base import Storage
from storage.filters import All, Condition, Field, Node, Operator
from storage.records import Dataset, DatasetRow, DatasetSummary

__all__ = ["HeliconeDatasets"]

M = TypeVar("M", bound=BaseModel)

_MiB: Final = 1024 * 1024
_BATCH: Final = 8 * _MiB
_LARGEST_ANSWER: Final = 64 * _MiB
_DATASET: Final = {"id": "The dataset's id."}
_ROW: Final = {**_DATASET, "requestId": "A row's id, or that of the request that it is a copy of."}
_DONE: Final[Done] = {"data": None, "error": None}

_CREATE: Final = Operation(
    summary="Copies calls, with what was said of them so far, into a new dataset.",
    body=NewDataset,
    answer=DatasetAnswer,
    failures=(404,),
)
_LIST: Final = Operation(summary="Datasets, and how many rows they have.", body=DatasetsQuery, answer=DatasetsAnswer)
_MUTATE: Final = Operation(
    summary="Adds copies of calls to a dataset, and takes rows out of it.",
    description="A call that has a row there keeps it as it is.",
    parameters=_DATASET,
    body=DatasetChange,
    answer=Done,
    failures=(404,),
)
_ROWS: Final = Operation(
    summary="Rows of a dataset, with their bodies.",
    parameters=_DATASET,
    body=DatasetPage,
    answer=DatasetRowsAnswer,
    failures=(404,),
)
_COUNT: Final = Operation(
    summary="How many rows a dataset has.", parameters=_DATASET, answer=CountAnswer, failures=(404,)
)
_EDIT: Final = Operation(
    summary="Changes the bodies of a row; the call in the log stays as it is.",
    parameters=_ROW,
    body=RowEdit,
    answer=Done,
    failures=(404,),
)
_DELETE: Final = Operation(summary="Removes a dataset.", parameters=_DATASET, answer=Done, failures=(404,))


class HeliconeDatasets:
    """Keeps datasets. ``storage`` takes from what is written what the settings redact."""

    def __init__(self, storage: Storage, reader: JsonReader) -> None:
        self._storage = storage
        self._reader = reader

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        base = "/v1/helicone-dataset"
        table = [
            (base, _CREATE, self.create),
            (f"{base}/query", _LIST, self.datasets),
            (f"{base}/{{id}}/mutate", _MUTATE, self.mutate),
            (f"{base}/{{id}}/query", _ROWS, self.rows),
            (f"{base}/{{id}}/count", _COUNT, self.count),
            (f"{base}/{{id}}/request/{{requestId}}", _EDIT, self.edit),
            (f"{base}/{{id}}/delete", _DELETE, self.delete),
        ]
        return [Route("POST", path, Dialect.HELICONE, "read", said, handler) for path, said, handler in table]

    async def create(self, call: RouteCall) -> Answer:
        """All calls that were named, or nothing."""
        asked = await self._body(NewDataset, call)
        organisation, dataset_id = call.organisation, new_id()
        where = _tree(asked.filter)
        numbers = await numbers_of(self._storage, organisation, asked.request_ids)
        meta = orjson.dumps(asked.meta).decode() if asked.meta is not None else None
        await self._storage.create_dataset(Dataset(dataset_id, organisation, asked.dataset_name, meta, now()))
        try:
            await copy_numbers(self._storage, organisation, dataset_id, numbers)
            if where is not None:
                await copy_found(self._storage, organisation, dataset_id, where)
        except BaseException:
            await self._storage.delete_dataset(organisation, dataset_id)
            raise
        answer: DatasetAnswer = {"data": {"datasetId": dataset_id}, "error": None}
        return Answer(answer)

    async def datasets(self, call: RouteCall) -> Answer:
        """All, or those of some ids."""
        asked = await self._body(DatasetsQuery, call)
        found = await self._storage.list_datasets(call.organisation, asked.dataset_ids)
        answer: DatasetsAnswer = {"data": [_item(one) for one in found], "error": None}
        return Answer(answer)

    async def mutate(self, call: RouteCall) -> Answer:
        """Removals first: a call may be copied anew."""
        asked = await self._body(DatasetChange, call)
        organisation, dataset_id = call.organisation, call.parameters["id"]
        await self._dataset(call)
        where = _tree(asked.filter)
        numbers = await numbers_of(self._storage, organisation, asked.add_requests)
        if not await self._storage.remove_from_dataset(organisation, dataset_id, asked.remove_requests):
            raise NO_DATASET
        await copy_numbers(self._storage, organisation, dataset_id, numbers)
        if where is not None:
            await copy_found(self._storage, organisation, dataset_id, where)
        return Answer(_DONE)

    async def rows(self, call: RouteCall) -> Answer:
        """A page of rows."""
        asked = await self._body(DatasetPage, call)
        await self._dataset(call)
        dataset_id, found, size = call.parameters["id"], list[orjson.Fragment](), 0
        offset, after = asked.offset, 0
        while some := await self._storage.read_dataset(
            call.organisation,
            dataset_id,
            after=after,
            offset=offset,
            most_rows=asked.limit - len(found),
            most_bytes=_BATCH,
        ):
            texts = await asyncio.to_thread(_texts, dataset_id, some)
            size += sum(map(len, texts))
            if size > _LARGEST_ANSWER:
                raise Failed(400, "answer_too_large", "The answer has more than 64 MiB: ask for fewer rows at once.")
            found += map(orjson.Fragment, texts)
            offset, after = 0, some[-1].number
        return Answer({"data": found, "error": None})

    async def count(self, call: RouteCall) -> Answer:
        """A number."""
        answer: CountAnswer = {"data": (await self._dataset(call)).rows, "error": None}
        return Answer(answer)

    async def edit(self, call: RouteCall) -> Answer:
        """New bodies for one row."""
        asked = await self._body(RowEdit, call)
        bodies = [
            None if body is None else orjson.dumps(body).decode() for body in (asked.request_body, asked.response_body)
        ]
        row_id = call.parameters["requestId"]
        edited = await self._storage.edit_dataset_row(
            call.organisation, call.parameters["id"], row_id, request=bodies[0], response=bodies[1]
        )
        if not edited:
            raise Failed(404, "not_found", "Dataset row not found")
        return Answer(_DONE)

    async def delete(self, call: RouteCall) -> Answer:
        """The dataset with its rows; the calls stay."""
        if not await self._storage.delete_dataset(call.organisation, call.parameters["id"]):
            raise NO_DATASET
        return Answer(_DONE)

    async def _body(self, model: type[M], call: RouteCall) -> M:
        return validate_as_portkey(model, await self._reader.read(call), code=INVALID)

    async def _dataset(self, call: RouteCall) -> DatasetSummary:
        found = await self._storage.list_datasets(call.organisation, [call.parameters["id"]])
        if not found:
            raise NO_DATASET
        return found[0]


def _tree(filter: Any) -> Node | None:
    """What a filter means of the calls that have started by now: others go on coming."""
    if filter is None:
        return None
    by_now = Condition(Field("started_at"), Operator.LTE, time.time_ns() // 1000)
    return All((read_filter(filter), by_now))


def _item(summary: DatasetSummary) -> DatasetItem:
    dataset = summary.dataset
    return {
        "id": dataset.id,
        "name": dataset.name,
        "created_at": iso_time(dataset.created_at),
        "dataset_type": "helicone",
        "meta": orjson.loads(dataset.meta) if dataset.meta is not None else None,
        "organization": dataset.organisation,
        "requests_count": summary.rows,
    }


def _texts(dataset_id: str, rows: Iterable[DatasetRow]) -> list[bytes]:
    return [orjson.dumps(_row_item(dataset_id, one)) for one in rows]


def _row_item(dataset_id: str, copied: DatasetRow) -> DatasetRowItem:
    shown = row(copied.stored, include_body=True)
    return {
        "id": copied.id,
        "origin_request_id": shown["request_id"],
        "dataset_id": dataset_id,
        "created_at": iso_time(copied.created_at),
        "signed_url": None,
        "request_body": shown["request_body"],
        "response_body": shown["response_body"],
    }
