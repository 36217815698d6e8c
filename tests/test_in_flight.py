"""Who asks for a row that is on its way waits for it, and for no other, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from proxy import in_flight as module
from proxy.exchange import Capture, Exchange
from proxy.in_flight import InFlight
from tests.exchanges import begun_exchange


def landed_call(in_flight: InFlight, request_id: str, response_id: str | None = None) -> Exchange:
    lines = [(b"Helicone-Request-Id", request_id.encode()), (b"Helicone-Session-Id", b"s")]
    call = begun_exchange(lines, "/v1/chat/completions", request=Capture(10), response=Capture(10))
    in_flight.add(call)
    in_flight.land(call)
    call.response_id_of_row = response_id
    return call


@pytest.mark.parametrize("text", ["r1", "same"], ids=["request id", "response id of several"])
async def test_whoever_asks_waits_for_the_last_row_of_that_id(text: str) -> None:
    in_flight = InFlight()
    calls = [landed_call(in_flight, request_id, "same") for request_id in ("r1", "r2")]
    other = landed_call(in_flight, "r3")
    asking = asyncio.ensure_future(in_flight.landed("default", text))
    knowing = asyncio.ensure_future(in_flight.known("request", "default", [text, "nowhere"]))
    for call in (other, *reversed(calls)):
        await asyncio.sleep(0.01)
        assert not asking.done()
        in_flight.remove(call)
    await asyncio.wait_for(asking, 1)
    assert await asyncio.wait_for(knowing, 1) == []
    assert not in_flight._calls
    assert not in_flight._waiters


@pytest.mark.parametrize("logged", [None, "[redacted]", "told"])
async def test_whoever_asks_by_the_id_that_a_stream_told_waits_for_its_row_whatever_id_that_says(
    logged: str | None,
) -> None:
    in_flight = InFlight()
    call = begun_exchange([], "/v1/chat/completions", request=Capture(10), response=Capture(10))
    call.response_id = "told"
    in_flight.add(call)
    in_flight.land(call)
    asking = asyncio.ensure_future(in_flight.landed("default", "told"))
    await asyncio.sleep(0)
    assert not asking.done()
    call.response_id_of_row = logged
    in_flight.remove(call)
    await asyncio.wait_for(asking, 1)
    assert not in_flight._waiters


@pytest.mark.parametrize("turns", range(4))
async def test_whoever_asks_just_before_a_row_lands_is_not_left_waiting(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 3600)
    in_flight = InFlight()
    call = landed_call(in_flight, "r1")
    asking = [
        asyncio.ensure_future(in_flight.known("request", "default", ["r1"])),
        asyncio.ensure_future(in_flight.landed("default", "r1")),
    ]
    for _ in range(turns):
        await asyncio.sleep(0)
    in_flight.remove(call)
    async with asyncio.timeout(10):
        await asyncio.gather(*asking)


async def test_nothing_is_kept_of_one_who_waited_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    in_flight = InFlight()
    calls = [landed_call(in_flight, f"r{number}", "same") for number in range(100)]
    await in_flight.landed("default", "same")
    assert await in_flight.known("request", "default", ["same", "r7"]) == ["r7"]
    left = asyncio.ensure_future(in_flight.landed("default", "same"))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait([left])
    assert not in_flight._waiters
    for call in calls:
        in_flight.remove(call)
    assert not in_flight._calls


async def test_an_id_is_under_way_in_its_own_organisation_only_and_as_what_it_is() -> None:
    in_flight = InFlight()
    call = landed_call(in_flight, "r1")
    call.response_id = "told"
    assert in_flight.which("request", "default", {"r1", "told", "s"}) == {"r1", "told"}
    assert in_flight.which("session", "default", {"r1", "told", "s"}) == {"s"}
    assert not in_flight.which("request", "another", {"r1", "told"})


def under_way(in_flight: InFlight) -> Exchange:
    call = begun_exchange([], "/v1/chat/completions", request=Capture(10), response=Capture(10))
    in_flight.add(call)
    return call


def end(in_flight: InFlight, call: Exchange) -> None:
    call.end()
    in_flight.land(call)
    in_flight.remove(call)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return pass_by


@pytest.mark.parametrize("seconds", [0.001, 10.0], ids=["short calls", "long calls"])
def test_calls_are_few_only_once_they_have_been_so_for_a_moment(seconds: float, clock: Callable[[float], None]) -> None:
    in_flight = InFlight()
    calls = []
    for number in range(9):
        assert in_flight.are_few == (number <= 4)
        calls.append(under_way(in_flight))
    clock(seconds)
    for call in calls:
        end(in_flight, call)
        assert not in_flight.are_few
    for _ in range(3):  # the next ones of those
        calls.append(under_way(in_flight))
        assert not in_flight.are_few
    clock(0.1)
    assert in_flight.are_few
    end(in_flight, calls[-1])
    assert in_flight.are_few


@pytest.mark.parametrize("seconds", [0.001, 10.0], ids=["a short call", "a long call"])
def test_there_is_none_only_once_there_has_been_none_for_a_while(
    seconds: float, clock: Callable[[float], None]
) -> None:
    in_flight = InFlight()
    assert in_flight.are_none
    for _ in range(2):
        call = under_way(in_flight)
        clock(seconds)
        assert not in_flight.are_none
        end(in_flight, call)
        assert not in_flight.are_none
    clock(2)
    assert in_flight.are_none
