"""The calls under way: whoever rates one of them before its row is there is not told that it doesn't exist."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from proxy.exchange import Exchange

__all__ = ["InFlight"]

_Kind = Literal["request", "trace", "session"]


class InFlight:
    """Counts the ids of calls from their start until their row is committed."""

    def __init__(self) -> None:
        self._ids: Counter[tuple[_Kind, str, str]] = Counter()

    def add(self, exchange: Exchange) -> None:
        """The call has started."""
        for key in _keys(exchange):
            self._ids[key] += 1

    def remove(self, exchange: Exchange) -> None:
        """Its row is in the store, or will never be."""
        for key in _keys(exchange):
            if self._ids[key] <= 1:
                del self._ids[key]
            else:
                self._ids[key] -= 1

    def has(self, kind: _Kind, organisation: str, text: str) -> bool:
        """Whether a call of that request id, trace id or session id is under way."""
        return (kind, organisation, text) in self._ids


def _keys(exchange: Exchange) -> list[tuple[_Kind, str, str]]:
    identity, organisation = exchange.identity, exchange.organisation
    keys: list[tuple[_Kind, str, str]] = [
        ("request", organisation, identity.request_id),
        ("trace", organisation, identity.trace_id),
    ]
    if identity.session_id is not None:
        keys.append(("session", organisation, identity.session_id))
    return keys
