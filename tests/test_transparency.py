"""Contract section 3: what is sent arrives as sent."""

from __future__ import annotations

import gzip

import pytest

from tests.conftest import Running, StartKibitz
from tests.raw_client import ask, connect, request
from tests.upstream import CHAT_BODY, Connection, Upstream, chat_answer, json_answer, sse_answer

BINARY = bytes(range(256)) * 17
CHAT_REQUEST = b'{"model": "gpt-4o-mini",  "messages": []}'


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS"])
async def test_a_request_body_arrives_byte_for_byte(kibitz: Running, upstream: Upstream, method: str) -> None:
    await ask(kibitz.port, request(method, "/v1/anything", body=BINARY))
    assert upstream.received[0].method == method.encode()
    assert upstream.received[0].body == BINARY


async def test_a_response_body_arrives_byte_for_byte(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BINARY), BINARY)
    assert (await ask(kibitz.port, request("GET", "/v1/anything"))).body == BINARY


async def test_megabytes_pass_both_ways(kibitz: Running, upstream: Upstream) -> None:
    upload, download = BINARY * 700, BINARY[::-1] * 600
    upstream.answer = json_answer(download)
    answer = await ask(kibitz.port, request("POST", "/v1/files", body=upload))
    assert answer.body == download
    assert upstream.received[0].body == upload


@pytest.mark.parametrize("bound", [0, 4, len(CHAT_REQUEST)])
async def test_a_body_beyond_the_log_s_bound_passes_whole_and_is_logged_up_to_it(
    start_kibitz: StartKibitz, upstream: Upstream, bound: int
) -> None:
    kibitz = await start_kibitz(max_logged_body=bound)
    named = b"Helicone-Request-Id: long"
    answer = await ask(kibitz.port, request("POST", "/v1/chat/completions", named, body=CHAT_REQUEST))
    assert (upstream.received[0].body, answer.body) == (CHAT_REQUEST, CHAT_BODY)
    row = await kibitz.row("long")
    assert (row["request_body_size"], row["response_body_size"]) == (len(CHAT_REQUEST), len(CHAT_BODY))
    assert (row["request_body_truncated"], row["response_body_truncated"]) == (bound < len(CHAT_REQUEST), True)


@pytest.mark.parametrize(
    "status",
    ["200 OK", "201 Created", "299 Very Odd Reason", "404 Nicht Gefunden", "200 ", "418 I'm a teapot", "599 x"],
)
async def test_status_and_reason_arrive_as_sent(kibitz: Running, upstream: Upstream, status: str) -> None:
    upstream.answer = json_answer(b"{}", status=status)
    answer = await ask(kibitz.port, request("GET", "/v1/models"))
    assert answer.request_line == b"HTTP/1.1 " + status.encode()


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "429 Too Many Requests", "503 Busy"])
async def test_an_upstream_s_error_is_the_client_s_byte_for_byte(
    kibitz: Running, upstream: Upstream, status: str
) -> None:
    body = b'{ "error" : {"message":"no","code":null} }\n'
    upstream.answer = json_answer(body, status=status, fields=b"Retry-After: 7\r\nx-request-id: req_1\r\n")
    answer = await ask(kibitz.port, request("POST", "/v1/chat/completions", body=CHAT_REQUEST))
    assert answer.request_line == b"HTTP/1.1 " + status.encode()
    assert answer.body == body
    assert answer.values("Retry-After") == [b"7"]
    assert answer.values("Helicone-Status") == [b"success"]
    assert len(upstream.received) == 1


async def test_a_gzip_response_passes_encoded_and_is_logged_decoded(kibitz: Running, upstream: Upstream) -> None:
    encoded = gzip.compress(CHAT_BODY)
    upstream.answer = chat_answer(encoded, fields=b"Content-Encoding: gzip\r\n")
    message = request("POST", "/v1/chat/completions", b"Helicone-Request-Id: zipped", body=CHAT_REQUEST)
    answer = await ask(kibitz.port, message)
    assert answer.body == encoded
    assert answer.values("Content-Encoding") == [b"gzip"]
    row = await kibitz.row("zipped")
    assert row["response_text"] == "Hello there."
    assert row["completion_tokens"] == 3
    assert row["response_body"]["choices"][0]["message"]["content"] == "Hello there."


