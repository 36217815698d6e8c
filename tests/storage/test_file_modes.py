"""Who may read the files that a log lies in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.sqlite import open_sqlite
from tests.storage import a_call

OURS_ONLY = 0o600
GROUP_TOO = 0o640


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}


async def test_a_new_log_and_what_lies_beside_it_is_its_owners_only(tmp_path: Path) -> None:
    store = await open_sqlite(str(tmp_path / "kibitz.db"))
    await store.write_calls([a_call()])
    beside = modes(tmp_path)
    await store.close()
    assert beside == dict.fromkeys(("kibitz.db", "kibitz.db-wal", "kibitz.db-shm"), OURS_ONLY)


async def test_a_log_that_is_there_keeps_the_mode_that_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "kibitz.db"
    await (await open_sqlite(str(path))).close()
    path.chmod(GROUP_TOO)
    store = await open_sqlite(str(path))
    await store.write_calls([a_call()])
    beside = modes(tmp_path)
    await store.close()
    assert beside == dict.fromkeys(("kibitz.db", "kibitz.db-wal", "kibitz.db-shm"), GROUP_TOO)
