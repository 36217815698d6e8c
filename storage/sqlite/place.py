"""Whether a database still lies where it was opened.

SQLite goes on with the file that it has open, wherever that is: once it was removed, or another was put in its
place, rows would be committed to what nobody finds again, and be gone with the process.
"""

from __future__ import annotations

import os
from pathlib import Path

from storage.base import StorageError

__all__ = ["Place"]


class Place:
    """The path of an open database, and which file lay there when it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)  # a `Path` would put itself together for each look
        self._opened = _identity(self._path)

    def check(self) -> None:
        """Raise `StorageError` if the file has gone or is another; it passes once it was put back."""
        if _identity(self._path) != self._opened:
            raise StorageError("the database's file was removed or replaced: put it back, or start Kibitz anew")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
