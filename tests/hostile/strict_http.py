"""HTTP/1.1 read as RFC 9112 writes it, and not a bit more leniently: what is left open to doubt is a fault."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["HalfAnAnswer", "Message", "NotStrict", "read_answers", "read_requests"]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) ([!-~]+) HTTP/1\.1" % _TOKEN)
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2}) [\t -~\x80-\xff]*")
_FIELD = re.compile(rb"(%b):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*" % _TOKEN)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")


class NotStrict(Exception):
    """The bytes are none that every reader of HTTP reads alike."""


class HalfAnAnswer(NotStrict):
    """The connection ended inside an answer."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request (``start`` is its method and its target) or an answer (``start`` is its status)."""

    start: tuple[bytes, ...]
    fields: list[tuple[bytes, bytes]]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known.lower() == name.lower()]


def read_requests(data: bytes) -> tuple[list[Message], bytes]:
    """The requests on a connection, and the beginning of one that is not whole. Raises `NotStrict`."""
    requests = []
    while (cut := _cut_head(data, _REQUEST_LINE)) is not None:
        start, fields, behind = cut
        if len(Message(start, fields, b"").values(b"Host")) != 1:
            raise NotStrict("not one Host")
        framed = _cut_body(fields, behind)
        if framed is None:
            break
        body, data = framed
        requests.append(Message(start, fields, body))
    return requests, data


def read_answers(data: bytes, *, first_to_head: bool = False) -> list[Message]:
    """The answers on a connection that has ended, interim ones left out. Raises `NotStrict`."""
    answers: list[Message] = []
    while data:
        cut = _cut_head(data, _STATUS_LINE)
        if cut is None:
            raise HalfAnAnswer("half a head")
        start, fields, data = cut
        if start[0].startswith(b"1"):
            continue
        if (first_to_head and not answers) or start[0] in (b"204", b"304"):
            body = b""
        else:
            framed = _cut_body(fields, data)
            if framed is None:
                raise HalfAnAnswer("half a body")
            body, data = framed
        answers.append(Message(start, fields, body))
    return answers


def _cut_head(
    data: bytes, start_line: re.Pattern[bytes]
) -> tuple[tuple[bytes, ...], list[tuple[bytes, bytes]], bytes] | None:
    head, end, behind = data.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.split(b"\r\n")
    start = start_line.fullmatch(first)
    fields = [_FIELD.fullmatch(line) for line in lines]
    if start is None or not all(fields):
        raise NotStrict(f"no head: {head[:200]!r}")
    return start.groups(), [(field[1], field[2]) for field in fields if field], behind


def _cut_body(fields: list[tuple[bytes, bytes]], data: bytes) -> tuple[bytes, bytes] | None:
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise NotStrict("framed twice")
    if codings:
        if codings != [b"chunked"]:
            raise NotStrict("an unusual coding")
        return _cut_chunks(data)
    if lengths and not re.fullmatch(rb"[0-9]{1,19}", lengths[0]):
        raise NotStrict("an unusual length")
    length = int(lengths[0]) if lengths else 0
    return (data[:length], data[length:]) if len(data) >= length else None


def _cut_chunks(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while line := _CHUNK.match(data):
        size = int(line[1], 16)
        data = data[line.end() :]
        if len(data) < size + 2:
            return None
        if data[size : size + 2] != b"\r\n":
            raise NotStrict("a chunk that does not end where it says")
        body, data = body + data[:size], data[size + 2 :]
        if not size:
            return body, data
    if b"\r\n" in data:
        raise NotStrict("no chunk size")
    return None
