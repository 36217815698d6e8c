"""Answers that web pages of other origins may read: the configured ones, and no others.

Fetch standard, section 3.3 (CORS protocol). Without configured origins nothing here is ever asked. With them the list
is the operator's word, so an upstream's own Access-Control fields give way to it wherever a request has an Origin,
but for the names of the fields that it exposes. Credentials of a browser's own (cookies) are never asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.base_url import canonical_host

__all__ = ["ANY_ORIGIN", "Cors", "CrossOrigin", "canonical_origin"]

ANY_ORIGIN: Final = "*"

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?P<port>:[0-9]{1,5})?",
    re.IGNORECASE | re.ASCII,
)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
# Two hours in seconds, the most that Chromium keeps.
_MAX_AGE: Final = b"7200"
_EXPOSED: Final = (b"Helicone-Id", b"Helicone-Request-Id", b"Helicone-Status", b"x-portkey-trace-id")


def canonical_origin(text: str) -> str:
    """An origin as browsers write it (RFC 6454 section 6.2), or ``*``. Raises ValueError for anything else."""
    if text == ANY_ORIGIN:
        return text
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError("not an origin of the form scheme://host[:port]")
    scheme = match["scheme"].lower()
    port = match["port"] or ""
    return f"{scheme}://{canonical_host(match['host'])}{'' if port == _DEFAULT_PORTS.get(scheme) else port}"


@dataclass(frozen=True, slots=True)
class CrossOrigin:
    """What the answer to one request with an Origin says to the browser; ``origin`` is the one that may read it."""

    origin: bytes | None

    def settle(self, fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The fields of an answer, with Kibitz's word on who may read it in the place of an upstream's."""
        exposed = []
        settled = []
        for field in fields:
            name = field[0].lower()
            if name == b"access-control-expose-headers":
                exposed.append(field[1])
            elif not name.startswith(b"access-control-"):
                settled.append(field)
        settled.append((b"Vary", b"Origin"))
        if self.origin is not None:
            settled.append((b"Access-Control-Allow-Origin", self.origin))
            settled.append((b"Access-Control-Expose-Headers", b", ".join([*filter(None, exposed), *_EXPOSED])))
        return settled


_OF_A_STRANGER: Final = CrossOrigin(None)


class Cors:
    """The configured origins. ``"*"`` among them means all."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode("ascii") for origin in origins)
        self._all = ANY_ORIGIN.encode("ascii") in self._origins

    def allows(self, origin: bytes) -> bool:
        """Whether pages of this origin may use Kibitz."""
        return self._all or origin in self._origins

    def about(self, origin: bytes) -> CrossOrigin:
        """What answers to requests of this origin say."""
        return CrossOrigin(origin) if self.allows(origin) else _OF_A_STRANGER

    def preflight(self, origin: bytes, noted: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]] | None:
        """What an OPTIONS request is answered with if it is the preflight of an allowed origin (section 3.3.4)."""
        if b"access-control-request-method" not in noted or not self.allows(origin):
            return None
        fields = [
            (b"Access-Control-Allow-Origin", origin),
            (b"Access-Control-Allow-Methods", _METHODS),
            (b"Access-Control-Max-Age", _MAX_AGE),
            (b"Vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        ]
        if asked := noted.get(b"access-control-request-headers"):
            fields.append((b"Access-Control-Allow-Headers", asked))
        return fields
