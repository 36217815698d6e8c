"""The rules of the settings, applied to all that is stored: of a call before its row is made, of feedback before it
is written. What can't be searched is not kept.

Ids stay: the request id and the trace id are how feedback finds its call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from proxy.exchange import Capture, Exchange
from proxy.identity import Identity
from proxy.redaction.addresses import redact_parts
from proxy.redaction.bodies import redact_body, redact_pair
from proxy.redaction.credentials import NONE, Credentials
from proxy.redaction.edits import REDACTED
from proxy.redaction.rules import Rules, Search, TooSlow, Unsearchable
from proxy.wire.encoding import decode

__all__ = ["LABELS", "Redactor", "Words", "without_credentials"]

logger = logging.getLogger(__name__)

# As much as `proxy.wire.encoding` unpacks: of what is as long, the end may be missing.
_LARGEST_DECODED: Final = 16 * 1024 * 1024
_REDACTED_OBJECT: Final = f'{{"{REDACTED}":"{REDACTED}"}}'
LABELS: Final = (
    "span_id",
    "parent_span_id",
    "span_name",
    "session_id",
    "session_name",
    "session_path",
    "user_id",
    "prompt_id",
    "prompt_version",
    "model_override",
)
"""Of an `Identity`, the texts that a row shows, but for the request id and the trace id."""


class Words:
    """Takes it out of the texts of one call, or of one piece of feedback, with one search for all of them.

    What comes when the search's time is up is redacted whole.
    """

    def __init__(self, search: Search | None) -> None:
        self._search = search

    def text(self, text: str) -> str:
        """A text."""
        return self._found(text, Search.redacted)

    def label(self, text: str | None) -> str | None:
        """A text, if there is one."""
        return None if text is None else self.text(text)

    def pair(self, name: str, value: str) -> tuple[str, str]:
        """A name and its value."""
        return self.text(name), self.value(name, value)

    def value(self, name: str, value: str) -> str:
        """The value of a name."""
        return self._found(value, lambda search, text: redact_pair(search, name, text))

    def properties(self, properties: Mapping[str, str]) -> dict[str, str]:
        """Names and their values."""
        return dict(self.pair(name, value) for name, value in properties.items())

    def json(self, text: str | None) -> str | None:
        """A JSON text, if there is one."""
        return None if text is None else self._found(text, Search.document, _REDACTED_OBJECT)

    def address(self, address: str) -> str:
        """A URL, or a path with its query."""
        return redact_parts(address, self.text, self.value)

    def _found(self, text: str, redact: Callable[[Search, str], str], unsearchable: str = REDACTED) -> str:
        text = NONE.out_of_text(text)
        try:
            return text if self._search is None else redact(self._search, text)
        except Unsearchable:
            return unsearchable


class Redactor:
    """Takes from what is to be stored what the settings name. Slow, and never raises unless it is only tried."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.has_rules = bool(rules)
        """Whether the settings name anything; else there are Kibitz's own keys alone, which are found at once."""

    def words(self, trial: float | None = None) -> Words:
        """What takes it out of the texts of one thing."""
        return Words(self._rules.search(0, trial) if self.has_rules else None)

    def hurry(self, seconds: float) -> None:
        """Let all searches end within so many seconds."""
        self._rules.hurry(seconds)

    def exchange(self, exchange: Exchange, *, within: float | None = None) -> Exchange:
        """A copy for the log. Raises `TooSlow` if it takes longer than ``within`` seconds."""
        trial = None if within is None else time.monotonic() + within
        failure, credentials, words = exchange.failure, exchange.credentials, self.words(trial)
        # In this order: the labels may use up the time, and the row can't be understood without the rest.
        return replace(
            exchange,
            method=words.text(exchange.method),
            path=words.address(exchange.path),
            target_url=words.address(exchange.target_url),
            provider=words.text(exchange.provider),
            request=self._capture(exchange.request, credentials, words, trial, has_failed=failure is not None),
            response=self._capture(exchange.response, credentials, words, trial, has_failed=failure is not None),
            failure=replace(failure, message=words.text(failure.message)) if failure else None,
            identity=_identity(exchange.identity, words),
        )

    def _capture(
        self, capture: Capture, credentials: Credentials, words: Words, trial: float | None, *, has_failed: bool
    ) -> Capture:
        data = capture.data()
        plain = decode(data, capture.content_encoding) if data else b""
        is_truncated = capture.truncated or _may_be_more(plain, capture.content_encoding)
        kept = _Kept(capture, words.label(capture.content_type), is_truncated=is_truncated)
        try:
            if plain is None:
                raise Unsearchable
            search = self._rules.search(len(plain), trial)
            plain = credentials.out_of(plain)
            is_cut = is_truncated or (has_failed if capture.is_whole is None else not capture.is_whole)
            kept.keep(redact_body(search, plain, capture.content_type, is_cut=is_cut))
        except TooSlow:
            raise
        except Exception as error:
            if not isinstance(error, Unsearchable):
                logger.exception("redacting a body")
            kept.omitted = True
        return kept


