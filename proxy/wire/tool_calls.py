"""Tool calls of a streamed chat, put together from their pieces.

A piece says by its index which call it goes on with, or by its id, or not at all: then it is the last one's. Some
providers give one index, or none, to several calls; what tells those apart is that a call begins with its name.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.wire.accumulate import GrowingText, add_members, grown
from proxy.wire.facts import as_object

__all__ = ["ToolCalls", "grown_tool"]

Piece = dict[str, Any]

# The member that holds a call's tool, and in it what the model writes: by the call's type.
_TOOLS: Final = {"function": "arguments", "custom": "input"}


def grown_tool(_: str, known: Any, new: Any) -> Piece:
    """What a call says of its tool, with the next piece of it."""
    tool = as_object(known)
    add_members(tool, as_object(new), _OF_A_TOOL)
    return tool


def _grown_name(name: str, known: Any, new: Any) -> Any:
    return known if known == new else grown(name, known, new)  # some send the whole name with every piece


def _first(_: str, known: Any, __: Any) -> Any:
    return known


_OF_A_TOOL: Final = {"name": _grown_name}
_OF_A_CALL: Final = {**dict.fromkeys(_TOOLS, grown_tool), "index": _first}


class ToolCalls(list[Piece]):
    """The calls so far, in the order in which they began; each still has its ``index``."""

    def __init__(self) -> None:
        super().__init__()
        self._by_index: dict[int | None, Piece] = {}
        self._by_id: dict[str | None, Piece] = {}

    def take(self, pieces: list[Piece]) -> None:
        """Add the next pieces."""
        for piece in pieces:
            call = self._call(piece)
            add_members(call, piece, _OF_A_CALL)
            if call_id := _text(piece.get("id")):
                self._by_id[call_id] = call

    def _call(self, piece: Piece) -> Piece:
        """The call that a piece goes on with, which may be a new one."""
        index, call_id = _index(piece), _text(piece.get("id"))
        if index is None and call_id is None:
            known = self[-1] if self else None
        else:
            known = self._by_index.get(index) or self._by_id.get(call_id)
        if known is None or _begins_another(known, piece):
            known = {"index": len(self) if index is None else index}
            self.append(known)
        if index is not None:
            self._by_index[index] = known
        return known


def _begins_another(call: Piece, piece: Piece) -> bool:
    """Whether a piece that should go on with a call is the beginning of another one."""
    name, written = _name_and_text(piece)
    if not name:
        return False
    call_id, known_id = _text(piece.get("id")), _text(call.get("id"))
    if call_id and known_id:
        return call_id != known_id
    known_name, known_written = _name_and_text(call)
    return bool(known_written) and (known_name != name or _is_next_object(known_written, written))


def _is_next_object(known: Any, new: Any) -> bool:
    """Whether one JSON object ends here and another begins: within one, no ``{`` follows a ``}``."""
    last = known[-1] if isinstance(known, GrowingText) else known
    return str(last).rstrip().endswith("}") and str(new).lstrip().startswith("{")


def _name_and_text(call: Piece) -> tuple[Any, Any]:
    holder, member = next(((name, member) for name, member in _TOOLS.items() if call.get(name)), ("", ""))
    tool = as_object(call.get(holder))
    return tool.get("name"), tool.get(member)


def _index(piece: Piece) -> int | None:
    index = piece.get("index")
    return index if isinstance(index, int) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
