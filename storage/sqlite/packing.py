"""Bodies as the file holds them: zstd where it makes them smaller (RFC 8878)."""

from __future__ import annotations

import sys
import threading

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["pack", "unpack"]

_ZSTD = "zstd"
# A compressor costs more to make than a small body to pack, and serves one thread at a time.
_local = threading.local()
# Below this a frame's own header eats the gain.
_WORTH_PACKING = 128
_LEVEL = 1


def pack(data: bytes | None) -> tuple[bytes | None, str | None]:
    """The bytes to store and the name of their packing, ``None`` where they are stored as they are."""
    if data is None or len(data) < _WORTH_PACKING:
        return data, None
    packed = _compressor().compress(data, zstd.ZstdCompressor.FLUSH_FRAME)
    return (packed, _ZSTD) if len(packed) < len(data) else (data, None)


def _compressor() -> zstd.ZstdCompressor:
    try:
        compressor: zstd.ZstdCompressor = _local.compressor
    except AttributeError:
        compressor = _local.compressor = zstd.ZstdCompressor(_LEVEL)
    return compressor


def unpack(data: bytes | None, packing: str | None) -> bytes | None:
    """What `pack` was given."""
    if data is None or packing is None:
        return data
    if packing != _ZSTD:
        raise ValueError(f"unknown packing {packing!r}")
    return zstd.decompress(data)