async def test_a_gzip_request_passes_encoded_and_is_logged_decoded(kibitz: Running, upstream: Upstream) -> None:
    encoded = gzip.compress(CHAT_REQUEST)
    lines = (b"Content-Type: application/json", b"Content-Encoding: gzip", b"Helicone-Request-Id: zipped")
    await ask(kibitz.port, request("POST", "/v1/chat/completions", *lines, body=encoded))
    assert upstream.received[0].body == encoded
    assert upstream.received[0].values("Content-Encoding") == [b"gzip"]
    row = await kibitz.row("zipped")
    assert row["request_body"] == {"model": "gpt-4o-mini", "messages": []}


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/files/a%2Fb%2fc", "/v1/files/a%2Fb%2fc"),
        ("/v1/x%7Ey~z", "/v1/x%7Ey~z"),
        ("/v1/models?", "/v1/models?"),
        ("/v1/models?limit=2&after=%2F+%20%7E&x", "/v1/models?limit=2&after=%2F+%20%7E&x"),
        ("/v1/models?next=//a/../b?c", "/v1/models?next=//a/../b?c"),
        ("/v1/broken%zz%2", "/v1/broken%zz%2"),
        ("/v1/a;b=c,d/(e)'!*@:$&=", "/v1/a;b=c,d/(e)'!*@:$&="),
        ("/v1/caf%C3%A9%00", "/v1/caf%C3%A9%00"),
        ("/v1//models", "/v1/models"),
        ("/v1///models", "/v1/models"),
        ("/v1/a//b/", "/v1/a//b/"),
        ("/v1/", "/v1/"),
        ("/v1?limit=2", "/v1?limit=2"),
        ("http://localhost/v1/models?limit=2", "/v1/models?limit=2"),
    ],
)
async def test_a_target_travels_as_it_was_spelt(kibitz: Running, upstream: Upstream, sent: str, seen: str) -> None:
    assert (await ask(kibitz.port, request("GET", sent))).request_line == b"HTTP/1.1 200 OK"
    assert upstream.received[0].target == seen.encode()


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nContent-Type: text/plain\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("DELETE", b"HTTP/1.1 204 No Content\r\nX-Deleted: yes\r\n\r\n"),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 1234\r\n\r\n'),
        ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
    ids=["head", "head-chunked", "204", "204-delete", "304", "empty"],
)
async def test_a_response_without_a_body_leaves_the_connection_in_step(
    kibitz: Running, upstream: Upstream, method: str, head: bytes
) -> None:
    upstream.answer = head
    async with connect(kibitz.port) as connection:
        await connection.send(request(method, "/v1/things/1"))
        status, fields = await connection.read_head()
        assert status == head.split(b"\r\n")[0]
        sent_length = [b"1234"] if b"1234" in head else [b"0"] if b"Length: 0" in head else []
        assert [value for name, value in fields if name == b"Content-Length"] == sent_length
        upstream.answer = chat_answer()
        await connection.send(request("GET", "/v1/models"))
        assert (await connection.read_request()).body == CHAT_BODY


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_response_that_ends_with_its_connection_arrives_whole(
    kibitz: Running, upstream: Upstream, version: bytes
) -> None:
    async def until_closed(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/%b 200 OK\r\n\r\n%b" % (version, BINARY))

    upstream.script = until_closed
    async with kibitz.client.get(f"{kibitz.base_url}/files/1/content") as response:
        assert await response.read() == BINARY


CHUNKS = [b"a", b"bc" * 50, b"\r\n", b"0\r\n\r\n", b"d" * 3000]


async def test_chunk_boundaries_of_a_response_arrive_as_sent(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = sse_answer(*CHUNKS)
    answer = await ask(kibitz.port, request("GET", "/v1/stream"))
    assert answer.chunks == CHUNKS


async def test_chunk_boundaries_of_a_request_arrive_as_sent(kibitz: Running, upstream: Upstream) -> None:
    chunks = b"".join(b"%X;note=x\r\n%b\r\n" % (len(chunk), chunk) for chunk in CHUNKS)
    await ask(kibitz.port, request("POST", "/v1/files", b"transfer-encoding: chunked") + chunks + b"0\r\n\r\n")
    assert upstream.received[0].chunks == CHUNKS
    assert upstream.received[0].values("Content-Length") == []


async def test_an_empty_chunked_request_arrives_as_one(kibitz: Running, upstream: Upstream) -> None:
    await ask(kibitz.port, request("POST", "/v1/files", b"Transfer-Encoding: chunked") + b"0\r\n\r\n")
    assert upstream.received[0].chunks == []
    assert upstream.received[0].values("Transfer-Encoding") == [b"chunked"]


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on(kibitz: Running, upstream: Upstream) -> None:
    async with connect(kibitz.port) as connection:
        await connection.send(request("POST", "/v1/files", b"Expect: 100-continue", b"Content-Length: 5"))
        assert await connection.read_head() == (b"HTTP/1.1 100 Continue", [])
        await connection.send(b"hello")
        assert (await connection.read_request()).request_line == b"HTTP/1.1 200 OK"
    assert upstream.received[0].body == b"hello"


async def test_a_redirect_is_handed_on_not_followed(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = json_answer(b"{}", status="307 Temporary Redirect", fields=b"Location: /v1/elsewhere\r\n")
    answer = await ask(kibitz.port, request("GET", "/v1/files"))
    assert answer.request_line == b"HTTP/1.1 307 Temporary Redirect"
    assert answer.values("Location") == [b"/v1/elsewhere"]
    assert len(upstream.received) == 1


async def test_cookies_are_handed_on_not_remembered(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = chat_answer(fields=b"Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; Path=/\r\n")
    first = await ask(kibitz.port, request("GET", "/v1/models", b"Cookie: mine=1"))
    assert first.values("Set-Cookie") == [b"a=1; Path=/", b"b=2; Path=/"]
    await ask(kibitz.port, request("GET", "/v1/models"))
    assert [received.values("Cookie") for received in upstream.received] == [[b"mine=1"], []]


async def test_an_http_1_0_client_gets_a_stream_unframed_and_then_the_end(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = sse_answer(b"data: 1\n\n", b"data: 2\n\n")
    async with connect(kibitz.port) as connection:
        await connection.send(request("GET", "/v1/stream", version="1.0"))
        status, fields = await connection.read_head()
        assert status == b"HTTP/1.0 200 OK"
        assert not {name.lower() for name, _ in fields} & {b"transfer-encoding", b"content-length"}
        assert await connection.reader.read() == b"data: 1\n\ndata: 2\n\n"


async def test_an_http_1_0_client_may_keep_its_connection(kibitz: Running) -> None:
    async with connect(kibitz.port) as connection:
        for _ in range(2):
            await connection.send(request("GET", "/v1/models", b"Connection: keep-alive", version="1.0"))
            answer = await connection.read_request()
            assert answer.request_line == b"HTTP/1.0 200 OK"
            assert answer.body == CHAT_BODY
            assert [value.lower() for value in answer.values("Connection")] == [b"keep-alive"]


async def test_an_http_1_0_client_s_connection_is_closed_unless_it_asks(kibitz: Running) -> None:
    async with connect(kibitz.port) as connection:
        await connection.send(request("GET", "/v1/models", version="1.0"))
        assert (await connection.read_request()).body == CHAT_BODY
        assert await connection.closed_by_peer()


async def test_requests_sent_ahead_are_answered_in_their_order(kibitz: Running, upstream: Upstream) -> None:
    async with connect(kibitz.port) as connection:
        await connection.send(
            request("GET", "/v1/one") + request("POST", "/v1/two", body=b"2") + request("GET", "/v1/3")
        )
        for _ in range(3):
            assert (await connection.read_request()).body == CHAT_BODY
    assert [received.target for received in upstream.received] == [b"/v1/one", b"/v1/two", b"/v1/3"]


async def test_an_answer_that_comes_before_the_upload_is_done_reaches_the_client(
    kibitz: Running, upstream: Upstream
) -> None:
    async def refuse_at_once(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(json_answer(b"{}", status="413 Too Much", fields=b"Connection: close\r\n"))
        await connection.closed_by_peer()

    upstream.script = refuse_at_once
    async with connect(kibitz.port) as connection:
        await connection.send(request("POST", "/v1/files", b"Content-Length: 1000000") + b"the beginning")
        assert (await connection.read_request()).request_line == b"HTTP/1.1 413 Too Much"
