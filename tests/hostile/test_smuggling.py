"""Nobody gets two upstream requests out of one, or lets his own stand among other people's. RFC 9112 section 11.2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Running, StartKibitz
from tests.hostile.attack import CANARY, Witness, attack, converse, running_witness
from tests.hostile.forms import CHUNKED, REFUSED, TAKEN, TRAILERS, UNFINISHED, form
from tests.hostile.strict_http import Message, NotStrict, read_answers, read_requests
from tests.raw_client import Eventually, connect

GOOD = b"POST /v1/good HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nConnection: close\r\n\r\nand after"


@pytest.fixture
async def witness() -> AsyncIterator[Witness]:
    async with running_witness() as running:
        yield running


@pytest.fixture
async def kibitz(start_kibitz: StartKibitz, witness: Witness) -> Running:
    return await start_kibitz(upstream={"base_url": witness.base_url}, allowed_hosts=["other.test"])


def statuses(answers: list[Message]) -> list[int]:
    return [int(answer.start[0]) for answer in answers]


async def others_are_unharmed(kibitz: Running, witness: Witness) -> None:
    """Whoever comes next, and gets a pooled connection, is understood as he spoke."""
    answer = await converse(kibitz.port, GOOD)
    assert answer.endswith(b"\r\n\r\n/v1/good")
    assert [request.body for request in witness.requests if request.start[1] == b"/v1/good"] == [b"and after"]


async def others_are_unharmed_by_half_a_request(kibitz: Running, witness: Witness) -> None:
    witness.connections = [data for data in witness.connections if not is_half(data)]
    await others_are_unharmed(kibitz, witness)


def is_half(data: bytearray) -> bool:
    """Whether a connection holds the beginning of the form alone: what came before the fault in its body."""
    requests, rest = read_requests(bytes(data))
    return not requests and rest.split(b" ")[1] == b"/v1/form"


def may_be_unheard(answers: list[Message], bytewise: bool) -> bool:
    """Whether a connection may have been closed on a client that still sent, which then does not get the answer."""
    return bytewise and not answers


def prefixes(body: bytes) -> list[list[bytes]]:
    return [[], [body], [body, b"/v1/canary"]]


DELIVERIES = (False, True)  # in one piece, and byte by byte


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_is_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(
    kibitz: Running, witness: Witness, sent: bytes, status: int
) -> None:
    for bytewise in DELIVERIES:
        answers = await attack(kibitz.port, sent, bytewise=bytewise)
        assert statuses(answers) == [status] or may_be_unheard(answers, bytewise)
    assert all(b"/v1/smuggled" not in data and b"/v1/canary" not in data for data in witness.connections)
    await others_are_unharmed_by_half_a_request(kibitz, witness)


@pytest.mark.parametrize(("sent", "body"), TAKEN.values(), ids=TAKEN)
async def test_what_is_taken_reaches_the_upstream_as_one_request(
    kibitz: Running, witness: Witness, sent: bytes, body: bytes
) -> None:
    for bytewise in DELIVERIES:
        witness.forget()
        answers = await attack(kibitz.port, sent, bytewise=bytewise)
        assert statuses(answers) in ([200], [200, 200]) or may_be_unheard(answers, bytewise)
        assert [answer.body for answer in answers] in prefixes(b"" if sent.startswith(b"HEAD") else b"/v1/form")
        assert witness.targets == [b"/v1/form", b"/v1/canary"][: max(1, len(answers))]
        assert witness.requests[0].body == body
    await others_are_unharmed(kibitz, witness)


@pytest.mark.parametrize("sent", UNFINISHED.values(), ids=UNFINISHED)
async def test_what_is_never_finished_ends_with_the_client(
    kibitz: Running, witness: Witness, sent: bytes, eventually: Eventually
) -> None:
    async def has_arrived() -> None:
        assert any(b"/v1/form" in data for data in witness.connections)

    async def is_over() -> None:
        assert witness.open == 0

    async with connect(kibitz.port) as client:
        await client.send(sent)
        await eventually(has_arrived)
    await eventually(is_over)
    with pytest.raises(NotStrict, match="half a request"):
        _ = witness.requests
    assert len(witness.connections) == 1
    await others_are_unharmed_by_half_a_request(kibitz, witness)


@pytest.mark.parametrize("sent", TRAILERS)
async def test_a_trailer_joins_no_other_request(kibitz: Running, witness: Witness, sent: bytes) -> None:
    """aiohttp's parser gives the last field of one to the next request of the connection."""
    for bytewise in DELIVERIES:
        answers = await attack(kibitz.port, sent, bytewise=bytewise)
        assert statuses(answers) in ([200], [400], [200, 400]) or may_be_unheard(answers, bytewise)
    assert all(b"evil" not in data.lower() and b"/v1/canary" not in data for data in witness.connections)
    await others_are_unharmed_by_half_a_request(kibitz, witness)


@pytest.mark.parametrize("body", [b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"1\r\n0\r\n0\r\n\r\n"])
async def test_a_connection_stays_open_after_a_body_in_chunks(kibitz: Running, witness: Witness, body: bytes) -> None:
    sent = form(CHUNKED, body=body)
    async with connect(kibitz.port) as client:
        for step in (len(sent), 1, len(sent)):
            for start in range(0, len(sent), step):
                await client.send(sent[start : start + step])
                await asyncio.sleep(0)
            assert (await client.read_request()).body == b"/v1/form"


async def test_an_empty_coding_is_refused(kibitz: Running, witness: Witness) -> None:
    answers = await attack(kibitz.port, form(b"Transfer-Encoding:", body=b"0\r\n\r\n"))
    assert statuses(answers) in ([400], [501])
    assert witness.connections == []


async def test_pipelined_requests_are_answered_in_their_order(kibitz: Running, witness: Witness) -> None:
    requests = b"".join(b"GET /v1/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(50))
    answers = await attack(kibitz.port, requests)
    expected = [b"/v1/%d" % number for number in range(50)] + [b"/v1/canary"]
    assert [answer.body for answer in answers] == expected
    assert sorted(witness.targets) == sorted(expected)


EVERYWHERE = {name: data for name, (data, _) in [*REFUSED.items(), *TAKEN.items()] if b"/v1/form" in data}
# Where Kibitz answers itself, before a body has come or behind it: with what, and whether it is sent byte by byte.
OURS = [(b"/healthz", {200, 405}, True), (b"/nowhere", {404}, False), (b"/v1/feedback", {200, 400, 405}, True)]


@pytest.mark.parametrize("sent", EVERYWHERE.values(), ids=EVERYWHERE)
async def test_no_form_gets_more_out_of_what_kibitz_answers_itself(
    kibitz: Running, witness: Witness, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for target, allowed, bytewise in OURS:
        data = await converse(kibitz.port, sent.replace(b"/v1/form", target) + CANARY, bytewise=bytewise)
        answers = read_answers(data, first_to_head=sent.startswith(b"HEAD "))
        assert set(statuses(answers)) <= {200, 400, 501, *allowed}
        assert len(answers) <= 2
    assert set(witness.targets) <= {b"/v1/canary"}
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
