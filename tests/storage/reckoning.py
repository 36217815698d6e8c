"""What groups of calls add up to, reckoned in plain Python."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from storage.queries import Dimension, TimeBucket
from tests.storage.population import DAY, Known, effective

__all__ = ["figures_of", "reckoned"]


def key_of(one: Known, dimension: Dimension) -> Any:
    if isinstance(dimension, TimeBucket):
        started_at = one.stored.call.started_at
        return started_at - (started_at - dimension.offset) % dimension.width
    return one.value(dimension)


def reckoned(known: list[Known], by: tuple[Dimension, ...]) -> dict[tuple[Any, ...], dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[Known]] = defaultdict(list)
    if not by:
        groups[()] = []
    for one in known:
        groups[tuple(key_of(one, dimension) for dimension in by)].append(one)
    return {keys: figures_reckoned(group) for keys, group in groups.items()}


def total(values: list[Any]) -> Any:
    there = [value for value in values if value is not None]
    return sum(there) if there else None


def figures_reckoned(group: list[Known]) -> dict[str, Any]:
    calls = [one.stored.call for one in group]
    said = list(effective(group).values())
    first_tokens = [call.time_to_first_token for call in calls if call.time_to_first_token is not None]
    return {
        "calls": len(calls),
        "failed_calls": sum(call.error_kind is not None or (call.status or 0) >= 400 for call in calls),
        "first_started_at": min((call.started_at for call in calls), default=None),
        "last_started_at": max((call.started_at for call in calls), default=None),
        "active_days": len({call.started_at // DAY for call in calls}),
        "sessions": len({call.session_id for call in calls} - {None}),
        "latency_sum": total([call.latency for call in calls]),
        "time_to_first_token_mean": pytest.approx(sum(first_tokens) / len(first_tokens)) if first_tokens else None,
        "prompt_tokens": total([call.usage.prompt_tokens for call in calls]),
        "completion_tokens": None,
        "total_tokens": total([call.usage.total_tokens for call in calls]),
        "cost": total([call.cost for call in calls]),
        "count": len(said),
        "positive": sum(item.value > 0 for item in said),
        "negative": sum(item.value <= 0 for item in said),
        "weighted_sum": pytest.approx(sum(item.value * item.weight for item in said)),
        "weights": pytest.approx(sum(item.weight for item in said)),
        "rated_calls": sum(any(item.effective for item in one.stored.feedback) for one in group),
    }


def figures_of(figures: Any) -> dict[str, Any]:
    plain = {name: getattr(figures, name) for name in figures.__dataclass_fields__ if name != "feedback"}
    return {**plain, **{name: getattr(figures.feedback, name) for name in figures.feedback.__dataclass_fields__}}
