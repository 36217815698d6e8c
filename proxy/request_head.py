"""The head of a request as the upstream gets it, ready but for how long the body is."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.headers import Change, RawField, place_of_length, serialize

__all__ = ["RequestHead"]


class RequestHead:
    """A head of the request's ``line``, such as ``fields``, and the lines of the ``end``, the empty one included."""

    __slots__ = ("_before", "_behind", "_end", "_fields", "_line")

    def __init__(self, line: bytes, fields: list[RawField], end: bytes) -> None:
        self._line, self._fields, self._end = line, fields, end
        at = place_of_length(fields)
        self._before: bytes
        self._behind: bytes | None
        if at is None:
            self._before, self._behind = line + serialize(fields) + end, None
        else:
            self._before = line + serialize(fields[:at]) + fields[at][0] + b": "
            self._behind = b"\r\n" + serialize(fields[at + 1 :]) + end

    def with_length(self, length: bytes) -> bytes:
        """The head's bytes, with that Content-Length if it has one."""
        return self._before if self._behind is None else self._before + length + self._behind

    def changed(self, changes: Sequence[Change]) -> RequestHead | None:
        """The head with the later of each two fields in the place of the earlier; ``None`` if it hasn't one of those.

        Such as Connection names, or as hold a key of Kibitz's, stay behind.
        """
        later = {id(was): now for was, now in changes}  # by what it is: a field that repeats another is equal to it
        fields = [later.pop(id(field), field) for field in self._fields]
        return None if later else RequestHead(self._line, fields, self._end)
