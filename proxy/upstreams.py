"""Where a call goes: mounts, named upstreams, allowed targets. Contract section 2.

The rule: the base URL that an SDK would have been given is configured here, the SDK gets Kibitz's address, and
what follows the base follows the other base, percent-encoding and all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from proxy.base_url import BaseUrl
from proxy.headers import RequestFields, decode_value

__all__ = ["Destination", "Mount", "TargetNotAllowed", "Upstream", "UpstreamTable", "provider_name", "split_target"]

# Fields of both services that name another upstream, in the order in which they are looked at.
_TARGET_FIELDS: Final = (b"helicone-target-url", b"helicone-openai-api-base", b"x-portkey-custom-host")
_DEFAULT_MOUNT: Final = "v1"
_ABSOLUTE: Final = re.compile(r"https?://[^/?]*", re.IGNORECASE)
# Characters. Targets that somebody makes up must not fill the memory.
_LONGEST_KEPT: Final = 512
# How often a path may be percent-decoded on its way to what serves it.
_MOST_DECODINGS: Final = 2
# For the log's `provider` column, where the configuration gives an upstream no name.
_KNOWN_HOSTS: Final = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "api.together.xyz": "together",
    "openrouter.ai": "openrouter",
    "generativelanguage.googleapis.com": "google",
}


class TargetNotAllowed(Exception):
    """A header field names an upstream that the configuration doesn't allow."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One place that calls go to. Times in seconds."""

    name: str
    base: BaseUrl
    api_key: str | None = field(repr=False)
    connect_timeout: float
    first_byte_timeout: float
    idle_timeout: float


@dataclass(frozen=True, slots=True)
class Mount:
    """A path split where the base ends: ``/v1/chat/completions`` is ``v1`` and ``/chat/completions``."""

    name: str
    rest: str


@dataclass(frozen=True, slots=True)
class Destination:
    """An upstream and the path there, still percent-encoded as sent."""

    upstream: Upstream
    path: str


def split_target(target: str) -> tuple[Mount, str]:
    """A request target's mount and its query, with its question mark if there is one.

    Absolute form (RFC 9112 section 3.2.2) is read as the path in it; slashes doubled behind the base are folded.
    """
    return _split(target) if len(target) > _LONGEST_KEPT else _split_and_keep(target)


def _split(target: str) -> tuple[Mount, str]:
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        target = target[absolute.end() :] if absolute else ""
    path, mark, query = target.partition("?")
    name, slash, rest = path[1:].partition("/")
    return Mount(name, slash + rest.lstrip("/")), mark + query


_split_and_keep = lru_cache(maxsize=1024)(_split)


class UpstreamTable:
    """The configured upstreams, and what a request may choose among them."""

    def __init__(self, default: Upstream, named: Mapping[str, Upstream], allowed_targets: Iterable[BaseUrl]) -> None:
        self._default = default
        self._mounts = {**named, _DEFAULT_MOUNT: default}
        self._by_provider = {name.lower(): upstream for name, upstream in named.items()}
        self._allowed = tuple(allowed_targets)

    def find(self, mount: Mount, fields: RequestFields) -> Destination | None:
        """The destination of a call, or ``None`` for a path that no upstream is mounted on, or that leaves its base.

        Raises `TargetNotAllowed` where the call names a target of its own that isn't allowed.
        """
        upstream = self._mounts.get(mount.name)
        if upstream is None or _leads_out(mount.rest):
            return None
        if target := self._target(fields):
            # Helicone's target is an origin and keeps the whole path; with a path of its own it is a base URL.
            whole = mount.name == _DEFAULT_MOUNT and not target.path
            path = f"/{mount.name}{mount.rest}" if whole else target.path + mount.rest
            return Destination(self._borrowed(target), path or "/")
        if mount.name == _DEFAULT_MOUNT:
            upstream = self._provider(fields) or upstream
        return Destination(upstream, upstream.base.path + mount.rest or "/")

    def _provider(self, fields: RequestFields) -> Upstream | None:
        for value in fields.own_values(b"x-portkey-provider"):
            return self._by_provider.get(decode_value(value).strip().lower().removeprefix("@"))
        return None

    def _target(self, fields: RequestFields) -> BaseUrl | None:
        values = [value for name in _TARGET_FIELDS for _, value in fields.own.get(name, ())]
        targets = [self._checked(decode_value(value)) for value in values]
        return targets[0] if targets else None

    def _checked(self, text: str) -> BaseUrl:
        try:
            target = BaseUrl.parse(text)
        except ValueError as error:
            raise TargetNotAllowed(f"The target that this request names can't be used: {error}.") from None
        if not any(allowed.covers(target) for allowed in self._allowed):
            raise TargetNotAllowed("The target that this request names is not among the allowed_targets.")
        return target

    def _borrowed(self, target: BaseUrl) -> Upstream:
        # The default's patience, but never its key: that one is for its own address only.
        default = self._default
        return Upstream(
            name=provider_name(target),
            base=target,
            api_key=None,
            connect_timeout=default.connect_timeout,
            first_byte_timeout=default.first_byte_timeout,
            idle_timeout=default.idle_timeout,
        )


def _leads_out(rest: str) -> bool:
    """Whether dot segments lead out of the base, as any server may read them: encoded, by backslashes, ``..;a``."""
    if ".." not in rest and "%" not in rest:
        return False
    return any(".." in reading and _climbs(reading) for reading in _readings(rest))


def _readings(path: str) -> set[str]:
    """What servers may make of a path: they decode it, cut parameters off and turn backslashes in orders of their own.

    None stands for the others: a backslash that is a separator makes a segment more for ``..`` to take back.
    """
    readings: set[str] = set()
    level = {path}
    for _ in range(_MOST_DECODINGS + 1):
        level |= {_turned(reading) for reading in level}
        level |= {_stripped(reading) for reading in level}
        level |= {_turned(reading) for reading in level}
        readings |= level
        level = {unquote(reading, "latin-1") for reading in level} - readings
    return readings


def _turned(path: str) -> str:
    return path.replace("\\", "/")


def _stripped(path: str) -> str:
    if ";" not in path:
        return path
    return "/".join(segment.partition(";")[0] for segment in path.split("/"))


def _climbs(path: str) -> bool:
    depth = 0
    for segment in path.split("/"):
        if segment not in ("", "."):  # an empty one is folded by some
            depth += -1 if segment == ".." else 1
        if depth < 0:
            return True
    return False


def provider_name(base: BaseUrl) -> str:
    """A provider's usual name by its host, else the host."""
    return _KNOWN_HOSTS.get(base.host, base.host)
