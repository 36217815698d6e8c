"""Feedback that comes before its call's row: on calls in flight, on traces not seen yet, on ids kept on purpose."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tests.conftest import Running, StartKibitz
from tests.feedback import SAVED, add_value, ask, header_fields, listed, path_of, rate
from tests.upstream import CHAT_BODY, Connection, Upstream, chat_answer, chat_events, sse_answer


def chat(kibitz: Running, request_id: str, headers: dict[str, str], *, stream: bool) -> Any:
    """A call whose prompt is its request id."""
    body = {"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": request_id}]}
    fields = {"Helicone-Request-Id": request_id, **header_fields(headers)}
    return kibitz.client.post(f"{kibitz.base_url}/chat/completions", json=body, headers=fields)


@dataclass(slots=True)
class Held:
    """An upstream that answers plain calls at once, and holds streams after their first event.

    The prompt names a call: the answer's id is `chatcmpl-` and the prompt.
    """

    upstream: Upstream
    gates: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    async def serve(self, connection: Connection) -> None:
        while True:
            asked = orjson.loads((await connection.read_request()).body)
            prompt = asked["messages"][0]["content"]
            answer_id = f"chatcmpl-{prompt}"
            if not asked["stream"]:
                await connection.send(chat_answer(orjson.dumps({**orjson.loads(CHAT_BODY), "id": answer_id})))
                continue
            events = chat_events("Hello", id=answer_id)
            whole, begun = sse_answer(*events), sse_answer(events[0]).removesuffix(b"0\r\n\r\n")
            await connection.send(begun)
            await self.gates[prompt].wait()
            await connection.send(whole.removeprefix(begun))

    @contextlib.asynccontextmanager
    async def in_flight(self, kibitz: Running, request_id: str, **headers: str) -> AsyncIterator[None]:
        """A streamed call that has begun; when the block ends it goes on to its end, and its row is there."""
        async with chat(kibitz, request_id, headers, stream=True) as response:
            await response.content.readany()
            try:
                yield
            finally:
                self.gates[request_id].set()
            await response.read()


@pytest.fixture
def held(upstream: Upstream) -> Held:
    held = Held(upstream)
    upstream.script = held.serve
    return held


@pytest.fixture
async def keeping(start_kibitz: StartKibitz) -> Running:
    """A Kibitz that takes ratings for ids it has not seen."""
    return await start_kibitz(feedback={"unknown_request": "keep"})


async def call(kibitz: Running, request_id: str, **headers: str) -> None:
    """A plain call that the held upstream answers with the id `chatcmpl-` and the request id."""
    async with chat(kibitz, request_id, headers, stream=False) as response:
        assert response.status == 200
        await response.read()


async def verdicts(kibitz: Running, request_id: str) -> list[tuple[int, bool]]:
    items = (await kibitz.row(request_id))["feedback"]["items"]
    return [(item["value"], item["effective"]) for item in items]


async def rate_session(kibitz: Running, session_id: str, rating: bool) -> Any:
    return await ask(kibitz, "POST", path_of("/session/{id}/feedback", session_id), {"rating": rating})


async def marks(kibitz: Running, *request_ids: str) -> list[str | None]:
    """The sessions' verdicts that these requests carry."""
    rows = [await kibitz.row(request_id) for request_id in request_ids]
    return [row["properties"].get("Helicone-Session-Feedback") for row in rows]


async def test_a_rating_of_a_call_in_flight_joins_its_row(kibitz: Running, held: Held) -> None:
    async with held.in_flight(kibitz, "r"):
        replies = [await rate(kibitz, "r", rating) for rating in (True, False)]
        assert (await ask(kibitz, "GET", "/request/r")).status == 404
    assert [(reply.status, reply.body) for reply in replies] == [(200, SAVED)] * 2
    assert await verdicts(kibitz, "r") == [(1, False), (0, True)]


async def test_a_legacy_rating_of_a_call_in_flight_joins_its_row(kibitz: Running, held: Held) -> None:
    async with held.in_flight(kibitz, "r"):
        assert (await ask(kibitz, "POST", "/feedback", {"helicone-id": "r", "rating": True})).status == 200
    assert await verdicts(kibitz, "r") == [(1, True)]


