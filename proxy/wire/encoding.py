"""Content encodings, undone for the log only (RFC 9110 section 8.4). Bounded, and content with what can be read."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Final

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["decode"]

# A body of the log's bound can unpack to a thousand times as much; no answer that a person reads does.
_LARGEST_DECODED: Final = 16 * 1024 * 1024
# Who encodes a body oftener than this wants to keep whoever decodes it busy: each coding is gone over in full.
_MOST_CODINGS: Final = 5
# Behind each member the rest is copied, so that many small ones in a large body would take time by the square.
_FEWEST_MEMBERS: Final = 16
_MOST_COPIED: Final = 256 * 1024 * 1024


def decode(data: bytes, content_encoding: str | None) -> bytes | None:
    """The body without its content encodings, ``None`` where one is unknown, they are too many, or none can be read.

    A body that was cut gives what its beginning holds.
    """
    if not content_encoding:
        return data
    named = [coding.strip().lower() for coding in content_encoding.split(",")]
    codings = [coding for coding in named if coding not in ("", "identity")]
    if len(codings) > _MOST_CODINGS:
        return None
    for coding in reversed(codings):
        decoder = _DECODERS.get(coding)
        decoded = decoder(data) if decoder else None
        if decoded is None:
            return None
        data = decoded
    return data


def _gunzip(data: bytes) -> bytes | None:
    return _inflate(data, 31)


def _undeflate(data: bytes) -> bytes | None:
    # Named after zlib's format, but sent without its wrapper by many (RFC 9110 section 8.4.1.2).
    return _inflate(data, 15) or _inflate(data, -15)


def _inflate(data: bytes, window: int) -> bytes | None:
    parts: list[bytes] = []
    room = _LARGEST_DECODED
    for _ in range(_most_members(data)):
        if not data or room <= 0:
            break
        unpacker = zlib.decompressobj(window)
        try:
            parts.append(unpacker.decompress(data, room))
        except zlib.error:
            break
        room -= len(parts[-1])
        if not unpacker.eof:
            break
        data = unpacker.unused_data  # a further member of a gzip file
    return b"".join(parts) if parts else None


def _unbrotli(data: bytes) -> bytes | None:
    unpacker = brotli.Decompressor()
    try:
        return bytes(unpacker.process(data, output_buffer_limit=_LARGEST_DECODED))
    except brotli.error:
        return None


def _unzstd(data: bytes) -> bytes | None:
    parts: list[bytes] = []
    room = _LARGEST_DECODED
    for _ in range(_most_members(data)):
        if not data or room <= 0:
            break
        unpacker = zstd.ZstdDecompressor()
        try:
            parts.append(unpacker.decompress(data, max_length=room))
        except zstd.ZstdError:
            break
        room -= len(parts[-1])
        if not unpacker.eof:
            break
        data = unpacker.unused_data  # a body may be of several frames, one an event
    return b"".join(parts) if parts else None


def _most_members(data: bytes) -> int:
    """How many members of a file, or frames, are read: a stream may have one an event."""
    return _FEWEST_MEMBERS + _MOST_COPIED // max(1, len(data))


_DECODERS: Final[dict[str, Callable[[bytes], bytes | None]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _undeflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}
