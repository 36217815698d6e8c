"""The shapes that failures of Kibitz's own take, one for each kind of client. Contract sections 3, 6 and 8."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

__all__ = ["JSON", "Answer", "Dialect", "Failed", "failure"]

JSON: Final = "application/json"


class Dialect(Enum):
    """Whose clients a route talks to."""

    OPENAI = "openai"
    HELICONE = "helicone"
    PORTKEY = "portkey"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route of our own says: a status and a JSON body, and the trace that it is about, if any.

    With a ``media_type`` other than JSON's the body is text; ``fields`` are header fields beside the usual ones.
    """

    body: Any
    status: int = 200
    trace_id: str | None = None
    allow: tuple[str, ...] = ()
    media_type: str = JSON
    fields: tuple[tuple[bytes, bytes], ...] = ()


class Failed(Exception):
    """Ends a route's work with a failure, told in ``dialect``, else the route's. ``code`` is for programs."""

    def __init__(self, status: int, code: str, message: str, dialect: Dialect | None = None) -> None:
        super().__init__(message)
        self.dialect = dialect
        self.status = status
        self.code = code
        self.message = message


# The OpenAI shape's `type`, by status; anything else is the server's fault.
_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    502: "upstream_error",
    504: "upstream_error",
}


def failure(dialect: Dialect, failed: Failed) -> dict[str, Any]:
    """The body that tells a failure in a dialect."""
    message, code = failed.message, failed.code
    if dialect is Dialect.HELICONE:
        body: dict[str, Any] = {"data": None, "error": message}
        return {**body, "trace": "isAuthenticated.error"} if failed.status == 401 else body
    if dialect is Dialect.PORTKEY:
        return {"status": "failure", "message": message, "error": {"message": message, "code": code}}
    kind = _OPENAI_TYPES.get(failed.status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
