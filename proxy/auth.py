"""Who calls, and what becomes of the credentials that came along. Contract sections 3 and 8.

Kibitz's own keys are known by their SHA-256 digests only, and never travel on: wherever one stands, or a
placeholder that an SDK puts in for a missing key, the upstream's configured key takes its place.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy.headers import RequestFields
from proxy.upstreams import Upstream

__all__ = ["DEFAULT_ORGANISATION", "Caller", "KeyRing", "settle_credentials"]

DEFAULT_ORGANISATION: Final = "default"

# What the Portkey SDKs send where they were given no key of the provider.
_PLACEHOLDERS: Final = frozenset({b"OPENAI_API_KEY", b"DUMMY-KEY"})
_BEARER: Final = b"bearer"
# Providers that want their key elsewhere than in `Authorization: Bearer`, by the end of their host.
_KEY_FIELDS: Final = {".anthropic.com": b"x-api-key", ".openai.azure.com": b"api-key"}


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a request is made, and what it may do."""

    organisation: str
    scopes: frozenset[str]


class KeyRing:
    """The configured keys. With none of them, everybody is the default organisation and may do everything."""

    def __init__(self, keys: Iterable[tuple[str, Caller]]) -> None:
        self._keys = tuple((bytes.fromhex(digest), caller) for digest, caller in keys)
        self._anybody = Caller(DEFAULT_ORGANISATION, frozenset({"proxy", "feedback", "read", "admin"}))

    def identify(self, fields: RequestFields) -> Caller | None:
        """The caller by the first of Kibitz's keys among a request's fields; ``None`` if one is needed and missing."""
        if not self._keys:
            return self._anybody
        for candidate in _candidates(fields):
            if caller := self._caller(candidate):
                return caller
        return None

    def holds(self, secret: bytes) -> bool:
        """Whether this is one of Kibitz's keys."""
        return self._caller(secret) is not None

    def _caller(self, secret: bytes) -> Caller | None:
        if not self._keys:
            return None
        found = None
        digest = hashlib.sha256(secret).digest()
        for known, caller in self._keys:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def _candidates(fields: RequestFields) -> Iterator[bytes]:
    for name in (b"helicone-auth", b"x-portkey-api-key"):
        for value in fields.own_values(name):
            yield from _secrets(value)
    for index in fields.credentials:
        yield from _secrets(fields.forward[index][1])


def _secrets(value: bytes) -> Iterator[bytes]:
    # Helicone's clients join two Authorization values with a comma.
    for part in value.split(b","):
        yield _secret(part)


def _secret(part: bytes) -> bytes:
    part = part.strip()
    scheme, _, secret = part.partition(b" ")
    return secret.strip() if scheme.lower() == _BEARER else part


def settle_credentials(fields: RequestFields, keys: KeyRing, upstream: Upstream) -> list[tuple[bytes, bytes]]:
    """The fields to forward, with the upstream's key where the client sent none that is meant for it."""
    sent = [fields.forward[index][1] for index in fields.credentials]
    if sent and all(_is_secret_of_others(value, keys) for value in sent):
        return fields.forward
    meant = {index: _meant_for_upstream(fields.forward[index][1], keys) for index in fields.credentials}
    replacement = None if any(left and _has_secret(left) for left in meant.values()) else _own_field(upstream)
    forward: list[tuple[bytes, bytes]] = []
    for index, (name, value) in enumerate(fields.forward):
        left = meant.get(index, value)
        if index in meant and replacement is not None:
            forward.append(replacement)
            replacement = None
        elif left is not None:
            forward.append((name, left))
    if replacement is not None:
        forward.append(replacement)
    return forward


def _is_secret_of_others(value: bytes, keys: KeyRing) -> bool:
    """Whether a field holds one credential and nothing of ours, as nearly all do."""
    secret = _secret(value)
    return bool(secret) and b"," not in value and not _is_ours(secret, keys)


def _meant_for_upstream(value: bytes, keys: KeyRing) -> bytes | None:
    """A credential field's value without what isn't for the upstream; untouched where all of it is."""
    parts = value.split(b",")
    left = [part for part in parts if not _is_ours(_secret(part), keys)]
    if len(left) == len(parts):
        return value
    return b",".join(left).strip() or None


def _has_secret(value: bytes) -> bool:
    return any(_secret(part) for part in value.split(b","))


def _is_ours(secret: bytes, keys: KeyRing) -> bool:
    return secret in _PLACEHOLDERS or keys.holds(secret)


def _own_field(upstream: Upstream) -> tuple[bytes, bytes] | None:
    if upstream.api_key is None:
        return None
    key = upstream.api_key.encode("utf-8")
    for end, name in _KEY_FIELDS.items():
        if upstream.base.host.endswith(end):
            return name, key
    return b"Authorization", b"Bearer " + key
