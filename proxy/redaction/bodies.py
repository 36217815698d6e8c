"""A body without what is to be redacted, whatever it is: JSON, a stream, a form, frames, or text."""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, Protocol

import orjson

from proxy.redaction.addresses import redact_pairs
from proxy.redaction.edits import REDACTED, Edit, apply
from proxy.redaction.json_strings import decoded, encoded, next_token, value_end
from proxy.redaction.rules import Search
from proxy.redaction.streams import (
    looks_like_events,
    redact_events,
    redact_lines,
    redact_pieces,
    redact_values,
)
from proxy.wire.facts import as_objects
from proxy.wire.form import FORM
from proxy.wire.json_text import parse
from proxy.wire.media_types import EVENT_STREAM, media_type_of
from proxy.wire.realtime import FRAMES

__all__ = ["redact_body", "redact_pair"]

_LINES: Final = frozenset({"application/x-ndjson", "application/stream+json", "application/jsonl"})
_PAIRS: Final = "application/x-www-form-urlencoded"
_MEDIA: Final = ("audio/", "image/", "video/")
_WIDE: Final = ("utf-16", "utf-32")
# Of those that Python knows, such as are read in linear time and write what they have read.
_CHARSETS: Final = ("utf-8", "utf-16", "utf-32", "iso-8859", "windows-", "us-ascii", "gb", "big5", "shift_jis", "euc-")
_JSON_STARTS: Final = ("{", "[", '"')
# The pieces of an answer once more, with what else might have stood there.
_PROBABILITIES: Final = "logprobs"


class _RedactParsed(Protocol):
    def __call__(self, search: Search, body: Any, *, is_cut: bool) -> str | None: ...


def redact_body(search: Search, data: bytes, content_type: str | None, *, is_cut: bool) -> bytes:
    """The body; the same bytes where there is nothing to redact. Raises `Unsearchable`."""
    media_type = media_type_of(content_type)
    for text, charset, errors in _readings(data, content_type or "", media_type):
        redacted = _redacted(search, text, media_type, is_cut=is_cut)
        if redacted != text:
            if _PROBABILITIES in redacted:
                redacted = _without_probabilities(redacted)
            return redacted.encode(charset, errors)
    return search.out_of_media(data) if media_type.startswith(_MEDIA) else data


def _readings(data: bytes, content_type: str, media_type: str) -> Iterator[tuple[str, str, str]]:
    """The body as text, and how to make it bytes again; none of bytes of a media type that are no text.

    What begins like UTF-16 or UTF-32 is read as bytes too: it may only begin like it. Other bytes that are no text
    are searched all the same, and each of them is kept.
    """
    detected = json.detect_encoding(data[:4].ljust(4))
    if not detected.startswith("utf-8"):
        with contextlib.suppress(UnicodeDecodeError):
            # A last character that was cut in two is left out.
            yield codecs.getincrementaldecoder(detected)("surrogatepass").decode(data), detected, "surrogatepass"
    for charset in (detected if detected.startswith("utf-8") else "", _charset(content_type), "utf-8"):
        try:
            yield data.decode(charset), charset, "strict"
        except (LookupError, UnicodeDecodeError):
            continue
        if not charset.startswith(_WIDE):  # bytes of any kind can be read as such
            return
    if not media_type.startswith(_MEDIA):
        yield data.decode("utf-8", "surrogateescape"), "utf-8", "surrogateescape"


def _charset(content_type: str) -> str:
    charset = content_type.lower().partition("charset=")[2].partition(";")[0].strip(" \"'")
    return charset if charset.startswith(_CHARSETS) else ""


def _redacted(search: Search, text: str, media_type: str, *, is_cut: bool) -> str:
    if media_type == EVENT_STREAM:
        return redact_events(search, text, is_cut=is_cut)
    if media_type in _LINES:
        return redact_lines(search, redact_values(search, text, is_cut=is_cut), is_cut=is_cut)
    if looks_like_events(text):
        text = redact_events(search, text, is_cut=is_cut)
    if media_type == _PAIRS and text.lstrip()[:1] not in _JSON_STARTS:  # curl says so of everything
        text = _redact_pairs(search, text, is_cut=is_cut)
        is_cut = False  # the text has been searched to its end
    redact = _REDACTORS.get(media_type)
    if (redact is not None or text.lstrip()[:1] == "[") and (value := parse(text)) is not None:
        redacted = (redact or _redact_array)(search, value, is_cut=is_cut)
        text = text if redacted is None else redacted
    elif redact is None:
        text = redact_values(search, text, is_cut=is_cut)
    return search.document(text, is_cut=is_cut)


def _redact_pairs(search: Search, text: str, *, is_cut: bool) -> str:
    """A form's pairs. What was cut is the last value, or the last name."""
    rest, mark, last = text.rpartition("&")
    cut_name = "=" not in last

    def redact_last(name: str, value: str) -> str:
        return redact_pair(search, name, value, is_cut=is_cut and (cut_name or bool(name)))

    return (redact_pairs(rest, partial(redact_pair, search)) + mark if mark else "") + redact_pairs(last, redact_last)


def redact_pair(search: Search, name: str, value: str, *, is_cut: bool = False) -> str:
    """The value of a name. Raises `Unsearchable`."""
    return REDACTED if search.rules.names(name) else search.redacted(value, is_cut=is_cut)


def _redact_array(search: Search, body: Any, *, is_cut: bool) -> str | None:
    """An array of events, as some stream them; JSON if it changed."""
    if isinstance(body, list) and redact_pieces(search, body, is_cut=is_cut):
        return orjson.dumps(body).decode()
    return None


def _redact_frames(search: Search, body: Any, *, is_cut: bool) -> str | None:
    frames = body.get("frames") if isinstance(body, dict) else None
    if isinstance(frames, list) and redact_pieces(search, [_told(frame) for frame in frames], is_cut=is_cut):
        return orjson.dumps(body).decode()
    return None


def _told(frame: Any) -> Any:
    """A frame's event; where it is none, the frame."""
    data = frame.get("data") if isinstance(frame, dict) else None
    return data if isinstance(data, dict | list) else frame


def _redact_form(search: Search, body: Any, *, is_cut: bool) -> str | None:
    parts = body.get("parts") if isinstance(body, dict) else None
    for part in as_objects(parts):
        if isinstance(value := part.get("value"), str):
            part["value"] = redact_pair(search, str(part.get("name")), value, is_cut="truncated" in part)
    return orjson.dumps(body).decode()


_REDACTORS: Final[dict[str, _RedactParsed]] = {FRAMES: _redact_frames, FORM: _redact_form}


def _without_probabilities(text: str) -> str:
    edits: list[Edit] = []
    position = 0
    while token := next_token(text, position):
        position = token.after
        if token.is_name and decoded(text[token.start : token.end]) == _PROBABILITIES:
            start, position = value_end(text, position)
            if text[start:position] not in ("null", "[]"):
                edits.append(Edit(start, position, encoded(REDACTED)))
    return apply(text, edits)
