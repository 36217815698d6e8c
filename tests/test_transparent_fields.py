"""Contract section 3: which header fields pass, which stay behind, and what is added."""

from __future__ import annotations

import pytest

from tests.conftest import Running
from tests.raw_client import ask, one_value, request
from tests.upstream import Received, Upstream, chat_answer, json_answer

LONG_VALUE = b"v" * (20 * 1024)
# Pairs that anything but the raw bytes would change: spellings, repeats, order, odd bytes, empty and spaced values.
AWKWARD = [
    (b"X-Second", b"2"),
    (b"x-FIRST", b"1"),
    (b"ETag", b'W/"x"'),
    (b"X-Spelt", b"one way"),
    (b"x-spelt", b"another"),
    (b"X-Spelt", b"one way again"),
    (b"X-Latin", b"caf\xe9 \xff"),
    (b"X-Utf-8", "café ✓".encode()),
    (b"X-Empty", b""),
    (b"X-Spaced", b"a  b\tc"),
    (b"X-Commas", b"a,, b ,c"),
    (b"X-Long", LONG_VALUE),
    (b"x_underscored", b"1"),
    (b"Set-Cookie", b"a=1; Path=/; Expires=Wed, 09 Jun 2100 10:18:14 GMT"),
    (b"Set-Cookie", b"b=2"),
    (b"Warning", b'199 - "x"'),
    (b"Proxy-Authenticate", b"Basic"),
    (b"Trailer", b"X-Sum"),
    (b"Via", b"1.1 edge"),
    (b"Accept", b"*/*"),
    (b"X-Forwarded-For", b"192.0.2.1"),
]
IDS = ["Helicone-Id", "Helicone-Request-Id", "Helicone-Status", "x-portkey-trace-id"]


