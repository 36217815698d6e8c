"""Contract section 3: an answer is the same however the network cuts it, and none comes faster than it is taken."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import connect, request
from tests.upstream import Connection, Upstream, chat_events, sse_answer

EVENTS = chat_events("Red ", "is ", "warm.")
STREAM = sse_answer(*EVENTS)
MiB = 2**20


def call(number: int) -> bytes:
    name = b"Helicone-Request-Id: cut-%d" % number
    return request("POST", "/v1/chat/completions", name, body=b'{"stream": true}')


def cut_everywhere(answer: bytes) -> list[tuple[bytes, bytes]]:
    """In two, at each place around the head's end and the first chunk, and at some of the others."""
    near = answer.index(b"\r\n\r\n")
    places = {*range(near - 30, near + 40), *range(1, len(answer), 29), len(answer) - 1}
    return [(answer[:place], answer[place:]) for place in sorted(places)]


@pytest.mark.parametrize(
    "answer",
    [
        STREAM,
        STREAM.replace(b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING:Chunked"),
        STREAM.replace(b"0\r\n\r\n", b"0\r\nX-Trailer: yes\r\n\r\n"),
        b"HTTP/1.1 103 Early Hints\r\nLink: </chunked>\r\n\r\n" + STREAM,
    ],
    ids=["lower case", "upper case", "with a trailer", "behind an informational answer"],
)
async def test_an_answer_is_the_same_wherever_it_is_cut(kibitz: Running, upstream: Upstream, answer: bytes) -> None:
    cuts = cut_everywhere(answer)

    async def send_cut(connection: Connection) -> None:
        for one, other in cuts:
            await connection.read_request()
            await connection.send(one)
            await asyncio.sleep(0.002)  # or both are read at once
            await connection.send(other)

    upstream.script = send_cut
    async with connect(kibitz.port) as connection:
        for number, (one, _) in enumerate(cuts):
            await connection.send(call(number))
            received = await connection.read_request()
            assert received.request_line == b"HTTP/1.1 200 OK", one
            assert received.body == b"".join(EVENTS), one
    for number, (one, _) in enumerate(cuts):
        assert (await kibitz.row(f"cut-{number}"))["completion_tokens"] == 3, one
    assert upstream.connections == 1


@pytest.mark.parametrize("size", [700, 60_000])
async def test_chunks_that_come_with_the_head_come_no_faster_than_they_are_taken(
    start_kibitz: StartKibitz, upstream: Upstream, size: int
) -> None:
    kibitz = await start_kibitz(max_logged_body=MiB)
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    piece = chunk * max(1, 120_000 // len(chunk))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = 24 * MiB // len(piece)
    sent = 0

    async def send_much(connection: Connection) -> None:
        nonlocal sent
        await connection.read_request()
        await connection.send(head + piece)
        for _ in range(pieces - 1):
            await connection.send(piece)
            sent += len(piece)
        await connection.send(b"0\r\n\r\n")

    upstream.script = send_much
    async with connect(kibitz.port) as connection:
        await connection.send(call(0))
        before = -1
        while before < sent or not sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 20 * MiB, "it was held up"
        await connection.read_head()
        taken = 0
        while data := await connection.read_chunk():
            taken += len(data)
        assert taken == pieces * (len(piece) // len(chunk)) * size, "nothing was lost, and it went on"
