"""A Kibitz process given fields, bodies and bytes that nobody should send. Contract sections 3 and 5.

No status of 500 but the upstream's, one row for each call, and nothing on standard error but what was no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import Launcher, Process
from tests.hostile.attack import PATIENCE
from tests.hostile.fuzz import JSON_VALUES, ODD_TEXT, examples, wild_json
from tests.hostile.strict_http import HalfAnAnswer, Message, read_answers
from tests.upstream import Upstream, running_upstream

EXPECTED = re.compile(r"refused a request that is no HTTP: \w+|INFO proxy.serve: stopping")
NUMBERS = itertools.count(1)


class UpstreamThread(threading.Thread):
    """The scripted upstream on a loop of its own, so that tests may block."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.upstream: Upstream | None = None
        self._begun = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with running_upstream() as self.upstream:
            self._begun.set()
            await self._ending.wait()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        await asyncio.sleep(0)

    def begun(self) -> Upstream:
        self.start()
        self._begun.wait(PATIENCE)
        assert self.upstream is not None
        return self.upstream

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self.join(PATIENCE)


@dataclass(frozen=True, slots=True)
class Served:
    """A running Kibitz and the upstream behind it."""

    process: Process
    upstream: Upstream

    def converse(self, data: bytes) -> bytes:
        """All that comes back until the connection ends. Raises `TimeoutError` where it hangs."""
        with socket.create_connection(("127.0.0.1", self.process.port), PATIENCE) as connection:
            answers = b""
            try:
                connection.sendall(data)
                while piece := connection.recv(2**16):
                    answers += piece
            except ConnectionError:
                pass  # closed on what was still sent
            return answers

    def ask(self, method: str, target: str, body: bytes = b"", *lines: bytes) -> Message:
        head = [f"{method} {target} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close", *lines]
        head.append(b"Content-Length: %d" % len(body))
        [answer] = read_answers(self.converse(b"\r\n".join(head) + b"\r\n\r\n" + body))
        return answer

    def row(self, request_id: str, attempt: int = 1) -> Any:
        """A row with its bodies; none if there is none."""
        target = f"/v1/request/{quote(request_id, safe='')}?includeBody=true&attempt={attempt}"
        answer = self.ask("GET", target)
        assert answer.start[0] in (b"200", b"404")
        return orjson.loads(answer.body)["data"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    upstream = UpstreamThread()
    begun = upstream.begun()
    launcher = Launcher(tmp_path_factory.mktemp("fuzz"))
    try:
        process = launcher("--upstream", begun.base_url)
        yield Served(process, begun)
        process.process.terminate()
        out, errors = process.process.communicate(timeout=PATIENCE)
        assert (process.process.returncode, out) == (0, "")
        assert [line for line in errors.splitlines() if not EXPECTED.search(line)] == []
    finally:
        launcher.close()
        upstream.end()


TOKENS = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1, max_size=12).map(str.encode)
# Those that say how a message is framed are the smuggling suite's; X stands before them here, and in a half of names.
NAMES = TOKENS.map(lambda name: b"X" + name) | st.sampled_from(
    [
        *(b"Helicone-Session-Id", b"Helicone-Property-A", b"Helicone-Property-", b"Helicone-User-Id", b"traceparent"),
        *(b"x-portkey-trace-id", b"x-portkey-metadata", b"x-portkey-debug", b"x-portkey-provider", b"baggage"),
        *(b"Helicone-Model-Override", b"Helicone-Stream-Usage", b"Helicone-Omit-Request", b"Authorization", b"Cookie"),
        *(b"Content-Type", b"Content-Encoding", b"Accept-Encoding", b"TE", b"Trailer", b"Helicone-Auth"),
    ]
)
VISIBLE = st.binary(max_size=30).map(lambda value: bytes(byte for byte in value if byte >= 32 and byte != 127))
VALUES = (
    VISIBLE
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        [b"application/json", b"text/event-stream", b"multipart/form-data; boundary=x", b"gzip", b"br, gzip", b"true"]
    )
)
# Content-Type twice is no HTTP to aiohttp.
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6, unique_by=lambda field: field[0].lower())
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "user": "u"}
ANSWER = {"id": "c", "model": "m", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
JSON = (st.sampled_from([CHAT, ANSWER]).flatmap(wild_json) | JSON_VALUES).map(lambda value: json.dumps(value).encode())
BODIES = st.binary(max_size=100) | JSON | JSON.map(lambda text: b"data: %b\n\ndata: [DONE]\n\n" % text)
STATUSES = st.sampled_from([200, 201, 206, 299, 300, 400, 404, 418, 429, 500, 503, 599, 999])
PATHS = st.sampled_from(["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/files", "/v1/a%2Fb?key=x&y"])


def lines(fields: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [b"%b: %b" % field for field in fields]


def in_chunks(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@given(PATHS, FIELDS, BODIES, st.integers(0, 20), STATUSES, FIELDS, BODIES, st.integers(0, 20))
@examples(40)
def test_any_call_passes_and_has_one_row(
    served: Served,
    path: str,
    sent_fields: list[tuple[bytes, bytes]],
    sent: bytes,
    sent_chunks: int,
    status: int,
    answer_fields: list[tuple[bytes, bytes]],
    answered: bytes,
    answered_chunks: int,
) -> None:
    upstream, request_id = served.upstream, f"fuzz-{next(NUMBERS)}"
    upstream.received.clear()
    upstream.answer = message(b"HTTP/1.1 %d Odd" % status, lines(answer_fields), answered, answered_chunks)
    named = [b"Host: localhost", b"Connection: close", b"Helicone-Request-Id: " + request_id.encode()]
    first = f"POST {path} HTTP/1.1".encode()
    [answer] = read_answers(served.converse(message(first, [*named, *lines(sent_fields)], sent, sent_chunks)))
    assert (int(answer.start[0]), answer.body) == (status, answered)
    [received] = upstream.received
    assert (received.target, received.body) == (path.encode(), sent)
    row = served.row(request_id)
    assert (row["attempt"], row["response_status"]) == (1, status)
    assert (row["request_body_size"], row["response_body_size"]) == (len(sent), len(answered))
    assert served.row(request_id, attempt=2) is None


def message(first: bytes, head: list[bytes], body: bytes, chunk: int) -> bytes:
    if chunk:
        framed, framing = in_chunks(body, chunk), b"Transfer-Encoding: chunked"
    else:
        framed, framing = body, b"Content-Length: %d" % len(body)
    return b"\r\n".join([first, *head, framing]) + b"\r\n\r\n" + framed


RATING = {"rating": True, "comment": "c", "metadata": {"a": 1}}
VALUE = {"trace_id": "t", "value": 5, "weight": 0.5, "metadata": {"_user": "u"}}
LOG = {
    "request": {
        "url": "https://api.openai.com/v1/chat/completions",
        "method": "POST",
        "body": CHAT,
        "headers": {"a": "b"},
    },
    "response": {"status": 200, "body": ANSWER, "response_time": 5, "streamingMode": False, "headers": {}},
    "metadata": {"trace_id": "t", "span_id": "s", "Helicone-Request-Id": "r", "_user": "u"},
    "start_time": 1700000000,
}
CUSTOM = {
    "providerRequest": {"url": "https://a.test/v1/x", "json": CHAT, "meta": {"Helicone-User-Id": "u"}},
    "providerResponse": {"status": 200, "json": ANSWER, "textBody": None, "headers": {}},
    "timing": {"startTime": {"seconds": 1, "milliseconds": 2}, "endTime": {"seconds": 3, "milliseconds": 4}},
    "provider": "p",
}
ROUTES = st.sampled_from(
    [
        ("POST", "/v1/request/{}/feedback", RATING),
        ("POST", "/v1/session/{}/feedback", RATING),
        ("POST", "/v1/request/{}/score", {"scores": {"a": 1, "b": True, "c": 0.5}}),
        ("PUT", "/v1/request/{}/property", {"key": "k", "value": "v"}),
        ("POST", "/v1/feedback", VALUE),
        ("POST", "/v1/feedback", [VALUE, VALUE]),
        ("POST", "/v1/feedback", {"0": VALUE, "1": {"traceID": "t", "value": "-3"}}),
        ("POST", "/v1/feedback", {"helicone-id": "known", "rating": False}),
        ("PUT", "/v1/feedback/{}", {"value": 1, "weight": None, "feedback_id": "known"}),
        ("DELETE", "/v1/feedback/{}", None),
        ("GET", "/v1/feedback?trace_id={}&unmatched=true", None),
        ("GET", "/v1/request/{}?includeBody=true&attempt=1", None),
        ("GET", "/v1/request/{}?attempt={}", None),
        ("POST", "/v1/logs", LOG),
        ("POST", "/v1/logs", [LOG, LOG]),
        ("POST", "/custom/v1/log", CUSTOM),
    ]
)
IDS = st.just("known") | st.just("undefined") | ODD_TEXT | st.binary(max_size=8)


@given(ROUTES.flatmap(lambda route: st.tuples(st.just(route), wild_json(route[2]))), IDS, FIELDS, st.binary(max_size=3))
@examples(60)
def test_no_route_of_ours_fails(
    served: Served,
    called: tuple[tuple[str, str, Any], Any],
    text: str | bytes,
    fields: list[tuple[bytes, bytes]],
    odd: bytes,
) -> None:
    (method, template, seed), value = called
    target = template.replace("{}", quote(text, safe="") or "known")
    body = b"" if seed is None else json.dumps(value, ensure_ascii=False).encode() + odd[1:]
    answer = served.ask(method, target, body, *lines(fields))
    assert int(answer.start[0]) < 500, answer
    assert len(answer.values(b"x-portkey-trace-id")) == 1
    if answer.body != b"ok":  # what Helicone's own route says
        orjson.loads(answer.body)


WHOLE = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nHelicone-Request-Id: a\r\n\r\n{}"
    b"PUT /v1/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n"
    b"5;a=b\r\nhello\r\n0\r\n\r\n"
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
)
INSERTS = st.binary(max_size=4) | st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"0",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\n",
        b"\r\n\r\n",
    ]
)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 5), INSERTS), min_size=1, max_size=4))
@examples(60)
@example([(0, 0, b"\r\n\r\n")])
def test_any_bytes_are_answered_or_the_connection_ends(served: Served, changes: list[tuple[int, int, bytes]]) -> None:
    data = WHOLE
    for at, length, insert in changes:
        data = data[:at] + insert + data[at + length :]
    served.upstream.received.clear()
    served.upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    answers = converse_and_leave(served, data)
    assert all(int(answer.start[0]) < 500 or answer.start[0] == b"501" for answer in answers)
    assert len(served.upstream.received) <= data.count(b"HTTP/1.")
    assert served.ask("GET", "/healthz").start == (b"200",)


def converse_and_leave(served: Served, data: bytes) -> list[Message]:
    """The answers to bytes behind which the client says no more: what is not whole by then ends without one."""
    with socket.create_connection(("127.0.0.1", served.process.port), PATIENCE) as connection:
        answers = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(2**16):
                answers += piece
        except ConnectionError:
            pass
    with contextlib.suppress(HalfAnAnswer):
        return read_answers(answers)
    return []
