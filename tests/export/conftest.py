"""What exports ask goes by indexes too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.plans import held_to_indexes


@pytest.fixture(autouse=True)
def every_plan_goes_by_an_index() -> Iterator[None]:
    """See `tests.plans`."""
    yield from held_to_indexes()
