"""The rule that `tests.plans` holds statements to finds what breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.sqlite import open_sqlite
from tests.plans import Plans

FAULTS: list[tuple[str, list[str]]] = [
    ("SELECT id FROM calls WHERE user_id = 'ada'", ["SCAN calls"]),
    ("SELECT f.id FROM feedback AS f WHERE f.value = 1", ["SCAN f"]),
    (
        "SELECT c.started_at AS place, c.id FROM calls AS c WHERE c.organisation = 'a' ORDER BY c.started_at + 1",
        ["USE TEMP"],
    ),
    ("SELECT c.started_at AS place, c.id FROM calls AS c WHERE c.organisation = 'a' ORDER BY c.started_at, c.id", []),
    ("SELECT c.cost, c.id FROM calls AS c WHERE c.organisation = 'a' ORDER BY c.cost LIMIT 10", []),
    ("SELECT count(*) FROM calls", []),
]


@pytest.mark.parametrize(("statement", "faults"), FAULTS, ids=[statement for statement, _ in FAULTS])
async def test_a_statement_that_goes_by_no_index_is_found(statement: str, faults: list[str], tmp_path: Path) -> None:
    path = tmp_path / "kibitz.db"
    await (await open_sqlite(str(path))).close()
    plans = Plans()
    plans.take(str(path), statement)
    found = list(plans.faults())
    assert len(found) == len(faults)
    assert all(one.startswith(start) for one, start in zip(found, faults, strict=True))
