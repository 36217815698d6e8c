"""What OpenAPI has no words for: requests that are as described, and still not what a route takes.

Schemathesis loads this module. Its checks stand for those of
schemathesis that bear nearly the same names, and pass over just these requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson
import schemathesis
from schemathesis.specs.openapi.checks import allow_header_conformance, positive_data_acceptance

# Texts that are to be JSON, or a time.
_TEXTS_OF_AN_EXPORT = {"filter", "since", "until"}
_FILTERS = ("trace_id", "request_id", "session_id")
_REFUSED = 400
# The languages of filters, sorts and cursors, and what two times are to each other: told by the words of the refusal.
_SAID = re.compile(
    r"(filter|compare\.(before|after)|sort|cursor): |.* the time of generation spans|the time of generation spans"
    r"|metadata must be a JSON object|there is no field|'.*' (can't be )?compared"
)


@schemathesis.check
def takes_what_is_described(ctx: Any, response: Any, case: Any) -> bool | None:
    """A request that is as described is not refused for its shape."""
    if case.operation.label == "GET /v1/feedback" and _names_nothing(case.query or {}):
        return None
    if case.operation.label == "GET /v1/export" and _TEXTS_OF_AN_EXPORT & (case.query or {}).keys():
        return None
    if case.operation.label.startswith("POST /v1/helicone-dataset") and _has_filter(case.body):
        return None
    if case.operation.label.endswith(("/v1/feedback", "/v1/feedback/{id}")) and _is_beyond_words(case.body):
        return None
    if response.status_code == _REFUSED and _SAID.match(_message(response)):
        return None
    result: bool | None = positive_data_acceptance(ctx, response, case)
    return result


@schemathesis.check
def allows_what_it_says(ctx: Any, response: Any, case: Any) -> bool | None:
    """The fields of a 405 are as described, but where a path is one of two routes': `query` is an id as well."""
    if case.operation.path.endswith(("/query", "/query-clickhouse", "/query-ids", "/summary")):
        return None
    result: bool | None = allow_header_conformance(ctx, response, case)
    return result


def _message(response: Any) -> str:
    answer = response.json()
    return str(answer.get("error") if isinstance(answer.get("error"), str) else answer.get("message"))


def _names_nothing(query: dict[str, Any]) -> bool:
    """One of some parameters has to be there, whichever."""
    return not any(query.get(name) for name in _FILTERS) and str(query.get("unmatched")).lower() != "true"


def _has_filter(body: Any) -> bool:
    """A tree of the tables, columns and operators that there are."""
    return isinstance(body, dict) and body.get("filter") is not None


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
