"""A call's own key is taken out of what is kept of it, and a row tells what else is not there."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

import orjson
import pytest

from proxy.exchange import Capture, Exchange
from proxy.headers import read_request_fields
from proxy.identity import identify
from proxy.pricing import Pricer
from proxy.redaction.credentials import NO_KEYS, Credentials
from proxy.redaction.rules import TooSlow
from proxy.row import build_call
from storage.records import Call

KEY = b"sk-0123456789abcdef"
MiB = 2**20


def row(
    *,
    request: bytes = b"{}",
    response: bytes,
    encoding: str | None = None,
    content_type: str | None = None,
    within: float | None = None,
    keys: Sequence[bytes] = (KEY,),
) -> Call:
    """Of a call with a key whose response has a content encoding."""
    captures = Capture(limit=64 * MiB), Capture(64 * MiB, content_type, encoding)
    exchange = Exchange(
        organisation="default",
        identity=identify(read_request_fields([])),
        method="POST",
        path="/v1/messages",
        target_url="http://upstream/v1/x",
        provider="test",
        request=captures[0],
        response=captures[1],
        status=200,
        credentials=Credentials(keys, NO_KEYS),
    )
    for capture, data in zip(captures, (request, response), strict=True):
        capture.feed(data)
    exchange.end()
    return build_call(exchange, Pricer({}), within=within)


@pytest.mark.parametrize("asked", [b'{"q": "what is a kbz_ key?"}', b'{"q": "%b"}' % KEY])
@pytest.mark.parametrize("encoding", ["aws-chunked", "gzip"])
def test_an_answer_that_cannot_be_unpacked_is_kept_as_it_is(asked: bytes, encoding: str) -> None:
    kept = row(request=asked, response=b'{"answer": "text"}', encoding=encoding)
    assert kept.request.data == asked.replace(KEY, b"[redacted]")
    assert (kept.response.data, kept.response.content_encoding) == (b'{"answer": "text"}', encoding)
    assert (kept.response.omitted, kept.response.truncated) == (False, False)


def test_a_key_in_an_answer_of_an_unknown_encoding_is_taken_out() -> None:
    kept = row(response=b"no such key: " + KEY, encoding="aws-chunked").response
    assert (kept.data, kept.content_encoding) == (b"no such key: [redacted]", "aws-chunked")


@pytest.mark.parametrize("quoted", [b"", KEY])
def test_an_answer_that_is_unpacked_says_whether_its_end_is_missing(quoted: bytes) -> None:
    packed = gzip.compress(quoted + b"a" * 20 * MiB)
    kept = row(request=b"kbz_", response=packed, encoding="gzip").response
    assert kept.data is not None
    if quoted:
        assert kept.data.startswith(b"[redacted]a")
        assert (kept.content_encoding, kept.truncated) == (None, True)
    else:
        assert (kept.data, kept.content_encoding, kept.truncated) == (packed, "gzip", False)


def spelt(key: bytes, form: str) -> bytes:
    return "".join(form % byte for byte in key).encode()


@pytest.mark.parametrize("form", ["\\u%04x", "%%%02x"])
@pytest.mark.parametrize("encoding", ["utf-8", "gzip"])
def test_a_key_that_is_spelt_otherwise_is_taken_out_of_an_answer_that_cannot_be_unpacked(
    form: str, encoding: str
) -> None:
    kept = row(response=b'{"error": "no %b", "a": 1}' % spelt(KEY, form), encoding=encoding).response
    assert (kept.data, kept.content_encoding) == (b'{"error": "no [redacted]", "a": 1}', encoding)


def named(name: bytes) -> bytes:
    """A gzip file with the name that its contents had (RFC 1952 section 2.3.1)."""
    packed = gzip.compress(b"{}", mtime=0)
    return packed[:3] + b"\x08" + packed[4:10] + name + b"\0" + packed[10:]


@pytest.mark.parametrize("packed", [gzip.compress(b"{}", mtime=0) + KEY, named(KEY)], ids=["behind", "name"])
def test_what_unpacking_passes_over_is_not_kept(packed: bytes) -> None:
    kept = row(response=packed, encoding="gzip").response
    assert (kept.data, kept.content_encoding, kept.omitted) == (b"{}", None, False)


@pytest.mark.parametrize("encoding", [None, "gzip", "utf-8"])
def test_a_stream_that_holds_a_key_only_once_put_together_is_not_kept_packed_either(encoding: str | None) -> None:
    block = {"type": "text", "text": KEY[:7].decode()}
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": KEY[7:].decode()}},
    ]
    stream = b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in events)
    packed = gzip.compress(stream) if encoding == "gzip" else stream
    kept = row(response=packed, encoding=encoding, content_type="text/event-stream").response
    assert (kept.data, kept.omitted) == (None, True)


@pytest.mark.parametrize("escape", [b"%25", b"\\u0041"])
def test_many_escapes_are_undone_beside_the_event_loop(escape: bytes) -> None:
    with pytest.raises(TooSlow):
        row(response=escape * 10_000, within=1.0)
    assert row(response=escape * 10_000).response.data == escape * 10_000


def test_many_keys_are_looked_for_beside_the_event_loop() -> None:
    keys, answer = [b"key-0123456789-%04d" % number for number in range(3000)], b'{"a": "%b"}' % (b"x" * 200_000)
    with pytest.raises(TooSlow):
        row(response=answer, keys=keys, within=1.0)
    assert row(response=answer, keys=keys).response.data == answer
    assert row(response=answer, keys=keys[:20], within=1.0).response.data == answer