def lines(fields: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [b"%b: %b" % field for field in fields]


def without(answer: Received, *names: str) -> list[tuple[bytes, bytes]]:
    left_out = {name.lower().encode() for name in names}
    return [(name, value) for name, value in answer.fields if name.lower() not in left_out]


async def test_fields_go_up_in_their_order_and_spelling(kibitz: Running, upstream: Upstream) -> None:
    await ask(kibitz.port, request("GET", "/v1/models", *lines(AWKWARD)))
    assert without(upstream.received[0], "Host") == AWKWARD


async def test_fields_come_down_in_their_order_and_spelling(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = chat_answer(fields=b"".join(line + b"\r\n" for line in lines(AWKWARD)))
    answer = await ask(kibitz.port, request("GET", "/v1/models"))
    framing = [
        (b"Content-Type", b"application/json"),
        *AWKWARD,
        (b"Content-Length", answer.values("Content-Length")[0]),
    ]
    assert without(answer, *IDS) == framing


async def test_a_bare_get_reaches_the_upstream_with_its_host_alone(kibitz: Running, upstream: Upstream) -> None:
    await ask(kibitz.port, request("GET", "/v1/models"))
    assert upstream.received[0].fields == [(b"Host", b"127.0.0.1:%d" % upstream.port)]


async def test_a_post_reaches_the_upstream_with_its_host_and_what_was_sent(kibitz: Running, upstream: Upstream) -> None:
    sent = (b"authorization: Bearer sk-theirs", b"Content-Type: application/json", b"Helicone-User-Id: u")
    await ask(kibitz.port, request("POST", "/v1/chat/completions", *sent, body=b"{}"))
    assert upstream.received[0].fields == [
        (b"Host", b"127.0.0.1:%d" % upstream.port),
        (b"authorization", b"Bearer sk-theirs"),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"2"),
    ]


async def test_an_empty_post_stays_one_of_length_zero(kibitz: Running, upstream: Upstream) -> None:
    await ask(kibitz.port, request("POST", "/v1/threads", b"Content-Length: 0"))
    assert without(upstream.received[0], "Host") == [(b"Content-Length", b"0")]


async def test_nothing_is_added_on_the_way_down_but_the_ids(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    answer = await ask(kibitz.port, request("GET", "/v1/models"))
    assert sorted(answer.names) == sorted([b"content-length", *(name.lower().encode() for name in IDS)])


async def test_the_upstream_s_own_date_and_server_arrive(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = json_answer(b"{}", fields=b"Date: Wed, 01 Jan 2020 00:00:00 GMT\r\nServer: theirs\r\n")
    answer = await ask(kibitz.port, request("GET", "/v1/models"))
    assert one_value(answer, "Date") == b"Wed, 01 Jan 2020 00:00:00 GMT"
    assert one_value(answer, "Server") == b"theirs"


HOP_BY_HOP = (
    b"Connection: keep-alive, X-Gone ,x-gone-too",
    b"connection: X-Gone-As-Well",
    b"X-Gone: 1",
    b"X-Gone-Too: 2",
    b"x-gone-as-well: 3",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"TE: trailers",
    b"X-Stays: 4",
)


async def test_hop_by_hop_fields_do_not_go_up(kibitz: Running, upstream: Upstream) -> None:
    await ask(kibitz.port, request("GET", "/v1/models", *HOP_BY_HOP))
    assert without(upstream.received[0], "Host") == [(b"X-Stays", b"4")]


async def test_hop_by_hop_fields_do_not_come_down(kibitz: Running, upstream: Upstream) -> None:
    fields = b"\r\n".join((*HOP_BY_HOP, b"Upgrade: h2c"))
    upstream.answer = b"HTTP/1.1 200 OK\r\n%b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" % fields
    answer = await ask(kibitz.port, request("GET", "/v1/models"))
    assert without(answer, *IDS) == [(b"X-Stays", b"4"), (b"Transfer-Encoding", b"chunked")]


async def test_an_upgrade_to_http_2_is_not_asked_for_and_the_body_arrives(kibitz: Running, upstream: Upstream) -> None:
    wish = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    answer = await ask(kibitz.port, request("POST", "/v1/models", *wish, body=b"hello"))
    assert answer.request_line == b"HTTP/1.1 200 OK"
    assert without(upstream.received[0], "Host") == [(b"Content-Length", b"5")]
    assert upstream.received[0].body == b"hello"


@pytest.mark.parametrize("host", ["Host: localhost:99", "host: sneaky.localhost"])
async def test_the_host_is_the_upstream_s(kibitz: Running, upstream: Upstream, host: str) -> None:
    await ask(kibitz.port, f"GET /v1/models HTTP/1.1\r\n{host}\r\n\r\n".encode())
    assert upstream.received[0].values("Host") == [b"127.0.0.1:%d" % upstream.port]


async def test_logging_fields_of_any_spelling_do_not_go_up(kibitz: Running, upstream: Upstream) -> None:
    logging = (
        b"Helicone-Request-Id: r",
        b"HELICONE-PROPERTY-App: a",
        b"helicone-auth: Bearer k",
        b"Helicone-Made-Up: x",
        b"X-Portkey-Trace-Id: t",
        b"x-portkey-provider: openai",
        b"X-PORTKEY-MADE-UP: x",
    )
    await ask(kibitz.port, request("GET", "/v1/models", *logging, b"X-Helicone: stays", b"Portkey: stays"))
    assert without(upstream.received[0], "Host") == [(b"X-Helicone", b"stays"), (b"Portkey", b"stays")]


async def test_trace_context_goes_up_as_sent(kibitz: Running, upstream: Upstream) -> None:
    trace = [
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"tracestate", b"a=b"),
        (b"baggage", b"user=1"),
    ]
    await ask(kibitz.port, request("GET", "/v1/models", *lines(trace)))
    assert without(upstream.received[0], "Host") == trace


async def test_the_ids_are_set_never_appended(kibitz: Running, upstream: Upstream) -> None:
    theirs = b"".join(b"%b: theirs\r\n" % name.upper().encode() for name in IDS)
    upstream.answer = json_answer(b"{}", fields=theirs)
    sent = (b"Helicone-Request-Id: mine", b"x-portkey-trace-id: my-trace")
    answer = await ask(kibitz.port, request("GET", "/v1/models", *sent))
    assert [one_value(answer, name) for name in IDS] == [b"mine", b"mine", b"success", b"my-trace"]


async def test_what_a_gateway_behind_kibitz_says_of_itself_comes_down(kibitz: Running, upstream: Upstream) -> None:
    theirs = [(b"x-portkey-provider", b"openai"), (b"Helicone-Cache", b"HIT")]
    upstream.answer = json_answer(b"{}", fields=b"".join(line + b"\r\n" for line in lines(theirs)))
    answer = await ask(kibitz.port, request("GET", "/v1/models"))
    assert without(answer, *IDS, "Content-Type", "Content-Length") == theirs
