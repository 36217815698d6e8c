"""Durations and sizes as people write them on a command line."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["read_duration", "read_size"]

_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PREFIXES: Final = "KMGT"
_BYTES: Final = {
    "": 1,
    "b": 1,
    **{f"{prefix}b".lower(): 1000**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{prefix}ib".lower(): 1024**power for power, prefix in enumerate(_PREFIXES, 1)},
}


def read_duration(text: str) -> float:
    """``90d`` as seconds. Raises ValueError."""
    number, unit = _parts(text)
    if unit not in _SECONDS:
        raise ValueError(f"{text!r} is no duration: a number and one of {', '.join(_SECONDS)}, as 90d")
    return number * _SECONDS[unit]


def read_size(text: str) -> int:
    """``10GB`` (thousands) or ``10GiB`` (of 1024) as bytes. Raises ValueError."""
    number, unit = _parts(text)
    if unit.lower() not in _BYTES:
        raise ValueError(f"{text!r} is no size: a number of bytes, or one of KB, MB, GB, TB, KiB, MiB, …, as 10GB")
    return int(number * _BYTES[unit.lower()])


def _parts(text: str) -> tuple[float, str]:
    """The number and its unit; a unit that there is not where the text is something else."""
    found = _QUANTITY.fullmatch(text.strip())
    return (float(found[1]), found[2]) if found else (0.0, "?")
