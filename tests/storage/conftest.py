"""The store under test, once for every backend. To add one: its address in `DATABASES`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from storage import Storage, open_storage
from tests.plans import held_to_indexes

DATABASES: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda directory: f"sqlite:///{directory / 'kibitz.db'}",
}


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database that is not there yet."""
    return DATABASES[request.param](tmp_path)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Storage]:
    """A new, open store."""
    opened = await open_storage(database)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def every_plan_goes_by_an_index(tmp_path: Path) -> Iterator[None]:
    """See `tests.plans`."""
    yield from held_to_indexes()
