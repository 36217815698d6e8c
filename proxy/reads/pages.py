"""Many rows as JSON: read and written in pieces, so that neither memory nor the event loop feels their number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, cast

import orjson

from proxy.dialects import Failed
from proxy.reads.rows import row
from proxy.reads.shapes import Row
from storage.base import Storage
from storage.records import StoredCall

__all__ = ["rows_as_json", "stored_calls"]

_MiB: Final = 1024 * 1024
_MOST_BYTES: Final = 8 * _MiB
_LARGEST_ANSWER: Final = 64 * _MiB


async def stored_calls(
    storage: Storage, organisation: str, numbers: Sequence[int]
) -> AsyncIterator[Sequence[StoredCall]]:
    """The rows of these numbers, in their order, some at a time; those that have gone are left out."""
    rest = list(numbers)
    while rest:
        found = await storage.read_calls(organisation, rest, most_bytes=_MOST_BYTES)
        if not found:
            return
        yield list(found.values())
        rest = rest[rest.index(list(found)[-1]) + 1 :]


async def rows_as_json(storage: Storage, organisation: str, numbers: Sequence[int], *, include_body: bool) -> list[Row]:
    """The rows as `row` shows them, in JSON text that stands in an answer as it is.

    Raises `Failed` (400) where they are too many bytes for one.
    """
    rows: list[orjson.Fragment] = []
    size = 0
    async for some in stored_calls(storage, organisation, numbers):
        texts = await asyncio.to_thread(_texts, some, include_body)
        size += sum(map(len, texts))
        if size > _LARGEST_ANSWER:
            largest = _LARGEST_ANSWER // _MiB
            raise Failed(
                400, "answer_too_large", f"The answer has more than {largest} MiB: ask for fewer rows at once."
            )
        rows += map(orjson.Fragment, texts)
    return cast(list[Row], rows)


def _texts(some: Iterable[StoredCall], include_body: bool) -> list[bytes]:
    return [orjson.dumps(row(stored, include_body=include_body)) for stored in some]
