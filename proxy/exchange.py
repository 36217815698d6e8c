"""What crossed the wire in one call: identity, times, bounded copies of the bodies, and how it ended.

No credential ever gets in here, so none can reach the store, a log line or an export.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from typing import Literal

from proxy.identity import Identity

__all__ = ["Capture", "ErrorKind", "Exchange", "Failure"]

ErrorKind = Literal[
    "upstream_unreachable",
    "upstream_timeout",
    "upstream_cut",
    "upstream_error_event",
    "upstream_error_body",
    "client_cancelled",
    "client_broke_off",
    "request_too_large",
    "server_shutdown",
    "internal_error",
]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an exchange did not end as it should. The message is for people, and holds nothing of a body."""

    kind: ErrorKind
    message: str


@dataclass(slots=True)
class Capture:
    """A copy of one side's body, as it passed, up to a bound in bytes."""

    limit: int
    content_type: str | None = None
    content_encoding: str | None = None
    omitted: bool = False
    size: int = 0
    kept: int = 0
    chunks: list[bytes] = field(default_factory=list)

    def feed(self, chunk: bytes) -> None:
        """Take note of the next bytes."""
        self.size += len(chunk)
        if self.kept < self.limit:
            part = chunk[: self.limit - self.kept]
            self.kept += len(part)
            self.chunks.append(part)

    @property
    def truncated(self) -> bool:
        """Whether more passed than was kept."""
        return self.size > self.kept

    def data(self) -> bytes:
        """What was kept, in one piece."""
        if len(self.chunks) > 1:
            # Each chunk is let go of as it is copied: a large body is not held twice.
            whole = io.BytesIO()
            self.chunks.reverse()
            while self.chunks:
                whole.write(self.chunks.pop())
            self.chunks = [whole.getvalue()]
        return self.chunks[0] if self.chunks else b""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One call from its first byte to its last. Clocks in seconds; ``started_at`` is of the wall clock."""

    organisation: str
    identity: Identity
    method: str
    path: str
    target_url: str
    provider: str
    request: Capture
    response: Capture
    started_at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)
    first_byte: float | None = None
    ended: float | None = None
    status: int | None = None
    response_id: str | None = None
    """The provider's id of a response that is still streaming, once it has told it."""
    failure: Failure | None = None

    def on_response_bytes(self, chunk: bytes) -> None:
        """The next bytes of the response's body."""
        if self.first_byte is None:
            self.first_byte = time.perf_counter()
        self.response.feed(chunk)

    def end(self, failure: Failure | None = None) -> None:
        """The exchange is over; the first ending is the one that counts."""
        if self.ended is None:
            self.ended = time.perf_counter()
            self.failure = failure

    @property
    def weight(self) -> int:
        """Roughly the bytes that this exchange holds in memory."""
        return self.request.kept + self.response.kept + 2048