async def test_scores_and_properties_of_a_call_in_flight_join_its_row(kibitz: Running, held: Held) -> None:
    async with held.in_flight(kibitz, "r", Helicone_Property_Tier="gold", Helicone_Property_Page="3"):
        scored = await ask(kibitz, "POST", "/request/r/score", {"scores": {"accuracy": 95}})
        changed = await ask(kibitz, "PUT", "/request/r/property", {"key": "tier", "value": "silver"})
    assert (scored.status, changed.status) == (200, 200)
    row = await kibitz.row("r")
    assert row["scores"] == {"accuracy": 95}
    assert sorted(row["properties"].values()) == ["3", "silver"]


async def test_an_id_in_flight_is_known_only_while_and_after_it_is(kibitz: Running, held: Held) -> None:
    assert (await rate(kibitz, "r")).status == 404
    async with held.in_flight(kibitz, "r"):
        assert (await rate(kibitz, "other")).status == 404
        assert (await rate_session(kibitz, "r", True)).status == 404
    assert (await rate(kibitz, "r")).status == 200
    assert await verdicts(kibitz, "r") == [(1, True)]


async def test_a_rating_of_a_call_that_its_client_leaves_is_kept_with_its_row(
    kibitz: Running, held: Held, eventually: Any
) -> None:
    with contextlib.suppress(ConnectionAbortedError):
        async with held.in_flight(kibitz, "r"):
            await rate(kibitz, "r", False)
            raise ConnectionAbortedError

    async def landed() -> None:
        assert await verdicts(kibitz, "r") == [(0, True)]

    await eventually(landed)


async def test_a_value_on_a_trace_in_flight_joins_its_row(kibitz: Running, held: Held) -> None:
    async with held.in_flight(kibitz, "r", x_portkey_trace_id="t"):
        await add_value(kibitz, "t", 5)
    assert await verdicts(kibitz, "r") == [(5, True)]


async def test_a_trace_in_flight_goes_before_a_request_id_of_that_text(kibitz: Running, held: Held) -> None:
    """`t` is the trace of a call in flight, and the request id of a call of another trace."""
    await call(kibitz, "t", x_portkey_trace_id="u")
    async with held.in_flight(kibitz, "r", x_portkey_trace_id="t"):
        await add_value(kibitz, "t", 5)
    assert [await verdicts(kibitz, request_id) for request_id in ("r", "t")] == [[(5, True)], []]


async def test_a_trace_goes_before_a_request_id_of_that_text(kibitz: Running, held: Held) -> None:
    await call(kibitz, "t", x_portkey_trace_id="u")
    await call(kibitz, "r", x_portkey_trace_id="t")
    await add_value(kibitz, "t", 5)
    assert [await verdicts(kibitz, request_id) for request_id in ("r", "t")] == [[(5, True)], []]


async def test_a_value_waits_for_a_trace_not_seen_yet(kibitz: Running, held: Held) -> None:
    feedback_id = await add_value(kibitz, "t", 5)
    assert [item["id"] for item in await listed(kibitz, trace_id="t")] == [feedback_id]
    for request_id in ("r-1", "r-2"):
        await call(kibitz, request_id, x_portkey_trace_id="t")
        assert await verdicts(kibitz, request_id) == [(5, True)]


@pytest.mark.parametrize("text", ["r", "chatcmpl-r"], ids=["request id", "response id"])
@pytest.mark.parametrize("when", ["after", "in flight", "before"])
async def test_a_value_on_the_id_of_a_call_joins_that_call(kibitz: Running, held: Held, text: str, when: str) -> None:
    """Where no trace has the text, a request id or response id of that text is meant."""
    if when == "before":
        await add_value(kibitz, text, 5)
    async with held.in_flight(kibitz, "r", x_portkey_trace_id="t"):
        if when == "in flight":
            await add_value(kibitz, text, 5)
    if when == "after":
        await add_value(kibitz, text, 5)
    await call(kibitz, "other", x_portkey_trace_id="t")
    assert [await verdicts(kibitz, request_id) for request_id in ("r", "other")] == [[(5, True)], []]


async def test_a_session_in_flight_can_be_rated(kibitz: Running, held: Held) -> None:
    async with held.in_flight(kibitz, "r", Helicone_Session_Id="s"):
        reply = await rate_session(kibitz, "s", True)
        assert (reply.status, reply.body) == (200, SAVED)
    assert await marks(kibitz, "r") == ["1"]
    assert [item["value"] for item in await listed(kibitz, session_id="s")] == [1]


