"""Secrets that a test knows, the keys among them, and the forms in which one may be found again."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator
from typing import Any

import orjson

__all__ = [
    "BOUND",
    "CONFIGURED",
    "KEY",
    "OF_FILE",
    "OTHER_KEY",
    "SECRETS",
    "SHORT_KEY",
    "Secrets",
    "as_event",
    "as_json",
    "forms_of",
    "in_json",
    "packed",
    "percent_encoded",
]

BOUND = 16 * 1024
"""Bytes that are logged of a body."""


def _digest(place: str) -> str:
    return hashlib.sha256(f"a secret {place}".encode()).hexdigest()


class Secrets:
    """Makes a secret for a place; remembers which."""

    def __init__(self) -> None:
        self.by_place: dict[str, str] = {}

    def __call__(self, place: str) -> str:
        return self.by_place.setdefault(place, _digest(place)[:24])

    def short(self, place: str) -> str:
        """One that is shorter than any provider's key."""
        return self.by_place.setdefault(place, _digest(place)[:11])

    def pattern(self, place: str) -> str:
        """One that the patterns of the configuration match."""
        return f"pat-{self(place)}"


def forms_of(secret: str) -> Iterator[bytes]:
    """What to look for: each half of a secret as it is, reversed, escaped and encoded in the usual ways."""
    for half in filter(None, (secret[:12], secret[12:])):
        raw = half.encode()
        yield from (raw, raw[::-1], raw.hex().encode(), half.upper().encode(), half.encode("utf-16-le"))
        yield "".join(f"%{byte:02x}" for byte in raw).encode()
        yield "".join(f"%{byte:02X}" for byte in raw).encode()
        yield "".join(f"%25{byte:02X}" for byte in raw).encode()
        yield percent_encoded(percent_encoded(half)).encode()
        yield "".join(f"\\u00{byte:02x}" for byte in raw).encode()
        for shift in range(3):  # what of its base64 does not depend on what stands around it
            yield base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4]


SECRETS = Secrets()
KEY = f"kbz_{SECRETS('a key of Kibitz') * 2}"
CONFIGURED = f"sk-{SECRETS('configured in the environment')}"
SHORT_KEY = SECRETS.short("a short key of Kibitz")
OTHER_KEY = SECRETS("another key of Kibitz")
OF_FILE = f"sk-{SECRETS('configured in the file')}"


def as_json(**members: Any) -> bytes:
    """An object in JSON."""
    return orjson.dumps(members)


def as_event(data: bytes) -> bytes:
    """A server-sent event of the type that its data name."""
    return b"event: %b\r\ndata: %b\r\n\r\n" % (orjson.loads(data).get("type", "message").encode(), data)


def packed(data: bytes) -> bytes:
    """In gzip."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


def in_json(text: str) -> str:
    """Every character of a text as JSON may spell it."""
    return "".join(f"\\u00{ord(character):02x}" for character in text)


def percent_encoded(text: str) -> str:
    """Every character of a text as percent-encoding spells it."""
    return "".join(f"%{ord(character):02X}" for character in text)
