"""A connection on which HTTP is over, taken from aiohttp's protocol of either end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp.base_protocol import BaseProtocol

__all__ = ["TakenConnection"]


@dataclass(frozen=True, slots=True)
class TakenConnection:
    """There is no transport where the connection was closed meanwhile.

    ``early`` is what had come behind the last message of HTTP.
    """

    transport: asyncio.Transport | None
    protocol: BaseProtocol
    early: bytes
