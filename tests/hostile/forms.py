"""Requests that have talked one proxy or another into seeing two of them where its peer saw one, or the reverse."""

from __future__ import annotations

from typing import Final

__all__ = ["CHUNKED", "REFUSED", "TAKEN", "TRAILERS", "UNFINISHED", "form"]

HELLO: Final = b"hello"
# What a form tries to have taken for a request of its own.
SMUGGLED: Final = b"GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked"
FIVE: Final = b"Content-Length: 5"
HELLO_IN_CHUNKS: Final = b"5\r\nhello\r\n0\r\n\r\n"
KEPT_OPEN: Final = b"Connection: keep-alive"
UPGRADE: Final = b"Connection: Upgrade"
WEBSOCKET: Final = b"Upgrade: websocket"


def form(
    *lines: bytes,
    body: bytes = b"",
    method: bytes = b"POST",
    target: bytes = b"/v1/form",
    version: bytes = b"HTTP/1.1",
    end: bytes = b"\r\n",
    host: bytes | None = b"Host: localhost",
) -> bytes:
    head = [method + b" " + target + b" " + version, *([host] if host is not None else []), *lines]
    return end.join(head) + end + end + body


def lengths(*values: bytes) -> dict[str, bytes]:
    return {f"length {value!r}": form(b"Content-Length: " + value, body=HELLO + SMUGGLED) for value in values}


def codings(*values: bytes) -> dict[str, bytes]:
    return {
        f"coding {value!r}": form(b"Transfer-Encoding: " + value, body=HELLO_IN_CHUNKS + SMUGGLED) for value in values
    }


def hidden_codings(*names: bytes) -> dict[str, bytes]:
    """A Transfer-Encoding that one reader sees and the other does not, with and without a Content-Length beside it."""
    alone = {f"name {name!r}": form(name + b" chunked", body=b"0\r\n\r\n" + SMUGGLED) for name in names}
    beside = {f"name {name!r} and a length": form(name + b" chunked", FIVE, body=b"0\r\n\r\n") for name in names}
    return {**alone, **beside}


def chunks(*bodies: bytes) -> dict[str, bytes]:
    return {f"chunks {body[:40]!r}": form(CHUNKED, body=body + SMUGGLED) for body in bodies}


def targets(*values: bytes) -> dict[str, bytes]:
    return {f"target {value!r}": form(method=b"GET", target=value) for value in values}


def versions(*values: bytes) -> dict[str, bytes]:
    return {f"version {value!r}": form(version=value) for value in values}


