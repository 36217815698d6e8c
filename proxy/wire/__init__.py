"""What the log understands of bodies: one module a format behind the two functions here.

A format is chosen by path, else by what an answer declares itself to be, never by guessing at the body, and nothing
here raises: what can't be understood is unknown. To add a format: a module of its own, and an entry in `_FORMATS`.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, compress, repeat
from typing import Any, Final

import orjson

from proxy.wire import (
    anthropic_messages,
    declared,
    openai_audio,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_images,
    openai_responses,
)
from proxy.wire.encoding import decode
from proxy.wire.facts import RequestFacts, ResponseFacts, as_object, as_text
from proxy.wire.form import FORM, read_form
from proxy.wire.gist import Gist
from proxy.wire.json_text import empty_below, nested_deeper_than, parse, parse_object
from proxy.wire.media_types import EVENT_STREAM, media_type_of
from proxy.wire.realtime import FRAMES, read_asked, read_frames
from proxy.wire.skim import (
    is_piece_of_message,
    is_piece_of_response,
    says_nothing,
    skim_answer,
    skim_chunks,
    skim_request,
)
from proxy.wire.sse import Events, event_batches, first_data, lone_events
from storage.records import record

__all__ = [
    "Message",
    "RequestFacts",
    "ResponseFacts",
    "first_id",
    "is_understood",
    "read_request",
    "read_response",
    "skim_response",
    "visible_answer",
    "visible_body",
]

logger = logging.getLogger(__name__)

IsPiece = Callable[[bytes], bool]

_END_OF_STREAM: Final = b"[DONE]"
_JSON: Final = "application/json"
_JSON_LINES: Final = "application/x-ndjson"
_JSON_STREAM: Final = "application/stream+json"
_STREAMS: Final = frozenset({EVENT_STREAM, _JSON_LINES, _JSON_STREAM, FRAMES, "application/vnd.amazon.eventstream"})
_TEXTS: Final = frozenset({"text/plain", "text/vtt", "text/srt", "application/x-subrip"})
# Never text, though silence in PCM is valid UTF-8.
_MEDIA: Final = ("audio/", "image/", "video/")
_JSON_STARTS: Final = (b"{", b"[")
_LEADING_BLANKS: Final = 1024
# Characters. Paths that somebody makes up must not fill the memory.
_LONGEST_KEPT: Final = 512
# Levels of JSON that are shown as JSON; deeper ones are shown as the text that came.
_DEEPEST: Final = 200
# Levels of a stream's event that are put together, in which the stack of calls grows with the levels. More than are
# shown, so that an answer that was cut here is shown as it came.
_DEEPEST_ASSEMBLED: Final = 220
_SURELY_SHALLOW: Final = 2 * _DEEPEST_ASSEMBLED  # bytes: each level takes two at least


@record()
class Message:
    """A body as it crossed the wire, with the header fields that say how to read it."""

    data: bytes
    content_type: str | None = None
    content_encoding: str | None = None

    @property
    def media_type(self) -> str:
        """``type/subtype`` in lower case, empty where there was none."""
        return media_type_of(self.content_type)

    def decoded(self) -> bytes:
        """The bytes without their content encoding; none where that can't be undone."""
        return (decode(self.data, self.content_encoding) or b"") if self.content_encoding else self.data


@dataclass(frozen=True, slots=True)
class Format:
    """One API's shapes: how to read a request and an answer, and how a stream's events become an answer.

    ``assemble`` is ``None`` for an API whose streams are not understood, ``read_text`` for one whose answers are
    never plain text. ``is_skimmed`` tells that `proxy.wire.skim` knows the usual shapes of its answers, ``is_piece``
    which of a stream's events, by their data, say nothing that a row wants.
    """

    read_answer: Callable[[dict[str, Any]], ResponseFacts]
    assemble: Callable[[Iterable[dict[str, Any]]], dict[str, Any]] | None = None
    read_request: Callable[[dict[str, Any]], RequestFacts] = openai_chat.read_request
    read_text: Callable[[str], ResponseFacts] | None = None
    is_skimmed: bool = False
    is_piece: IsPiece | None = None


_PLAIN: Final = Format(openai_embeddings.read_answer)
_DECLARED: Final = Format(declared.read_declared, declared.assemble)

