"""Reading the texts of calls inside a query: the SQL functions that conditions on texts need."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import aiosqlite

from storage.sqlite.reading import Side, whole_body
from storage.texts import TextReader, fold

__all__ = ["SearchingConnection"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BODIES: Final = "SELECT path, b.* FROM calls JOIN bodies AS b ON call_id = id WHERE id = ?"
_SIDES: Final[Mapping[str, tuple[Side, ...]]] = {
    "request": ("request",),
    "response": ("response",),
    "either": ("request", "response"),
}


class SearchingConnection(sqlite3.Connection):
    """A connection with ``call_text_has(number, side, folded text)`` and ``texts_version()``."""

    def __init__(self, *arguments: Any, texts: TextReader, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._read = {"request": texts.request, "response": texts.response}
        self.create_function("call_text_has", 3, self._has)
        self.create_function("texts_version", 0, lambda: texts.version, deterministic=True)

    def _has(self, number: int, side: str, wanted: str) -> bool:
        try:
            return any(wanted in text for text in _finished(self._texts(number, _SIDES[side])))
        except Exception:  # SQLite tells of it in a way that nobody could act on
            logger.exception("searching the texts of call %d", number)
            return False

    async def _texts(self, number: int, sides: tuple[Side, ...]) -> list[str]:
        db = cast(aiosqlite.Connection, _Direct(self))
        [row] = await db.execute_fetchall(_BODIES, (number,))
        return [fold(self._read[side](row["path"], await whole_body(db, row, side))) for side in sides]


class _Direct:
    """What reading rows needs of aiosqlite's connection, here where no loop is."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def execute_fetchall(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        cursor = self._db.cursor()
        cursor.row_factory = sqlite3.Row  # the writer's connection has none
        return cursor.execute(statement, values).fetchall()


def _finished(reading: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        reading.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    raise RuntimeError("it waits for something")
