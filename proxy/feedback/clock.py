"""The time that feedback is stamped with."""

from __future__ import annotations

import time

__all__ = ["now"]


def now() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000
