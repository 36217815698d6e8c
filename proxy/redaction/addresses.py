"""Secrets out of what is logged of an address: its path, query and user information. Contract section 8."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, unquote

from proxy.redaction.edits import REDACTED

__all__ = ["is_secret_name", "redact_address", "redact_pairs", "redact_parts", "redact_query", "secrets_in"]

# Of the names of parameters, without their case and what is neither letter nor digit: api_key, Api-Key, api%5Fkey[].
_NAMES: Final = """
    key apikey xapikey accesskey secretkey privatekey subscriptionkey ocpapimsubscriptionkey xgoogapikey virtualkey
    token accesstoken authtoken idtoken refreshtoken sessiontoken bearertoken xamzsecuritytoken jwt bearer
    secret clientsecret password passwd pwd auth authorization credential credentials
    sig signature xamzsignature xamzcredential xgoogsignature xgoogcredential
    heliconeauth heliconeapikey xportkeyapikey portkeyapikey
"""
_SECRET_PARAMETERS: Final = frozenset(_NAMES.split())
# What names end with that say whose key it is: openai_api_key, app_secret, db.password.
_SECRET_ENDING: Final = re.compile(
    r".*(?:(?:api|app|auth|access|secret|private|virtual|master|subscription|account)keys?"
    r"|(?:api|app|auth|access|client|user|bearer|refresh|session|security)token"
    r"|secret|password|passwd|passphrase|pwd)"
)
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")
# A name, at the beginning or behind what some take for the beginning of one: ";" as well as "&" has been a separator.
_NAME: Final = re.compile(r"(?:^|[;?#])([^=;?#]*)=")
_MATRIX: Final = re.compile(r";([^=;/]*)=([^;/]*)")
_USER_INFORMATION: Final = re.compile(r"(//|%2f%2f)[^/?#@]*@", re.IGNORECASE)
_SAFE: Final = "/:@!$'()*,;[]~-._"


def redact_address(address: str) -> str:
    """A URL or a path with its query, without what carries credentials."""
    path, mark, query = address.partition("?")
    if ";" in path and "=" in path:
        path = _MATRIX.sub(_redact_matrix, path)
    whole = path + redact_query(mark + query)
    return _USER_INFORMATION.sub(rf"\1{REDACTED}@", whole) if "@" in whole else whole


def _redact_matrix(match: re.Match[str]) -> str:
    return f";{match[1]}={REDACTED}" if is_secret_name(match[1]) else match[0]


def redact_query(query: str) -> str:
    """A query, its question mark included, without the values of parameters that carry credentials."""
    if "=" not in query and "%" not in query:
        return query
    return "?" + "&".join(_redact(pair) for pair in query.removeprefix("?").split("&"))


def _redact(pair: str) -> str:
    for match in _NAME.finditer(pair):
        if is_secret_name(match[1]):
            return pair[: match.end()] + REDACTED
    name, separator, value = pair.partition("=")
    # An address in an address.
    if "%" in value and (inner := unquote(value)) != value and any(mark in inner for mark in "=@"):
        return name + separator + (value if redact_address(inner) == inner else REDACTED)
    return pair


def is_secret_name(name: str) -> bool:
    """Whether a parameter of this name carries a credential."""
    plain = _NO_NAME.sub("", unquote(name).lower())
    return plain in _SECRET_PARAMETERS or _SECRET_ENDING.fullmatch(plain) is not None


def secrets_in(query: str) -> list[str]:
    """The values that `redact_query` takes out, as they are sent and as they read."""
    pairs = (pair.partition("=") for pair in query.removeprefix("?").split("&"))
    values = [value for name, _, value in pairs if value and is_secret_name(name)]
    return [*values, *map(unquote, values)]


def redact_pairs(query: str, redact_pair: Callable[[str, str], str]) -> str:
    """Pairs of names and values as forms and queries have them, each value as ``redact_pair`` gives it.

    A name is searched as the value of none.
    """
    return "&".join(_redact_pair(pair, redact_pair) for pair in query.split("&"))


def _redact_pair(pair: str, redact_pair: Callable[[str, str], str]) -> str:
    name, separator, value = pair.partition("=")
    read = unquote(name.replace("+", " "))
    return (
        _put(name, redact_pair("", read)) + separator + _put(value, redact_pair(read, unquote(value.replace("+", " "))))
    )


def redact_parts(address: str, redact: Callable[[str], str], redact_pair: Callable[[str, str], str]) -> str:
    """A URL, or a path with its query, as ``redact`` gives what its path stands for, and ``redact_pair`` the rest."""
    path, mark, query = address.partition("?")
    return _put(path, redact(unquote(path))) + mark + (redact_pairs(query, redact_pair) if query else "")


def _put(encoded: str, redacted: str) -> str:
    """Such a text in the place of an encoded one, which stays as it is where it stands for the same."""
    if redacted in (unquote(encoded), unquote(encoded.replace("+", " "))):
        return encoded
    return quote(_bytes(redacted), _SAFE)


def _bytes(text: str) -> bytes:
    """Of a text whose bytes were none, these; else those of its halves of characters."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
