"""Who calls: keys, known by their SHA-256 digests only, and their organisations. Contract section 8."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final
from urllib.parse import unquote_to_bytes

from proxy.headers import RequestFields

__all__ = ["DEFAULT_ORGANISATION", "Caller", "KeyRing", "bearer_secret", "protocol_secrets"]

DEFAULT_ORGANISATION: Final = "default"

_BEARER: Final = b"bearer"
# https://platform.openai.com/docs/guides/realtime-websocket: where a browser puts the key.
_PROTOCOL: Final = b"openai-insecure-api-key."
_BASIC: Final = re.compile(rb"\s*basic\s+([^\s,]+)", re.IGNORECASE)
# What `kibitz keys` makes, and where else a key may begin and end. One that is shorter can be guessed by anybody.
# One may begin inside what looks like another.
_MADE_BY_US: Final = re.compile(rb"(?=(kbz_[A-Za-z0-9_-]{43}))")
_WORD: Final = re.compile(rb"[^\s,;&\"'()<>{}\[\]]{8,}")
# The same where nothing is refused for it.
_SHORT_WORD: Final = re.compile(rb"[^\s,;&\"'()<>{}\[\]=:./?#|@!]{4,}")
_PART_OF_WORD: Final = re.compile(rb"[^=:./?#|@]{8,}")
# What is tried as a key of one request: more than any client sends, and few enough to cost nothing.
_MOST_CANDIDATES: Final = 16
# Bytes of a text that is remembered not to hold a key. Those that somebody makes up must not fill the memory.
_LONGEST_REMEMBERED: Final = 128


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a request is made, and what it may do."""

    organisation: str
    scopes: frozenset[str]


class KeyRing:
    """The configured keys. With none of them, everybody is the default organisation and may do everything."""

    def __init__(self, keys: Iterable[tuple[str, Caller]]) -> None:
        self._keys = tuple((bytes.fromhex(digest), caller) for digest, caller in keys)
        self._digests = frozenset(digest for digest, _ in self._keys)
        self._remembered_within = lru_cache(maxsize=1024)(self.is_within)
        self._anybody = Caller(DEFAULT_ORGANISATION, frozenset({"proxy", "feedback", "read", "admin"}))

    @property
    def is_empty(self) -> bool:
        """Whether no key is configured."""
        return not self._keys

    def identify(self, fields: RequestFields) -> Caller | None:
        """The caller by the first of Kibitz's keys among a request's fields; ``None`` if one is needed and missing."""
        if not self._keys:
            return self._anybody
        for candidate in islice(filter(None, _candidates(fields)), _MOST_CANDIDATES):
            if caller := self._caller(candidate):
                return caller
        return None

    def is_within(self, text: bytes) -> bool:
        """Whether one of Kibitz's keys stands in a header field's name or value, or in an address.

        As the whole of it, with ``Bearer`` or without; as a word of eight bytes or more, or as part of one;
        percent-encoded; as user or password of Basic; one that ``kibitz keys`` has made, anywhere.
        """
        # Nearly always it is the whole.
        return not self.is_empty and (self._is_key(bearer_secret(text)) or any(map(self._is_key, _words(text))))

    def within(self, text: bytes) -> list[bytes]:
        """Those that stand there, shorter ones too."""
        words = _words(text).union(_SHORT_WORD.findall(text))
        return [word for word in words if self._is_key(word)]

    def is_within_usual(self, text: bytes) -> bool:
        """The same for a text that comes again and again; the answer is remembered, so not for credentials."""
        return self._remembered_within(text) if len(text) <= _LONGEST_REMEMBERED else self.is_within(text)

    def _is_key(self, word: bytes) -> bool:
        return hashlib.sha256(word).digest() in self._digests

    def _caller(self, secret: bytes) -> Caller | None:
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
        yield bearer_secret(part)


def bearer_secret(part: bytes) -> bytes:
    """The secret in a credential, with ``Bearer`` and blanks of any kind in front of it or without."""
    part = part.strip()
    scheme, *secret = part.split(None, 1) or (b"",)
    return (secret[0] if secret else b"") if scheme.lower() == _BEARER else part


def protocol_secrets(fields: RequestFields) -> list[bytes]:
    """The keys among a WebSocket's subprotocols: a browser can send no field of its own with the opening."""
    named = fields.noted.get(b"sec-websocket-protocol")
    if named is None:
        return []
    protocols = (protocol.strip() for protocol in named.split(b","))
    return [secret for protocol in protocols if (secret := protocol.removeprefix(_PROTOCOL)) not in (b"", protocol)]


def _words(text: bytes) -> set[bytes]:
    """What of a text may be a key."""
    words = _plain_words(text)
    return words | _plain_words(unquote_to_bytes(text)) if b"%" in text else words


def _plain_words(text: bytes) -> set[bytes]:
    words = _WORD.findall(text)
    found = {bearer_secret(text), *_MADE_BY_US.findall(text), *words}
    for word in words:
        found.add(word.partition(b"=")[2])
        found.update(_PART_OF_WORD.findall(word))
    if basic := _BASIC.match(text):
        found.update(_of_basic(basic[1]))
    return found


def _of_basic(encoded: bytes) -> tuple[bytes, ...]:
    """User, password and both of Basic authentication (RFC 7617)."""
    try:
        both = base64.b64decode(encoded + b"==", altchars=b"-_" if b"-" in encoded or b"_" in encoded else None)
    except binascii.Error:
        return ()
    user, _, password = both.partition(b":")
    return user, password, both
