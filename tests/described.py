"""Holds answers to the description of the routes: their statuses, their media types, their bodies, and no key more."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema_rs

from proxy.openapi import describe, operation_id
from proxy.operations import Endpoint
from proxy.routes import Route, Router
from proxy.upstreams import split_target

__all__ = ["answer_validators", "check_answer", "find_route"]

Validators = dict[tuple[str, int, str], jsonschema_rs.Validator]


def find_route(router: Router, method: str, target: str) -> Route | None:
    """The route of a request, if it is for one."""
    mount, _ = split_target(target)
    match = router.find(method, mount)
    return match.route if match is not None else None


def check_answer(router: Router, method: str, target: str, status: int, media_type: str, body: Any) -> None:
    """Fails where an answer of a route is not as described; the body is parsed if it is JSON."""
    route = find_route(router, method, target)
    if route is None:
        return  # a call, or a method that the path doesn't have
    answers = _validators(_Routes(router.routes))
    described = answers.get((operation_id(route.method, route.path), status, media_type.partition(";")[0]))
    assert described is not None, f"{method} {target}: {status} as {media_type} is not described"
    error = next(iter(described.iter_errors(body)), None)
    assert error is None, f"{method} {target}: {status} is not as described: {error}"


class _Routes(tuple[Endpoint, ...]):
    """Routes, compared by what is described of them: each Kibitz has handlers of its own."""

    def __hash__(self) -> int:
        return hash(tuple((route.method, route.path) for route in self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Routes) and [route.operation for route in self] == [
            route.operation for route in other
        ]


@cache
def _validators(routes: _Routes) -> Validators:
    return answer_validators(describe(routes, "0"))


def answer_validators(document: Any) -> Validators:
    """What checks each answer of a description, by the operation's id, the status and the media type."""
    components = _closed(document["components"])
    found: Validators = {}
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                for media_type, content in response["content"].items():
                    schema = {**content["schema"], "components": components}
                    key = operation["operationId"], int(status), media_type.partition(";")[0]
                    found[key] = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    return found


def _closed(schema: Any) -> Any:
    """A schema whose objects have the properties that they name, and no other."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        closed.setdefault("additionalProperties", False)
    return closed
