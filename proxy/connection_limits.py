"""What clients' connections and the heads of their requests are held to, and what is said to those that exceed it.

What is said names the limit and its setting, never what was sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from proxy.dialects import Failed

__all__ = ["ConnectionLimits", "failed_by", "head_too_large", "head_took_too_long", "unfinished_head_too_large"]

# What the parser says of one header field too many; of a field that is too large it raises LineTooLong.
_TOO_MANY_FIELDS: Final = "Too many headers received"
# What stands in a line beside a field's name and value, and in a request line beside its target.
_BESIDE: Final = 4


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """``[limits]``, as far as connections are concerned: sizes in bytes, durations in seconds."""

    max_connections: int
    max_header_field: int
    max_header_fields: int
    max_header_bytes: int
    header_timeout: float
    keep_alive_timeout: float
    download_idle_timeout: float

    @property
    def harmless(self) -> int:
        """A request of no more bytes than this exceeds none of the sizes."""
        return min(self.max_header_field, self.max_header_bytes)


def head_too_large(message: RawRequestMessage, limits: ConnectionLimits) -> Failed | None:
    """What a request gets whose line or header section is too large; nothing if they aren't."""
    if len(message.path) > limits.max_header_field:
        return _line_too_long(limits)
    sizes = [len(name) + len(value) for name, value in message.raw_headers]
    if max(sizes, default=0) > limits.max_header_field:
        return _field_too_large(limits)  # of most fields the parser counts the value alone
    size = len(message.path) + sum(sizes) + _BESIDE * len(sizes)
    return _section_too_large(limits) if size > limits.max_header_bytes else None


def unfinished_head_too_large(limits: ConnectionLimits, *, in_line: bool) -> Failed:
    """The same where the head has not ended; ``in_line`` tells that its first line has not either."""
    return _line_too_long(limits) if in_line else _section_too_large(limits)


def head_took_too_long(limits: ConnectionLimits) -> Failed:
    """What a client gets that does not get to the end of its header section."""
    text = f"The header section was not complete within {limits.header_timeout:g} seconds (limits.header_timeout)."
    return Failed(408, "request_timeout", text)


def failed_by(error: BaseException | None, status: int, limits: ConnectionLimits) -> Failed:
    """What a client gets whose request no handler was asked, or whose handler has failed."""
    match error:
        case Failed():
            return error
        case LineTooLong():
            return _field_too_large(limits)
        case HttpProcessingError() if error.message == _TOO_MANY_FIELDS:
            return _header_too_large(f"There are more than {limits.max_header_fields} header fields", "fields")
        case _ if status == 400:
            return Failed(400, "invalid_http", "The request's head or the framing of its body is not HTTP/1.1.")
        case _:
            return Failed(status, "internal_error", "Kibitz failed to answer this request.")


def _line_too_long(limits: ConnectionLimits) -> Failed:
    text = f"The request's target is longer than {limits.max_header_field} bytes (limits.max_header_field)."
    return Failed(414, "uri_too_long", text)


def _field_too_large(limits: ConnectionLimits) -> Failed:
    return _header_too_large(f"A header field is larger than {limits.max_header_field} bytes", "field")


def _section_too_large(limits: ConnectionLimits) -> Failed:
    return _header_too_large(f"The header section is larger than {limits.max_header_bytes} bytes", "bytes")


def _header_too_large(text: str, what: str) -> Failed:
    return Failed(431, "header_too_large", f"{text} (limits.max_header_{what}).")
