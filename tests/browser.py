"""What a browser does for a page's `fetch`, by hand over a raw socket: Fetch standard, sections 3.3 and 4.8 to 4.10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.raw_client import ask
from tests.upstream import Received

__all__ = ["Blocked", "Page", "Readable"]

_SAFELISTED_METHODS = ("GET", "HEAD", "POST")
_SAFELISTED_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
_SAFELISTED_RESPONSE_FIELDS = ("cache-control", "content-language", "content-length", "content-type", "expires")


class Blocked(Exception):
    """The browser does not let the page have the answer; ``answer`` is what came, if a request went out at all."""

    def __init__(self, reason: str, answer: Received) -> None:
        super().__init__(reason)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Readable:
    """What of an answer a page may read."""

    status: int
    fields: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """A page of an origin, in a browser of our time."""

    origin: str

    async def fetch(
        self, port: int, method: str, path: str, fields: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Readable:
        """`fetch` in mode "cors" without credentials. Raises `Blocked`."""
        fields = fields or {}
        unsafe = _unsafe_names(fields)
        if unsafe or method not in _SAFELISTED_METHODS:
            await self._preflight(port, method, path, sorted(unsafe))
        lines = [f"{name}: {value}" for name, value in fields.items()]
        answer = await ask(port, self._request(port, method, path, lines, body))
        self._check(answer)
        exposed = [name.lower() for name in _list(answer, "Access-Control-Expose-Headers")]
        readable = {name.decode().lower(): value.decode("latin-1") for name, value in answer.fields}
        allowed = {*_SAFELISTED_RESPONSE_FIELDS, *exposed}
        return Readable(_status(answer), {name: readable[name] for name in readable if name in allowed}, answer.body)

    async def send_blindly(self, port: int, method: str, path: str, body: bytes = b"", *lines: str) -> Received:
        """What any page can do unasked: a form, an image, `fetch` in mode "no-cors". It never sees the answer."""
        kind = ["Content-Type: text/plain"] if body else []
        return await ask(port, self._request(port, method, path, [*kind, "Sec-Fetch-Mode: no-cors", *lines], body))

    async def _preflight(self, port: int, method: str, path: str, names: Sequence[str]) -> None:
        lines = [f"Access-Control-Request-Method: {method}"]
        if names:
            lines.append(f"Access-Control-Request-Headers: {','.join(names)}")
        answer = await ask(port, self._request(port, "OPTIONS", path, lines))
        self._check(answer)
        if not 200 <= _status(answer) <= 299:
            raise Blocked("the preflight has no ok status", answer)
        if method not in (*_list(answer, "Access-Control-Allow-Methods"), *_SAFELISTED_METHODS):
            raise Blocked(f"{method} is not allowed", answer)
        allowed = {name.lower() for name in _list(answer, "Access-Control-Allow-Headers")}
        if not set(names) <= allowed:
            raise Blocked("a header field is not allowed", answer)

    def _check(self, answer: Received) -> None:
        if answer.values("Access-Control-Allow-Origin") not in ([self.origin.encode()], [b"*"]):
            raise Blocked("the answer is not for this origin", answer)

    def _request(self, port: int, method: str, path: str, lines: Sequence[str], body: bytes = b"") -> bytes:
        head = [f"{method} {path} HTTP/1.1", f"Host: localhost:{port}", f"Origin: {self.origin}", *lines]
        head += ["Sec-Fetch-Site: cross-site", *([f"Content-Length: {len(body)}"] if body else [])]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _unsafe_names(fields: Mapping[str, str]) -> set[str]:
    names = {name.lower() for name in fields}
    kind = next((value for name, value in fields.items() if name.lower() == "content-type"), "text/plain")
    return (
        names
        - {"accept", "accept-language", "content-language"}
        - ({"content-type"} if kind.partition(";")[0] in _SAFELISTED_TYPES else set())
    )


def _list(answer: Received, name: str) -> list[str]:
    return [part.strip().decode() for value in answer.values(name) for part in value.split(b",")]


def _status(answer: Received) -> int:
    return int(answer.request_line.split(b" ")[1])
