"""A WebSocket's frames as the log keeps them: one direction's as the body of one side, `{"frames": [...]}` in JSON.

Text is kept, JSON as JSON; binary frames and the audio in the events of OpenAI's Realtime API are counted only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, Final, Literal

import orjson

from proxy.exchange import Capture
from proxy.frames import Frame, FrameReader
from proxy.wire.facts import as_object, as_objects, as_text
from proxy.wire.json_text import nested_deeper_than, parse
from proxy.wire.realtime import FRAMES, TELLING

__all__ = ["Direction", "FrameLog", "FrameTap"]

logger = logging.getLogger(__name__)

Direction = Literal["client", "upstream"]

_BEGIN: Final = b'{"frames":['
_END: Final = b"]}"
# The last eighth of the room is for what the row's columns are read from: an hour's deltas may fill the rest.
_SHARE: Final = 8
# Writers of JSON recurse; what stands in itself deeper than this stays text.
_DEEPEST: Final = 100
_LEADING_BLANKS: Final = 64
_AUDIO_DELTAS: Final = frozenset({"response.audio.delta", "response.output_audio.delta"})


class FrameLog:
    """Writes frames into a capture as they come, within its limit; what finds no room is counted."""

    def __init__(self, capture: Capture, direction: Direction) -> None:
        capture.content_type, capture.content_encoding = FRAMES, None
        self._capture = capture
        self._direction = direction
        self._room = capture.limit - len(_BEGIN) - len(_END)
        self._reserve = max(0, self._room) // _SHARE
        self._separator = b""
        self._ended = False
        if self._room >= 0:
            capture.feed(_BEGIN)

    def add(self, frame: Frame, at: float) -> None:
        """The next frame, come ``at`` milliseconds after the call's start."""
        entry: dict[str, Any] = {"direction": self._direction, "type": frame.kind, "at": round(at, 3)}
        telling = frame.kind == "close"
        if frame.kind == "close":
            entry |= {"code": frame.code, "reason": frame.reason}
        elif frame.kind == "text" and frame.payload is not None:
            entry["data"] = data = _readable(frame.payload)
            telling = as_text(as_object(data).get("type")) in TELLING
        else:
            entry["size"] = frame.size
        self._write(self._separator + orjson.dumps(entry), telling=telling)

    def _write(self, piece: bytes, *, telling: bool) -> None:
        if self._ended:
            return  # the row is being made: its bodies stay as they are
        if len(piece) > self._room - (0 if telling else self._reserve):
            self._capture.size += len(piece)
            return
        self._room -= len(piece)
        self._separator = b","
        self._capture.feed(piece)

    def end(self) -> None:
        """No more frames come."""
        if not self._ended and self._room >= 0:
            self._capture.feed(_END)
        self._ended = True


class FrameTap:
    """Looks at what passes in one direction, and logs it. It never raises: logging fails no call."""

    def __init__(self, reader: FrameReader, log: FrameLog, started: float) -> None:
        self._reader = reader
        self._log = log
        self._started = started
        self._broken = False

    @property
    def closed(self) -> bool:
        """Whether a close frame has come whole."""
        return self._reader.closed

    def look(self, data: bytes) -> list[Frame]:
        """The frames that the next bytes complete."""
        if self._broken:
            return []
        try:
            return self._reader.feed(data)
        except Exception:
            logger.exception("reading the frames of a WebSocket")
            self._broken = True
            return []

    def until_close(self, data: bytes) -> int:
        """How many of the bytes looked at last stand before the first close frame."""
        at = self._reader.closing_at
        return len(data) if at is None else max(0, at - (self._reader.position - len(data)))

    def note(self, frames: list[Frame]) -> None:
        """Log them."""
        try:
            for frame in frames:
                self._log.add(frame, (time.perf_counter() - self._started) * 1000)
        except Exception:
            logger.exception("logging the frames of a WebSocket")

    def end(self) -> None:
        """Nothing more is logged."""
        self._log.end()


def _readable(payload: bytes) -> Any:
    value = parse(payload) if payload[:_LEADING_BLANKS].lstrip()[:1] in (b"{", b"[") else None
    if value is None or nested_deeper_than(value, _DEEPEST):
        return payload.decode("utf-8", "replace")
    for holder, member in _audio(value):
        holder[member] = {"size": _size_of_base64(holder[member])}
    return value


def _audio(event: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Where an event of the Realtime API holds audio, in base64."""
    event = as_object(event)
    kind = as_text(event.get("type"))
    places = [(event, "audio")] if kind == "input_audio_buffer.append" else []
    if kind in _AUDIO_DELTAS:
        places.append((event, "delta"))
    items = [as_object(event.get("item")), *as_objects(as_object(event.get("response")).get("output"))]
    parts = [as_object(event.get("part")), *(part for item in items for part in as_objects(item.get("content")))]
    places += [(part, "audio") for part in parts]
    for holder, member in places:
        if isinstance(holder.get(member), str):
            yield holder, member


def _size_of_base64(text: str) -> int:
    return len(text.rstrip("=")) * 3 // 4