# Refused with the status that is given, and the connection closed: nothing of it, nor what follows, goes anywhere.
REFUSED: Final[dict[str, tuple[bytes, int]]] = {
    name: (data, status)
    for status, group in (
        (
            400,
            {
                "length and coding": form(FIVE, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
                "coding and length": form(CHUNKED, FIVE, body=b"0\r\n\r\n" + SMUGGLED),
                "coding and length of zero": form(CHUNKED, b"Content-Length: 0", body=HELLO_IN_CHUNKS + SMUGGLED),
                "two lengths alike": form(FIVE, FIVE, body=HELLO + SMUGGLED),
                "two lengths": form(FIVE, b"Content-Length: 54", body=HELLO + SMUGGLED),
                **lengths(b"", b"+5", b"-0", b"-5", b"5,5", b"5, 5", b"5 5", b"0x5", b"5_0", b"5.0", b"1e1", b"5;a"),
                **lengths(b"5\x0b", b"\x0b5", b"\xd9\xa5", "\uff15".encode(), b"18446744073709551621"),
                **lengths(b"0" * 22 + b"5", b"9" * 30, b"18446744073709551615", b"99999999999999999999"),
                **codings(b"identity", b"gzip", b"xchunked", b"chunked, identity", b"chunked, chunked"),
                **codings(b"chunked;q=1", b"chunked,", b"x chunked", b"'chunked'", b'"chunked"', b"\x0bchunked"),
                **codings(b"chunked\x0b", b"chunked\x0c", b"\xa0chunked", b"chun\xc3\xa7ed", b"chunked\x00"),
                "coding twice": form(CHUNKED, CHUNKED, body=HELLO_IN_CHUNKS + SMUGGLED),
                "gzip before chunked": form(b"Transfer-Encoding: gzip", CHUNKED, body=HELLO_IN_CHUNKS),
                "chunked before identity": form(CHUNKED, b"Transfer-Encoding: identity", body=HELLO_IN_CHUNKS),
                "identity before chunked": form(b"Transfer-Encoding: identity", CHUNKED, body=HELLO_IN_CHUNKS),
                **hidden_codings(b"Transfer-Encoding :", b"Transfer-Encoding\t:", b"Transfer-Encoding\x0b:"),
                **hidden_codings(b" Transfer-Encoding:", b"\tTransfer-Encoding:", b"Transfer\0-Encoding:"),
                **hidden_codings(b"Transfer-Encoding\xa0:", b"X: y\nTransfer-Encoding:", b"X: y\rTransfer-Encoding:"),
                **hidden_codings(b"X: y\r\n\tTransfer-Encoding:", b"Transfer-Encoding:\r\n ", b"X: \0\r\nA:"),
                **hidden_codings(b"X(y):", b":", b"X\x7f:", b"caf\xc3\xa9:"),
                "a line without a colon": form(b"Transfer-Encoding chunked", body=HELLO_IN_CHUNKS),
                "LF alone": form(b"A: b", end=b"\n"),
                "LF alone in one line": form(b"A: b\nC: d"),
                "CR alone": form(b"A: b", end=b"\r"),
                "CR inside a value": form(b"A: b\rc"),
                "NUL inside a value": form(b"A: b\0c"),
                "a folded line": form(b"A: b\r\n c"),
                "a folded Content-Length": form(b"Content-Length:\r\n 5", body=HELLO),
                **chunks(b"0x5\r\nhello\r\n0\r\n\r\n", b"5_0\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n"),
                **chunks(b"-5\r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n"),
                **chunks(b"5\t\r\nhello\r\n0\r\n\r\n", b"5\0\r\nhello\r\n0\r\n\r\n", b"5\r\r\nhello\r\n0\r\n\r\n"),
                **chunks(b'5;a="b\r\nhello\r\n0\r\n\r\n"\r\n', b"5;\nGET\r\nhello\r\n0\r\n\r\n"),
                **chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n"),
                **chunks(
                    b"5\nhello\n0\n\n", b"5\r\nhello\r\n0\n\n", b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n"
                ),
                **chunks(b"F" * 17 + b"\r\nhello", b"1" + b"0" * 15 + b"5\r\nhello\r\n0\r\n\r\n", b"\r\nhello"),
                **chunks(b"g\r\nhello\r\n0\r\n\r\n", "\uff15\r\nhello\r\n0\r\n\r\n".encode()),
                **chunks(b"5\r\nhello\r\n0\r\nContent-Length: 40\r\n\r\n"),
                **chunks(b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
                **chunks(b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", b"5\r\nhello\r\n0\r\nX y\r\n\r\n"),
                "HTTP/1.0 with a coding": form(CHUNKED, version=b"HTTP/1.0", body=HELLO_IN_CHUNKS),
                "HTTP/1.0 with a coding, kept open": form(
                    CHUNKED, KEPT_OPEN, version=b"HTTP/1.0", body=HELLO_IN_CHUNKS
                ),
                **versions(b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/2.0", b"HTTP/3", b"http/1.1"),
                **versions(b"HTTP/1.1 ", b"HTTP/1.1 x", b"ICE/1.0", b"RTSP/1.0", b"HTTP/ 1.1", b"HTTP/1,1"),
                "HTTP/0.9": b"GET /v1/form\r\n\r\n",
                "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
                "all bytes": bytes(range(256)),
                "a blank in front": b" " + form(),
                "tabs in the first line": b"GET\t/v1/form\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
                **targets(b"/v1/a b", b"/v1/a\tb", b"/v1/\x01", b"/v1/\x0b", b"/v1/\x7f", b"/v1/\0", b"/v1/a?b c"),
                **targets(b"/v1/\xff", b"/v1/\xc3\xa9", b"/v1/a#b", b"/v1/a?b#c", b"http://h/v1/a#b", b"#x", b"?x"),
                **targets(b"*", b"v1/form", b"metrics", b"h/metrics", b"://h/v1/form", b"http:///v1/form", b"\\v1\\a"),
                "no Host": form(host=None),
                "two Hosts": form(b"Host: other.test"),
                "two Hosts alike": form(b"Host: localhost"),
                "an unknown method": form(method=b"FOO", body=SMUGGLED),
                "a method in lower case": form(method=b"post", body=SMUGGLED),
                "a method with a NUL": form(method=b"PO\0ST", body=SMUGGLED),
            },
        ),
        (
            501,
            {
                **codings(b"gzip, chunked", b"identity, chunked", b"deflate,chunked", b"x-odd, chunked", b",chunked"),
            },
        ),
        (
            405,
            {
                "CONNECT": form(method=b"CONNECT", target=b"localhost:443", body=SMUGGLED),
                "CONNECT with a body": form(FIVE, method=b"CONNECT", target=b"localhost:443", body=HELLO + SMUGGLED),
                "CONNECT in chunks": form(CHUNKED, method=b"CONNECT", target=b"localhost:443", body=HELLO_IN_CHUNKS),
            },
        ),
    )
    for name, data in group.items()
}


def with_body(method: bytes) -> dict[str, tuple[bytes, bytes]]:
    name = method.decode()
    return {
        f"{name} with a body": (form(FIVE, method=method, body=HELLO), HELLO),
        f"{name} with chunks": (form(CHUNKED, method=method, body=HELLO_IN_CHUNKS), HELLO),
        f"{name} with a request in its body": (
            form(b"Content-Length: %d" % len(SMUGGLED), method=method, body=SMUGGLED),
            SMUGGLED,
        ),
    }


def whole(**forms: bytes) -> dict[str, tuple[bytes, bytes]]:
    return {name.replace("_", " "): (data, b"") for name, data in forms.items()}


# Taken as one request with the body that is given.
TAKEN: Final[dict[str, tuple[bytes, bytes]]] = {
    "a length with blanks": (form(b"Content-Length: \t 5 \t", body=HELLO), HELLO),
    "a length with zeros in front": (form(b"Content-Length: 00005", body=HELLO), HELLO),
    "a length that is hop-by-hop": (form(b"Connection: content-length", FIVE, body=HELLO), HELLO),
    "a coding that is hop-by-hop": (form(b"Connection: transfer-encoding", CHUNKED, body=HELLO_IN_CHUNKS), HELLO),
    "a coding in capitals": (form(b"TRANSFER-ENCODING: CHUNKED", body=HELLO_IN_CHUNKS), HELLO),
    "a coding behind a tab": (form(b"Transfer-Encoding:\tchunked", body=HELLO_IN_CHUNKS), HELLO),
    "a coding with an underscore": (form(b"Transfer_Encoding: chunked", FIVE, body=HELLO), HELLO),
    "an extension": (form(CHUNKED, body=b"5;a=b\r\nhello\r\n0;c\r\n\r\n"), HELLO),
    "a quoted extension": (form(CHUNKED, body=b'5;a="b;c"\r\nhello\r\n0\r\n\r\n'), HELLO),
    "a long extension": (form(CHUNKED, body=b"5;%b\r\nhello\r\n0\r\n\r\n" % (b"a" * 100_000)), HELLO),
    "many extensions": (form(CHUNKED, body=b"5%b\r\nhello\r\n0\r\n\r\n" % (b";a=b" * 1000)), HELLO),
    "a size with zeros in front": (form(CHUNKED, body=b"0000000000005\r\nhello\r\n000\r\n\r\n"), HELLO),
    "a request in chunks": (form(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)), SMUGGLED),
    "chunks that look like an end": (form(CHUNKED, body=b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"), b"\r\n0\r\n\r\n"),
    **with_body(b"GET"),
    **with_body(b"HEAD"),
    **with_body(b"DELETE"),
    **with_body(b"OPTIONS"),
    **with_body(b"TRACE"),
    **with_body(b"PATCH"),
    "an expectation": (form(b"Expect: 100-continue", FIVE, body=HELLO), HELLO),
    "an expectation in capitals": (form(b"EXPECT: 100-CONTINUE", CHUNKED, body=HELLO_IN_CHUNKS), HELLO),
    "an expectation that nobody knows": (form(b"Expect: 200-ok", FIVE, body=HELLO), HELLO),
    "two expectations": (form(b"Expect: 100-continue, x", b"Expect: y", FIVE, body=HELLO), HELLO),
    "HTTP/1.0 with a length": (form(FIVE, KEPT_OPEN, version=b"HTTP/1.0", body=HELLO), HELLO),
    "a websocket with a body": (form(UPGRADE, WEBSOCKET, FIVE, method=b"GET", body=HELLO), HELLO),
    "an upgrade with a body": (form(UPGRADE, b"Upgrade: h2c", FIVE, body=HELLO), HELLO),
    "an upgrade with a request in its body": (
        form(UPGRADE, b"Upgrade: h2c", b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED),
        SMUGGLED,
    ),
    **whole(
        nothing=form(),
        a_websocket_without_its_key=form(UPGRADE, WEBSOCKET, method=b"GET"),
        an_upgrade_to_http_2=form(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", method=b"GET"),
        an_upgrade_to_who_knows_what=form(UPGRADE, b"Upgrade: odd/1", method=b"GET"),
        two_upgrades=form(UPGRADE, b"Upgrade: h2c", WEBSOCKET, method=b"GET"),
        an_upgrade_that_is_not_connected=form(b"Upgrade: h2c", method=b"GET"),
        an_expectation_of_no_body=form(b"Expect: 100-continue"),
        HTTP_without_a_Host=form(KEPT_OPEN, host=None, version=b"HTTP/1.0"),
        fields_that_are_hop_by_hop=form(b"Connection: Host, Authorization, X-Y", b"Authorization: Bearer x"),
        empty_lines_in_front=b"\r\n\r\n" + form(),
        an_absolute_target=form(target=b"http://other.test/v1/form"),
    ),
}

# Behind the last chunk, where nobody is to look for them.
TRAILERS: Final = tuple(
    form(CHUNKED, body=b"5\r\nhello\r\n0%b\r\n%b\r\n\r\n" % (extension, lines))
    for extension in (b"", b";a=b")
    for lines in (
        b"X-Evil: 1",
        b"A: b\r\nX-Evil: 1",
        b"X-Evil: 1\r\nHost: other.test",
        b"Helicone-Request-Id: evil",
        b"Authorization: Bearer evil",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 100",
        b"Connection: close",
        b"Upgrade: websocket",
    )
)

# Whole in no reading: the client has to send more, or leave.
UNFINISHED: Final[dict[str, bytes]] = {
    "a length beyond 63 bits": form(b"Content-Length: 9223372036854775809", body=HELLO + SMUGGLED),
    "a length of 19 digits": form(b"Content-Length: 9999999999999999999", body=HELLO + SMUGGLED),
    "chunks without an end": form(CHUNKED, body=b"5\r\nhello\r\n"),
    "a chunk of 60 bits": form(CHUNKED, body=b"F" * 15 + b"\r\n" + SMUGGLED),
    "an extension without an end": form(CHUNKED, body=b"5;" + b"a" * 100_000),
    "a trailer without an end": form(CHUNKED, body=b"5\r\nhello\r\n0\r\nX: y\r\n"),
    "an upgrade with half a body": form(UPGRADE, b"Upgrade: h2c", FIVE, body=b"he"),
}
