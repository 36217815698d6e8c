"""What is taken out of a stream while it comes gives the row that taking it out at the end would."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange import Capture, Exchange
from proxy.pricing import Pricer
from proxy.redaction.suspicion import keys_in
from proxy.row import build_call
from proxy.wire.gist import Gist, GistSoFar, find_gist
from tests.conftest import Running
from tests.exchanges import begun_exchange
from tests.raw_client import Eventually, ask, connect, request
from tests.upstream import Connection, Upstream, chat_events, sse_answer
from tests.wire.generated import Framing, chat_streams, framings, message_streams, response_streams
from tests.wire.recordings import beside_the_repository, recordings

KEY = "sk-Zq3vT9xLm2KcW8uYb1Nd"
EVENTS = "text/event-stream"
CHAT = "/v1/chat/completions"
PATHS = [CHAT, "/v1/messages", "/v1/responses", "/v1/completions"]
PRICER = Pricer({})
DONE = b"data: [DONE]\n\n"


def exchange(path: str = CHAT, limit: int = 2**24) -> Exchange:
    authorization = (b"Authorization", b"Bearer " + KEY.encode())
    return begun_exchange([authorization], path, request=Capture(2**20), response=Capture(limit, EVENTS))


def assert_alike(stream: bytes, cuts: list[int], path: str = CHAT, limit: int = 2**24) -> None:
    """The row is the same, and no key is overlooked, wherever the stream was cut, and its gist continued there."""
    ahead = exchange(path, limit)
    at_once = copy.deepcopy(ahead)
    for start, end in pairwise(sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})):
        ahead.response.feed(stream[start:end])
        if end in cuts or end < len(stream):
            ahead.continue_gist()
    at_once.response.feed(stream)
    received = at_once.response.data()
    assert ahead.response.data() == received
    gist = ahead.gist.of_whole(received) if ahead.gist else find_gist(received)
    if keys_in(at_once, b"", received, find_gist(received)) is not None:
        assert keys_in(ahead, b"", received, gist) is not None
    assert len(gist.templates) <= 4
    for one in (ahead, at_once):
        one.end()
        one.ended = one.first_byte = one.started
    assert build_call(ahead, PRICER) == build_call(at_once, PRICER)


def chat(text: str) -> object:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def padded(text: str) -> object:
    return {
        "id": "c-1",
        "object": "chat.completion.chunk",
        "choices": [{"delta": {"content": text}}],
        "pad": text[::-1],
    }


def block(text: str) -> object:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def told_by_id(text: str) -> object:
    return {"id": text, "object": "chat.completion.chunk", "model": "m" * 40, "choices": []}


def error(text: str) -> object:
    return {"error": {"message": text, "type": "server_error", "code": "a code that is long enough"}}


def last(text: str) -> object:
    return {**chat(text), "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}  # type: ignore[dict-item]


CUTS = st.lists(st.integers(0, 2**20), max_size=12)
WORDS = st.sampled_from(["a", "Hm,", "two words", "50%", "\\", '"', "\n", "%", "\\u0041", "é", ""])
RUNS = st.tuples(
    st.lists(st.sampled_from([chat, padded, block, told_by_id, error, last]), min_size=1, max_size=2),
    st.lists(WORDS, min_size=1, max_size=4),
    st.integers(1, 30),
)
PIECES = st.lists(st.integers(0, len(KEY)), max_size=6).map(
    lambda places: [KEY[start:end] for start, end in pairwise([0, *sorted(places), len(KEY)])]
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Runs of events of a kind, or of two that alternate, and perhaps a key in the texts of some neighbours."""
    said = [
        (kinds[number % len(kinds)], words[number % len(words)])
        for kinds, words, times in draw(st.lists(RUNS, min_size=1, max_size=6))
        for number in range(times)
    ]
    if draw(st.booleans()):
        place = draw(st.integers(0, len(said) - 1))
        kind = said[place][0]
        said[place:place] = [(kind, piece) for piece in draw(PIECES)]
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    name = draw(st.sampled_from(["", "", f"event: e{end}"]))
    texts = [json.dumps(kind(text), separators=separators) for kind, text in said]
    return "".join(f"{name}data: {text}{end}{end}" for text in texts).encode() + draw(st.sampled_from([DONE, b""]))


@settings(max_examples=400)
@given(streams(), CUTS, st.sampled_from(PATHS), st.sampled_from([2**24, 2**24, 3000]))
def test_a_stream_whose_gist_was_continued_gives_the_row_that_it_gives_at_once(
    stream: bytes, cuts: list[int], path: str, limit: int
) -> None:
    assert_alike(stream, cuts, path, limit)


@settings(max_examples=100)
@given(chat_streams() | message_streams() | response_streams().map(lambda told: told.events), framings, CUTS)
def test_so_does_any_stream_of_a_known_protocol(
    events: list[dict[str, object]], framing: Framing, cuts: list[int]
) -> None:
    for path in PATHS:
        assert_alike(framing.write(events * 3, "[DONE]"), cuts, path)


@beside_the_repository
@settings(max_examples=150)
@given(st.sampled_from(recordings() or ({},)), CUTS, st.none() | st.tuples(st.integers(0, 2**20), PIECES))
def test_so_does_any_recorded_stream(
    item: dict[str, object], cuts: list[int], planted: tuple[int, list[str]] | None
) -> None:
    stream, path = item["body"], item["path"]
    assert isinstance(stream, bytes)
    assert isinstance(path, str)
    if planted is not None:
        events = stream.split(b"\n\n")
        place = planted[0] % len(events)
        events[place:place] = [b"data: %b" % json.dumps(chat(piece)).encode() for piece in planted[1]]
        stream = b"\n\n".join(events)
    assert_alike(stream, cuts, path)


