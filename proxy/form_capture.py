"""An uploaded form as the log keeps it: its fields, and of its files all but the bytes.

A body of multipart/form-data (RFC 7578) is read while it passes, in bounded memory, and becomes the JSON text
``{"parts": [...]}``. A field is ``{"name", "value"}``; a file ``{"name", "filename", "content_type", "size",
"sha256"}``, the size in bytes. What was not all kept, or did not all come, is marked ``"truncated": true``, and a form
that breaks the format, or off, ``"malformed": true``. Where the values find no room together, the longest are cut, to
one length: a huge one leaves the short ones whole. Nothing here raises: logging fails no call.
"""

from __future__ import annotations

import codecs
import hashlib
import logging
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import orjson
from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser

from proxy.exchange import Capture
from proxy.headers import decode_value
from proxy.wire.form import FORM
from proxy.wire.media_types import media_type_of

__all__ = ["FormCapture", "is_form"]

logger = logging.getLogger(__name__)

_MEDIA_TYPE: Final = "multipart/form-data"
# As many as Starlette, which stands behind many an API, takes of fields.
_MOST_PARTS: Final = 1000
_MOST_HEADERS: Final = 16  # of a part
_LONGEST_HEADER: Final = 8192
# Roughly the bytes that a part holds beside its texts.
_PART_WEIGHT: Final = 512
_KEPT_HEADERS: Final = (b"content-disposition", b"content-type")
# What nobody types into a field: a part of such a type is a file, with a name or without.
_MEDIA: Final = (b"audio/", b"image/", b"video/")
_PARAMETER: Final = re.compile(rb';\s*([^\s;="]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
_ESCAPED: Final = re.compile(rb'\\(["\\])')
# In the place of the parser's own, which quotes what was sent.
_SILENT: Final = logging.getLogger(f"{__name__}.parser")
_SILENT.disabled = True


def is_form(content_type: str) -> bool:
    """Whether a Content-Type is a form's."""
    return media_type_of(content_type) == _MEDIA_TYPE


class FormCapture(Capture):
    """Takes the bytes of a form. ``size`` counts them all; ``limit`` bounds what is kept of names and values."""

    __slots__ = ("_form", "_hidden_by")

    def __init__(self, limit: int, content_type: bytes, content_encoding: str | None, *, omitted: bool) -> None:
        super().__init__(limit=limit, content_type=FORM, omitted=omitted)
        encoding = (content_encoding or "").strip()
        # No client packs its uploads; unpacking them would cost far more than reading them.
        self._hidden_by = encoding if encoding.lower() not in ("", "identity") else None
        # Of bytes, as the body is: text would not tell in which encoding the client wrote it.
        boundary = _parameters(content_type).get(b"boundary", b"")
        self._form = _Form(b"" if self._hidden_by else boundary, limit)

    def feed(self, chunk: bytes) -> None:
        """Take note of the next bytes."""
        self.size += len(chunk)
        self._form.feed(chunk)
        self.kept = self._form.weight

    @property
    def truncated(self) -> bool:
        """Whether there were fields or names of more bytes than may be kept."""
        return self._form.truncated

    def data(self) -> bytes:
        """The form's JSON text; nothing of an empty body, nor where nothing may be kept."""
        if not self.size or not self.limit:
            return b""
        if self._hidden_by:
            return orjson.dumps({"parts": [], "unreadable": f"Content-Encoding: {self._hidden_by}"})
        return orjson.dumps(self._form.shown())


@dataclass(slots=True)
class _Field:
    name: str | None
    value: bytearray = field(default_factory=bytearray)
    ended: bool = False
    truncated: bool = False

    def take(self, piece: memoryview, longest: int) -> int:
        """The next bytes of the part, as far as it is no longer than may be; gives how many of them take up room."""
        kept = piece[: longest - len(self.value)]
        self.value += kept
        self.truncated = self.truncated or len(kept) < len(piece)
        return len(kept)

    def cut(self, longest: int) -> None:
        """Keep no more than so many bytes."""
        self.truncated = self.truncated or len(self.value) > longest
        del self.value[longest:]

    def shown(self) -> dict[str, Any]:
        whole = self.ended and not self.truncated
        return {"name": self.name, "value": decode_value(bytes(self.value)) if whole else _decode_cut(self.value)}


@dataclass(slots=True)
class _File:
    name: str | None
    filename: str | None
    content_type: str | None
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    ended: bool = False
    truncated: bool = False

    def take(self, piece: memoryview, _longest: int) -> int:
        """The next bytes of the part, which take up none of the room."""
        self.size += len(piece)
        self.digest.update(piece)
        return 0

    def shown(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "filename": self.filename,
            "content_type": self.content_type,
            "size": self.size,
            "sha256": self.digest.hexdigest(),
        }


class _Form:
    """A form's parts out of its bytes, up to the first that break the format; ``room`` is for names and values."""

    def __init__(self, boundary: bytes, room: int) -> None:
        self._room = self._longest = room
        self._named = self._held = 0
        self._parts: list[_Field | _File] = []
        self._headers: dict[bytes, bytes] = {}
        self._header = bytearray()
        self._header_value = bytearray()
        self._part: _Field | _File | None = None
        self._whole = False
        self._left_out = False
        self._parser = self._new_parser(boundary)
        self._expect_preamble(boundary)

    def _new_parser(self, boundary: bytes) -> MultipartParser | None:
        """None for a boundary of a length that can't be."""
        if not boundary:
            return None
        try:
            parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._take_header,
                    "on_header_value": self._take_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open_part,
                    "on_part_data": self._take_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
                max_header_count=_MOST_HEADERS,
                max_header_size=_LONGEST_HEADER,
            )
        except FormParserError:
            return None
        parser.logger = _SILENT
        return parser

    def _expect_preamble(self, boundary: bytes) -> None:
        """Let the parser take what stands before the first delimiter (RFC 2046 section 5.1.1) for a part; it is none.

        The parser itself knows no preamble, and no blanks behind a delimiter that no part precedes.
        """
        self.feed(b"--%b\r\n\r\n\r\n" % boundary)
        self._parts.clear()
        self._part = None

    @property
    def weight(self) -> int:
        """Roughly the bytes that are held."""
        return self._named + self._held + len(self._parts) * _PART_WEIGHT

    @property
    def truncated(self) -> bool:
        return self._left_out or any(part.truncated for part in self._parts)

    def shown(self) -> dict[str, Any]:
        cut = {"truncated": True}
        parts = [part.shown() | ({} if part.ended and not part.truncated else cut) for part in self._parts]
        return {"parts": parts} | ({} if self._whole else {"malformed": True})

    def feed(self, chunk: bytes) -> None:
        if self._parser is None:
            return
        try:
            self._parser.write(chunk)
        except MultipartParseError:
            self._parser = None
        except Exception:
            logger.exception("reading a form")
            self._parser = None

    def _begin_part(self) -> None:
        if len(self._parts) >= _MOST_PARTS:
            self._left_out = True
            raise MultipartParseError("too many parts")
        self._headers = {}

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        name = bytes(self._header).lower()
        if name in _KEPT_HEADERS:
            self._headers.setdefault(name, bytes(self._header_value).strip())
        self._header.clear()
        self._header_value.clear()

    def _open_part(self) -> None:
        size = sum(map(len, self._headers.values()))
        if self._named + size > self._room:
            self._left_out = True
            return
        self._named += size
        self._part = _new_part(self._headers)
        self._parts.append(self._part)
        self._fit()

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._part is not None:
            self._held += self._part.take(memoryview(data)[start:end], self._longest)
            self._fit()

    def _fit(self) -> None:
        """Cut the longest values where all together find no room."""
        room = self._room - self._named
        if self._held <= room:
            return
        fields = [part for part in self._parts if isinstance(part, _Field)]
        self._longest = _longest([len(part.value) for part in fields], room)
        for part in fields:
            part.cut(self._longest)
        self._held = sum(len(part.value) for part in fields)

    def _end_part(self) -> None:
        if self._part is not None:
            self._part.ended = True
        self._part = None

    def _end(self) -> None:
        self._whole = True
        # What follows is no part (RFC 2046 section 5.1.1). The parser and this would keep each other in memory.
        self._parser = None


