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
_SAMPLE = 64 * 1024
_LEVEL = 1


def pack(data: bytes | None) -> tuple[bytes | None, str | None]:
    """The bytes to store and the name of their packing, ``None`` where they are stored as they are."""
    if data is None or len(data) < _WORTH_PACKING or _is_noise(data):
        return data, None
    packed = _compressed(data)
    return (packed, _ZSTD) if len(packed) < len(data) else (data, None)


def _is_noise(data: bytes) -> bool:
    """Whether a large body's beginning tells that packing it would cost time and memory for nothing."""
    sample = data[:_SAMPLE]
    return len(data) > _SAMPLE and len(_compressed(sample)) > 0.97 * len(sample)


def _compressed(data: bytes) -> bytes:
    return _compressor().compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


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
