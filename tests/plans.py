"""Every statement that a test's readers put to SQLite, and whether its plan goes by an index.

SQLite tells of each statement. So none has to be listed: what a test asks is held to the rule, a new question too.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from storage.sqlite.opening import OBSERVERS
from storage.sqlite.searching import SearchingConnection
from storage.texts import PLAIN_TEXTS

__all__ = ["Plans", "held_to_indexes"]

# What may be gone through without an index, and why.
_MAY_BE_SCANNED: Final = {
    "parts": "what the statement itself has put together, as the next",
    "traces": "those of which feedback speaks",
    "asked": "the calls that are asked for, fewer than there is feedback",
    "said": "feedback with its calls",
    "groups": "what they add up to",
    "named": "one row at most",
    "batch": "the rows of a page",
    "moved": "the rows of a step",
    "newest": "the rows of a step",
    "whole": "a number for 8,192 calls",
    "partitions": "a number for 65,536 calls",
    "looked": "the same; or the rows of a step",
    "figure_blocks": "a row for 8,192 calls",
    "figure_leavings": "a row for a block that was discarded a moment ago",
    "text_index": "one row",
    "text_pending": "calls that changed a moment ago",
    "sharing": "one row",
    "datasets": "as many as people made",
    "r": "rows of blocks, each found by its index",
    "main.call_texts_config": "FTS5's own, of a few rows",
}
_SCAN: Final = re.compile(r"SCAN (\S+)(?: (.*))?")
_LITERAL: Final = re.compile(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b")
# A page in the usual order, which comes from the index of times and not from sorting; but for the few calls that were
# looked up before.
_PAGE: Final = re.compile(r"\s*SELECT c\.started_at AS place, c\.id FROM calls AS c WHERE c\.")


@dataclass(slots=True)
class Plans:
    """The statements that were put while somebody watched, one of each form, by the files that they were put to."""

    statements: dict[str, tuple[str, str]] = field(default_factory=dict)

    def faults(self) -> Iterator[str]:
        """What is forbidden: a table gone through without an index, an index made for the statement, a page sorted."""
        for database, statement in self.statements.values():
            for step in _plan(database, statement):
                if _is_fault(step, statement):
                    yield f"{step}: {statement}"

    def take(self, database: str, statement: str) -> None:
        """One that was put just now."""
        is_question = statement.lstrip().upper().startswith(("SELECT", "WITH"))
        if is_question and sqlite3.complete_statement(f"{statement};"):  # a NUL ends what SQLite tells
            self.statements.setdefault(_LITERAL.sub("?", statement), (database, statement))


def held_to_indexes() -> Iterator[None]:
    """For a fixture: what readers put while a test runs goes by indexes."""
    plans = Plans()
    OBSERVERS.append(plans.take)
    yield
    OBSERVERS.remove(plans.take)
    faults = list(plans.faults())
    assert not faults, "\n".join(faults)


def _plan(database: str, statement: str) -> list[str]:
    with closing(SearchingConnection(database, texts=PLAIN_TEXTS)) as db:
        return [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]


def _is_fault(step: str, statement: str) -> bool:
    if "AUTOMATIC" in step or ("TEMP B-TREE" in step and _PAGE.match(statement)):
        return True
    found = _SCAN.fullmatch(step)
    if found is None or found[1].startswith("("):
        return False
    by = found[2] or ""
    return found[1] not in {*_MAY_BE_SCANNED, "CONSTANT"} and "INDEX" not in by and "KEY" not in by
