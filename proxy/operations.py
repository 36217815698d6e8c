"""What a route takes and gives, said where the route is defined. `proxy.openapi` puts it into words for programs.

A type that stands here is a pydantic model of what is sent, or a `TypedDict` of what is answered, to which the type
checker holds the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from proxy.config import Scope
from proxy.dialects import JSON, Dialect

__all__ = ["REQUEST", "Endpoint", "Link", "Operation"]


REQUEST: Final = {"id": "The request's id, or the id that the provider gave the response."}
"""The parameter of a path that names a call."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where an id in an answer leads: to the route of a method and a path, as the path's parameter ``id``.

    ``value`` is one of OpenAPI's runtime expressions, such as ``$response.body#/feedback_ids/0``.
    """

    method: str
    path: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a route takes and gives, beside what its method, path, dialect and scope tell already.

    ``answer`` is the type of the answer with 200, and ``media_type`` its media type, beside which it may have one of
    ``other_media_types``; ``others`` are the types that
    further statuses have, ``failures`` the statuses of failures in the shape of the route's dialect. What any route
    may fail for, because it has a scope or reads a body, is not listed: `proxy.openapi` adds it. ``parameters`` says
    what the parameters of the path name, ``fields`` what header fields of the answer hold.
    """

    summary: str
    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: type[BaseModel] | None = None
    body: Any = None
    answer: Any
    media_type: str = JSON
    other_media_types: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[int, Any] = field(default_factory=dict)
    failures: tuple[int, ...] = ()
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and a path of which segments in braces are parameters; ``scope`` is what a key must allow, if any."""

    method: str
    path: str
    dialect: Dialect
    scope: Scope | None
    operation: Operation
