"""What counts for a worker that does not answer: what it last told, if that is still to be had."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.siblings import Siblings
from proxy.snapshots import Snapshots

FIGURES = {"kibitz_rows_written_total": 3.0}


@pytest.fixture
def directory() -> Iterator[Path]:
    """One whose name leaves room for sockets'."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def of_worker(directory: Path, number: int) -> Snapshots:
    return Snapshots(FIGURES.copy, Siblings.in_directory(directory, number, 2))


def spoil(directory: Path, left: bytes | None) -> None:
    """Have that lie where a worker left its figures; a directory for ``None``."""
    [path] = directory.glob("*.left")
    path.unlink()
    if left is None:
        path.mkdir()
    else:
        path.write_bytes(left)


async def test_what_it_last_told_counts(directory: Path) -> None:
    await of_worker(directory, 1).of_all()
    assert await of_worker(directory, 0).of_all() == [FIGURES, FIGURES]


@pytest.mark.parametrize("left", [b"", b'{"kibitz', b"null", b"[1]", b"\xff", None], ids=repr)
async def test_what_can_not_be_read_counts_for_nothing(directory: Path, left: bytes | None) -> None:
    await of_worker(directory, 1).of_all()
    spoil(directory, left)
    assert await of_worker(directory, 0).of_all() == [FIGURES, {}]
    assert (await of_worker(directory, 1).of_all())[0] == FIGURES
