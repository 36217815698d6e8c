"""Bodies as the file holds them: zstd where it makes them smaller (RFC 8878)."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "IN_PIECES",
    "LARGE",
    "PRUNED",
    "SHARED",
    "pack",
    "pack_against",
    "pack_in_pieces",
    "unpack",
    "unpack_against",
]

logger = logging.getLogger(__name__)

LARGE: Final = 1024 * 1024
"""Bytes of a body from which it is stored in pieces."""
IN_PIECES: Final = frozenset({"pieces", "zstd-pieces"})
"""The packings of bodies that are."""
PRUNED: Final = "pruned"
"""What stands for the packing of a body that was removed from its row."""
SHARED: Final = "zstd-shared"
"""The packing of a body that needs another one to be unpacked."""
_PIECE = 256 * 1024
_ZSTD = "zstd"
# Below this a body takes longer to pack (some 4 µs) than its row to write, and packed is still two thirds of itself.
_WORTH_PACKING = 512
_SAMPLE = 64 * 1024
_LEVEL = 1


def pack(data: bytes | None) -> tuple[bytes | None, str | None]:
    """The bytes to store and the name of their packing, ``None`` where they are stored as they are."""
    if data is None or len(data) < _WORTH_PACKING or (len(data) > _SAMPLE and _is_noise(data)):
        return data, None
    packed = _compressed(data)
    return (packed, _ZSTD) if len(packed) < len(data) else (data, None)


def _is_noise(data: bytes) -> bool:
    """Whether a large body's beginning tells that packing it would cost time and memory for nothing."""
    sample = data[:_SAMPLE]
    return len(_compressed(sample)) > 0.97 * len(sample)


class _OfThread(threading.local):
    """A compressor costs more to make than a small body to pack, and serves one thread at a time."""

    def __init__(self) -> None:
        self.compressor = zstd.ZstdCompressor(_LEVEL)


_of_thread = _OfThread()


def _compressed(data: bytes) -> bytes:
    return _of_thread.compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


def pack_in_pieces(data: bytes) -> tuple[Iterator[bytes | memoryview], str]:
    """The same for a large body: the pieces to store, made as they are asked for, and the name of their packing."""
    whole = memoryview(data)
    pieces = (whole[start : start + _PIECE] for start in range(0, len(data), _PIECE))
    return (pieces, "pieces") if _is_noise(data) else (_compressed_pieces(pieces), "zstd-pieces")


def _compressed_pieces(pieces: Iterator[memoryview]) -> Iterator[bytes]:
    """One frame, cut anywhere."""
    compressor = zstd.ZstdCompressor(_LEVEL)
    for piece in pieces:
        if packed := compressor.compress(piece):
            yield packed
    yield compressor.flush()


def unpack(data: bytes | None, packing: str | None) -> bytes | None:
    """What `pack` was given, or `pack_in_pieces`, whose pieces are ``data`` when put together.

    ``None`` where that can't be had any more: a damaged body is no reason to lose its row, or those behind it.
    """
    if data is None or packing in (None, "pieces"):
        return data
    if packing == SHARED:
        return None  # not from this alone: see `unpack_against`
    try:
        if packing in (_ZSTD, "zstd-pieces"):
            return zstd.decompress(data)
        logger.error("a body is packed as %r, which this Kibitz does not know", packing)
    except zstd.ZstdError as error:
        logger.error("a body in the store is damaged: %s", error)
    return None


def pack_against(data: bytes, base: bytes) -> bytes:
    """A body as what it adds to another one, without which it can't be had; with a checksum, for it to be told."""
    options = {
        int(zstd.CompressionParameter.compression_level): _LEVEL,
        int(zstd.CompressionParameter.checksum_flag): 1,
    }
    return zstd.compress(data, options=options, zstd_dict=zstd.ZstdDict(base, is_raw=True).as_prefix)


def unpack_against(packed: bytes, base: bytes) -> bytes | None:
    """What `pack_against` was given; ``None`` where that can't be had any more."""
    try:
        return zstd.decompress(packed, zstd_dict=zstd.ZstdDict(base, is_raw=True).as_prefix)
    except zstd.ZstdError as error:
        logger.error("a body in the store is damaged: %s", error)
    return None
