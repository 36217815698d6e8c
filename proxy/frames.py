"""WebSocket frames out of bytes (RFC 6455), for the log: messages unmasked, joined and inflated (RFC 7692).

It only looks on while the bytes pass, so it judges nothing: what it can't read it counts. No bytes make it raise,
and it holds no more than ``largest`` bytes of a message.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["Frame", "FrameReader", "Inflater", "Kind", "inflaters"]

Kind = Literal["text", "binary", "close", "ping", "pong"]

_CONTINUATION, _TEXT, _CLOSE = 0, 1, 8
_MESSAGES: Final[dict[int, Kind]] = {_TEXT: "text", 2: "binary"}
_CONTROLS: Final[dict[int, Kind]] = {_CLOSE: "close", 9: "ping", 10: "pong"}
_CLOSE_CODE_LENGTH: Final = 2
_LONGEST_CONTROL: Final = 125
# RFC 7692 section 7.2.2: what every sender leaves off the end of a message.
_DEFLATE_TAIL: Final = b"\x00\x00\xff\xff"


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole message, or a control frame. ``payload`` is ``None`` where it was too long or can't be read."""

    kind: Kind
    size: int
    payload: bytes | None = None

    @property
    def code(self) -> int | None:
        """A close frame's status code, if it has one."""
        payload = self.payload or b""
        return int.from_bytes(payload[:_CLOSE_CODE_LENGTH], "big") if len(payload) >= _CLOSE_CODE_LENGTH else None

    @property
    def reason(self) -> str:
        """What a close frame says beside its code."""
        return (self.payload or b"")[_CLOSE_CODE_LENGTH:].decode("utf-8", "replace")


class Inflater:
    """Undoes one direction's permessage-deflate. After a message that it had to miss it may know nothing more."""

    def __init__(self, *, context_takeover: bool, largest: int) -> None:
        self._context_takeover = context_takeover
        self._largest = max(1, largest)
        self._unpacker: zlib._Decompress | None = zlib.decompressobj(-zlib.MAX_WBITS)

    def inflate(self, data: bytes) -> bytes | None:
        """A message as it was before it was deflated; ``None`` if it is too long or can't be read."""
        unpacker = self._unpacker
        if unpacker is None:
            return None
        try:
            message = unpacker.decompress(data + _DEFLATE_TAIL, self._largest)
        except zlib.error:
            self.miss()
            return None
        whole = not unpacker.unconsumed_tail
        if not whole or unpacker.eof or not self._context_takeover:
            self.miss()
        return message if whole else None

    def miss(self) -> None:
        """A message passed unread: the next ones can be read only if they don't refer to it."""
        self._unpacker = None if self._context_takeover else zlib.decompressobj(-zlib.MAX_WBITS)


def inflaters(extensions: bytes, largest: int) -> tuple[Inflater | None, Inflater | None]:
    """For the client's messages and for the server's, by the answer's Sec-WebSocket-Extensions."""
    for extension in extensions.lower().split(b","):
        name, *parameters = (part.strip() for part in extension.split(b";"))
        if name == b"permessage-deflate":
            client = Inflater(context_takeover=b"client_no_context_takeover" not in parameters, largest=largest)
            server = Inflater(context_takeover=b"server_no_context_takeover" not in parameters, largest=largest)
            return client, server
    return None, None


@dataclass(slots=True)
class _Head:
    """A frame's first bytes."""

    final: bool
    reserved: int
    opcode: int
    mask: bytes
    length: int


@dataclass(slots=True)
class _Message:
    """A message on its way; ``data`` is ``None`` once it is known that nobody will want it."""

    kind: Kind
    deflated: bool
    data: bytearray | None
    size: int = 0


