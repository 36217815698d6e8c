"""The description of our own routes, OpenAPI 3.1, made from the table of routes and the types that stand in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core.core_schema import DictSchema, WithDefaultSchema

from proxy.dialects import JSON, Dialect, failure_shape
from proxy.operations import Endpoint, Link, Operation
from proxy.sizes import with_sizes
from proxy.text_limits import DEFAULT_FEEDBACK_LIMITS, FeedbackLimits

__all__ = ["describe", "operation_id"]

_OPENAPI: Final = "3.1.1"
_ABOUT: Final = (
    "The routes that Kibitz answers itself. Any other path is a call, which passes to the upstream as it is. Each "
    "route answers with and without a trailing slash, and with HEAD where it answers GET. Where keys are configured, a "
    "request needs one, with the scope that its route names. What is no HTTP, or more than Kibitz takes of it, is "
    "refused on any path alike, in the shape of `OpenAIFailure`."
)
_DIALECTS: Final = {
    Dialect.OPENAI: "Failures have OpenAI's shape.",
    Dialect.HELICONE: "Failures have the shape of Helicone's API.",
    Dialect.PORTKEY: "Failures have the shape of Portkey's API.",
}
# By the scope that a route needs.
_TAGS: Final[dict[str | None, tuple[str, str]]] = {
    "feedback": ("Feedback", "What people and programs say of calls."),
    "read": ("Reading", "Calls, and what was said of them."),
    "proxy": ("Logs", "Calls that went another way."),
    "admin": ("Operation", "For those who run Kibitz."),
    None: ("Health", "Open to everybody."),
}
_KEYS: Final = {
    "heliconeAuth": {"type": "apiKey", "in": "header", "name": "Helicone-Auth", "description": "`Bearer KEY`"},
    "portkeyApiKey": {"type": "apiKey", "in": "header", "name": "x-portkey-api-key", "description": "`KEY`"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_OK: Final = 200
_MEANINGS: Final = {
    200: "Done.",
    400: "What was sent can't be read, or is not what this route takes.",
    401: "No valid key came with the request.",
    403: "The key does not have the scope of this route; without keys: a foreign web page may have sent the request.",
    404: "There is nothing by this id.",
    408: "The body took too long to come.",
    413: "The body is larger than is allowed.",
    422: "The body has another shape than this route takes.",
    503: "The store does not answer; nothing was written.",
}
# What a route may fail for because it has a scope, reads a body, or stands on the store, as these scopes' routes do.
_OF_A_KEY: Final = {401, 403}
_OF_A_BODY: Final = {400, 408, 413}
_OF_THE_STORE: Final = {503}
_STORED: Final = {"feedback", "read", "proxy"}
_TRACE_ID: Final = "x-portkey-trace-id"
_RETRY_AFTER: Final = "Retry-After"
_FIELDS: Final = {
    _TRACE_ID: "The trace that the answer is about, else a new id.",
    _RETRY_AFTER: "Seconds after which to try again.",
}
_SCHEMAS: Final = "#/components/schemas/{model}"
_HEADERS: Final = "#/components/headers/"

_Part = tuple[str, str, int | None]
"""A method, a path, and the status of an answer; none for the request's body."""
_Schemas = Mapping[_Part, dict[str, Any]]


def describe(
    routes: Sequence[Endpoint], version: str, limits: FeedbackLimits = DEFAULT_FEEDBACK_LIMITS
) -> dict[str, Any]:
    """The document. ``version`` is that of the program, ``limits`` are in force for what is sent."""
    schemas, shared = _schemas(routes, limits)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": _OPENAPI,
        "info": {"title": "Kibitz", "version": version, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.values()],
        "paths": paths,
        "components": {"securitySchemes": _KEYS, "headers": _headers(_FIELDS), "schemas": shared},
    }


def operation_id(method: str, path: str) -> str:
    """A route's name for programs, such as ``post_v1_request_id_feedback``; it changes only with the route."""
    return "_".join([method.lower(), *re.findall(r"[A-Za-z0-9]+", path)])


