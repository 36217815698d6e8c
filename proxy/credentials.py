"""What becomes of the credentials that came along with a call. Contract sections 3 and 8.

Kibitz's own keys never travel on: where one stands for the upstream's, or a placeholder that an SDK puts in for a
missing key, the upstream's configured key takes its place. Whatever else holds one stays behind; a path
can't, so such a call goes nowhere.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from proxy.auth import KeyRing, bearer_secret, protocol_secrets
from proxy.dialects import Failed
from proxy.headers import RequestFields
from proxy.redaction.addresses import secrets_in
from proxy.upstreams import Upstream

__all__ = ["refuse_key_in_path", "settle_credentials", "without_keys"]

# What the Portkey SDKs send where they were given no key of the provider.
_PLACEHOLDERS: Final = frozenset({b"OPENAI_API_KEY", b"DUMMY-KEY"})
# Providers that want their key elsewhere than in `Authorization: Bearer`, by host and base path.
_KEY_FIELDS: Final = (
    (re.compile(r"[^/]*\.anthropic\.com(/.*)?"), b"x-api-key"),
    (re.compile(r"[^/]*\.(openai|cognitiveservices|services\.ai)\.azure\.com(/.*)?"), b"api-key"),
    # Below /openai Google speaks as OpenAI does, Bearer and all.
    (re.compile(r"generativelanguage\.googleapis\.com(?!.*/openai$).*"), b"x-goog-api-key"),
)


def settle_credentials(
    fields: RequestFields, keys: KeyRing, upstream: Upstream, query: str = ""
) -> list[tuple[bytes, bytes]]:
    """The fields to forward, with the upstream's key where the client sent none that is meant for it.

    ``query`` is what `without_keys` has left of it.
    """
    sent = [fields.forward[index][1] for index in fields.credentials]
    astray = [] if keys.is_empty else _astray(fields, keys)
    if sent and not astray and all(_is_secret_of_others(value, keys) for value in sent):
        return fields.forward
    meant = {index: _meant_for_upstream(fields.forward[index][1], keys) for index in fields.credentials}
    is_theirs = any(left and _has_secret(left) for left in meant.values())
    replacement = None if is_theirs else _own_field(upstream)
    if replacement is not None and _brings_elsewhere(fields, keys, query):
        replacement = None
    meant.update(dict.fromkeys(astray))
    forward: list[tuple[bytes, bytes]] = []
    for index, (name, value) in enumerate(fields.forward):
        left = meant.get(index, value)
        if index in meant and replacement is not None and index not in astray:
            forward.append(replacement)
            replacement = None
        elif left is not None:
            forward.append((name, left))
    if replacement is not None:
        forward.append(replacement)
    return forward


def refuse_key_in_path(path: str, keys: KeyRing) -> None:
    """Raises `Failed` for a path that holds one of Kibitz's keys, which the upstream and its log would read."""
    if not keys.is_empty and keys.is_within_usual(_bytes(path)):
        text = "A Kibitz key stands in the path of this call. It belongs into a header field, and goes to no upstream."
        raise Failed(400, "misplaced_key", text)


def without_keys(query: str, keys: KeyRing) -> str:
    """A query, its question mark included, without the parameters that hold one of Kibitz's keys."""
    if keys.is_empty or not keys.is_within(_bytes(query[1:])):
        return query
    left = [pair for pair in query[1:].split("&") if not keys.is_within(_bytes(pair))]
    return "?" + "&".join(left) if left else ""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _astray(fields: RequestFields, keys: KeyRing) -> list[int]:
    """Where a key of Kibitz's stands in a field that is for no credential of an API, or in its name."""
    return [
        index
        for index, (name, value) in enumerate(fields.forward)
        if index not in fields.credentials and (keys.is_within_usual(value) or keys.is_within_usual(name))
    ]


def _is_secret_of_others(value: bytes, keys: KeyRing) -> bool:
    """Whether a field holds one credential and nothing of ours, as nearly all do."""
    return bool(bearer_secret(value)) and b"," not in value and not _is_ours(value, keys)


def _meant_for_upstream(value: bytes, keys: KeyRing) -> bytes | None:
    """A credential field's value without what isn't for the upstream; untouched where all of it is."""
    parts = value.split(b",")
    left = [part for part in parts if not _is_ours(part, keys)]
    if len(left) == len(parts):
        return value
    return b",".join(left).strip() or None


def _has_secret(value: bytes) -> bool:
    return any(bearer_secret(part) for part in value.split(b","))


def _brings_elsewhere(fields: RequestFields, keys: KeyRing, query: str) -> bool:
    """Whether the client brought a key of its own where no field of credentials has it."""
    if "=" in query and any(_bytes(secret) not in _PLACEHOLDERS for secret in secrets_in(query)):
        return True
    return any(not _is_ours(secret, keys) for secret in protocol_secrets(fields))


def _is_ours(part: bytes, keys: KeyRing) -> bool:
    return bearer_secret(part) in _PLACEHOLDERS or keys.is_within(part)


def _own_field(upstream: Upstream) -> tuple[bytes, bytes] | None:
    if upstream.api_key is None:
        return None
    key = upstream.api_key.encode("ascii")
    name = _key_field(upstream.base.host + upstream.base.path)
    return (name, key) if name is not None else (b"Authorization", b"Bearer " + key)


@lru_cache(maxsize=64)
def _key_field(place: str) -> bytes | None:
    return next((name for pattern, name in _KEY_FIELDS if pattern.fullmatch(place)), None)
