"""What every backend promises of calls (`storage.base.Storage`), and of whatever is asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from storage import Storage, StorageError, open_storage
from storage.base import RefusedRowError
from storage.records import Body, Call, Score, StoredCall, Usage
from tests.storage import (
    ACME,
    NOW,
    UNSTORABLE,
    VERDICT,
    a_call,
    a_rating,
    a_session_rating,
    a_value,
    add_values,
    feedback_of,
    forget,
    listed,
    row,
)

ODD_TEXTS = {
    "unicode": "Zoë 北京 \U0001f600 e\u0301",
    "256 characters": "\U0001f600" * 256,
    "quotes": "a'b\"c;--%_\\ ?:id",
    "json": '{"a": [1]}',
    "lines": "a\r\nb\t\x1f",
    "NUL": "a\0b",
    "number": "007",
    "blank": " ",
}

TEXTS = ["trace_id", "span_id", "parent_span_id", "span_name", "session_id", "session_name", "session_path", "user_id"]
TEXTS += ["prompt_id", "prompt_version", "model_override", "request_model", "response_model", "provider_response_id"]
TEXTS += ["finish_reason", "error_kind", "error_message"]
FULL = a_call(
    **{name: f"{name} text" for name in TEXTS},
    cost=0.1 + 0.2,
    status=200,
    is_stream=True,
    time_to_first_token=12,
    usage=Usage(1, 2, 3, 4, 5, 6, 7, 2**62),
    properties={"App": "Chat", "empty": ""},
    request=Body(b"asked" * 100, 9000, truncated=True, content_type="application/json", content_encoding="gzip"),
    response=Body(None, 17, omitted=True, content_type="text/event-stream; charset=utf-8"),
)


@pytest.mark.parametrize("call", [FULL, a_call()], ids=["all that is known", "the least that is known"])
async def test_a_call_is_read_back_as_it_was_written(store: Storage, call: Call) -> None:
    await store.write_calls([call])
    assert await row(store) == StoredCall(call, 1, (), ())


async def test_calls_that_fill_other_columns_may_stand_in_one_group_and_follow_one_another(store: Storage) -> None:
    kept_out = Body(None, 7, truncated=True, omitted=True, content_encoding="br")
    known = replace(FULL, response=kept_out, request=replace(kept_out, content_type="text/plain"))
    calls = [a_call(), FULL, a_call(user_id=""), a_call(properties={"A": "b"}), known, a_call(is_stream=True), a_call()]
    calls = [replace(call, request_id=f"r{number}") for number, call in enumerate(calls)]
    for group in (calls[:1], calls[1:3], calls[3:6], calls[6:]):
        await store.write_calls(group)
    assert [(await row(store, call.request_id)).call for call in calls] == calls


@pytest.mark.parametrize(
    "data",
    [b"", b"x", bytes(range(256)), b"a" * 511, b"a" * 512, bytes(4 * 2**20), os.urandom(2**20), b"\xff\x00" * 400],
    ids=["empty", "byte", "every byte", "511", "512", "4 MiB of zeros", "1 MiB of noise", "no text"],
)
async def test_bodies_come_back_to_the_byte(store: Storage, data: bytes) -> None:
    body = Body(data, len(data))
    await store.write_calls([a_call(request=body, response=body)])
    call = (await row(store)).call
    assert (call.request, call.response) == (body, body)


async def test_a_request_id_seen_before_makes_the_next_attempt(store: Storage) -> None:
    await store.write_calls([a_call(status=500), a_call("other"), a_call(status=429)])
    await store.write_calls([a_call(status=200)])
    assert [(await row(store, attempt=n)).call.status for n in (1, 2, 3, None)] == [500, 429, 200, 200]
    assert [(await row(store, attempt=n)).attempt for n in (1, 2, 3, None)] == [1, 2, 3, 3]
    assert await store.read_call(ACME, "r1", 4) is None


async def test_a_response_id_means_the_row_that_carries_it_and_a_request_id_goes_first(store: Storage) -> None:
    await store.write_calls([a_call(provider_response_id="resp-1"), a_call(provider_response_id="resp-2")])
    await store.write_calls([a_call("resp-3"), a_call("r2", provider_response_id="resp-3")])
    assert [(await row(store, id)).attempt for id in ("resp-1", "resp-2")] == [1, 2]
    assert (await row(store, "resp-1", 2)).call.provider_response_id == "resp-2"
    assert (await row(store, "resp-3")).call.request_id == "resp-3"
    assert await store.read_call(ACME, "resp-9", None) is None


async def test_large_bodies_among_small_ones_stay_with_their_attempt(store: Storage) -> None:
    bodies = [Body(data, len(data)) for data in (b"small", b"1" * 2**21, os.urandom(2**20 + 1), b"2" * 2**20)]
    await store.write_calls([a_call(request=body, response=bodies[n - 1]) for n, body in enumerate(bodies)])
    for attempt, body in enumerate(bodies, 1):
        call = (await row(store, attempt=attempt)).call
        assert (call.request, call.response) == (body, bodies[attempt - 2])


async def test_a_group_with_a_large_body_is_written_as_a_whole_or_not_at_all(store: Storage) -> None:
    large = a_call(request=Body(bytes(2**20), 2**20))
    with pytest.raises(RefusedRowError):
        await store.write_calls([a_call("small"), large, a_call("poison", user_id=UNSTORABLE)])
    assert await store.read_call(ACME, "r1", None) is None
    assert await store.read_call(ACME, "small", None) is None


@pytest.mark.parametrize("size", [2, 31, 100])
async def test_a_group_with_a_row_that_is_refused_is_not_written_at_all(store: Storage, size: int) -> None:
    calls = [a_call(f"r{number}") for number in range(size)]
    with pytest.raises(RefusedRowError):
        await store.write_calls([*calls, a_call("poison", user_id=UNSTORABLE)])
    assert await store.read_call(ACME, "r0", None) is None
    await store.write_calls(calls)
    assert [(await row(store, call.request_id)).attempt for call in calls] == [1] * size


@pytest.mark.parametrize(
    "fields",
    [{"request_id": UNSTORABLE}, {"user_id": UNSTORABLE}, {"properties": {"a": UNSTORABLE}}, {"status": 2**63}],
    ids=lambda fields: next(iter(fields)),
)
async def test_a_row_that_could_not_be_read_again_is_refused(store: Storage, fields: dict[str, Any]) -> None:
    with pytest.raises(RefusedRowError):
        await store.write_calls([a_call(**fields)])


async def test_no_calls_are_written_without_ado(store: Storage) -> None:
    await store.write_calls([])


async def test_what_was_written_is_there_after_a_restart_and_for_others(store: Storage, database: str) -> None:
    await store.write_calls([FULL])
    await store.add_rating(a_rating("f1"), known=False)
    other = await open_storage(database)
    assert await row(other) == await row(store)
    await other.write_calls([a_call()])
    await other.close()
    assert (await row(store)).attempt == 2


async def test_many_stores_may_open_a_new_database_at_once(database: str) -> None:
    stores = await asyncio.gather(*(open_storage(database) for _ in range(16)), return_exceptions=True)
    opened = [store for store in stores if not isinstance(store, BaseException)]
    for store in opened:
        await store.close()
    assert [store for store in stores if isinstance(store, BaseException)] == []


async def test_attempts_are_numbered_without_gaps_by_many_writers_at_once(store: Storage, database: str) -> None:
    other = await open_storage(database)
    writes = [(store if n % 2 else other).write_calls([a_call(user_id=str(n)), a_call(f"own{n}")]) for n in range(60)]
    await asyncio.gather(*writes)
    await other.close()
    users = [(await row(store, attempt=n)).call.user_id for n in range(1, 61)]
    assert sorted(users, key=lambda user: int(user or 0)) == [str(n) for n in range(60)]
    assert [(await row(store, f"own{n}")).attempt for n in range(60)] == [1] * 60


async def test_feedback_calls_and_reads_may_all_come_at_once(store: Storage) -> None:
    await store.write_calls([a_call()])
    work: list[Awaitable[Any]] = []
    for n in range(40):
        work += [store.write_calls([a_call(f"c{n}")]), store.add_rating(a_rating(f"f{n}", value=n % 2), known=False)]
        work += [add_values(store, a_value(f"v{n}", "r1")), store.read_call(ACME, "r1", None)]
        work += [store.merge_scores(ACME, "r1", [Score(f"s{n}", n)], **NOW)]
    await asyncio.gather(*work)
    stored = await row(store)
    ratings = [item for item in stored.feedback if item.kind == "rating"]
    assert (len(stored.scores), len(stored.feedback)) == (40, 80)
    assert [item.effective for item in ratings] == [False] * 39 + [True]
    assert [(await row(store, f"c{n}")).attempt for n in range(40)] == [1] * 40


async def test_a_caller_cancelled_in_mid_write_leaves_nothing_half_done(store: Storage) -> None:
    await store.write_calls([a_call()])
    for turns in range(25):
        group = [a_value(f"v{turns}.{n}", f"t{turns}") for n in range(3)]
        tasks = [asyncio.ensure_future(add_values(store, *group))]
        tasks.append(asyncio.ensure_future(store.write_calls([a_call(f"c{turns}.{n}") for n in range(40)])))
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.add_rating(a_rating(f"f{turns}"), known=False)
        assert len(await listed(store, trace_id=f"t{turns}")) in (0, 3)
        found = [await store.read_call(ACME, f"c{turns}.{n}", None) is not None for n in range(40)]
        assert found in ([True] * 40, [False] * 40)
    assert len((await row(store)).feedback) == 25


async def test_nothing_of_another_organisation_is_seen_or_changed(store: Storage) -> None:
    await store.write_calls([replace(FULL, session_id="s", trace_id="t", provider_response_id="resp")])
    await store.add_rating(a_rating("f1"), known=False)
    await add_values(store, a_value("v1", "t"))
    before = await row(store)
    for id in ("r1", "resp"):
        assert await store.read_call("beta", id, None) is None
        assert not await store.add_rating(a_rating("b1", id, organisation="beta"), known=False)
        assert not await store.merge_scores("beta", id, [Score("a", 1)], **NOW)
        assert not await store.set_property("beta", id, "App", "b", **NOW)
    assert not await store.add_session_rating(a_session_rating("b2", "s", organisation="beta"), known=False)
    assert not await store.update_value("beta", "v1", value=0, weight=0, metadata="{}", updated_at=9)
    assert not await store.delete_feedback("beta", "v1")
    assert not await store.delete_feedback("beta", "f1")
    await add_values(store, *(a_value(f"b.{text}", text, organisation="beta") for text in ("t", "r1", "resp")))
    await store.add_rating(a_rating("b3", organisation="beta", value=0), known=True)
    await store.add_session_rating(a_session_rating("b4", "s", organisation="beta"), known=True)
    await store.set_property("beta", "r1", "App", "b", known=True, updated_at=2)
    assert len(await store.list_feedback("beta", unmatched=True)) == 5
    assert await row(store) == before
    await store.write_calls([a_call(organisation="beta", session_id="other")])
    beta = await store.read_call("beta", "r1", None)
    assert beta is not None
    assert (beta.attempt, feedback_of(beta)) == (1, {"b.r1": True, "b3": True})
    assert (await row(store), await listed(store, unmatched=True)) == (before, {})


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
async def test_odd_text_is_kept_as_it_is_wherever_it_stands(store: Storage, text: str) -> None:
    call = a_call(text, trace_id=text, session_id=text, user_id=text, properties={text: text, "b": text})
    await store.write_calls([call])
    assert await store.add_rating(a_rating("f1", text, comment=text, metadata=text), known=False)
    assert await store.add_session_rating(a_session_rating("f2", text, comment=text), known=False)
    assert await store.merge_scores(ACME, text, [Score(text, 1)], **NOW)
    assert await store.set_property(ACME, text, f"{text}2", text, **NOW)
    stored = await row(store, text)
    own = text.replace("\0", "")  # a call's own properties hold no NUL: SQLite's JSON ends a text there
    assert stored.call == replace(call, properties={own: own, "b": own, VERDICT: "1", f"{text}2": text})
    assert (stored.scores, stored.feedback) == ((Score(text, 1),), (a_rating("f1", text, comment=text, metadata=text),))
    assert list(await listed(store, session_id=text)) == ["f2"]
    assert await listed(store, unmatched=True) == {}


Ask = Callable[[Storage, str], Awaitable[Any]]
ASKS: dict[str, Ask] = {
    "write_calls": lambda store, text: store.write_calls([a_call(text)]),
    "add_rating": lambda store, text: store.add_rating(a_rating("f1", text), known=True),
    "add_session_rating": lambda store, text: store.add_session_rating(a_session_rating("f1", text), known=True),
    "add_values": lambda store, text: add_values(store, a_value("v1", text)),
    "update_value": lambda store, text: store.update_value(
        ACME, text, value=1, weight=None, metadata=None, updated_at=1
    ),
    "delete_feedback": lambda store, text: store.delete_feedback(ACME, text),
    "list_feedback": lambda store, text: store.list_feedback(ACME, trace_id=text),
    "merge_scores": lambda store, text: store.merge_scores(ACME, text, [Score("a", 1)], known=True, updated_at=1),
    "set_property": lambda store, text: store.set_property(ACME, text, "a", "b", known=True, updated_at=1),
    "read_call": lambda store, text: store.read_call(ACME, text, None),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
async def test_a_text_that_cannot_be_stored_is_a_storage_error_and_no_other(store: Storage, ask: Ask) -> None:
    with contextlib.suppress(StorageError):
        await ask(store, UNSTORABLE)
    await store.check()
    assert await listed(store) == {}


@pytest.mark.parametrize("ask", [lambda store, text: store.check(), *ASKS.values()], ids=["check", *ASKS])
async def test_a_closed_store_says_so(database: str, ask: Ask) -> None:
    store = await open_storage(database)
    await store.close()
    async with asyncio.timeout(1):
        with pytest.raises(StorageError):
            await ask(store, "r1")


async def test_what_was_accepted_before_closing_is_written(store: Storage, database: str) -> None:
    closing = await open_storage(database)
    writes = [asyncio.ensure_future(closing.write_calls([a_call(f"r{number}")])) for number in range(50)]
    await asyncio.sleep(0)
    await closing.close()
    await asyncio.gather(*writes)
    assert [(await row(store, f"r{number}")).attempt for number in range(50)] == [1] * 50


async def test_an_attempt_takes_no_number_that_a_later_one_than_a_deleted_one_has(store: Storage) -> None:
    await store.write_calls([a_call(started_at=10)])
    await store.write_calls([a_call(started_at=1000)])
    await forget(store, 100)
    await store.write_calls([a_call("r2"), a_call(started_at=2000)])
    assert [((await row(store, attempt=n)).call.started_at) for n in (2, 3, None)] == [1000, 2000, 2000]
    assert await store.read_call(ACME, "r1", 1) is None
    assert (await row(store, "r2")).attempt == 1
