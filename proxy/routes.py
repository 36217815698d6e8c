"""The routes that are Kibitz's own, as data: what the dispatcher looks up, and the tests walk over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from proxy.client_http import Request
from proxy.dialects import Answer, Dialect
from proxy.headers import decode_value
from proxy.operations import Endpoint
from proxy.upstreams import Mount

__all__ = ["Handler", "Match", "Route", "RouteCall", "Router", "read_query"]


def _nothing() -> None:
    """What a client that does not wait is told."""


@dataclass(frozen=True, slots=True)
class RouteCall:
    """A request to one of our routes, with what routing and authorization have found out."""

    request: Request
    organisation: str
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    waiting_to_send: int | None = None
    """The bytes of a body that the client sends only once it is told to, if it tells their number."""
    tell_to_send: Callable[[], None] = _nothing
    """Tells it so, if it waits."""


Handler = Callable[[RouteCall], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route(Endpoint):
    """An endpoint, and what answers it."""

    handler: Handler


@dataclass(frozen=True, slots=True)
class Match:
    """A path that is ours: its route for the method, or ``None`` and the methods that there are."""

    route: Route | None
    parameters: Mapping[str, str]
    dialect: Dialect
    methods: tuple[str, ...]


class Router:
    """Finds a path's route, with and without a trailing slash. HEAD goes where GET goes (RFC 9110 section 9.3.2)."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._by_shape: dict[tuple[int, str, str], list[tuple[list[str], Route]]] = defaultdict(list)
        # Of two routes that match, the one with fewer parameters is meant, and stands first.
        for route in sorted(self.routes, key=lambda route: route.path.count("{")):
            segments = _segments(route.path)
            self._by_shape[_shape(segments)].append((segments, route))

    def find(self, method: str, mount: Mount) -> Match | None:
        """The match of a path, ``None`` where it is not one of ours."""
        segments = _segments(f"/{mount.name}{mount.rest}")
        candidates = self._by_shape.get(_shape(segments))
        if not candidates:
            return None
        matching = [(pattern, route) for pattern, route in candidates if _matches(pattern, segments)]
        if not matching:
            return None
        wanted = "GET" if method == "HEAD" else method
        pattern, route = next((one for one in matching if one[1].method == wanted), (matching[0][0], None))
        methods = tuple(sorted({one.method for _, one in matching}))
        return Match(route, _parameters(pattern, segments), (route or matching[0][1]).dialect, methods)


def read_query(query: str) -> dict[str, str]:
    """The parameters after the question mark; of one given twice the first."""
    pairs = [pair.partition("=") for pair in query.removeprefix("?").split("&") if pair]
    return {_decoded(name): _decoded(value) for name, _, value in reversed(pairs)}


def _decoded(text: str) -> str:
    """A query's name or value as the text that was meant, by the rule for header bytes (contract section 4)."""
    return decode_value(unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape")))


def _segments(path: str) -> list[str]:
    return path.removesuffix("/").split("/")[1:]


def _shape(segments: list[str]) -> tuple[int, str, str]:
    return len(segments), segments[0] if segments else "", segments[1] if len(segments) > 1 else ""


def _matches(pattern: list[str], segments: list[str]) -> bool:
    return all(
        part == segment or (part.startswith("{") and segment != "")
        for part, segment in zip(pattern, segments, strict=True)
    )


def _parameters(pattern: list[str], segments: list[str]) -> dict[str, str]:
    return {
        part.strip("{}"): decode_value(unquote_to_bytes(segment.encode("utf-8", "surrogateescape")))
        for part, segment in zip(pattern, segments, strict=True)
        if part.startswith("{")
    }
