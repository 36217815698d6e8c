"""What can be searched of bodies: found at once, whatever the index has come to, and gone with its call."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from storage.filters import Condition, Field, OneOf, Operator
from storage.pruning import Prunable, Pruning
from storage.queries import OLDEST_FIRST, Page
from storage.records import Body, Call
from storage.sqlite import SqliteStorage, open_sqlite
from storage.texts import PLAIN_TEXTS, TextReader
from tests.storage import ACME, a_call
from tests.storage.test_pruning_contract import prune
from tests.storage.test_sharing_contract import LATER, a_chat

MIB = 2**20
ALL: dict[str, int] = {"most_calls": 1000, "most_bytes": 2**30}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kibitz.db"


Open = Callable[..., Awaitable[SqliteStorage]]


@pytest.fixture
async def open_store(path: Path) -> AsyncIterator[Open]:
    """Opens the file with a reader of texts; closed at the end, as often as it is."""
    async with contextlib.AsyncExitStack() as stack:

        async def open(texts: TextReader = PLAIN_TEXTS) -> SqliteStorage:
            store = await open_sqlite(str(path), texts=texts)
            stack.push_async_callback(store.close)
            return store

        yield open


@pytest.fixture
async def store(open_store: Open) -> SqliteStorage:
    return await open_store()


def saying(request_id: str, text: str, answer: str = "") -> Call:
    sides = {"request": text.encode(), "response": answer.encode()}
    return a_call(request_id, **{side: Body(data, len(data)) for side, data in sides.items()})


async def having(store: SqliteStorage, text: str, field: str = "text") -> list[str]:
    where = Condition(Field(field), Operator.CONTAINS, text)
    found = await store.find_calls(ACME, where, OLDEST_FIRST, Page(1000))
    rows = await store.read_calls(ACME, [position.number for position in found], most_bytes=2**30)
    return [row.call.request_id for row in rows.values()]


def indexed(path: Path, group: str) -> list[int]:
    """The calls that the index itself has for three characters."""
    with closing(sqlite3.connect(path)) as db:
        return [number for (number,) in db.execute("SELECT rowid FROM call_texts WHERE call_texts MATCH ?", [group])]


async def test_a_text_is_found_before_the_index_has_come_to_it_and_afterwards(store: SqliteStorage, path: Path) -> None:
    await store.write_calls([saying("r1", "What is a Walrus?", "A large seal."), saying("r2", "walrus")])
    for step in (0, 1, 1, 0):
        if step:
            assert await store.index_texts(most_calls=1, most_bytes=1) == 1
        assert await having(store, "WALRUS") == ["r1", "r2"]
        assert await having(store, "large s") == ["r1"]
        assert await having(store, "al", "response_text") == ["r1"]
        assert await having(store, "walrus", "response_text") == []
    assert await store.index_texts(**ALL) == 0
    assert indexed(path, "wal") == [1, 2]


async def test_groups_that_stand_apart_are_no_text(store: SqliteStorage) -> None:
    await store.write_calls([saying("r1", "abcd bcde"), saying("r2", "abcde")])
    await store.index_texts(**ALL)
    assert await having(store, "abcde") == ["r2"]


async def test_signs_of_the_index_s_language_and_odd_characters_are_text(store: SqliteStorage) -> None:
    odd = ['say "AND" OR', "NEAR(a b)", "nul\0nul", "smile 😀😀😀", "ǅungla", "İstanbul", "Straße", "%_*?["]
    await store.write_calls([saying(str(place), text) for place, text in enumerate(odd)])
    for _ in range(2):
        for place, text in enumerate(odd):
            assert await having(store, text) == [str(place)]
            assert await having(store, text[2:]) == [str(place)]
        await store.index_texts(**ALL)
    assert await having(store, "STRASSE") == ["6"]


async def test_a_body_in_pieces_is_searched(store: SqliteStorage) -> None:
    large = Body(b"x" * MIB + b" needle", MIB + 7)
    await store.write_calls([a_call("r1", request=large, response=large)])
    assert await having(store, "needle") == ["r1"]
    await store.index_texts(**ALL)
    assert await having(store, "needle", "response_text") == ["r1"]


async def test_a_long_text_is_searched_for_as_a_whole(store: SqliteStorage) -> None:
    text = " ".join(map(str, range(2000)))
    await store.write_calls([saying("r1", text), saying("r2", text + "!")])
    await store.index_texts(**ALL)
    assert await having(store, text[100:] + "!") == ["r2"]


async def test_a_replaced_answer_is_found_by_what_it_says_now(store: SqliteStorage, path: Path) -> None:
    old = saying("r1", "ask", "seals")
    await store.write_calls([old, saying("r2", "other")])
    await store.index_texts(**ALL)
    assert await store.replace_response(replace(old, response=Body(b"otter", 5)))
    assert indexed(path, "sea") == []
    for _ in range(3):
        assert await having(store, "otter") == ["r1"]
        assert await having(store, "seals") == []
        await store.index_texts(**ALL)
    assert indexed(path, "ott") == [1]


async def test_what_is_replaced_while_it_is_indexed_is_indexed_again(path: Path, open_store: Open) -> None:
    reading, goes_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(_: str, body: Body) -> str:
        if not goes_on.is_set():
            loop.call_soon_threadsafe(reading.set)
            asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result()
        return (body.data or b"").decode()

    store = await open_store(TextReader(0, PLAIN_TEXTS.request, slow))
    old = saying("r1", "ask", "seals")
    await store.write_calls([old])
    step = asyncio.create_task(store.index_texts(**ALL))
    await reading.wait()
    replacing = asyncio.create_task(store.replace_response(replace(old, response=Body(b"otter", 5))))
    await replacing
    goes_on.set()
    assert await step == 1
    assert indexed(path, "sea") == []
    while await store.index_texts(**ALL):
        pass
    assert await having(store, "otter") == ["r1"]
    assert indexed(path, "ott") == [1]


async def test_another_reader_of_texts_has_the_index_made_anew(path: Path, open_store: Open) -> None:
    first = await open_store()
    await first.write_calls([saying("r1", "seals"), saying("r2", "walrus")])
    await first.index_texts(**ALL)
    shouting = TextReader(1, lambda _, body: f"{(body.data or b'').decode()} indeed", PLAIN_TEXTS.response)
    second = await open_store(shouting)
    assert await having(second, "seals indeed") == ["r1"]  # though the index knows nothing of it
    assert await second.index_texts(**ALL) == 2
    assert indexed(path, "ind") == [1, 2]
    assert await having(second, "seals indeed") == ["r1"]


async def test_what_is_deleted_leaves_no_words_and_its_number_can_be_had_again(path: Path, open_store: Open) -> None:
    store = await open_store()
    await store.write_calls([saying("r1", "seals"), saying("r2", "walrus"), saying("r3", "otter")])
    await store.index_texts(**ALL)
    await delete(store, [2, 3])
    assert indexed(path, "wal") == indexed(path, "ott") == []
    await store.write_calls([saying("r4", "beaver")])
    assert await having(store, "beaver") == ["r4"]
    while await store.index_texts(**ALL):
        pass
    assert await having(store, "beaver") == ["r4"]
    assert await having(store, "seals") == ["r1"]
    assert indexed(path, "bea") == [2]


async def test_what_another_reader_indexed_goes_with_the_first_deletion(path: Path, open_store: Open) -> None:
    first = await open_store()
    await first.write_calls([saying("r1", "seals"), saying("r2", "walrus")])
    await first.index_texts(**ALL)
    second = await open_store(replace(PLAIN_TEXTS, version=1))
    await delete(second, [2])
    assert indexed(path, "wal") == []
    assert await having(second, "seals") == ["r1"]


@pytest.mark.parametrize("text", ["walrus", "walrus " * (MIB // 5)], ids=["small", "in pieces"])
async def test_bodies_that_go_alone_leave_no_words_either(store: SqliteStorage, path: Path, text: str) -> None:
    await store.write_calls([saying("r1", "seals"), saying("r2", text, text)])
    await store.index_texts(**ALL)
    assert indexed(path, "wal") == [2]
    assert await prune(store, Pruning(where=_WALRUS, bodies_only=True)) == 1
    assert indexed(path, "wal") == []
    assert await having(store, "walrus") == []
    assert await having(store, "seals") == ["r1"]
    assert await prune(store, Pruning()) == 2
    assert indexed(path, "sea") == []


async def test_what_goes_while_it_is_indexed_is_not_indexed(path: Path, open_store: Open) -> None:
    reading, goes_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(path: str, body: Body) -> str:
        if not goes_on.is_set():
            loop.call_soon_threadsafe(reading.set)
            asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result()
        return PLAIN_TEXTS.request(path, body)

    store = await open_store(TextReader(0, slow, PLAIN_TEXTS.response))
    await store.write_calls([saying("r1", "seals"), saying("r2", "walrus")])
    step = asyncio.create_task(store.index_texts(**ALL))
    await reading.wait()
    await delete(store, [2])
    goes_on.set()
    await step
    while await store.index_texts(**ALL):
        pass
    assert indexed(path, "wal") == []
    assert indexed(path, "sea") == [1]


async def test_no_group_of_what_has_gone_is_left_in_the_file(store: SqliteStorage, path: Path) -> None:
    for place in range(20):
        await store.write_calls([saying(f"r{place}", f"seals {place}"), saying(f"w{place}", f"{place}🦜 walrus")])
        await store.index_texts(**ALL)
    assert "walrus"[:3].encode() in index_bytes(path)
    assert await prune(store, Pruning(where=_WALRUS)) == 20
    assert await store.purge_texts(begin=True)
    while await store.purge_texts(begin=False):
        pass
    assert "walrus"[:3].encode() not in index_bytes(path)
    assert len(await having(store, "seals")) == 20
    assert indexed(path, "sea") == list(range(1, 41, 2))


async def test_texts_of_bodies_that_are_kept_once_are_found(store: SqliteStorage, path: Path) -> None:
    await store.write_calls(a_chat(Random(1), "s", 6))
    [before] = [await having(store, '"role": "assistant"', "request_text")]
    assert before == [f"s.{turn}" for turn in range(1, 6)]
    await store.index_texts(most_calls=3, most_bytes=MIB)
    while await store.share_bodies(LATER):
        pass
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM body_bases").fetchone() == (5,)
    assert await having(store, '"role": "assistant"', "request_text") == before
    while await store.index_texts(**ALL):
        pass
    assert await having(store, '"role": "assistant"', "request_text") == before
    assert indexed(path, "ass") == [2, 3, 4, 5, 6]
    assert await prune(store, Pruning(where=OneOf(Field("request_id"), ("s.1", "s.5")))) == 2
    assert indexed(path, "ass") == [3, 4, 5]
    assert await having(store, '"role": "assistant"', "request_text") == before[1:4]


_WALRUS = Condition(Field("text"), Operator.CONTAINS, "walrus")


def index_bytes(path: Path) -> bytes:
    """What the index holds, as it lies in the file."""
    with closing(sqlite3.connect(path)) as db:
        return b"".join(block for (block,) in db.execute("SELECT block FROM call_texts_data"))


async def delete(store: SqliteStorage, numbers: list[int]) -> None:
    await store.prune(Pruning(), Prunable(dict.fromkeys(numbers, 0), None))
