"""``/openapi.json``: all of our routes and no other, as they are. Contract sections 7 and 8.

That answers are as described is looked at wherever the tests get one (`tests.described`).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from proxy import __version__
from proxy.dialects import Dialect
from proxy.operations import Endpoint, Operation
from proxy.routes import Route
from tests.conftest import Running, StartKibitz
from tests.described import check_answer

Document = dict[str, Any]


@pytest.fixture
async def document(kibitz: Running) -> Document:
    async with kibitz.client.get(f"{kibitz.url}/openapi.json") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        read: Document = orjson.loads(await response.read())
        return read


def operations(document: Document) -> dict[tuple[str, str], Any]:
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def of(document: Document, route: Route) -> Any:
    return operations(document)[route.method, route.path]


def takes_a_body(route: Route) -> bool:
    return route.method in ("POST", "PUT") and not route.path.endswith(("{id}/count", "{id}/delete"))


async def test_the_description_is_valid_openapi(document: Document) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == __version__


async def test_every_route_is_described_and_nothing_else(kibitz: Running, document: Document) -> None:
    described = sorted(operations(document))
    assert described == sorted((route.method, route.path) for route in kibitz.kibitz.router.routes)
    assert ("GET", "/openapi.json") in described


async def test_every_description_says_what_there_is_to_say(kibitz: Running, document: Document) -> None:
    for route in kibitz.kibitz.router.routes:
        operation = of(document, route)
        assert re.fullmatch(r"[A-Z].*\.", operation["summary"]), route.path
        named = [parameter for parameter in operation["parameters"] if parameter["in"] == "path"]
        assert [parameter["name"] for parameter in named] == re.findall(r"{(\w+)}", route.path)
        assert all(parameter["description"] for parameter in operation["parameters"])
        assert ("requestBody" in operation) == takes_a_body(route)


async def test_operations_have_names_of_their_own(document: Document) -> None:
    names = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(names)) == len(names)
    assert "post_v1_request_id_feedback" in names


async def test_the_statuses_that_a_route_may_answer_are_those_described(kibitz: Running, document: Document) -> None:
    for route in kibitz.kibitz.router.routes:
        statuses = {int(status) for status in of(document, route)["responses"]}
        by_scope = {None: set[int](), "admin": {401, 403}}.get(route.scope, {401, 403, 503})
        by_body = {400, 408, 413} if takes_a_body(route) else set()
        own = {*route.operation.failures, *route.operation.others}
        assert statuses == {200} | by_scope | by_body | own, route.path


async def test_a_key_is_asked_for_where_one_is_needed_with_its_scope(kibitz: Running, document: Document) -> None:
    schemes = document["components"]["securitySchemes"]
    assert {scheme.get("name", "Authorization") for scheme in schemes.values()} == {
        "Helicone-Auth",
        "x-portkey-api-key",
        "Authorization",
    }
    for route in kibitz.kibitz.router.routes:
        wanted = [{name: [route.scope]} for name in schemes] if route.scope else []
        assert of(document, route)["security"] == wanted


async def test_a_key_is_taken_wherever_the_description_says(start_kibitz: StartKibitz, document: Document) -> None:
    key = "a-key-of-somebody"
    known = {"name": "k", "organisation": "o", "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": ["admin"]}
    kibitz = await start_kibitz(keys=[known])
    for scheme in document["components"]["securitySchemes"].values():
        name, value = scheme.get("name", "Authorization"), key
        if scheme["type"] == "http" or "Bearer" in scheme["description"]:
            value = f"Bearer {key}"
        async with kibitz.client.get(f"{kibitz.url}/metrics", headers={name: value}) as response:
            assert response.status == 200, name
    async with kibitz.client.get(f"{kibitz.url}/metrics") as response:
        assert response.status == 401


async def test_links_lead_to_routes_that_take_what_they_give(document: Document) -> None:
    known = {operation["operationId"]: operation for operation in operations(document).values()}
    links = [
        link
        for operation in known.values()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert links
    for link in links:
        taken = {parameter["name"] for parameter in known[link["operationId"]]["parameters"]}
        assert link["parameters"].keys() <= taken


async def test_the_failures_of_a_route_have_the_shape_of_its_dialect(kibitz: Running, document: Document) -> None:
    for route in kibitz.kibitz.router.routes:
        if route.scope is not None:
            shape = of(document, route)["responses"]["401"]["content"]["application/json"]["schema"]["$ref"]
            expected = {
                Dialect.OPENAI: "OpenAIFailure",
                Dialect.HELICONE: "HeliconeUnauthorized",
                Dialect.PORTKEY: "PortkeyFailure",
            }
            assert shape.rpartition("/")[2] == expected[route.dialect]


async def test_the_limits_of_what_is_sent_are_those_in_force(start_kibitz: StartKibitz) -> None:
    limits = {"max_comment_characters": 11, "max_label_characters": 257, "max_bulk_items": 12, "max_metadata_bytes": 13}
    kibitz = await start_kibitz(limits=limits)
    async with kibitz.client.get(f"{kibitz.url}/openapi.json") as response:
        text = (await response.read()).decode()
    schemas = orjson.loads(text)["components"]["schemas"]
    assert schemas["RatingBody"]["properties"]["comment"]["maxLength"] == 11
    assert schemas["PropertyChange"]["properties"]["key"]["maxLength"] == 257
    assert schemas["NewValue"]["properties"]["metadata"]["description"] == (
        "At most 13 bytes as JSON (`limits.max_metadata_bytes`)."
    )
    assert text.count('"maxItems":12') == 2  # of values, and of logs
    assert "x-at-most" not in text


def test_a_route_without_a_description_can_not_be_made() -> None:
    with pytest.raises(TypeError, match="operation"):
        Endpoint("GET", "/x", Dialect.OPENAI, None)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="answer"):
        Operation(summary="Does something.")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("status", "media_type", "body"),
    [
        (200, "application/json", {"status": "ok", "more": 1}),
        (200, "application/json", {"status": "odd"}),
        (200, "application/json", {}),
        (200, "text/plain", "ok"),
        (418, "application/json", {"status": "ok"}),
    ],
)
async def test_an_answer_that_is_not_as_described_is_found_out(
    kibitz: Running, status: int, media_type: str, body: Any
) -> None:
    router = kibitz.kibitz.router
    check_answer(router, "GET", "/healthz", 200, "application/json", {"status": "ok"})
    with pytest.raises(AssertionError):
        check_answer(router, "GET", "/healthz", status, media_type, body)
