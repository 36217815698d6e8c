"""What OpenAPI has no words for: requests that are as described, and still not what a route takes.

Schemathesis loads this module. Its check stands for `positive_data_acceptance`, and passes over just these requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

_FILTERS = ("trace_id", "request_id", "session_id")


@schemathesis.check
def takes_what_is_described(ctx: Any, response: Any, case: Any) -> bool | None:
    """A request that is as described is not refused for its shape."""
    if case.operation.label == "GET /v1/feedback" and _names_nothing(case.query or {}):
        return None
    if case.operation.label.endswith(("/v1/feedback", "/v1/feedback/{id}")) and _is_beyond_words(case.body):
        return None
    result: bool | None = positive_data_acceptance(ctx, response, case)
    return result


def _names_nothing(query: dict[str, Any]) -> bool:
    """One of some parameters has to be there, whichever."""
    return not any(query.get(name) for name in _FILTERS) and str(query.get("unmatched")).lower() != "true"


def _is_beyond_words(body: Any) -> bool:
    """Numbers without a gap among the names of an object; text that is to be JSON."""
    numbered = isinstance(body, dict) and bool(body) and all(name.isdigit() for name in body)
    if numbered and body.keys() != {str(number) for number in range(len(body))}:
        return True
    return any(isinstance(text, str) and not _is_object(text) for text in _metadata(body))


def _metadata(body: Any) -> Iterator[Any]:
    items = body if isinstance(body, list) else [body, *(body.values() if isinstance(body, dict) else ())]
    yield from (item["metadata"] for item in items if isinstance(item, dict) and "metadata" in item)


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False
