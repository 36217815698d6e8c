"""Bodies that break readers of JSON, of text or of content encodings."""

from __future__ import annotations

import gzip
import sys
import zlib
from typing import Final

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["ENCODED", "ODD"]

# Unpacked far more than is kept of it.
_BOMB_SIZE: Final = 20 * 1024 * 1024
_UNPACKED: Final = b"a" * _BOMB_SIZE


def in_chat(value: bytes) -> bytes:
    """A chat request that would be good but for one value."""
    return b'{"model":"gpt-4o","messages":[{"role":"user","content":%b}],"user":%b}' % (value, value)


ODD: Final[dict[str, bytes]] = {
    "nothing": b"",
    "a blank": b" ",
    "a NUL": b"\0",
    "no JSON": b"hello",
    "half of it": b'{"model":"gpt-4o","messages":[{"ro',
    "two of them": b"{}{}",
    "null": b"null",
    "true": b"true",
    "a number": b"5",
    "a text": b'"text"',
    "an empty array": b"[]",
    "an empty object": b"{}",
    "arrays in arrays": b"[" * 1_000_000,
    "arrays in arrays, closed": b"[" * 1_000_000 + b"]" * 1_000_000,
    "objects in objects": b'{"a":' * 500_000 + b"1" + b"}" * 500_000,
    "a deep member": in_chat(b"[" * 1000 + b"]" * 1000),
    "a fairly deep member": in_chat(b'{"a":' * 150 + b"1" + b"}" * 150),
    "a huge integer": in_chat(b"9" * 100_000),
    "a huge negative integer": in_chat(b"-" + b"9" * 5000),
    "an integer beyond 64 bits": in_chat(b"18446744073709551616"),
    "a huge float": in_chat(b"1e999"),
    "a long float": in_chat(b"1." + b"0" * 100_000 + b"1"),
    "a tiny float": in_chat(b"1e-999999"),
    "a huge exponent": in_chat(b"1e" + b"9" * 10_000),
    "NaN": in_chat(b"NaN"),
    "infinity": in_chat(b"-Infinity"),
    "a number with a zero in front": in_chat(b"01"),
    "names twice": b'{"model":"a","model":"b","messages":[],"messages":{},"rating":true,"rating":false}',
    "an empty name": b'{"":""}',
    "half a surrogate pair": in_chat(rb'"\ud800"'),
    "the other half": in_chat(rb'"\udfff and more"'),
    "surrogates the wrong way round": in_chat(rb'"\udc00\ud800"'),
    "a surrogate in a name": rb'{"\ud800":1,"rating":true}',
    "an escaped NUL": in_chat(rb'"a\u0000b"'),
    "a NUL in a text": in_chat(b'"a\0b"'),
    "line ends in a text": in_chat(rb'"a\r\nX: y\u2028\u0085"'),
    "control characters": in_chat(b'"\x01\x1f\x7f"'),
    "invalid UTF-8": in_chat(b'"\xff\xfe\xc3\x28"'),
    "overlong UTF-8": in_chat(b'"\xc0\x80"'),
    "surrogates in UTF-8": in_chat(b'"\xed\xa0\x80"'),
    "Latin-1": in_chat('"café"'.encode("latin-1")),
    "UTF-16": in_chat(b'"x"').decode().encode("utf-16"),
    "UTF-32": in_chat(b'"x"').decode().encode("utf-32"),
    "a byte order mark": b"\xef\xbb\xbf" + in_chat(b'"x"'),
    "a long name": b'{"%b":1}' % (b"a" * 200_000),
    "many names": b"{%b}" % b",".join(b'"%d":1' % number for number in range(20_000)),
    "many items": b"[%b]" % b",".join([b"{}"] * 20_000),
    "a comment": b'{"a":1}//b',
    "a form": b"a=b&rating=true",
    "numbers for texts": b'{"model":1,"messages":2,"user":3,"stream":4,"trace_id":5,"value":6,"key":7}',
    "objects for texts": b'{"model":{},"messages":{},"user":[],"rating":{},"trace_id":{},"value":{},"scores":[]}',
}


def gzip_in_gzip(times: int) -> bytes:
    data = b"x"
    for _ in range(times):
        data = gzip.compress(data, 0)
    return data


# Content-Encoding and bytes; of what the names promise the bytes hold nothing, half, or far too much.
ENCODED: Final[dict[str, tuple[str, bytes]]] = {
    "a bomb in gzip": ("gzip", gzip.compress(_UNPACKED)),
    "a bomb in deflate": ("deflate", zlib.compress(_UNPACKED)),
    "a bomb in brotli": ("br", brotli.compress(_UNPACKED, quality=1)),
    "a bomb in zstd": ("zstd", zstd.compress(_UNPACKED)),
    "a bomb in a bomb": ("gzip, gzip", gzip.compress(gzip.compress(_UNPACKED))),
    "a bomb of members": ("gzip", gzip.compress(b"a" * 1_000_000) * 500),
    "countless members": ("gzip", gzip.compress(b"") * 20_000),
    "countless codings": (", ".join(["gzip"] * 300), gzip_in_gzip(300)),
    "countless codings of nothing": (",".join(["identity"] * 500), b"{}"),
    "what is no gzip": ("gzip", b'{"model":"gpt-4o"}'),
    "half of a gzip": ("gzip", gzip.compress(ODD["many names"])[:1000]),
    "gzip with a wrong sum": ("gzip", gzip.compress(b"{}")[:-8] + bytes(8)),
    "no encoding that is known": ("x-odd", b"{}"),
    "a name that is none": ("\xff\xfe", b"{}"),
    "an odd JSON in gzip": ("gzip", gzip.compress(ODD["half a surrogate pair"])),
    "a deep JSON in brotli": ("br", brotli.compress(ODD["arrays in arrays"], quality=1)),
}
