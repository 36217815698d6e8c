"""The shapes that failures of Kibitz's own take, one for each kind of client. Contract sections 3, 6 and 8."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, NotRequired

from typing_extensions import TypedDict

__all__ = ["JSON", "Answer", "Dialect", "Failed", "HeliconeFailure", "HeliconeInvalid", "failure", "failure_shape"]

JSON: Final = "application/json"


class Dialect(Enum):
    """Whose clients a route talks to."""

    OPENAI = "openai"
    HELICONE = "helicone"
    PORTKEY = "portkey"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route of our own says: a status and a JSON body, and the trace that it is about, if any.

    With a ``media_type`` other than JSON's the body is text; bytes go out as they are. ``fields`` are header fields
    beside the usual ones. A ``stream`` is a body of any length, in pieces; it is closed, whatever becomes of it.
    """

    body: Any
    status: int = 200
    trace_id: str | None = None
    allow: tuple[str, ...] = ()
    media_type: str = JSON
    fields: tuple[tuple[bytes, bytes], ...] = ()
    stream: AsyncGenerator[bytes] | None = None


class Failed(Exception):
    """Ends a route's work with a failure, told in ``dialect``, else the route's. ``code`` is for programs."""

    def __init__(self, status: int, code: str, message: str, dialect: Dialect | None = None) -> None:
        super().__init__(message)
        self.dialect = dialect
        self.status = status
        self.code = code
        self.message = message


class OpenAIError(TypedDict):
    """What went wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: None
    code: str


class OpenAIFailure(TypedDict):
    """A failure of Kibitz's own on a path without a dialect."""

    error: OpenAIError


class HeliconeFailure(TypedDict):
    """A failure on Helicone's routes."""

    data: None
    error: str


class HeliconeUnauthorized(HeliconeFailure):
    """No valid key, on Helicone's routes."""

    trace: Literal["isAuthenticated.error"]


class HeliconeDetail(TypedDict):
    """What is wrong with one part of a body, and the part, unless it is missing."""

    message: str
    value: NotRequired[Any]


class HeliconeInvalid(TypedDict):
    """A body of the wrong shape, on Helicone's routes; ``details`` has the paths of its faults."""

    message: str
    details: dict[str, HeliconeDetail]


class PortkeyError(TypedDict):
    """The message once more, and a code for programs."""

    message: str
    code: str


class PortkeyFailure(TypedDict):
    """A failure on Portkey's routes."""

    status: Literal["failure"]
    message: str
    error: PortkeyError


Failure = OpenAIFailure | HeliconeFailure | HeliconeUnauthorized | PortkeyFailure

# The OpenAI shape's `type`, by status; anything else is the server's fault.
_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    414: "invalid_request_error",
    431: "invalid_request_error",
    502: "upstream_error",
    504: "upstream_error",
}


def failure(dialect: Dialect, failed: Failed) -> Failure:
    """The body that tells a failure in a dialect; `failure_shape` names its type."""
    message, code = failed.message, failed.code
    if dialect is Dialect.PORTKEY:
        return {"status": "failure", "message": message, "error": {"message": message, "code": code}}
    if dialect is Dialect.OPENAI:
        kind = _OPENAI_TYPES.get(failed.status, "server_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}
    if failed.status == 401:
        return {"data": None, "error": message, "trace": "isAuthenticated.error"}
    return {"data": None, "error": message}


def failure_shape(dialect: Dialect, status: int) -> type[Any]:
    """What a failure with a status looks like in a dialect."""
    if dialect is Dialect.PORTKEY:
        return PortkeyFailure
    if dialect is Dialect.OPENAI:
        return OpenAIFailure
    return _HELICONE_SHAPES.get(status, HeliconeFailure)


_HELICONE_SHAPES: Final[dict[int, type[Any]]] = {401: HeliconeUnauthorized, 422: HeliconeInvalid}