# By the path, of which only the end is the same below every provider's base URL.
_FORMATS: Final[tuple[tuple[re.Pattern[str], Format], ...]] = tuple(
    (re.compile(pattern), form)
    for pattern, form in (
        (r".*/chat/completions(/[^/]+)?", Format(openai_chat.read_answer, openai_chat.assemble, is_skimmed=True)),
        (r".*/completions", Format(openai_completions.read_answer, openai_completions.assemble, is_skimmed=True)),
        (
            # A count of input tokens is no usage, and a compacted conversation no response.
            r".*/responses(/(?!input_tokens$|compact$)[^/]+(/cancel)?)?",
            Format(openai_responses.read_answer, openai_responses.assemble, is_piece=is_piece_of_response),
        ),
        (
            # Right behind a base URL: the messages of an assistant's thread are something else.
            r"(.*/v1|/[^/]+)/messages",
            Format(
                anthropic_messages.read_answer,
                anthropic_messages.assemble,
                anthropic_messages.read_request,
                is_piece=is_piece_of_message,
            ),
        ),
        # Of a call that was told of without its address, the answer says itself what it is.
        (r"/v1/logs|/custom/v1/log", Format(declared.read_answer, declared.assemble)),
        (
            r".*/audio/(transcriptions|translations)",
            Format(openai_audio.read_answer, openai_audio.assemble_transcript, read_text=openai_audio.read_transcript),
        ),
        (r".*/audio/speech", Format(openai_audio.read_answer, openai_audio.assemble_speech)),
        (r".*/images/[a-z]+", Format(openai_images.read_answer, openai_images.assemble)),
        (r".*/(embeddings|rerank|moderations|audio/[a-z]+|responses/compact)", _PLAIN),
    )
)


def is_understood(path: str) -> bool:
    """Whether a path leads to an API of which more is known than the names that all use."""
    return _format(path) is not None


def read_request(path: str, message: Message) -> RequestFacts:
    """What a request's body says, as far as it can be understood; of an unknown API the few names that all use."""
    try:
        media_type = message.media_type
        if media_type == FRAMES:
            return read_asked(path)
        if media_type == FORM:
            return read_form(parse_object(message.decoded()))
        data = message.decoded()
        body = skim_request(data)
        if body is None:
            body = parse_object(data)
        form = _format(path) or _PLAIN
        return form.read_request(body) if body else RequestFacts()
    except Exception:
        logger.exception("reading a request of %s", path.partition("?")[0])
        return RequestFacts()


def read_response(path: str, message: Message) -> ResponseFacts:
    """What a response's body says, as far as it can be understood."""
    return _facts(path, message, with_pieces=True)


def skim_response(path: str, message: Message, gist: Gist | None = None) -> ResponseFacts:
    """The same, but perhaps for the text, the tool calls and the body, which no row holds.

    ``gist`` is that of a stream, if somebody has it.
    """
    form, media_type = _format(path), message.media_type
    facts = None
    if form is not None and form.is_skimmed:
        if media_type == _JSON:
            facts = skim_answer(message.decoded())
        elif media_type == EVENT_STREAM:
            facts = _skim_events(message.decoded(), gist)
    if facts is None:
        return _facts(path, message, with_pieces=False)
    facts.is_stream = media_type in _STREAMS  # type: ignore[misc]  # in place: see `_read_response`
    return facts


def _facts(path: str, message: Message, *, with_pieces: bool) -> ResponseFacts:
    try:
        return _read_response(path, message, with_pieces=with_pieces)
    except Exception:
        logger.exception("reading a response of %s", path.partition("?")[0])
        return ResponseFacts(is_stream=_is_stream(message))


def _skim_events(body: bytes, gist: Gist | None) -> ResponseFacts | None:
    if gist is not None and all(map(says_nothing, gist.templates)):
        body = gist.rest
    texts = lone_events(body) or chain.from_iterable(map(_unnamed_data, event_batches(body)))
    return skim_chunks(texts)


def _unnamed_data(events: Events) -> list[bytes]:
    """The data of events without names. No text at all among it, which is no JSON, has the others read in full."""
    return events.data if events.types is None else [b""]


def _is_stream(message: Message) -> bool | None:
    return message.media_type in _STREAMS if message.content_type else None


def _read_response(path: str, message: Message, *, with_pieces: bool) -> ResponseFacts:
    media_type, data = message.media_type, message.decoded()
    if media_type == FRAMES:
        return read_frames(parse_object(data))
    form = _format(path) or _DECLARED
    if media_type in _READ_STREAMS:
        objects = _READ_STREAMS[media_type](data, None if with_pieces else form.is_piece)
        body = _read_stream(form, objects) or _misnamed(form, data)
    elif media_type.endswith("json"):
        body = parse_object(data)
    elif form.read_text and media_type in _TEXTS and data:
        return form.read_text(data.decode("utf-8", "replace"))
    else:
        body = _misnamed(form, data)
    facts = form.read_answer(body) if body else ResponseFacts()
    # In place, since nobody else has them yet: a copy takes two microseconds.
    facts.is_stream = _is_stream(message)  # type: ignore[misc]
    return facts


def _read_stream(form: Format, objects: Iterator[dict[str, Any]]) -> dict[str, Any]:
    first = next(objects, None)
    return form.assemble(chain([first], objects)) if form.assemble and first is not None else {}


def _misnamed(form: Format, data: bytes) -> dict[str, Any]:
    """The answer of a known API that is a JSON object, whatever its Content-Type says: errors are often sent so."""
    return parse_object(data) if form is not _DECLARED and _begins_like(data, b"{") else {}


def _begins_like(data: bytes, *starts: bytes) -> bool:
    return data[:_LEADING_BLANKS].lstrip()[:1] in starts


