"""Base URLs of upstreams: one strict reading of an address, used for configuring, comparing and connecting alike.

Two readings of one text are how a proxy is talked into calling an inner address, so what is unusual is refused
here rather than interpreted: user names, fragments, dot segments, backslashes, hosts that are not plain ASCII.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final

__all__ = ["BaseUrl", "canonical_host"]

_FORM: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?P<path>/[!-~]*)?",
    re.IGNORECASE | re.ASCII,
)
# As any server may read them: encoded slashes too, and what some cut off behind a semicolon.
_SLASH: Final = r"(?:/|%2f|%5c)"
_DOT_SEGMENT: Final = re.compile(rf"{_SLASH}(?:\.|%2e){{1,2}}(?:{_SLASH}|;|%3b|$)", re.IGNORECASE | re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """Scheme, host and port in canonical form, and the path in front of every call, without a trailing slash."""

    scheme: str
    host: str
    port: int
    path: str
    authority: str = field(init=False, compare=False)
    """What belongs into a Host field (RFC 9110 section 7.2)."""
    origin: str = field(init=False, compare=False)
    """``scheme://host[:port]``."""

    def __post_init__(self) -> None:
        authority = self.host if self.port == _DEFAULT_PORTS[self.scheme] else f"{self.host}:{self.port}"
        object.__setattr__(self, "authority", authority)
        object.__setattr__(self, "origin", f"{self.scheme}://{authority}")

    @classmethod
    def parse(cls, text: str) -> BaseUrl:
        """Raises ValueError, saying why, for anything but a plain ``http(s)://host[:port][/path]``."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError("not an address of the form http(s)://host[:port][/path]")
        path = (match["path"] or "").rstrip("/")
        # What is encoded twice is one thing to us, and may be another to who serves it.
        if any(part in path for part in ("?", "#", "\\", '"', "<", ">", "%25", "%00")) or _DOT_SEGMENT.search(path):
            raise ValueError("its path holds a query, a fragment, dot segments or characters that don't belong there")
        scheme = match["scheme"].lower()
        port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[scheme]
        if not 0 < port < 65536:
            raise ValueError("its port is not between 1 and 65535")
        return cls(scheme, canonical_host(match["host"]), port, path)

    def covers(self, other: BaseUrl) -> bool:
        """Whether ``other`` is this address or lies below its path."""
        same = (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)
        return same and (other.path == self.path or other.path.startswith(self.path + "/"))

    def __str__(self) -> str:
        return self.origin + self.path


def canonical_host(host: str) -> str:
    """A host's one spelling, an IPv6 address in brackets. Raises ValueError for what can't be one."""
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ipaddress.AddressValueError as error:
            raise ValueError("its host is not an IPv6 address") from error
    host = host.lower().removesuffix(".")
    if not host or ".." in host or host.startswith("."):
        raise ValueError("its host is not a name")
    return host