class _Generator(GenerateJsonSchema):
    """Leaves out titles that say a field's name again, and nulls as defaults: what may be left out isn't required."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def dict_schema(self, schema: DictSchema) -> JsonSchemaValue:
        # What the names have to match is what they have to match.
        described = super().dict_schema(schema)
        return {**described, "additionalProperties": False} if "patternProperties" in described else described


def _schemas(routes: Iterable[Endpoint], limits: FeedbackLimits) -> tuple[_Schemas, dict[str, Any]]:
    """The schema of each body and answer, and those that they refer to, by their names."""
    wanted: list[tuple[_Part, JsonSchemaMode, TypeAdapter[Any]]] = []
    for route in routes:
        if route.operation.body is not None:
            wanted.append(((route.method, route.path, None), "validation", TypeAdapter(route.operation.body)))
        for status, answer in _answers(route).items():
            wanted.append(((route.method, route.path, status), "serialization", TypeAdapter(answer)))
    schemas, definitions = TypeAdapter.json_schemas(wanted, ref_template=_SCHEMAS, schema_generator=_Generator)
    sized = {part: with_sizes(schema, limits) for (part, _), schema in schemas.items()}
    return sized, with_sizes(definitions["$defs"], limits)


def _answers(route: Endpoint) -> dict[int, Any]:
    """The types of a route's answers, by status."""
    operation = route.operation
    failures = {*operation.failures}
    failures |= _OF_A_KEY if route.scope else set()
    failures |= _OF_A_BODY if operation.body is not None else set()
    failures |= _OF_THE_STORE if route.scope in _STORED else set()
    shapes = {status: failure_shape(route.dialect, status) for status in failures}
    return dict(sorted({**shapes, **operation.others, _OK: operation.answer}.items()))


def _operation(route: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    operation = route.operation
    tag, _ = _TAGS[route.scope]
    needs = f"Needs the scope `{route.scope}`." if route.scope else "Needs no key."
    described: dict[str, Any] = {
        "operationId": operation_id(route.method, route.path),
        "summary": operation.summary,
        "description": " ".join(filter(None, [operation.description, needs, _DIALECTS[route.dialect]])),
        "tags": [tag],
        "security": [{name: [route.scope]} for name in _KEYS] if route.scope else [],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": {
            str(status): _response(route, status, schemas[route.method, route.path, status])
            for status in _answers(route)
        },
    }
    if operation.body is not None:
        content = {JSON: {"schema": schemas[route.method, route.path, None]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    schema = {"type": "string", "minLength": 1}
    return [
        {"name": name, "in": "path", "required": True, "description": about, "schema": schema}
        for name, about in operation.parameters.items()
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    query = operation.query.model_json_schema(schema_generator=_Generator)
    required = query.get("required", ())
    return [_query_parameter(name, schema, name in required) for name, schema in query["properties"].items()]


def _query_parameter(name: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    about = schema.pop("description")
    return {"name": name, "in": "query", "required": required, "description": about, "schema": schema}


def _response(route: Endpoint, status: int, schema: dict[str, Any]) -> dict[str, Any]:
    operation = route.operation
    is_answer = status == _OK
    shared = [_TRACE_ID, _RETRY_AFTER] if status in _OF_THE_STORE - operation.others.keys() else [_TRACE_ID]
    fields = _headers(operation.fields if is_answer else {})
    media_types = (operation.media_type, *operation.other_media_types) if is_answer else (JSON,)
    response: dict[str, Any] = {
        "description": _MEANINGS[status],
        "headers": {**{name: {"$ref": _HEADERS + name} for name in shared}, **fields},
        "content": {name: {"schema": schema} for name in media_types},
    }
    if is_answer and operation.links:
        response["links"] = {operation_id(link.method, link.path): _link(link) for link in operation.links}
    return response


def _headers(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": about, "schema": {"type": "string"}} for name, about in fields.items()}


def _link(link: Link) -> dict[str, Any]:
    return {"operationId": operation_id(link.method, link.path), "parameters": {"id": link.value}}
