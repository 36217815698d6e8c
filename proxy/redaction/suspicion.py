"""Whether a call may repeat a key that it carried, told quickly of all that would be stored of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final

from proxy.exchange import Asked, Capture, Exchange
from proxy.redaction.keys import Keys
from proxy.redaction.redactor import LABELS
from proxy.redaction.rules import TooSlow
from proxy.redaction.streams import EVENTS_BEGIN, VALUES_MEET
from proxy.wire.gist import Gist
from proxy.wire.realtime import FRAMES

__all__ = ["is_in_pieces", "keys_in", "keys_in_request"]

_Side = tuple[Capture, bytes, Gist | None]

_STREAMS: Final = (
    *("text/event-stream", "application/x-ndjson", "application/stream+json", "application/jsonl"),
    FRAMES,
)
_ways_of: Final = attrgetter(
    *("method", "path", "target_url", "provider", "request.content_type", "request.content_encoding"),
    *("response.content_type", "response.content_encoding"),
)
_labels_of: Final = attrgetter(*LABELS)
# As much as `proxy.wire.encoding` unpacks: of what is as long, the end may be missing.
_LARGEST_DECODED: Final = 16 * 1024 * 1024
_WIDE_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_WIDE: Final = ("utf-16", "utf-32")
# An array of events, or events, behind a mark of UTF-8 or none.
_STREAM_BEGINS: Final = re.compile(rb"(?:\xef\xbb\xbf)?+(?:\s*+\[|%b)" % EVENTS_BEGIN.encode("ascii"))
_JSON_BEGINS: Final = re.compile(rb"(?:\xef\xbb\xbf)?+[\s\x1e]*+[{\[]")
_OBJECT_BEGINS: Final = b"{"
_VALUES_MEET: Final = re.compile(VALUES_MEET.encode("ascii"))
_SMALL: Final = 16 * 1024
# Each is undone by itself, and once more where one hides another: 10,000 take some ten milliseconds.
_MOST_ESCAPES_AT_ONCE: Final = 4096
# Keys, a field may hold thousands, by bytes to search for each: some ten milliseconds. To prepare one takes as long as
# to search so many bytes.
_MOST_COMPARED_AT_ONCE: Final = 50_000_000
_PREPARED: Final = 16 * 1024


def keys_in(
    exchange: Exchange,
    sent: bytes,
    received: bytes,
    gist: Gist | None = None,
    asked: Asked | None = None,
    *,
    at_once: bool = False,
) -> Keys | None:
    """What to take out of an exchange with such bodies, decoded; ``None`` where there is nothing.

    ``gist`` is that of what was received, if it is a stream; ``asked`` what was read of the request before.
    Raises `TooSlow` for bodies that can't be searched ``at_once``.
    """
    keys, response = exchange.credentials.keys, exchange.response
    if at_once:
        _refuse_many(keys, len(sent) + len(received))
    if asked is None or asked.credentials is not exchange.credentials:
        sides = ((exchange.request, sent, None), (response, received, gist))
        return _keys_with_labels(exchange, keys, sides, at_once=at_once)
    if asked.keys is not None:
        return asked.keys
    texts = filter(None, (response.content_type, response.content_encoding))
    return keys if _may_be_in(keys, exchange, ((response, received, gist),), texts, at_once=at_once) else None


def keys_in_request(exchange: Exchange, sent: bytes, *, at_once: bool = False) -> Keys | None:
    """The same of what the request tells alone, of an exchange that may not have ended: its body and its labels."""
    keys = exchange.credentials.keys
    if at_once:
        _refuse_many(keys, len(sent))
    return _keys_with_labels(exchange, keys, ((exchange.request, sent, None),), at_once=at_once)


def _keys_with_labels(exchange: Exchange, keys: Keys, sides: Sequence[_Side], *, at_once: bool) -> Keys | None:
    credentials, identity = exchange.credentials, exchange.identity
    labels = list(filter(None, _labels_of(identity)))
    for name, value in identity.properties.items():
        labels += name, value
    if labels and (found := credentials.keys_for(labels)) is not keys:
        return found
    texts = [*filter(None, _ways_of(exchange)), *labels]
    may_be_in = _may_be_in(keys, exchange, sides, texts, at_once=at_once)
    return keys if may_be_in or (identity.cut and any(map(keys.may_end, labels))) else None


def _refuse_many(keys: Keys, size: int) -> None:
    if keys.count * (_PREPARED + size) > _MOST_COMPARED_AT_ONCE:
        raise TooSlow


def _may_be_in(keys: Keys, exchange: Exchange, sides: Sequence[_Side], texts: Iterable[str], *, at_once: bool) -> bool:
    """Whether a key may be in bodies, or in short texts that are kept with them."""
    has_failed, plain = exchange.failure is not None, []
    for capture, decoded, gist in sides:
        # What can't be decoded is kept as it is, and may be no more than ill named.
        data = decoded or capture.data()
        if decoded and capture.content_encoding and keys.may_be_in(capture.data()):
            return True
        in_pieces, is_wide = _kind(capture.content_type)
        if is_wide or data.find(b"\0", 0, 4) >= 0 or data.startswith(_WIDE_MARKS):
            return True
        in_pieces = in_pieces or _looks_like_pieces(data)
        is_cut = capture.truncated or len(data) >= _LARGEST_DECODED
        is_cut = is_cut or (has_failed if capture.is_whole is None else not capture.is_whole)
        if not in_pieces and not is_cut and len(data) <= _SMALL:
            plain.append(data)
            continue
        if at_once and len(data) > _SMALL and data.count(b"%") + data.count(b"\\u00") > _MOST_ESCAPES_AT_ONCE:
            raise TooSlow
        if keys.may_be_in(data, in_pieces=in_pieces, is_cut=is_cut, gist=gist if decoded else None):
            return True
    # Together, since to begin a search takes longer than to search a small body.
    plain.append("\n".join(texts).encode("utf-8", "surrogatepass"))
    return keys.may_be_in(b"\n".join(plain))


def is_in_pieces(data: bytes, content_type: str | None) -> bool:
    """Whether a body may hold a text in pieces, one behind the other."""
    return _kind(content_type)[0] or _looks_like_pieces(data)


def _looks_like_pieces(data: bytes) -> bool:
    """Whether it does by its looks: media types of streams are many, and not always told."""
    if data.startswith(_OBJECT_BEGINS):  # as nearly all do
        return _VALUES_MEET.search(data) is not None
    if _STREAM_BEGINS.match(data) is not None:
        return True
    # Elsewhere than in JSON it may stand anywhere, in sounds and images for one.
    return _JSON_BEGINS.match(data) is not None and _VALUES_MEET.search(data) is not None


@lru_cache(maxsize=256)
def _kind(content_type: str | None) -> tuple[bool, bool]:
    """Whether a text of such a type is a stream, and whether its characters take more than a byte each."""
    lower = (content_type or "").lower()
    return lower.lstrip().startswith(_STREAMS), any(name in lower for name in _WIDE)
