"""Work that steps aside for calls gives what it would give at once, and leaves its connection as it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from storage.sqlite import gently as module
from storage.sqlite.gently import gently

LONG = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT sum(i) FROM n"


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as db:
        yield db


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    taken: list[None] = []
    monkeypatch.setattr(module, "_pause", lambda: taken.append(None))
    return taken


def total(db: sqlite3.Connection) -> int:
    [(number,)] = db.execute(LONG)
    return int(number)


def test_a_long_statement_is_paused_again_and_again(db: sqlite3.Connection, pauses: list[None]) -> None:
    assert gently(total)(db) == 50_000 * 50_001 // 2
    assert len(pauses) > 5


def test_what_comes_behind_is_not(db: sqlite3.Connection, pauses: list[None]) -> None:
    gently(lambda db: None)(db)
    with pytest.raises(sqlite3.OperationalError):
        gently(lambda db: db.execute("SELECT nothing"))(db)
    total(db)
    assert not pauses
