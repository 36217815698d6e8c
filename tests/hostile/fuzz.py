"""What the fuzz tests share: how many examples they try, values that readers trip over, and a watch on the log."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["JSON_VALUES", "ODD_TEXT", "TIMES", "examples", "no_complaint", "wild_json"]

# TEST_FUZZ=100 tries a hundred times as much, and other examples each time.
TIMES: Final = int(os.environ.get("TEST_FUZZ", "1"))


def examples(number: int) -> settings:
    """Settings of a fuzz test that tries so many examples in a run of the whole suite."""
    return settings(
        max_examples=number * TIMES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


ODD_TEXT: Final = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\0\r\n\t "\\/%{}[]:,;=\x7f\x85\u2028\ufeff😀'),
    max_size=12,
)
_NUMBERS: Final = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 1e308, -0.0, 5e-324])
)
JSON_VALUES: Final = st.recursive(
    st.none() | st.booleans() | _NUMBERS | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ODD_TEXT, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def wild_json(draw: st.DrawFn, seed: Any) -> Any:
    """A value like ``seed`` of which any part may have been lost, doubled, or replaced by something else."""
    change = draw(st.integers(0, 11))
    if change == 0:
        return draw(JSON_VALUES)
    if isinstance(seed, dict):
        members = {name: draw(wild_json(value)) for name, value in seed.items() if draw(st.integers(0, 9))}
        return members | (draw(st.dictionaries(ODD_TEXT, JSON_VALUES, max_size=2)) if change == 1 else {})
    if isinstance(seed, list):
        items = [draw(wild_json(item)) for item in seed]
        return items * 2 if change == 1 else items
    return seed


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.getMessage()} {record.exc_info and record.exc_info[1]!r}")


@contextlib.contextmanager
def no_complaint() -> Iterator[None]:
    """Nothing is logged inside: the readers of bodies catch what goes wrong in them, and tell it to the log alone."""
    complaints = _Complaints()
    logging.getLogger().addHandler(complaints)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(complaints)
    assert complaints.texts == []
