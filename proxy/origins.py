"""Whether a request to a server without keys is meant for it, and made by somebody on its machine.

Any web page can have a browser send requests to localhost (a form, an image, a `fetch` whose answer it can't read),
and a page whose owner lets its name point at 127.0.0.1 can read the answers too (DNS rebinding). Both show in what
only the browser writes: Host, Origin (RFC 6454) and Sec-Fetch-Site (Fetch Metadata). Over plain HTTP to a name that is
not loopback a browser sends neither of the two with a GET; what is left there is Referer, which a page can leave out.
With keys none of this is asked: a page doesn't know any.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from proxy.base_url import canonical_host
from proxy.dialects import Failed
from proxy.headers import RequestFields

__all__ = ["OriginGuard", "canonical_name", "is_loopback"]

_AUTHORITY: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{0,5}))?", re.ASCII)
_TARGET_AUTHORITY: Final = re.compile(r"[^/?#]*?://([^/?#]*)")
_ORIGIN: Final = re.compile(rb"[^/?#]*://[^/?#]*")
# Bytes of a name that is remembered: of any that there can be, its port included (RFC 1035 section 2.3.4).
_LONGEST_KEPT: Final = 262
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
# The user's own doing, or a page of this server's (Fetch Metadata, section 2.4).
_FROM_HERE: Final = (b"same-origin", b"none")
# Browsers leave Origin out of them (Fetch, section 3.2).
_WITHOUT_ORIGIN: Final = ("GET", "HEAD")


class OriginGuard:
    """Knows the names of a server without keys: those of loopback and ``allowed_hosts``, or any.

    ``allows`` tells of an Origin whether its pages may use the server all the same.
    """

    def __init__(self, allowed_hosts: Iterable[str], allows: Callable[[bytes], bool], *, any_host: bool) -> None:
        self._allowed_hosts = frozenset(allowed_hosts)
        self._allows = allows
        self._any_host = any_host
        # The same few names come again and again; what others make up must not fill the memory.
        self._kept_names_us = lru_cache(maxsize=256)(self._is_a_name_of_ours)

    def check(self, method: str, target: str, fields: RequestFields, *, is_ours: bool) -> None:
        """Raises `Failed` for a request that a foreign page may have caused; ``is_ours`` on a route of our own.

        HTTP/1.0 may leave Host out, which no browser does. Of a target in absolute form both authorities have to be
        right, since it is the one in the target that counts (RFC 9112 section 3.2.2).
        """
        if fields.host is not None and not self._names_us(fields.host):
            raise _foreign_host()
        if not target.startswith("/") and not self._is_ours(target):
            raise _foreign_host()
        noted = fields.noted
        tells = b"origin" in noted or b"sec-fetch-site" in noted or b"referer" in noted
        if tells and not self._may(method, fields, is_ours):
            raise Failed(
                403,
                "origin_not_allowed",
                "This server has no keys, and the request was made by a web page of another origin. "
                "cors_origins lists those that may.",
            )

    def _is_ours(self, target: str) -> bool:
        """Whether a target that doesn't begin with its path names this server, if it names any."""
        named = _TARGET_AUTHORITY.match(target)
        return named is None or self._names_us(named[1].encode("utf-8", "surrogateescape"))

    def _may(self, method: str, fields: RequestFields, is_ours: bool) -> bool:
        origin, site = fields.noted.get(b"origin"), fields.noted.get(b"sec-fetch-site")
        if origin is not None and self._allows(origin):
            return True
        if site is None:
            if origin is not None:
                return _is_of_host(origin, fields.host)
            return method not in _WITHOUT_ORIGIN or self._may_refer(fields)
        # A link to one of our own pages may be followed; who made the link sees nothing of it.
        is_link = fields.noted.get(b"sec-fetch-mode") == b"navigate" and method in ("GET", "HEAD")
        return site in _FROM_HERE or (is_ours and is_link and origin is None)

    def _may_refer(self, fields: RequestFields) -> bool:
        """Whether the page that a GET comes from, if it tells, is one of this server's or of those that may."""
        referer = fields.noted.get(b"referer")
        if referer is None:
            return True
        found = _ORIGIN.match(referer)
        return found is not None and (self._allows(found[0]) or _is_of_host(found[0], fields.host))

    def _names_us(self, host: bytes) -> bool:
        return self._kept_names_us(host) if len(host) <= _LONGEST_KEPT else self._is_a_name_of_ours(host)

    def _is_a_name_of_ours(self, host: bytes) -> bool:
        authority = _read_authority(host)
        if authority is None:
            return False
        name, _ = authority
        return self._any_host or name in self._allowed_hosts or is_loopback(name)


def canonical_name(text: str) -> str:
    """A host's one spelling. Raises ValueError for what is no host alone: a port is none of its business."""
    text = f"[{text}]" if ":" in text and not text.startswith("[") else text
    match = _AUTHORITY.fullmatch(text)
    if match is None or match["port"] is not None:
        raise ValueError("not the name or address of a host, without a port")
    return canonical_host(match["host"])


def is_loopback(host: str) -> bool:
    """Whether a host in its one spelling is this machine to itself.

    That is 127.0.0.0/8, ::1, localhost and the names below it, which nobody can have (RFC 6761 section 6.3).
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _read_authority(text: bytes) -> tuple[str, str] | None:
    """The host in its one spelling, and the port if there is one."""
    match = _AUTHORITY.fullmatch(text.decode("latin-1"))
    if match is None:
        return None
    try:
        return canonical_host(match["host"]), match["port"] or ""
    except ValueError:
        return None


def _is_of_host(origin: bytes, host: bytes | None) -> bool:
    """Whether a page of that origin came from the server that is asked, by the name that it is asked by."""
    scheme, _, authority = origin.partition(b"://")
    default = _DEFAULT_PORTS.get(scheme.decode("latin-1"))
    pages, ours = _read_authority(authority), _read_authority(host or b"")
    if default is None or pages is None or ours is None:
        return False
    return (pages[0], pages[1] or default) == (ours[0], ours[1] or default)


def _foreign_host() -> Failed:
    return Failed(
        403,
        "host_not_allowed",
        "This server has no keys, and answers only to localhost, to loopback addresses and to the names in "
        "allowed_hosts.",
    )
