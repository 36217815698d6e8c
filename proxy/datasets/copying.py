"""Calls into a dataset: found, and copied some at a time, so that neither memory nor the writer feels their number."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from proxy.dialects import Failed
from proxy.export.walk import found_calls
from proxy.feedback.clock import now
from proxy.identity import new_id
from proxy.reads.pages import stored_calls
from storage.base import Storage
from storage.filters import All, Condition, Field, Node, OneOf, Operator
from storage.queries import Page, Sort
from storage.records import DatasetRow, StoredCall

__all__ = ["NO_DATASET", "copy_found", "copy_numbers", "numbers_of"]

_LATEST: Final = Condition(Field("is_latest_attempt"), Operator.EQUALS, True)
# A call is known by these; what is not the first of them may be the second.
_NAMES: Final = (Field("request_id"), Field("provider_response_id"))
NO_DATASET: Final = Failed(404, "not_found", "Dataset not found")
# Requests may share a response id.
_MOST: Final = 10_000


async def numbers_of(storage: Storage, organisation: str, ids: Sequence[str]) -> list[int]:
    """The numbers of the last attempts of calls, in the order of their ids. Raises `Failed` (404) for an unknown id."""
    known: dict[str, int] = {}
    for name in _NAMES:
        rest = tuple(one for one in ids if one not in known)
        if rest:
            where = All((OneOf(name, rest), _LATEST))
            found = await storage.find_calls(organisation, where, Sort(name), Page(_MOST))
            known |= {str(position.value): position.number for position in found}
    unknown = [one for one in ids if one not in known]
    if unknown:
        raise Failed(404, "not_found", f"Request not found: {unknown[0]:.100}")
    return list(dict.fromkeys(known[one] for one in ids))


async def copy_numbers(storage: Storage, organisation: str, dataset_id: str, numbers: Sequence[int]) -> None:
    """Copy these calls. Raises `Failed` (404) where there is no such dataset."""
    await _copy(storage, organisation, dataset_id, stored_calls(storage, organisation, numbers))


async def copy_found(storage: Storage, organisation: str, dataset_id: str, where: Node) -> None:
    """Copy the last attempts of all calls that a tree means. Raises `Failed` (404) where there is no such dataset."""
    await _copy(storage, organisation, dataset_id, found_calls(storage, organisation, All((where, _LATEST))))


async def _copy(
    storage: Storage, organisation: str, dataset_id: str, calls: AsyncIterator[Sequence[StoredCall]]
) -> None:
    async for some in calls:
        rows = [DatasetRow(new_id(), now(), stored) for stored in some]
        if not await storage.add_to_dataset(organisation, dataset_id, rows):
            raise NO_DATASET
