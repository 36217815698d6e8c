"""Which calls are to go from the log, and how far their going has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from storage.filters import EVERYTHING, Node

__all__ = ["Prunable", "Pruning", "Reached", "Space"]


@dataclass(frozen=True, slots=True)
class Pruning:
    """What goes: the calls that meet all of this, the oldest first."""

    before: int | None = None
    """Those that began before, in microseconds since the epoch."""
    organisation: str | None = None
    where: Node = EVERYTHING
    keep_rated: bool = False
    """Without those of which somebody said something that is in effect: of the call, its trace or its session."""
    bodies_only: bool = False
    """The bodies go, and are marked as omitted; the row stays with its figures."""


class Reached(NamedTuple):
    """How far into the log a walk has come; only the store knows what it means."""

    organisation: str
    started_at: int
    number: int


@dataclass(frozen=True, slots=True)
class Prunable:
    """Some calls that are to go, by their numbers, each with the bytes of its bodies as the store keeps them."""

    sizes: dict[int, int]
    reached: Reached | None
    """Where the next ones are looked for; ``None`` at the end."""


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the log's file: all of them, and those in use."""

    total: int
    used: int
