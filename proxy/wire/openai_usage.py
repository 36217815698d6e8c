"""Token counts under the names of OpenAI's formats, and those that other providers put beside them."""

from __future__ import annotations

from typing import Any, Final

from proxy.wire.accumulate import first_choice
from proxy.wire.facts import STANDARD_BILLING, Billing, as_count, as_object
from storage.records import Usage

__all__ = ["find_usage", "read_billing", "read_usage"]

_ASKED: Final = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_ANSWERED: Final = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_STANDARD_TIERS: Final = frozenset({"auto", "default", "standard"})


def find_usage(body: dict[str, Any]) -> Any:
    """The ``usage`` of an answer with choices; Groq and Moonshot have it elsewhere in streams."""
    return body.get("usage") or as_object(body.get("x_groq")).get("usage") or first_choice(body).get("usage") or None


def read_usage(usage: Any) -> Usage:
    """The counts of a ``usage`` object. A total that isn't given is the sum of its two parts, if both are."""
    if not isinstance(usage, dict):
        return Usage()
    asked, answered = _details(usage, *_ASKED), _details(usage, *_ANSWERED)
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = _count(usage, "completion_tokens", "output_tokens")
    both = prompt + completion if prompt is not None and completion is not None else None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=_either(_count(usage, "total_tokens"), both),
        cache_read_tokens=_either(
            _count(asked, "cached_tokens"),
            _count(usage, "prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens", "cache_read_input_tokens"),
        ),
        cache_write_tokens=_either(
            _count(asked, "cache_write_tokens"), _count(usage, "cache_write_tokens", "cache_creation_input_tokens")
        ),
        prompt_audio_tokens=_count(asked, "audio_tokens"),
        completion_audio_tokens=_count(answered, "audio_tokens"),
        reasoning_tokens=_either(
            _count(answered, "reasoning_tokens", "thinking_tokens"), _count(usage, "reasoning_tokens")
        ),
    )


def read_billing(usage: Any, service_tier: Any) -> Billing:
    """What else the price depends on: the tier that served the call, and tokens of images and of cached audio."""
    special = isinstance(service_tier, str) and service_tier not in _STANDARD_TIERS
    units = _special_units(usage) if isinstance(usage, dict) else {}
    if not special and not units:
        return STANDARD_BILLING
    return Billing(units=units, terms={"service_tier": service_tier} if special else {})


def _special_units(usage: dict[str, Any]) -> dict[str, int]:
    asked, answered = _details(usage, *_ASKED), _details(usage, *_ANSWERED)
    if not asked and not answered:
        return {}
    cached = as_object(asked.get("cached_tokens_details"))
    units = {
        # A zero counts here: it says that no audio is among what was cached.
        "cache_audio_read_tokens": _count(cached, "audio_tokens"),
        "cache_image_read_tokens": _count(cached, "image_tokens"),
        "input_image_tokens": _count(asked, "image_tokens") or None,
        "output_image_tokens": _count(answered, "image_tokens") or None,
    }
    return {name: count for name, count in units.items() if count is not None}


def _details(usage: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        if name in usage and isinstance(usage[name], dict):
            details: dict[str, Any] = usage[name]
            return details
    return {}


def _count(counts: dict[str, Any], *names: str) -> int | None:
    if not counts:
        return None
    for name in names:
        if name in counts and (count := as_count(counts[name])) is not None:
            return count
    return None


def _either(first: int | None, second: int | None) -> int | None:
    return second if first is None else first
