"""Large blocks of memory go back to the system when they are freed, where the C library can be told so."""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["return_large_blocks"]

# mallopt(3): the size from which a block is a mapping of its own.
_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 256 * 1024


def return_large_blocks() -> None:
    """Fix the size from which blocks are mappings of their own, which end when the block does.

    glibc raises it with each large block that is freed, up to 32 MiB: then bodies of many megabytes lie scattered
    in the heap, which stays as large as it ever was.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    except (AttributeError, OSError, TypeError):
        pass  # another C library, which has no such thing
