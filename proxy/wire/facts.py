"""What a row wants to know of a body, in one vocabulary for every provider's format. Unknown is ``None``."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Final

from storage.records import Usage, record

__all__ = [
    "LARGEST_COUNT",
    "STANDARD_BILLING",
    "Billing",
    "RequestFacts",
    "ResponseFacts",
    "as_count",
    "as_object",
    "as_objects",
    "as_text",
    "error_message",
    "told_error",
]

# No answer has so many tokens. Integers in databases end at 2**63, and so do sums: a few answers that count further
# would leave a log that can't be added up.
LARGEST_COUNT: Final = 10**12
_NUMBERS: Final = (int, float)


@record()
class RequestFacts:
    """Of a request's body."""

    model: str | None = None
    user: str | None = None
    is_stream: bool = False


@record()
class Billing:
    """What the price of an answer depends on besides its `Usage`. A row doesn't hold it.

    ``units`` are further counts, and ``terms`` conditions other than the standard, as genai-prices names them.
    """

    cache_apart: bool = False
    """Whether the count of the prompt leaves out what was read from the cache and written to it."""
    units: dict[str, int] = field(default_factory=dict)
    terms: dict[str, str] = field(default_factory=dict)


STANDARD_BILLING: Final = Billing()


@record()
class ResponseFacts:
    """Of a response's body. ``body`` is the parsed answer; of a stream the same answer assembled.

    ``is_stream`` is whether it came as a stream, ``None`` where no answer says so; ``error`` the message of an error
    that the body itself tells of.
    """

    id: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    billing: Billing = STANDARD_BILLING
    text: str | None = None
    tool_calls: list[Any] | None = None
    is_stream: bool | None = False
    error: str | None = None
    body: Any = None


def as_text(value: object) -> str | None:
    """The value if it is text that says something."""
    return value.replace("\0", "") or None if isinstance(value, str) else None


def as_count(value: object) -> int | None:
    """The value if it is a count that can be."""
    if not isinstance(value, _NUMBERS) or isinstance(value, bool):
        return None
    if not 0 <= value <= LARGEST_COUNT:
        return None
    return int(value)


def as_object(value: object) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_objects(value: object) -> list[dict[str, Any]]:
    """The objects of a JSON array; none if it isn't one."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def error_message(error: object) -> str | None:
    """What an ``error`` member says, if it tells of one."""
    if not error:
        return None
    message = as_object(error).get("message") if isinstance(error, dict) else error
    return as_text(message) or "the answer tells of an error"


def told_error(body: dict[str, Any]) -> str | None:
    """What an answer says of an error: in its member ``error``, or by being one, as vLLM's and Mistral's are."""
    is_one = "error" in (body.get("object"), body.get("type"))
    told = body.get("error") or as_object(body.get("x_groq")).get("error") or (body if is_one else None)
    return error_message(told)
