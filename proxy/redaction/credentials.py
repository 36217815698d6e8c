"""The credentials that came with a call, to be taken out of what is logged of it: an upstream's error may quote one.

An exchange holds none of them; it holds this, which tells nobody what it looks for.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import unquote

from proxy.auth import KeyRing, protocol_secrets
from proxy.field_names import SENSITIVE, is_secret
from proxy.headers import RequestFields, sensitive_names
from proxy.redaction.addresses import is_secret_name, secrets_in
from proxy.redaction.keys import SHORTEST, Keys
from proxy.redaction.spellings import other_forms, unescaped
from proxy.wire.json_text import parse

__all__ = ["CALLING", "NONE", "NO_KEYS", "Credentials", "carried"]

# Characters of one that has letters and digits both. What is shorter is a stand-in ("lm-studio"), and a word.
_SHORTEST_MIXED: Final = 8
# Of one of Kibitz's own, which is known for what it is. A shorter one would take half of every text with it.
_SHORTEST_OWN: Final = 4
# What reads in one way only.
_PLAIN: Final = re.compile(rb"[!-$&-\[\]-~]*+")
_BEARER: Final = b"Bearer "
_BASIC: Final = b"basic"
_JSON_STARTS: Final = (b"{", b"[")
_DEEPEST: Final = 16
# Schemes whose names are as long as keys are: AWS4-HMAC-SHA256, SCRAM-SHA-256-PLUS. RFC 9110 section 11.1.
_LONG_SCHEME: Final = re.compile(rb"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*?-SHA-?[0-9]+(?:-PLUS)?", re.IGNORECASE)
_PARAMETER: Final = re.compile(rb'([A-Za-z_][\w.-]*)=("?)([^"=][^"]*)\2')
# Of a scheme's parameters, such as say nothing secret.
_PUBLIC: Final = frozenset(
    b"realm username uri qop nc algorithm charset userhash scope version region service date timestamp headers "
    b"signedheaders signed-headers signaturemethod signatureversion oauth_signature_method oauth_timestamp "
    b"oauth_version oauth_consumer_key error error_description".split()
)
# AWS's: the key's id, and behind it the date, the region and the service.
_SCOPED: Final = b"credential"


class Credentials:
    """What the credential fields of one call hold."""

    __slots__ = ("_cookies", "_keys", "_ring", "_values")

    def __init__(self, values: Sequence[bytes], ring: KeyRing, cookies: Sequence[bytes] = ()) -> None:
        self._values = values
        self._ring = ring
        self._cookies = cookies
        self._keys: Keys | None = None

    @property
    def keys(self) -> Keys:
        """What to look for."""
        if self._keys is None:  # not when the call begins: its row may be made beside the loop
            held: list[bytes] = []
            for value in self._values:
                held += _secrets_in(value, self._ring)
            for cookie in self._cookies:
                held += _secrets_of_cookies(cookie)
            self._keys = Keys(held if all(map(_PLAIN.fullmatch, held)) else _with_other_forms(held))
        return self._keys

    def with_cookies(self, cookies: Sequence[bytes]) -> Credentials:
        """These and those that a response sets."""
        return Credentials(self._values, self._ring, (*self._cookies, *(one.partition(b";")[0] for one in cookies)))

    def keys_for(self, texts: Sequence[str]) -> Keys:
        """What to look for in texts that are few and short: the configured keys among their words, too."""
        if self._ring.is_empty:
            return self.keys
        found: set[bytes] = set()
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            found.update(self._ring.within(data))
            if b"%" in data or b"\\" in data:
                found.update(self._ring.within(unescaped(data)))
        return self.keys.and_also(key for key in found if len(key) >= _SHORTEST_OWN) if found else self.keys

    def keys_repeated_by(self, texts: Sequence[str]) -> Keys | None:
        """The same, unless none of the texts may hold one."""
        keys = self.keys_for(texts)
        return keys if any(keys.may_be_in(text.encode("utf-8", "surrogatepass")) for text in texts) else None

    def is_repeated_by(self, text: str) -> bool:
        """Whether a text, an id for one, holds a credential."""
        keys = self.keys_for((text,))
        return keys.may_be_in(text.encode("utf-8", "surrogatepass")) and bool(keys.edits(text))


def _with_other_forms(held: list[bytes]) -> Iterator[bytes]:
    yield from held
    for key in held:
        yield from (form for form in other_forms(key) if len(form) >= SHORTEST)


def _secrets_in(value: bytes, ring: KeyRing) -> Iterable[bytes]:
    """The credentials of a field, without the words that say of what kind they are."""
    if value.startswith(_BEARER) and b"," not in value:
        secret = value[len(_BEARER) :].strip()
        if len(secret) >= SHORTEST and b" " not in secret:
            return (secret,)
    return _all_secrets_in(value, ring)


def _all_secrets_in(value: bytes, ring: KeyRing) -> Iterator[bytes]:
    value = value.strip()
    if value.startswith(_JSON_STARTS) and (members := parse(value)) is not None:
        for text in _secret_members(members, 0):
            yield from _all_secrets_in(text.encode("utf-8", "surrogatepass"), ring)
        return
    if not ring.is_empty:
        yield from (key for part in value.split(b",") for key in ring.within(part) if len(key) >= _SHORTEST_OWN)
    for part in value.split(b","):
        scheme, *others = part.split() or [b""]
        if others and (_LONG_SCHEME.fullmatch(scheme) or not _counts(scheme)):
            if scheme.lower() == _BASIC:
                yield from filter(_counts, _of_basic(others[0]))
        else:
            others = [scheme, *others]
        for word in others:
            yield from _of_word(word)


def _of_word(word: bytes) -> Iterator[bytes]:
    parameter = _PARAMETER.fullmatch(word)
    if parameter is None:
        if _counts(word):
            yield word
        return
    name, _, text = parameter.groups()
    if name.lower() not in _PUBLIC:
        if name.lower() == _SCOPED:
            text = text.partition(b"/")[0]
        elif len(word) >= SHORTEST:
            yield word  # it may be no parameter, but a key that holds an equals sign
        if len(text) >= SHORTEST:
            yield text


def _counts(secret: bytes) -> bool:
    """Whether it is no stand-in for a credential."""
    if len(secret) >= SHORTEST:
        return True
    return len(secret) >= _SHORTEST_MIXED and not secret.isalpha() and any(48 <= one < 58 for one in secret)


def _of_basic(encoded: bytes) -> tuple[bytes, ...]:
    """The password; of one that is empty the user, who then is the key."""
    try:
        user, _, password = base64.b64decode(encoded + b"==").partition(b":")
    except binascii.Error:
        return ()
    return (password or user,)


def _secret_members(value: Any, level: int) -> Iterator[str]:
    """The texts that members of such names hold, in JSON."""
    if level > _DEEPEST:
        return
    if isinstance(value, list):
        for item in value:
            yield from _secret_members(item, level + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, str):
                if is_secret_name(name) or is_secret(name.lower().encode("utf-8", "surrogatepass")):
                    yield item
            else:
                yield from _secret_members(item, level + 1)


def _secrets_of_cookies(value: bytes) -> Iterator[bytes]:
    for pair in value.split(b";"):
        name, mark, text = pair.strip().partition(b"=")
        secret = (text if mark else name).strip(b' \t"')
        if len(secret) >= SHORTEST:
            yield secret


NO_KEYS: Final = KeyRing(())
NONE: Final = Credentials((), NO_KEYS)
"""Of a call that carries none: what is left are Kibitz's own keys."""
CALLING: Final[ContextVar[Credentials]] = ContextVar("CALLING", default=NONE)
"""Those of the request to a route of ours that is being answered."""


