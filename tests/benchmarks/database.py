"""What stands in the log, as another process sees it: committed rows and bytes on disk."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

__all__ = ["await_rows", "committed_rows", "size_on_disk"]

_WITHIN = 15.0  # seconds for rows that nobody guaranteed yet
_POLL = 0.02


def committed_rows(database: Path) -> int:
    """The calls that are committed."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as db:
        [[count]] = db.execute("SELECT count(*) FROM calls").fetchall()
        return int(count)


def await_rows(database: Path, number: int) -> int:
    """The committed calls once there are ``number``, or what there is after a while."""
    until = time.monotonic() + _WITHIN
    while (rows := committed_rows(database)) < number and time.monotonic() < until:
        time.sleep(_POLL)
    return rows


def size_on_disk(database: Path) -> int:
    """Bytes of the database after a checkpoint, with what was left of its write-ahead log."""
    with closing(sqlite3.connect(database, timeout=10)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    wal = database.with_name(f"{database.name}-wal")
    return database.stat().st_size + (wal.stat().st_size if wal.exists() else 0)