def _longest(lengths: list[int], room: int) -> int:
    """The length to which values have to be cut to find room together; of more values it is never greater."""
    for others, length in zip(range(len(lengths) - 1, -1, -1), sorted(lengths), strict=True):
        share = room // (others + 1)
        if length > share:
            return share
        room -= length
    return room


def _new_part(headers: dict[bytes, bytes]) -> _Field | _File:
    disposition = _parameters(headers.get(b"content-disposition", b""))
    name, filename = _text(disposition, b"name"), _text(disposition, b"filename")
    content_type = headers.get(b"content-type")
    if filename is None and not (content_type or b"").lower().startswith(_MEDIA):
        return _Field(name)
    return _File(name, filename, decode_value(content_type) if content_type is not None else None)


def _parameters(value: bytes) -> dict[bytes, bytes]:
    """The parameters of a header field, names in lower case; of two of a name the first counts."""
    parameters: dict[bytes, bytes] = {}
    for name, text in _PARAMETER.findall(value):
        parameters.setdefault(name.lower(), _unquoted(text))
    return parameters


def _unquoted(text: bytes) -> bytes:
    if not text.startswith(b'"'):
        return text.strip()
    # A backslash before anything else is one: browsers sent whole paths of Windows.
    return _ESCAPED.sub(rb"\1", text[1:].rstrip().removesuffix(b'"'))


def _text(parameters: dict[bytes, bytes], name: bytes) -> str | None:
    """A parameter, in its extended form (RFC 8187) if it has one: RFC 7578 forbids that, and clients send it."""
    extended = parameters.get(name + b"*")
    if extended is not None:
        return decode_value(unquote_to_bytes(extended.split(b"'", 2)[-1]))
    plain = parameters.get(name)
    return decode_value(plain) if plain is not None else None


def _decode_cut(value: bytearray) -> str:
    """As `decode_value` does, without the beginning of a character that the value ends with."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(value)
    except UnicodeDecodeError:
        return value.decode("latin-1")