def carried(
    fields: RequestFields,
    query: str = "",
    api_key: str | None = None,
    keys: KeyRing = NO_KEYS,
    told: Sequence[RequestFields] = (),
) -> Credentials:
    """Those of a request's header fields and its query, and the key that it is given on its way.

    ``keys`` are Kibitz's own, which are taken out though they be short; ``told`` are the fields of a call that the
    request tells of.
    """
    values: list[bytes] = []
    cookies: list[bytes] = []
    for one in (fields, *told) if told else (fields,):
        values += [one.forward[index][1] for index in one.credentials]
        if one.secrets:
            values += [value for name, value in one.secrets if name not in _COOKIES and _may_be_key(name, value)]
            cookies += [value for name, value in one.secrets if name in _COOKIES]
        for name in one.own:
            if is_secret(name):
                values += [value for _, value in one.own[name] if _may_be_key(name, value)]
        if SENSITIVE in one.own:
            values += _sensitive(one)
        if b"sec-websocket-protocol" in one.noted:
            values += protocol_secrets(one)
    if query:
        values += [unquote(unquote(secret)).encode("utf-8", "surrogateescape") for secret in secrets_in(query)]
    if api_key is not None:
        values.append(api_key.encode("utf-8"))
    return Credentials(values, keys, cookies)


def _may_be_key(name: bytes, value: bytes) -> bool:
    """Whether a field's value is none of a setting by its name, such as a model's."""
    return value[:1] in _JSON_STARTS or not name.endswith(_SETTINGS)


def _sensitive(fields: RequestFields) -> list[bytes]:
    """The values of the fields that the request itself calls sensitive."""
    named = sensitive_names(fields)
    own = [value for name, sent in fields.own.items() if name in named for _, value in sent]
    return own + [value for name, value in fields.forward if name.lower() in named]


_COOKIES: Final = frozenset({b"cookie", b"set-cookie"})
# In JSON, in which keys may stand; else the names of such settings.
_SETTINGS: Final = (b"config", b"fallbacks")
