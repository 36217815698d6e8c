"""The formats by their names, and which calls each is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from proxy.export.formats import Chat, Format, Rows
from proxy.export.preferences import Preference
from proxy.export.tables import Csv, Parquet
from storage.filters import All, Condition, Field, Node, Operator

__all__ = ["FORMATS", "FormatName", "meant_by"]

FormatName = Literal["rows", "chat", "preference", "csv", "parquet"]

FORMATS: Final[dict[FormatName, Callable[[], Format]]] = {
    "rows": Rows,
    "chat": Chat,
    "preference": Preference,
    "csv": Csv,
    "parquet": Parquet,
}
_LATEST: Final = Condition(Field("is_latest_attempt"), Operator.EQUALS, True)


def meant_by(name: FormatName, where: Node) -> Node:
    """What is to be looked for: of a request that was tried again, only the last attempt is a conversation."""
    return All((where, _LATEST)) if name in ("chat", "preference") else where
