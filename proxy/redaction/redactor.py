"""The rules of the settings, applied to all that is stored: of a call before its row is made, of feedback before it
is written. What can't be searched is not kept.

Ids stay: the request id and the trace id are how feedback finds its call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from proxy.exchange import Capture, Exchange
from proxy.identity import Identity
from proxy.redaction.addresses import redact_parts
from proxy.redaction.bodies import redact_body, redact_pair
from proxy.redaction.edits import REDACTED
from proxy.redaction.keys import Keys
from proxy.redaction.rules import Rules, Search, TooSlow, Unsearchable
from proxy.wire.encoding import decode

__all__ = ["LABELS", "Redactor", "Words", "left_out"]

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

    def text(self, text: str, *, is_cut: bool = False) -> str:
        """A text; of one that ``is_cut`` the end may be missing."""
        return self._found(text, partial(Search.redacted, is_cut=True) if is_cut else Search.redacted)

    def label(self, text: str | None, *, is_cut: bool = False) -> str | None:
        """A text, if there is one."""
        return None if text is None else self.text(text, is_cut=is_cut)

    def pair(self, name: str, value: str, *, is_cut: bool = False) -> tuple[str, str]:
        """A name and its value."""
        return self.text(name), self.value(name, value, is_cut=is_cut)

    def value(self, name: str, value: str, *, is_cut: bool = False) -> str:
        """The value of a name."""
        return self._found(value, lambda search, text: redact_pair(search, name, text, is_cut=is_cut))

    def properties(self, properties: Mapping[str, str], *, is_cut: bool = False) -> dict[str, str]:
        """Names and their values."""
        return dict(self.pair(name, value, is_cut=is_cut) for name, value in properties.items())

    def json(self, text: str | None) -> str | None:
        """A JSON text, if there is one."""
        return None if text is None else self._found(text, Search.document, _REDACTED_OBJECT)

    def address(self, address: str) -> str:
        """A URL, or a path with its query."""
        # Of its own marks a key may hold some, and so stand in two of the parts.
        return self._found(redact_parts(address, self.text, self.value), Search.without_keys)

    def _found(self, text: str, redact: Callable[[Search, str], str], unsearchable: str = REDACTED) -> str:
        try:
            return text if self._search is None else redact(self._search, text)
        except Unsearchable:
            return unsearchable


class Redactor:
    """Takes from what is to be stored what the settings name. Slow, and never raises unless it is only tried."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.has_rules = bool(rules)
        """Whether the settings name anything; else there are keys alone, which are found at once."""

    def words(self, trial: float | None = None, keys: Keys | None = None, size: int = 0) -> Words:
        """What takes it out of the texts of one thing, of so many characters together, and ``keys`` besides."""
        return Words(self._rules.search(size, trial, keys) if self.has_rules or keys is not None else None)

    def hurry(self, seconds: float) -> None:
        """Let all searches end within so many seconds."""
        self._rules.hurry(seconds)

    def exchange(self, exchange: Exchange, *, within: float | None = None, keys: Keys | None = None) -> Exchange:
        """A copy for the log, without ``keys`` too. Raises `TooSlow` if it takes longer than ``within`` seconds."""
        trial = None if within is None else time.monotonic() + within
        failure, words = exchange.failure, self.words(trial, keys)
        capture = partial(self._capture, words=words, trial=trial, keys=keys, has_failed=failure is not None)
        # In this order: the labels may use up the time, and the row can't be understood without the rest.
        return replace(
            exchange,
            method=words.text(exchange.method),
            path=words.address(exchange.path),
            target_url=words.address(exchange.target_url),
            provider=words.text(exchange.provider),
            request=capture(exchange.request),
            response=capture(exchange.response),
            failure=replace(failure, message=words.text(failure.message)) if failure else None,
            identity=_identity(exchange.identity, words),
        )

    def _capture(
        self, capture: Capture, *, words: Words, trial: float | None, keys: Keys | None, has_failed: bool
    ) -> Capture:
        data = capture.data()
        plain = decode(data, capture.content_encoding) if data else b""
        is_truncated = capture.truncated or _may_be_more(plain, capture.content_encoding)
        kept = _Kept(capture, words.label(capture.content_type), is_truncated=is_truncated)
        try:
            if plain is None:
                if self.has_rules or keys is None:
                    raise Unsearchable
                kept.content_encoding, plain = words.label(capture.content_encoding), keys.out_of(data)
            search = self._rules.search(len(plain), trial, keys)
            is_cut = is_truncated or (has_failed if capture.is_whole is None else not capture.is_whole)
            kept.keep(redact_body(search, plain, capture.content_type, is_cut=is_cut))
        except TooSlow:
            raise
        except Exception as error:
            if not isinstance(error, Unsearchable):
                logger.exception("redacting a body")
            kept.omitted = True
        return capture if not self.has_rules and _is_same(kept, capture, plain, keys) else kept


def _is_same(kept: _Kept, capture: Capture, plain: bytes | None, keys: Keys | None) -> bool:
    """Whether there was nothing to take out of a body, so that it may stay packed as it came."""
    told = (kept.omitted, kept.content_type) == (capture.omitted, capture.content_type)
    if kept.content_encoding is not None:  # it could not be unpacked
        return told and (kept.data(), kept.content_encoding) == (capture.data(), capture.content_encoding)
    # What unpacks a body passes over names of files, and over what stands behind the end.
    is_hidden = keys is not None and capture.content_encoding is not None and keys.may_be_in(capture.data())
    return told and kept.data() == plain and not is_hidden


def _identity(identity: Identity, words: Words) -> Identity:
    cut = identity.cut
    labels: dict[str, Any] = {name: words.label(getattr(identity, name), is_cut=name in cut) for name in LABELS}
    return replace(identity, properties=words.properties(identity.properties, is_cut="properties" in cut), **labels)


def left_out(capture: Capture) -> Capture:
    """A body of which nothing is kept."""
    kept = _Kept(capture, capture.content_type, is_truncated=capture.truncated)
    kept.omitted = True
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
