"""Events of the official SDK's types as the stream that carries them."""

from __future__ import annotations

from typing import Any

import orjson
from openai import BaseModel

__all__ = ["stream_of"]


def stream_of(*events: BaseModel | dict[str, Any]) -> bytes:
    """Each event, an object of the SDK or plain members, as one server-sent event."""
    members = (event.to_dict() if isinstance(event, BaseModel) else event for event in events)
    return b"".join(b"data: %b\n\n" % orjson.dumps(one) for one in members)
