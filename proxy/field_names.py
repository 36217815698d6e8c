"""What the fields of a request are for, by their names.

What stays behind is named here: hop-by-hop fields (RFC 9110 section 7.6.1), message framing, and Kibitz's own.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache
from typing import Final

__all__ = ["HOP_BY_HOP", "SENSITIVE", "Role", "is_secret", "request_role"]

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade"}
)
_OWN_PREFIXES: Final = (b"helicone-", b"x-portkey-")
_CREDENTIALS: Final = frozenset(
    {b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"ocp-apim-subscription-key"}
)
# Of further fields that hold a credential, Kibitz's own and others, such as say so by their names; and of those that
# seem to, such as hold an id, a list of names or a word.
_SECRET: Final = re.compile(
    rb".*(?:(?:^|-)(?:auth|authorization|bearer|cookie|jwt|credentials?|passw(?:or)?d|passphrase|pwd"
    rb"|(?:access|secret|virtual|api|private|account|subscription|posthog|lytix)-?keys?"
    rb"|config|fallbacks|account-json|webhook-enabled|csrf)(?:-.*)?"
    rb"|(?:token|secret|secret-id|-key|signature|password|passphrase))"
)
_NO_SECRETS: Final = re.compile(
    rb"(?:x-)?idempotency-key|sec-websocket-key"
    # Of whom a proxy in front has let in: what it tells is a label too.
    rb"|x-auth-(?:request-)?(?:user|user-id|username|preferred-username|email|groups|provider)"
)
_PROPERTY: Final = b"helicone-property-"
SENSITIVE: Final = b"x-portkey-sensitive-headers"
"""The field that names others."""
# What a browser says of the page that a request comes from.
_OF_PAGES: Final = frozenset(
    {
        *(b"origin", b"referer", b"sec-fetch-site", b"sec-fetch-mode"),
        *(b"access-control-request-method", b"access-control-request-headers"),
    }
)
# Kept for the log, for `proxy.origins` and for `proxy.credentials`, and handed on like any other.
_NOTED: Final = _OF_PAGES | {
    *(b"content-type", b"content-encoding", b"traceparent", b"baggage"),
    b"sec-websocket-protocol",
}


class Role(Enum):
    """What is done with a field by its name; one that has no role is handed on."""

    OWN = auto()
    HOST = auto()
    HOP_BY_HOP = auto()
    FRAMING = auto()
    LENGTH = auto()
    EXPECTATION = auto()
    UPGRADE = auto()
    CREDENTIAL = auto()
    SECRET = auto()
    NOTED = auto()


def request_role(name: bytes) -> tuple[Role | None, bytes]:
    """A field's role in a request, if it has one, and its name in lower case."""
    return _kept_request_role(name) if len(name) <= _LONGEST_KEPT else _request_role(name)


def _request_role(name: bytes) -> tuple[Role | None, bytes]:
    lower = name.lower()
    if lower.startswith(_OWN_PREFIXES):
        return Role.OWN, lower
    if lower in _CREDENTIALS:
        return Role.CREDENTIAL, lower
    if lower in _NOTED:
        return Role.NOTED, lower
    return _REQUEST_ROLES.get(lower) or (Role.SECRET if is_secret(lower) else None), lower


def is_secret(name: bytes) -> bool:
    """Whether a field holds a credential, as its name in lower case tells."""
    return _kept_is_secret(name) if len(name) <= _LONGEST_KEPT else _is_secret(name)


def _is_secret(name: bytes) -> bool:
    name = name.replace(b"_", b"-")
    if name.startswith(_PROPERTY) or _NO_SECRETS.fullmatch(name) is not None:
        return False
    return name in _CREDENTIALS or _SECRET.fullmatch(name) is not None


_REQUEST_ROLES: Final = {
    **dict.fromkeys(HOP_BY_HOP, Role.HOP_BY_HOP),
    b"host": Role.HOST,
    b"transfer-encoding": Role.FRAMING,
    b"content-length": Role.LENGTH,
    b"expect": Role.EXPECTATION,
    b"upgrade": Role.UPGRADE,
}


# Clients spell the same few names again and again; what others make up must not fill the memory.
_LONGEST_KEPT: Final = 64
_kept_request_role = lru_cache(maxsize=2048)(_request_role)
_kept_is_secret = lru_cache(maxsize=2048)(_is_secret)
