"""How a call begins whose head is like a known one: it bears other labels, or hands other words on, and no more.

Most clients of a log send such heads: the same fields in the same order, with an id of each call's own among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.auth import KeyRing
from proxy.field_names import SENSITIVE, Role, request_role
from proxy.headers import Change, RawHeaders, RequestFields, read_request_fields
from proxy.identity import Identities, is_label
from proxy.last_head import Recalled
from proxy.plan import Plan
from proxy.request_head import RequestHead
from proxy.text_limits import TextLimits

__all__ = ["Beginning", "begin_alike"]

# Of the fields that are noted, those of which nothing but labels is made.
_TRACING: Final = frozenset({b"traceparent", b"baggage"})


@dataclass(slots=True)
class Beginning:
    """A plan, and what is not the plan's of a head that it serves. ``length`` is as in `RequestHead.with_length`."""

    plan: Plan
    identities: Identities
    head: RequestHead
    length: bytes


def begin_alike(recalled: Recalled[Plan], raw: RawHeaders, limits: TextLimits, keys: KeyRing) -> Beginning | None:
    """How a call begins with the fields ``raw``, of which a plan is known but for what is other in them.

    ``None`` where that may make more of a difference, such as another key would, or another target.
    """
    plan, length, changes = recalled.made, recalled.length, recalled.changes
    if not plan.fits(length):
        return None
    if not changes:
        return Beginning(plan, plan.identities, plan.head, length)
    if SENSITIVE in plan.fields.own:
        return None
    changed: list[bytes] = []
    handed_on: list[Change] = []
    for change in changes:
        name, value = change[1]
        role, lower = request_role(name)
        changed.append(lower)
        if role is Role.OWN:
            if not is_label(lower):
                return None
        elif (role is None or lower in _TRACING) and not keys.is_within_usual(value):
            handed_on.append(change)
        else:
            return None
    if not handed_on:
        return Beginning(plan, _identities(plan, plan.fields.with_own(changes), changed, limits), plan.head, length)
    head = plan.head.changed(handed_on)
    if head is None:
        return None
    return Beginning(plan, _identities(plan, read_request_fields(raw), changed, limits), head, length)


def _identities(plan: Plan, fields: RequestFields, changed: Sequence[bytes], limits: TextLimits) -> Identities:
    return plan.identities.with_others(fields, changed, limits).without_keys(plan.credentials.is_repeated_by)