async def test_a_sessions_verdict_moves_to_an_earlier_call_that_lands_later(kibitz: Running, held: Held) -> None:
    async with held.in_flight(kibitz, "slow", Helicone_Session_Id="s"):
        await call(kibitz, "quick", Helicone_Session_Id="s")
        await rate_session(kibitz, "s", False)
        assert await marks(kibitz, "quick") == ["0"]
    assert await marks(kibitz, "slow", "quick") == ["0", None]
    await rate_session(kibitz, "s", True)
    assert await marks(kibitz, "slow", "quick") == ["1", None]


async def test_a_sessions_verdict_moves_to_the_earliest_of_all(kibitz: Running, held: Held) -> None:
    async with held.in_flight(kibitz, "slowest", Helicone_Session_Id="s"):
        async with held.in_flight(kibitz, "slow", Helicone_Session_Id="s"):
            await rate_session(kibitz, "s", True)
            await call(kibitz, "quick", Helicone_Session_Id="s")
        assert await marks(kibitz, "slow", "quick") == ["1", None]
    assert await marks(kibitz, "slowest", "slow", "quick") == ["1", None, None]


async def test_an_unknown_rating_is_kept_listed_and_joined(keeping: Running, held: Held) -> None:
    reply = await rate(keeping, "r", False, comment="late")
    assert (reply.status, reply.body) == (200, SAVED)
    (item,) = await listed(keeping, unmatched="true")
    assert (item["request_id"], item["value"], item["comment"], item["effective"]) == ("r", 0, "late", True)
    await call(keeping, "r")
    assert await verdicts(keeping, "r") == [(0, True)]
    assert await listed(keeping, unmatched="true") == []


async def test_of_unknown_ratings_kept_the_latest_is_effective(keeping: Running, held: Held) -> None:
    for rating in (True, True, False):
        await ask(keeping, "POST", "/feedback", {"helicone-id": "r", "rating": rating})
    await call(keeping, "r")
    assert await verdicts(keeping, "r") == [(1, False), (1, False), (0, True)]


async def test_a_rating_kept_under_a_response_id_joins_its_call(keeping: Running, held: Held) -> None:
    await rate(keeping, "chatcmpl-r", True)
    await call(keeping, "r")
    assert await verdicts(keeping, "r") == [(1, True)]
    assert await listed(keeping, unmatched="true") == []


async def test_of_ratings_kept_under_both_ids_only_the_latest_is_effective(keeping: Running, held: Held) -> None:
    await rate(keeping, "chatcmpl-r", True)
    async with held.in_flight(keeping, "r"):
        await rate(keeping, "r", False)
    assert await verdicts(keeping, "r") == [(1, False), (0, True)]
    assert (await keeping.row("r"))["feedback"]["count"] == 1


@pytest.mark.parametrize("text", ["r", "chatcmpl-r"], ids=["request id", "response id"])
async def test_scores_and_properties_of_an_unknown_id_are_kept_and_joined(
    keeping: Running, held: Held, text: str
) -> None:
    scored = await ask(keeping, "POST", path_of("/request/{id}/score", text), {"scores": {"accuracy": 95}})
    changed = await ask(keeping, "PUT", path_of("/request/{id}/property", text), {"key": "Tier", "value": "gold"})
    assert (scored.status, changed.status) == (200, 200)
    await call(keeping, "r")
    row = await keeping.row("r")
    assert (row["scores"], row["properties"]) == ({"accuracy": 95}, {"Tier": "gold"})


async def test_an_unknown_sessions_rating_is_kept_listed_and_joined(keeping: Running, held: Held) -> None:
    assert (await rate_session(keeping, "s", True)).status == 200
    assert [item["session_id"] for item in await listed(keeping, unmatched="true")] == ["s"]
    for request_id in ("r-1", "r-2"):
        await call(keeping, request_id, Helicone_Session_Id="s")
    assert await marks(keeping, "r-1", "r-2") == ["1", None]
    assert await listed(keeping, unmatched="true") == []


async def test_a_value_on_an_unseen_trace_is_listed_as_unmatched_until_it_comes(kibitz: Running, held: Held) -> None:
    await add_value(kibitz, "t", 5)
    assert [item["trace_id"] for item in await listed(kibitz, unmatched="true")] == ["t"]
    await call(kibitz, "r", x_portkey_trace_id="t")
    assert await listed(kibitz, unmatched="true") == []
