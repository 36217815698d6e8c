"""An export under way: calls are read some at a time, each time anew, and become the next piece of a file.

Nothing is held between two pieces but a place in the log: no transaction of the store's, and no thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Final, TypeVar

from proxy.export.formats import Format
from proxy.reads.pages import stored_calls
from storage.base import Storage
from storage.filters import Node
from storage.queries import OLDEST_FIRST, Page, Position
from storage.records import StoredCall

__all__ = ["dataset_calls", "exported", "found_calls"]

T = TypeVar("T")

_PAGE: Final = 500
_MOST_BYTES: Final = 8 * 1024 * 1024
_PIECE: Final = 256 * 1024
"""Bytes, and what the last line of a piece is longer."""


async def found_calls(storage: Storage, organisation: str, where: Node) -> AsyncGenerator[Sequence[StoredCall]]:
    """The calls that a tree means, oldest first, some at a time."""
    after: Position | None = None
    while found := await storage.find_calls(organisation, where, OLDEST_FIRST, Page(_PAGE, after=after)):
        async for some in stored_calls(storage, organisation, [position.number for position in found]):
            yield some
        after = found[-1]


async def dataset_calls(storage: Storage, organisation: str, dataset_id: str) -> AsyncGenerator[Sequence[StoredCall]]:
    """The copies of a dataset, in their order, some at a time."""
    after = 0
    while some := await storage.read_dataset(
        organisation, dataset_id, after=after, most_rows=_PAGE, most_bytes=_MOST_BYTES
    ):
        yield [row.stored for row in some]
        after = some[-1].number


async def exported(calls: AsyncGenerator[Sequence[StoredCall]], form: Format) -> AsyncGenerator[bytes]:
    """The pieces of the file. When they come no more, ``form.tally`` is complete."""
    try:
        async with aclosing(calls):
            async for some in calls:
                async with aclosing(_pieces(form.add, some)) as pieces:
                    async for piece in pieces:
                        yield piece
        async with aclosing(_pieces(form.end)) as pieces:
            async for piece in pieces:
                yield piece
    finally:
        form.close()


async def _pieces(make: Callable[..., Iterator[bytes]], *given: Sequence[StoredCall]) -> AsyncGenerator[bytes]:
    lines = await _aside(lambda: make(*given))
    while piece := await _aside(lambda: _next_piece(lines)):
        yield piece


def _next_piece(lines: Iterator[bytes]) -> bytes:
    parts: list[bytes] = []
    size = 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size >= _PIECE:
            break
    return b"".join(parts)


async def _aside(work: Callable[[], T]) -> T:
    """In a thread. Whoever is told to stop meanwhile stops when the thread has: what it uses may be closed then."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
