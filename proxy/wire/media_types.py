"""What a Content-Type names, without its parameters (RFC 9110 section 8.3.1)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

__all__ = ["EVENT_STREAM", "is_event_stream", "media_type_of"]

EVENT_STREAM: Final = "text/event-stream"


@lru_cache(maxsize=256)  # of few that come again and again, each is asked for several times a call
def media_type_of(content_type: str | None) -> str:
    """``type/subtype`` in lower case, empty where there was none."""
    return (content_type or "").partition(";")[0].strip().lower()


def is_event_stream(content_type: str | None) -> bool:
    """Whether a Content-Type names server-sent events."""
    return media_type_of(content_type) == EVENT_STREAM
