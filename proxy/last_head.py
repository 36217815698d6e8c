"""What was made of the last head on a connection, for the next one that is the same.

A client says the same with every call of a connection, but for how long its body is. So what follows from a head
alone is found out once. It is kept with the connection and no longer, for it holds the client's credentials.
"""

from __future__ import annotations

from typing import Any, Final, Generic, Protocol, TypeVar

from proxy.headers import RawHeaders

__all__ = ["LastHead"]

T = TypeVar("T")

# Bytes of fields and target. Many connections keep one each, and larger heads are seldom sent twice.
_LARGEST_KEPT: Final = 4096
_LENGTH: Final = b"content-length"


class _Request(Protocol):
    """What of a request its head is."""

    method: str
    raw_path: str

    @property
    def version(self) -> tuple[int, int]: ...
    @property
    def raw_headers(self) -> RawHeaders: ...


class LastHead(Generic[T]):
    """One head and what was made of it."""

    __slots__ = ("_length_at", "_line", "_made", "_raw")

    def __init__(self) -> None:
        self._made: T | None = None
        self._line: tuple[Any, ...] = ()
        self._raw: RawHeaders = ()
        self._length_at: int | None = None

    def recall(self, request: _Request) -> tuple[T, bytes] | None:
        """What was made of a head that is the same but for the value of its Content-Length, and that value.

        The value is empty where there is no such field.
        """
        made, at, kept = self._made, self._length_at, self._raw
        if made is None or self._line != (request.method, request.raw_path, request.version):
            return None
        raw = request.raw_headers
        if raw == kept:
            return made, raw[at][1] if at is not None else b""
        if at is None or len(raw) != len(kept) or raw[at][0] != kept[at][0]:
            return None
        return (made, raw[at][1]) if raw[:at] == kept[:at] and raw[at + 1 :] == kept[at + 1 :] else None

    def keep(self, request: _Request, made: T) -> bytes:
        """Keep what was made of a request's head, in the place of what was kept before; gives its Content-Length."""
        raw, at = request.raw_headers, _place_of_length(request.raw_headers)
        if len(request.raw_path) + sum(len(name) + len(value) for name, value in raw) <= _LARGEST_KEPT:
            self._made, self._raw, self._length_at = made, raw, at
            self._line = (request.method, request.raw_path, request.version)
        return raw[at][1] if at is not None else b""


def _place_of_length(raw: RawHeaders) -> int | None:
    return next((at for at, (name, _) in enumerate(raw) if len(name) == len(_LENGTH) and name.lower() == _LENGTH), None)
