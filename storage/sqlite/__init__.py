"""The store in one SQLite file, in WAL mode: one writer, read-only readers."""

from storage.sqlite.backend import SqliteStorage
from storage.sqlite.opening import open_sqlite

__all__ = ["SqliteStorage", "open_sqlite"]