def first_id(piece: bytes) -> str | None:
    """The response's id, if the events that begin a stream tell it in one of the three places where APIs put it."""
    first = first_data(piece)  # which nearly always tells it
    if first is not None and (response_id := _id_in(first)):
        return response_id
    texts = chain.from_iterable(batch.data for batch in event_batches(piece, window=1))
    return next(filter(None, map(_id_in, texts)), None)


def _id_in(text: bytes) -> str | None:
    members = parse_object(text)
    for holder in (members, as_object(members.get("response")), as_object(members.get("message"))):
        if response_id := as_text(holder.get("id")):
            return response_id
    return None


def visible_body(message: Message) -> Any:
    """A body as a reader of the log sees it (contract section 7): JSON, else text, else base64; none if empty."""
    data = decode(message.data, message.content_encoding)
    if data is None:
        return _base64(message.data) if message.data else None
    if message.media_type.startswith(_MEDIA):
        return _base64(data) if data else None
    if message.media_type.endswith("json") or _begins_like(data, *_JSON_STARTS):
        value = parse(data)
        if value is not None and not nested_deeper_than(value, _DEEPEST):
            return value
    try:
        return data.decode("utf-8") or None
    except UnicodeDecodeError:
        return _base64(data)


def visible_answer(parsed: Any, message: Message) -> Any:
    """A response as a reader sees it: what was understood of it, if anything was, else the body."""
    if parsed is None or nested_deeper_than(parsed, _DEEPEST):
        return visible_body(message)
    return parsed


def _base64(data: bytes) -> dict[str, str]:
    return {"encoding": "base64", "data": base64.b64encode(data).decode("ascii")}


def _stream_objects(body: bytes, is_piece: IsPiece | None) -> Iterator[dict[str, Any]]:
    """The JSON objects that a stream's events carry; an event named ``error`` is one, whatever it carries."""
    batches = event_batches(body)
    if is_piece is not None:
        batches = map(_without_pieces, batches, repeat(is_piece))
    return chain.from_iterable(map(_objects, batches))


def _without_pieces(events: Events, is_piece: IsPiece) -> Events:
    data, types = events
    if "error" in (types or ()):
        return events
    told = [not is_piece(one) for one in data]
    return Events([*compress(data, told)], [*compress(types, told)] if types else None)


def _objects(events: Events) -> list[dict[str, Any]]:
    data, types = events
    # Of names only this one tells more than the data do.
    if data and "error" not in (types or ()) and (objects := _all_objects(data)) is not None:
        return objects
    found = map(_event_members, types or repeat("message"), data)
    return [members for members in found if members]


def _all_objects(data: list[bytes]) -> list[dict[str, Any]] | None:
    """All at once, if each of the data is a JSON object, but for a mark of the stream's end."""
    texts = data[:-1] if data[-1] == _END_OF_STREAM else data
    try:
        objects = list(map(orjson.loads, texts))
    except orjson.JSONDecodeError:
        return None
    if set(map(type, objects)) != {dict} or not all(objects):
        return None
    if max(map(len, texts)) > _SURELY_SHALLOW:
        for members, text in zip(objects, texts, strict=True):
            _empty_depths(members, text)
    return objects


def _event_members(kind: str, data: bytes) -> dict[str, Any]:
    if data.strip() == _END_OF_STREAM:
        return {}
    members = _event_object(data)
    if kind == "error" and "error" not in members:
        return {"error": members or {"message": data.decode()}}
    return members


def _json_lines(body: bytes, is_piece: IsPiece | None) -> Iterator[dict[str, Any]]:
    """The objects of a stream that has one a line."""
    for line in body.split(b"\n"):
        if not (is_piece and is_piece(line)) and (members := _event_object(line)):
            yield members


def _event_object(text: bytes) -> dict[str, Any]:
    members = parse_object(text)
    _empty_depths(members, text)
    return members


def _empty_depths(members: dict[str, Any], text: bytes) -> None:
    """Take from an event's object what is nested too deeply in it to be put together."""
    # Counting brackets, in texts too, is faster than looking inside.
    if len(text) > _SURELY_SHALLOW and text.count(b"{") + text.count(b"[") > _DEEPEST_ASSEMBLED:
        empty_below(members, _DEEPEST_ASSEMBLED)


_READ_STREAMS: Final[dict[str, Callable[[bytes, IsPiece | None], Iterator[dict[str, Any]]]]] = {
    EVENT_STREAM: _stream_objects,
    _JSON_LINES: _json_lines,
    _JSON_STREAM: _json_lines,
}


def _format(path: str) -> Format | None:
    return _kept_format(path) if len(path) <= _LONGEST_KEPT else _find_format(path)


def _find_format(path: str) -> Format | None:
    path = path.partition("?")[0].rstrip("/")
    return next((form for pattern, form in _FORMATS if pattern.fullmatch(path)), None)


_kept_format = lru_cache(maxsize=1024)(_find_format)
