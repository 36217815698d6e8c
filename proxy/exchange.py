"""What crossed the wire in one call: identity, times, bounded copies of the bodies, and how it ended.

No credential ever gets in here but sealed, to be taken out of the bodies, so none can reach the store, a log line or
an export.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal, NamedTuple

from proxy.identity import Identity
from proxy.redaction.credentials import NONE, Credentials
from proxy.redaction.keys import Keys
from proxy.text_limits import DEFAULT_TEXT_LIMITS, TextLimits
from proxy.wire.facts import RequestFacts
from proxy.wire.gist import GistSoFar
from proxy.wire.skim import says_nothing
from storage.records import Call

__all__ = ["Asked", "Begun", "Capture", "ErrorKind", "Exchange", "Failure"]

ErrorKind = Literal[
    "upstream_unreachable",
    "upstream_timeout",
    "upstream_cut",
    "upstream_error_event",
    "upstream_error_body",
    "client_cancelled",
    "client_broke_off",
    "client_timeout",
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
    _only: bytes = b""
    _all: io.BytesIO | None = None
    is_whole: bool | None = None
    """Whether all of the body passed; where nobody says, the exchange's ending does."""

    def feed(self, chunk: bytes) -> None:
        """Take note of the next bytes."""
        self.size += len(chunk)
        if self.kept < self.limit:
            part = chunk[: self.limit - self.kept]
            self._keep(part)
            self.kept += len(part)

    def _keep(self, part: bytes) -> None:
        # Most bodies come in one piece, which needs no copy. One buffer for the pieces of the others: a list of
        # them would have to be joined in the end, and a large body held twice.
        if self._all is not None:
            self._all.write(part)
        elif self.kept:
            self._all = io.BytesIO(self._only)
            self._all.seek(0, io.SEEK_END)
            self._all.write(part)
            self._only = b""
        else:
            self._only = part

    @property
    def truncated(self) -> bool:
        """Whether more passed than was kept."""
        return self.size > self.kept

    def data(self) -> bytes:
        """What was kept, in one piece."""
        return self._only if self._all is None else self._all.getvalue()

    def between(self, start: int, end: int) -> bytes:
        """What was kept from one place to another, without a copy of the rest."""
        if self._all is None:
            return self._only[start:end]
        self._all.seek(start)
        part = self._all.read(end - start)
        self._all.seek(0, io.SEEK_END)
        return part

    def so_far(self) -> Capture:
        """A copy that takes no note of what comes later."""
        return Capture(
            self.limit,
            self.content_type,
            self.content_encoding,
            self.omitted,
            self.size,
            self.kept,
            self.data(),
        )


class Asked(NamedTuple):
    """What a row takes from its call's request, read of ``source``; and the keys in it that are to go, if any is."""

    source: tuple[str, str | None, int, bytes]
    credentials: Credentials
    keys: Keys | None
    facts: RequestFacts


class Begun(NamedTuple):
    """A row that is to be filled in, and the names of its texts that were cut."""

    call: Call
    cut: list[str]


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
    limits: TextLimits = DEFAULT_TEXT_LIMITS
    """What the row's texts are held to."""
    started_at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)
    first_byte: float | None = None
    ended: float | None = None
    status: int | None = None
    response_id: str | None = None
    """The provider's id of a response that is still streaming, once it has told it."""
    response_id_of_row: str | None = None
    """The one that its row says, once that is made, in whichever thread."""
    failure: Failure | None = None
    credentials: Credentials = NONE
    """Those that the call carried, to be taken out of what is logged of it."""
    asked_ahead: Asked | None = None
    """What was read of the request while the answer was awaited."""
    begun_ahead: Begun | None = None
    """The row as the request alone has it, until one is made of it."""
    gist: GistSoFar | None = None
    """That of the response, if it is a stream that comes slowly."""
    number: int = field(default_factory=count(1).__next__)
    """Tells the calls of this process apart; copies of an exchange share it."""

    @property
    def asked(self) -> Asked | None:
        """The same, unless the request has become another since."""
        ahead = self.asked_ahead
        return ahead if ahead is not None and ahead.source == self.request_source else None

    @property
    def request_source(self) -> tuple[str, str | None, int, bytes]:
        """All that `Asked` is read of, but for what no exchange changes."""
        request = self.request
        return self.path, request.content_type, request.size, request.data()

    def take_begun(self) -> Begun | None:
        """The row that was begun, if one was; once, since who fills it in changes it."""
        begun, self.begun_ahead = self.begun_ahead, None
        return begun

    def on_response_bytes(self, chunk: bytes) -> None:
        """The next bytes of the response's body."""
        if self.first_byte is None:
            self.first_byte = time.perf_counter()
        self.response.feed(chunk)

    def continue_gist(self) -> int:
        """Take more of the response into its gist; gives the bytes that are kept of it when it is worth it again."""
        self.gist = (self.gist or GistSoFar()).continued(self.response.between)
        for template in self.gist.gist.templates:
            says_nothing(template)  # which remembers it for when the row is made
        return self.gist.goes_on_at

    def end(self, failure: Failure | None = None) -> None:
        """The exchange is over; the first ending is the one that counts."""
        if self.ended is None:
            self.ended = time.perf_counter()
            self.failure = failure

    def so_far(self) -> Exchange:
        """A copy as the exchange stands, of which the response's further bytes and its end are no part."""
        copy = replace(self, response=self.response.so_far())
        self.begun_ahead = None  # the copy has it
        return copy

    @property
    def weight(self) -> int:
        """Roughly the bytes that this exchange holds in memory."""
        gist = self.gist.gist if self.gist is not None else None
        return self.request.kept + self.response.kept + (len(gist.rest) + len(gist.texts) if gist else 0) + 2048
