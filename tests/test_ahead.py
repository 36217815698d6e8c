"""What is read of a request before its call has ended gives the row that reading it at the end would."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.building import RowBuilder
from proxy.exchange import Capture, Exchange, Failure
from proxy.pricing import Pricer
from proxy.redaction.redactor import Redactor
from proxy.redaction.rules import Rules
from proxy.row import build_call, read_ahead
from proxy.wire.form import FORM
from storage.records import Call
from tests.conftest import Running
from tests.exchanges import begun_exchange
from tests.raw_client import Eventually, ask, connect, request
from tests.upstream import CHAT_BODY, Connection, Upstream, chat_answer, chat_events, sse_answer

KEY = b"sk-Zq3vT9xLm2KcW8uYb1Nd"
COOKIE = b"sid0123456789abcdefghijklmn"
NAMED = b"Helicone-Request-Id: ahead"
PATH = "/v1/chat/completions"
JSON = "application/json"
BODY = b'{"model": "gpt-4o-mini", "user": "ada", "stream": true, "messages": []}'
PRICER = Pricer({})


def exchange(
    body: bytes = BODY, label: bytes = b"u", *, content_type: str | None = JSON, limit: int = 2**20
) -> Exchange:
    """A call whose request is all there, and that awaits its answer."""
    begun = begun_exchange(
        [(b"Authorization", b"Bearer " + KEY), (b"Helicone-Property-A", label)],
        PATH,
        request=Capture(limit, content_type),
        response=Capture(2**20, JSON),
    )
    begun.request.feed(body)
    begun.request.is_whole = True
    return begun


def ended(begun: Exchange, answer: bytes, failure: Failure | None = None) -> Call:
    begun.response.feed(answer)
    begun.end(failure)
    begun.ended = begun.started
    return build_call(begun, PRICER)


def grow(begun: Exchange) -> None:
    begun.request.feed(b" " + KEY)


def change_type(begun: Exchange) -> None:
    begun.request.content_type = FORM


def change_path(begun: Exchange) -> None:
    begun.path = "/v1/messages"


def set_cookie(begun: Exchange) -> None:
    begun.credentials = begun.credentials.with_cookies([b"sid=" + COOKIE])


def stay(begun: Exchange) -> None:
    pass


PLANTED = [
    BODY,
    b"",
    b"{",
    BODY.replace(b"ada", KEY),
    BODY.replace(b"ada", COOKIE),
    b'{"model": "%b", "user": 7}' % KEY,
    b'{"model": "%b", "user": "%b"}' % (b"m" * 5000, b"u" * 5000),
]
LATER = [stay, grow, change_type, change_path, set_cookie]


@settings(max_examples=300)
@given(
    body=st.sampled_from(PLANTED),
    label=st.sampled_from([b"u", KEY, COOKIE, b"kbz_" + b"a" * 43]),
    content_type=st.sampled_from([JSON, None, "text/event-stream", "application/x-www-form-urlencoded"]),
    limit=st.sampled_from([2**20, 0, 30]),
    later=st.sampled_from(LATER),
    answer=st.sampled_from([CHAT_BODY, CHAT_BODY.replace(b"Hello", KEY), b""]),
    failure=st.sampled_from([None, Failure("upstream_cut", "the upstream broke off")]),
)
def test_a_request_that_was_read_ahead_gives_the_row_that_one_read_at_the_end_does(
    body: bytes,
    label: bytes,
    content_type: str | None,
    limit: int,
    later: Callable[[Exchange], None],
    answer: bytes,
    failure: Failure | None,
) -> None:
    ahead = exchange(body, label, content_type=content_type, limit=limit)
    at_once = copy.deepcopy(ahead)
    read_ahead(ahead)
    for one in (ahead, at_once):
        later(one)
    assert ended(ahead, answer, failure) == ended(at_once, answer, failure)


@pytest.mark.parametrize("failure", [None, Failure("upstream_cut", "the upstream broke off")])
@pytest.mark.parametrize("body", PLANTED)
def test_a_stream_s_rows_before_its_end_and_after_are_two(body: bytes, failure: Failure | None) -> None:
    begun = exchange(body)
    at_once = copy.deepcopy(begun)
    read_ahead(begun)
    rows = []
    for one in (begun, at_once):
        early = one.so_far()
        rows.append(ended(early, CHAT_BODY))
        told = copy.deepcopy(rows[-1])
        rows.append(ended(one, b"{}", failure))
        assert rows[-2] == told
    assert rows[:2] == rows[2:]
    assert rows[0] != rows[1]


def test_only_a_request_that_is_whole_and_small_and_is_not_redacted_is_read_ahead() -> None:
    packed, unfinished, cut, large = exchange(), exchange(), exchange(limit=3), exchange(BODY + b" " * 2**19)
    packed.request.content_encoding, unfinished.request.is_whole = "gzip", False
    for begun in (exchange(), packed, unfinished, cut, large):
        redacting = copy.deepcopy(begun)
        RowBuilder(PRICER, Redactor(Rules())).prepare(redacting)
        assert redacting.asked_ahead is None
        RowBuilder(PRICER, None).prepare(begun)
        assert (begun.asked_ahead is not None) == (begun.request.data() == BODY and begun not in (packed, unfinished))


def test_what_goes_wrong_ahead_fails_no_call(caplog: pytest.LogCaptureFixture) -> None:
    broken = exchange()
    broken.method = b"POST"  # type: ignore[assignment]  # no text, to be searched with others
    RowBuilder(PRICER, None).prepare(broken)
    assert broken.asked_ahead is None
    assert "reading a request ahead" in caplog.text


async def answered(kibitz: Running, message: bytes, *pieces: bytes) -> None:
    """Send a request and, once the server can have read it, each piece of the rest."""
    async with connect(kibitz.port) as connection:
        await connection.send(message)
        for piece in pieces:
            await kibitz.chat()  # a call of its own: the event loop has turned meanwhile
            await connection.send(piece)
        await connection.read_request()


CHUNKED = (b"%x\r\n%b\r\n" % (20, BODY[:20]), b"%x\r\n%b\r\n" % (len(BODY) - 20, BODY[20:]), b"0\r\n\r\n")
WHOLE = request("POST", PATH, NAMED, b"Content-Type: application/json", body=BODY)
HEAD = WHOLE[: -len(BODY)]
IN_CHUNKS = HEAD.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    "sent",
    [(WHOLE,), (HEAD, BODY), (HEAD + BODY[:5], BODY[5:]), (IN_CHUNKS, *CHUNKED), (IN_CHUNKS + b"".join(CHUNKED),)],
    ids=["whole", "head first", "in two", "in chunks", "chunks at once"],
)
@pytest.mark.parametrize("more", [(), (b"Helicone-Stream-Usage: true",), (b"Helicone-Omit-Request: true",)])
@pytest.mark.parametrize("answer", [chat_answer(), sse_answer(*chat_events("Hi"))], ids=["json", "stream"])
async def test_the_row_is_the_same_however_the_request_comes(
    kibitz: Running, upstream: Upstream, sent: tuple[bytes, ...], more: tuple[bytes, ...], answer: bytes
) -> None:
    upstream.answer = answer
    lines = b"".join(b"%b\r\n" % line for line in more)
    await answered(kibitz, sent[0].replace(b"Host:", lines + b"Host:"), *sent[1:])
    row = await kibitz.row("ahead")
    assert (row["request_user_id"], row["request_body_size"], row["error"]) == ("ada", len(BODY), None)
    assert (row["is_stream"], row["finish_reason"]) == (b"event-stream" in answer, "stop")
    assert row["request_body"] == (None if b"Helicone-Omit-Request: true" in more else CHAT)


CHAT = {"model": "gpt-4o-mini", "user": "ada", "stream": True, "messages": []}


async def test_a_key_that_a_request_repeats_is_not_kept(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = chat_answer(fields=b"Set-Cookie: sid=%b\r\n" % COOKIE)
    body = b'{"user": "ada", "messages": "%b %b"}' % (KEY, COOKIE)
    await ask(kibitz.port, request("POST", PATH, NAMED, b"Authorization: Bearer " + KEY, body=body))
    assert (await kibitz.row("ahead"))["request_body"] == {"user": "ada", "messages": "[redacted] [redacted]"}


async def test_a_client_that_leaves_while_its_answer_is_awaited_leaves_a_row(
    kibitz: Running, upstream: Upstream, eventually: Eventually
) -> None:
    async def never_answer(connection: Connection) -> None:
        await connection.read_request()
        assert await connection.closed_by_peer()

    upstream.script = never_answer
    async with connect(kibitz.port) as connection:
        await connection.send(WHOLE)

    async def row_tells() -> None:
        row = await kibitz.row("ahead")
        assert (row["error"]["kind"], row["request_user_id"]) == ("client_cancelled", "ada")

    await eventually(row_tells)
