"""What a Content-Type names, without its parameters (RFC 9110 section 8.3.1)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

__all__ = ["EVENT_STREAM", "is_event_stream", "media_type_of"]

EVENT_STREAM: Final = "text/event-stream"
# Characters. Fields that somebody makes up must not fill the memory.
_LONGEST_KEPT: Final = 64


def media_type_of(content_type: str | None) -> str:
    """``type/subtype`` in lower case, empty where there was none."""
    if content_type is None:
        return ""
    return _kept(content_type) if len(content_type) <= _LONGEST_KEPT else _read(content_type)


def _read(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


_kept = lru_cache(maxsize=256)(_read)  # of few that come again and again, each is asked for several times a call


def is_event_stream(content_type: str | None) -> bool:
    """Whether a Content-Type names server-sent events."""
    return media_type_of(content_type) == EVENT_STREAM