def _identity(identity: Identity, words: Words) -> Identity:
    labels: dict[str, Any] = {name: words.label(getattr(identity, name)) for name in LABELS}
    return replace(identity, properties=words.properties(identity.properties), **labels)


def without_credentials(exchange: Exchange) -> Exchange:
    """A copy without the call's own credentials in its bodies, its addresses and its labels."""
    identity, clean = exchange.identity, exchange.credentials.out_of_text

    def clean_address(address: str) -> str:
        return redact_parts(address, clean, lambda _, value: clean(value))

    properties = {clean(name): clean(value) for name, value in identity.properties.items()}
    labels: dict[str, Any] = {name: clean(text) for name in LABELS if (text := getattr(identity, name)) is not None}
    return replace(
        exchange,
        identity=replace(identity, properties=properties, **labels),
        method=clean(exchange.method),
        path=clean_address(exchange.path),
        target_url=clean_address(exchange.target_url),
        provider=clean(exchange.provider),
        request=_without_them(exchange.request, exchange.credentials),
        response=_without_them(exchange.response, exchange.credentials),
    )


def _cleaned(text: str | None, credentials: Credentials) -> str | None:
    return None if text is None else credentials.out_of_text(text)


def _without_them(capture: Capture, credentials: Credentials) -> Capture:
    """The body unpacked, if it holds any; one that can't be unpacked without those that stand in it as it is."""
    data = capture.data()
    plain = decode(data, capture.content_encoding)
    read = data if plain is None else plain
    cleaned = credentials.out_of(read)
    content_type = _cleaned(capture.content_type, credentials)
    content_encoding = _cleaned(capture.content_encoding, credentials)
    if (cleaned, content_type, content_encoding) == (read, capture.content_type, capture.content_encoding):
        return capture
    may_be_more = _may_be_more(plain, capture.content_encoding)
    kept = _Kept(capture, content_type, is_truncated=capture.truncated or may_be_more)
    if plain is None:
        kept.content_encoding = content_encoding
    kept.keep(cleaned)
    return kept


def _may_be_more(plain: bytes | None, content_encoding: str | None) -> bool:
    return plain is not None and content_encoding is not None and len(plain) >= _LARGEST_DECODED


class _Kept(Capture):
    """What is kept of a body; ``size`` is that of all that passed."""

    __slots__ = ("_data", "_is_truncated")

    def __init__(self, capture: Capture, content_type: str | None, *, is_truncated: bool) -> None:
        super().__init__(capture.limit, content_type, omitted=capture.omitted, size=capture.size)
        self._data = b""
        self._is_truncated = is_truncated

    def keep(self, data: bytes) -> None:
        self._data = data

    @property
    def truncated(self) -> bool:
        """Whether more passed than was kept."""
        return self._is_truncated

    def data(self) -> bytes:
        """What was kept."""
        return self._data
