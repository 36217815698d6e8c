"""Making the log smaller in small steps, between which whoever writes calls has his turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

from storage.base import Storage
from storage.pruning import Prunable, Pruning, Reached

__all__ = ["Removed", "Rule", "remove", "rules", "would_remove"]

# Of one step: rows, and bytes of their bodies, so that it takes milliseconds.
_MOST_CALLS: Final = 100
_MOST_BYTES: Final = 512 * 1024
# About what a row takes in the file beside its bodies, with its part of the indexes, in bytes.
_ROW: Final = 1000


@dataclass(frozen=True, slots=True)
class Rule:
    """Which calls go, the oldest first: all of them, or as long as more than ``fits`` bytes of the file are in use."""

    what: Pruning
    fits: int | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """What a step has removed, or would have: rows, and the bytes of their bodies as the file holds them."""

    calls: int
    size: int


def rules(what: Pruning, max_age: float | None, max_size: int | None) -> list[Rule]:
    """What is meant by ``what`` as of now: those older than so many seconds, then those beyond so many bytes.

    Where there is neither bound, all of it.
    """
    found = []
    if max_age is not None:
        found.append(Rule(replace(what, before=int((time.time() - max_age) * 1_000_000))))
    if max_size is not None:
        found.append(Rule(what, max_size))
    return found or [Rule(what)]


async def remove(storage: Storage, rule: Rule, *, rest: float) -> AsyncIterator[Removed]:
    """Apply a rule, a step at a time; ``rest`` is how many times as long as each took nothing is done behind it."""
    reached: Reached | None = None
    while rule.fits is None or (await storage.space()).used > rule.fits:
        began = time.perf_counter()
        found = await _find(storage, rule, reached)
        yield Removed(await storage.prune(rule.what, found) if found.sizes else 0, sum(found.sizes.values()))
        reached = found.reached
        if reached is None:
            return
        await asyncio.sleep(rest * (time.perf_counter() - began))


async def would_remove(storage: Storage, rule: Rule) -> AsyncIterator[Removed]:
    """The same without removing anything; where it is a matter of size, about the same."""
    reached: Reached | None = None
    excess = 0 if rule.fits is None else (await storage.space()).used - rule.fits
    while rule.fits is None or excess > 0:
        found = await _find(storage, rule, reached)
        removed = Removed(len(found.sizes), sum(found.sizes.values()))
        yield removed
        reached = found.reached
        if reached is None:
            return
        excess -= removed.size + (0 if rule.what.bodies_only else _ROW * removed.calls)


async def _find(storage: Storage, rule: Rule, reached: Reached | None) -> Prunable:
    return await storage.find_prunable(rule.what, reached, most_calls=_MOST_CALLS, most_bytes=_MOST_BYTES)
