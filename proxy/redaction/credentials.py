"""The keys that came with a call, taken out of what is logged of it: an upstream's error may quote one.

An exchange holds none of them; it holds this, which tells nobody what it looks for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from proxy.auth import KeyRing, protocol_secrets
from proxy.headers import RequestFields
from proxy.redaction.addresses import secrets_in
from proxy.redaction.edits import REDACTED

__all__ = ["NONE", "NO_KEYS", "Credentials", "carried"]

_OWN_FIELDS: Final = (b"helicone-auth", b"x-portkey-api-key")

# Characters of a credential. What is shorter is a stand-in for one ("lm-studio"), and a word of its own.
_SHORTEST: Final = 16
# Of one of Kibitz's own, which is known for what it is. A shorter one would take half of every text with it.
_SHORTEST_OWN: Final = 4
# Kibitz's own keys, whoever wrote them there.
_OWN_MARK: Final = b"kbz_"
_OWN_KEY: Final = re.compile(rb"kbz_[A-Za-z0-9_-]{40,}")
_BEARER: Final = b"Bearer "
_SECRET: Final = re.compile(rb"[^\s,]+")


class Credentials:
    """What the credential fields of one call hold."""

    __slots__ = ("_keys", "_secrets", "_values")

    def __init__(self, values: Sequence[bytes], keys: KeyRing) -> None:
        self._values = values
        self._keys = keys
        self._secrets: list[bytes] | None = None

    def stand_in(self, *texts: bytes) -> bool:
        """Whether one of them is in one of the texts."""
        secrets = self._secrets
        if secrets is None:  # not when the call begins: its row may be made beside the loop
            held = {secret for value in self._values for secret in _secrets_in(value, self._keys)}
            # One may be a part of another.
            secrets = self._secrets = [_OWN_MARK, *sorted(held, key=len, reverse=True)]
        for text in texts:
            for secret in secrets:
                if secret in text:
                    return True
        return False

    def out_of(self, data: bytes) -> bytes:
        """The bytes without them."""
        if self.stand_in(data):
            for secret in (self._secrets or ())[1:]:
                data = data.replace(secret, _REDACTED)
            data = _OWN_KEY.sub(_REDACTED, data)
        return data

    def out_of_text(self, text: str) -> str:
        """The same of a text."""
        return self.out_of(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")


def _secrets_in(value: bytes, keys: KeyRing) -> list[bytes]:
    """The credentials of a field, without the words that say of what kind they are."""
    if value.startswith(_BEARER) and b"," not in value:
        secret = value[len(_BEARER) :].strip()
        if len(secret) >= _SHORTEST and b" " not in secret:
            return [secret]
    own = [] if keys.is_empty else [key for part in value.split(b",") for key in keys.within(part)]
    return [
        *(secret for secret in _SECRET.findall(value) if len(secret) >= _SHORTEST),
        *(key for key in own if len(key) >= _SHORTEST_OWN),
    ]


_REDACTED: Final = REDACTED.encode("ascii")
NO_KEYS: Final = KeyRing(())
NONE: Final = Credentials((), NO_KEYS)
"""Of a call that carries none: what is left are Kibitz's own keys."""


def carried(fields: RequestFields, query: str = "", api_key: str | None = None, keys: KeyRing = NO_KEYS) -> Credentials:
    """Those of a request's header fields and its query, and the key that it is given on its way.

    ``keys`` are Kibitz's own, which are taken out though they be short.
    """
    values = [fields.forward[index][1] for index in fields.credentials]
    for name in _OWN_FIELDS:
        if name in fields.own:
            values += [value for _, value in fields.own[name]]
    if b"sec-websocket-protocol" in fields.noted:
        values += protocol_secrets(fields)
    if query:
        values += [secret.encode("utf-8", "surrogateescape") for secret in secrets_in(query)]
    if api_key is not None:
        values.append(api_key.encode("utf-8"))
    return Credentials(values, keys)