def test_a_long_stream_is_taken_a_little_at_a_time_and_its_gist_stays_short() -> None:
    stream = b"".join(chat_events(*(f"word {number}" for number in range(4000))))
    so_far, looks, most = GistSoFar(), 0, 0
    for size in range(len(stream)):
        if size >= so_far.goes_on_at:
            before = so_far.taken
            so_far, looks = so_far.continued(lambda start, end, size=size: stream[start : min(end, size)]), looks + 1  # type: ignore[misc]
            most = max(most, so_far.taken - before)
    gist = so_far.of_whole(stream)
    assert (most, looks) == (16 * 1024, looks)
    assert looks < 70
    assert len(gist.templates) == 1
    assert len(gist.rest) + len(gist.texts) < len(stream) / 8


def continued(stream: bytes) -> Gist:
    """Of a stream that comes a piece at a time."""
    so_far = GistSoFar()
    for size in range(0, len(stream), 100):
        if size >= so_far.goes_on_at:
            so_far = so_far.continued(lambda start, end, size=size: stream[start : min(end, size)])  # type: ignore[misc]
    return so_far.of_whole(stream)


@pytest.mark.parametrize(("kinds", "told"), [(1, 1), (3, 3), (9, 4)])
def test_of_events_of_several_kinds_the_templates_are_told_once_and_not_too_many(kinds: int, told: int) -> None:
    runs = [
        b"".join(chat_events(*["a", "b"] * 40, id=f"chatcmpl-{number}", usage=False)[1:-2]) for number in range(kinds)
    ]
    gist = continued(b"".join(runs) + b"".join(runs[: min(kinds, 2)]))
    assert len({*gist.templates}) == len(gist.templates) == told
    assert len(gist.rest) < (told + 1) * 1500 or told < kinds


def test_a_stream_that_is_too_long_is_not_taken_any_further() -> None:
    assert GistSoFar(taken=2**20 - 100).goes_on_at > 2**40
    stream = b"".join(chat_events("a", "b")) * 4000
    assert GistSoFar().continued(lambda start, end: stream[start:end]).of_whole(stream) == find_gist(stream)


def test_what_was_kept_can_be_had_in_parts() -> None:
    for pieces in ([b"abc"], [b"a", b"b", b"c"], [b"ab", b"c"]):
        capture = Capture(limit=100)
        for piece in pieces:
            capture.feed(piece)
            assert capture.between(0, 100) == capture.data()
        capture.feed(b"d")
        assert (capture.between(1, 3), capture.between(3, 9), capture.data()) == (b"bc", b"d", b"abcd")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CALL = request("POST", CHAT, b"Helicone-Request-Id: slow", b"Authorization: Bearer " + KEY.encode(), body=b"{}")


async def relayed(
    kibitz: Running, upstream: Upstream, events: list[bytes], look: Callable[[Exchange], None] | None = None
) -> None:
    """Stream events, each once the client has the one before; the client leaves where the last is not the end."""
    received = asyncio.Semaphore(0)

    async def script(stream: Connection) -> None:
        await stream.read_request()
        await stream.send(HEAD)
        for event in events:
            await stream.send(b"%x\r\n%b\r\n" % (len(event), event))
            await received.acquire()
        if events[-1] == DONE:
            await stream.send(b"0\r\n\r\n")
        assert await stream.closed_by_peer()

    upstream.script = script
    async with connect(kibitz.port) as client:
        await client.send(CALL)
        await client.reader.readuntil(b"\r\n\r\n")
        for event in events:
            assert await client.read_chunk() == event
            if look is not None and event is events[-2]:
                # Nobody but its call knows an exchange that has not ended.
                look(next(one for one in gc.get_objects() if isinstance(one, Exchange) and one.ended is None))
            received.release()
        if events[-1] == DONE:
            assert await client.reader.readexactly(5) == b"0\r\n\r\n"


def around(texts: list[str]) -> list[bytes]:
    return chat_events(*(f"word {number} " for number in range(60)), *texts, *("end" for _ in range(30)))


async def test_a_stream_that_comes_slowly_is_taken_in_while_it_comes(
    kibitz: Running, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    def look(running: Exchange) -> None:
        assert running.asked_ahead is not None
        assert running.gist is not None
        assert running.gist.taken > running.response.size * 2 // 3

    await relayed(kibitz, upstream, around([]), look)
    row = await kibitz.row("slow")
    assert row["response_text"] == "".join(f"word {number} " for number in range(60)) + "end" * 30
    assert (row["completion_tokens"], row["finish_reason"], row["error"]) == (90, "stop", None)
    assert caplog.records == []


@pytest.mark.parametrize("size", [1, 5, len(KEY)])
async def test_a_key_in_a_stream_that_comes_slowly_is_not_kept(kibitz: Running, upstream: Upstream, size: int) -> None:
    await relayed(kibitz, upstream, around([KEY[place : place + size] for place in range(0, len(KEY), size)]))
    text = (await kibitz.row("slow"))["response_text"]
    assert KEY not in text
    assert "word 59 [redacted]end" in text


async def test_a_client_that_leaves_in_the_middle_of_a_slow_stream_leaves_what_came(
    kibitz: Running, upstream: Upstream, eventually: Eventually
) -> None:
    await relayed(kibitz, upstream, around([])[:50])

    async def row_tells() -> None:
        row = await kibitz.row("slow")
        assert (row["error"]["kind"], row["completion_tokens"]) == ("client_cancelled", None)
        assert row["response_text"] == "".join(f"word {number} " for number in range(49))

    await eventually(row_tells)


async def test_a_stream_that_comes_at_once_is_read_as_well(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = sse_answer(*around([]))
    await ask(kibitz.port, CALL)
    assert (await kibitz.row("slow"))["completion_tokens"] == 90