@dataclass(slots=True)
class FrameReader:
    """One direction of a connection. ``inflater`` is ``None`` where no compression was agreed on."""

    largest: int
    inflater: Inflater | None = None
    position: int = 0
    """The bytes fed so far."""
    closing_at: int | None = None
    """Where the first close frame begins."""
    closed: bool = False
    """Whether a close frame has come whole."""
    _start: bytearray = field(default_factory=bytearray)
    _head: _Head | None = None
    _left: int = 0
    _payload: bytearray | None = None
    _message: _Message | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """What the next bytes complete."""
        frames: list[Frame] = []
        at = 0
        while at < len(data):
            at += self._begin(data, at) if self._head is None else self._continue(data, at)
            if self._head is not None and not self._left:
                frame = self._complete(self._head)
                self._head = None
                if frame is not None:
                    frames.append(frame)
        self.position += len(data)
        return frames

    def _begin(self, data: bytes, at: int) -> int:
        """Read on in a frame's first bytes; gives how many were taken."""
        start = self._start
        if not start and data[at] & 0x0F == _CLOSE and self.closing_at is None:
            self.closing_at = self.position + at
        taken = data[at : at + _head_length(start) - len(start)]
        start += taken
        if len(start) == _head_length(start):
            self._head = head = _read_head(start)
            self._left = head.length
            self._payload = bytearray() if self._is_wanted(head) else None
            start.clear()
        return len(taken)

    def _is_wanted(self, head: _Head) -> bool:
        if head.opcode in _CONTROLS:
            return head.length <= _LONGEST_CONTROL
        if kind := _MESSAGES.get(head.opcode):
            deflated = bool(head.reserved)
            wanted = kind == "text" or (deflated and self.inflater is not None)
            self._message = _Message(kind, deflated, bytearray() if wanted else None)
        message = self._message
        if message is None or message.data is None or head.opcode not in (_CONTINUATION, *_MESSAGES):
            return False
        if len(message.data) + head.length > self.largest:
            message.data = None
        return message.data is not None

    def _continue(self, data: bytes, at: int) -> int:
        """Read on in a frame's payload; gives how many bytes were taken."""
        taken = min(self._left, len(data) - at)
        if self._payload is not None:
            self._payload += data[at : at + taken]
        self._left -= taken
        return taken

    def _complete(self, head: _Head) -> Frame | None:
        """What a frame that has come whole completes."""
        payload = _unmasked(self._payload, head.mask) if self._payload is not None else None
        self._payload = None
        if control := _CONTROLS.get(head.opcode):
            self.closed = self.closed or control == "close"
            return Frame(control, head.length, payload)
        message = self._message
        if message is None or head.opcode not in (_CONTINUATION, *_MESSAGES):
            return None
        message.size += head.length
        if message.data is not None and payload is not None:
            message.data += payload
        if not head.final:
            return None
        self._message = None
        return self._whole(message)

    def _whole(self, message: _Message) -> Frame:
        payload = bytes(message.data) if message.data is not None else None
        if message.deflated:
            payload = self._inflated(payload)
        return Frame(message.kind, message.size if payload is None else len(payload), payload)

    def _inflated(self, payload: bytes | None) -> bytes | None:
        if self.inflater is None:
            return None  # some extension that nobody here knows
        if payload is None:
            self.inflater.miss()
            return None
        return self.inflater.inflate(payload)


def _head_length(start: bytearray) -> int:
    """How long a frame's head is, as far as its beginning tells."""
    if len(start) < 2:
        return 2
    length = start[1] & 0x7F
    return 2 + {126: 2, 127: 8}.get(length, 0) + (4 if start[1] & 0x80 else 0)


def _read_head(start: bytearray) -> _Head:
    masked, short = bool(start[1] & 0x80), start[1] & 0x7F
    end = len(start) - 4 if masked else len(start)
    return _Head(
        final=bool(start[0] & 0x80),
        reserved=start[0] & 0x70,
        opcode=start[0] & 0x0F,
        mask=bytes(start[end:]),
        length=short if end == 2 else int.from_bytes(start[2:end], "big"),
    )


def _unmasked(payload: bytearray, mask: bytes) -> bytes:
    if not mask or not payload:
        return bytes(payload)
    # One operation on large integers: a loop over the bytes would take a hundred times as long.
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return mixed.to_bytes(len(payload), "big")
