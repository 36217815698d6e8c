"""What a store promises of datasets: copies that nothing but an edit changes, and that are their organisation's own."""

from __future__ import annotations

import os
from dataclasses import replace

from storage import Storage
from storage.records import Body, Call, Dataset, DatasetRow, Score, StoredCall, Usage
from tests.storage import ACME, NOW, a_call, a_rating, a_value, add_values, row

EVERYTHING = {"most_rows": 1000, "most_bytes": 2**40}


def a_dataset(id: str = "d", organisation: str = ACME) -> Dataset:
    return Dataset(id, organisation, "the good ones", '{"a": 1}', 7)


async def copied(store: Storage, *stored: StoredCall, dataset: str = "d") -> None:
    rows = [DatasetRow(f"{dataset}-{one.call.request_id}", 8, one) for one in stored]
    assert await store.add_to_dataset(ACME, dataset, rows)


async def read(store: Storage, dataset: str = "d") -> list[DatasetRow]:
    return list(await store.read_dataset(ACME, dataset, **EVERYTHING))


async def a_full_call(store: Storage) -> StoredCall:
    """With every kind of thing that joins a call, and a body that is stored in pieces."""
    noise = os.urandom(3 * 2**20)
    request = Body(b'{"a": "\xc3\xa9"}' * 200, 2000, content_type="application/json", content_encoding="identity")
    await store.write_calls(
        [
            a_call(
                status=200,
                properties={"A\0": "b"},
                usage=Usage(prompt_tokens=3),
                cost=0.5,
                request=request,
                response=Body(noise, len(noise), truncated=True),
            )
        ]
    )
    await store.merge_scores(ACME, "r1", [Score("s", 1.5), Score("b", 1.0, is_boolean=True)], **NOW)
    await store.add_rating(a_rating("f", comment="good", metadata='{"m": 1}'), known=False)
    await add_values(store, a_value("v", "r1", -5, weight=0.5))
    return await row(store)


async def test_a_copy_is_all_of_the_call_and_what_happens_to_the_call_does_not_change_it(store: Storage) -> None:
    stored = await a_full_call(store)
    await store.create_dataset(a_dataset())
    await copied(store, stored)
    await store.add_rating(a_rating("later", value=0), known=False)
    [found] = await read(store)
    assert replace(found, number=0) == DatasetRow("d-r1", 8, stored)


async def test_a_request_has_one_row_and_keeps_it(store: Storage) -> None:
    await store.write_calls([a_call("r1"), a_call("r2")])
    await store.create_dataset(a_dataset())
    await copied(store, await row(store, "r1"))
    edited = await store.edit_dataset_row(ACME, "d", "r1", request='{"edited": true}', response=None)
    assert edited
    again = [DatasetRow(f"another {id}", 9, await row(store, id)) for id in ("r1", "r2")]
    assert await store.add_to_dataset(ACME, "d", again)
    assert [one.id for one in await read(store)] == ["d-r1", "another r2"]
    bodies = [one.stored.call.request.data for one in await read(store)]
    assert bodies == [b'{"edited": true}', None]


async def test_an_edit_changes_the_bodies_that_it_has_and_nothing_else(store: Storage) -> None:
    stored = await a_full_call(store)
    await store.create_dataset(a_dataset())
    await copied(store, stored)
    for row_id, text in (("d-r1", '{"b": 1}'), ("r1", '{"b": "é"}')):
        assert await store.edit_dataset_row(ACME, "d", row_id, request=None, response=text)
        [found] = await read(store)
        data = text.encode()
        response = Body(data, len(data), content_type="application/json")
        assert found.stored == replace(stored, call=_with_response(stored, response))
    assert (await row(store)) == stored
    assert not await store.edit_dataset_row(ACME, "d", "r2", request="1", response=None)


def _with_response(stored: StoredCall, response: Body) -> Call:
    return replace(stored.call, response=response)


async def test_rows_are_removed_by_their_ids_and_by_their_requests(store: Storage) -> None:
    calls = [a_call(f"r{number}") for number in range(4)]
    await store.write_calls(calls)
    await store.create_dataset(a_dataset())
    await copied(store, *[await row(store, call.request_id) for call in calls])
    assert await store.remove_from_dataset(ACME, "d", ["r0", "d-r2", "nobody's"])
    assert [one.id for one in await read(store)] == ["d-r1", "d-r3"]


async def test_rows_are_read_in_pages_by_number_and_by_bytes(store: Storage) -> None:
    body = Body(b"x" * 100, 100)
    calls = [a_call(f"r{number}", request=body) for number in range(5)]
    await store.write_calls(calls)
    await store.create_dataset(a_dataset())
    await copied(store, *[await row(store, call.request_id) for call in calls])

    async def page(**bounds: int) -> list[str]:
        found = await store.read_dataset(ACME, "d", **{**EVERYTHING, **bounds})
        return [one.id.removeprefix("d-") for one in found]

    assert await page(most_rows=2) == ["r0", "r1"]
    assert await page(offset=3) == ["r3", "r4"]
    assert await page(most_bytes=101) == ["r0", "r1"]
    assert await page(most_bytes=1) == ["r0"]
    assert await page(after=(await read(store))[2].number) == ["r3", "r4"]
    assert await page(most_rows=0) == []


async def test_another_organisation_finds_changes_and_removes_nothing(store: Storage) -> None:
    await store.write_calls([a_call()])
    stored = await row(store)
    await store.create_dataset(a_dataset())
    await copied(store, stored)
    assert not await store.add_to_dataset("other", "d", [DatasetRow("x", 1, stored)])
    assert not await store.remove_from_dataset("other", "d", ["r1"])
    assert not await store.edit_dataset_row("other", "d", "r1", request="1", response=None)
    assert not await store.delete_dataset("other", "d")
    assert await store.list_datasets("other") == []
    assert await store.list_datasets("other", ["d"]) == []
    assert await store.read_dataset("other", "d", **EVERYTHING) == []
    [found] = await read(store)
    assert found.stored == stored


async def test_datasets_are_listed_with_their_rows_and_deleted_however_many_those_are(store: Storage) -> None:
    calls = [a_call(f"r{number}") for number in range(250)]
    await store.write_calls(calls)
    for name in ("d", "e"):
        await store.create_dataset(a_dataset(name))
        await copied(store, *[await row(store, call.request_id) for call in calls], dataset=name)
    listed = await store.list_datasets(ACME)
    assert [(one.dataset, one.rows) for one in listed] == [(a_dataset("d"), 250), (a_dataset("e"), 250)]
    assert await store.delete_dataset(ACME, "d")
    assert not await store.delete_dataset(ACME, "d")
    assert [one.dataset.id for one in await store.list_datasets(ACME)] == ["e"]
    assert await store.list_datasets(ACME, ["d"]) == []
    assert len(await read(store, "e")) == 250
    assert await store.count_calls() == 250


async def test_organisations_are_those_that_have_calls_or_datasets(store: Storage) -> None:
    assert await store.organisations() == []
    await store.write_calls([a_call("r1"), a_call("r2"), a_call("r1", organisation="beta")])
    await store.create_dataset(a_dataset("d", "an empty one"))
    await store.create_dataset(a_dataset("e", "beta"))
    assert await store.organisations() == [ACME, "an empty one", "beta"]
