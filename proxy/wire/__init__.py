"""What the log understands of bodies: one module a format behind the two functions here.

A format is chosen by path and content type, never by guessing at the body, and nothing here raises: what can't
be understood is unknown. To add a format: a module of its own, and an entry in `_FORMATS`.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from proxy.wire import openai_chat
from proxy.wire.encoding import decode
from proxy.wire.facts import RequestFacts, ResponseFacts
from proxy.wire.json_text import parse, parse_object
from proxy.wire.sse import events

__all__ = ["Message", "RequestFacts", "ResponseFacts", "read_request", "read_response", "visible_body"]

logger = logging.getLogger(__name__)

_END_OF_STREAM: Final = "[DONE]"
_EVENT_STREAM: Final = "text/event-stream"
_JSON_STARTS: Final = (b"{", b"[")


@dataclass(frozen=True, slots=True)
class Message:
    """A body as it crossed the wire, with the header fields that say how to read it."""

    data: bytes
    content_type: str | None = None
    content_encoding: str | None = None

    @property
    def media_type(self) -> str:
        """``type/subtype`` in lower case, empty where there was none."""
        return (self.content_type or "").partition(";")[0].strip().lower()

    def decoded(self) -> bytes:
        """The bytes without their content encoding; none where that can't be undone."""
        return decode(self.data, self.content_encoding) or b""


@dataclass(frozen=True, slots=True)
class Format:
    """One API's shapes: how to read a request and an answer, and how a stream's events become an answer."""

    read_request: Callable[[dict[str, Any]], RequestFacts]
    read_answer: Callable[..., ResponseFacts]
    assemble: Callable[[Iterable[dict[str, Any]]], dict[str, Any]]


_CHAT: Final = Format(openai_chat.read_request, openai_chat.read_answer, openai_chat.assemble)

# By the end of the path, which is the same below every provider's base URL.
_FORMATS: Final[dict[str, Format]] = {"/chat/completions": _CHAT}


def read_request(path: str, message: Message) -> RequestFacts:
    """What a request's body says, as far as it can be understood."""
    try:
        body = parse_object(message.decoded())
        form = _format(path)
        return (form or _CHAT).read_request(body) if body else RequestFacts()
    except Exception:
        logger.exception("reading a request of %s", path.partition("?")[0])
        return RequestFacts()


def read_response(path: str, message: Message) -> ResponseFacts:
    """What a response's body says, as far as it can be understood."""
    try:
        return _read_response(path, message)
    except Exception:
        logger.exception("reading a response of %s", path.partition("?")[0])
        return ResponseFacts()


def _read_response(path: str, message: Message) -> ResponseFacts:
    form = _format(path)
    is_stream = message.media_type == _EVENT_STREAM
    if form is None or not (is_stream or message.media_type.endswith("json")):
        return ResponseFacts(is_stream=is_stream)
    if is_stream:
        chunks = list(_stream_objects(message.decoded()))
        body = form.assemble(chunks) if chunks else {}
    else:
        body = parse_object(message.decoded())
    return form.read_answer(body, is_stream=is_stream) if body else ResponseFacts(is_stream=is_stream)


def visible_body(message: Message) -> Any:
    """A body as a reader of the log sees it (contract section 7): JSON, else text, else base64; none if empty."""
    data = decode(message.data, message.content_encoding)
    if data is None:
        return _base64(message.data)
    if message.media_type.endswith("json") or data.lstrip()[:1] in _JSON_STARTS:
        value = parse(data)
        if value is not None:
            return value
    try:
        return data.decode("utf-8") or None
    except UnicodeDecodeError:
        return _base64(data)


def _base64(data: bytes) -> dict[str, str]:
    return {"encoding": "base64", "data": base64.b64encode(data).decode("ascii")}


def _stream_objects(body: bytes) -> Iterator[dict[str, Any]]:
    for event in events(body):
        if event.data.strip() != _END_OF_STREAM and (members := parse_object(event.data)):
            yield members


def _format(path: str) -> Format | None:
    path = path.partition("?")[0].rstrip("/")
    return next((form for end, form in _FORMATS.items() if path.endswith(end)), None)
