from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import Answer, Dialect
from proxy.operations import Operation
from proxy.routes import Match, Route, RouteCall, Router, read_query
from proxy.upstreams import split_target


async def handler(call: RouteCall) -> Answer:
    return Answer({})


def route(method: str, path: str, dialect: Dialect = Dialect.HELICONE) -> Route:
    return Route(method, path, dialect, "read", Operation(summary="Does something.", answer=str), handler)


ROUTER = Router(
    [
        route("GET", "/healthz", Dialect.OPENAI),
        route("POST", "/v1/feedback", Dialect.PORTKEY),
        route("GET", "/v1/feedback", Dialect.PORTKEY),
        route("PUT", "/v1/feedback/{id}", Dialect.PORTKEY),
        route("GET", "/v1/request/{id}"),
        route("POST", "/v1/request/query"),
        route("POST", "/v1/request/{id}/feedback"),
        route("POST", "/v1/session/{id}/feedback"),
    ]
)


def find(method: str, target: str) -> Match | None:
    mount, _ = split_target(target)
    return ROUTER.find(method, mount)


def found(method: str, target: str) -> Route:
    match = find(method, target)
    assert match is not None
    assert match.route is not None
    return match.route


@pytest.mark.parametrize("known", ROUTER.routes, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("end", ["", "/", "?a=/v1/x", "/?a"])
def test_every_route_is_found_with_and_without_a_trailing_slash(known: Route, end: str) -> None:
    assert found(known.method, known.path.replace("{id}", "abc") + end) is known


@pytest.mark.parametrize(
    "target",
    [
        *("/", "/v1", "/v1/", "/v1/chat/completions", "/v1/request", "/v1/request/a/other", "/v1/request/a/feedback/b"),
        *("/v1/request//feedback", "/v1/requests/a/feedback", "/V1/feedback", "/healthz/x", "/anthropic/feedback", "*"),
        *("/v1/feedbacks", "/v1/%66eedback"),
    ],
)
def test_any_other_path_is_not_ours(target: str) -> None:
    assert find("POST", target) is None


def test_a_doubled_slash_behind_the_base_is_folded() -> None:
    assert found("POST", "/v1//feedback").path == "/v1/feedback"


def test_head_goes_where_get_goes() -> None:
    assert found("HEAD", "/v1/request/a") is found("GET", "/v1/request/a")


def test_a_literal_segment_goes_before_a_parameter() -> None:
    assert found("POST", "/v1/request/query").path == "/v1/request/query"
    assert found("GET", "/v1/request/query").path == "/v1/request/{id}"


@pytest.mark.parametrize(
    ("method", "target", "methods", "dialect"),
    [
        ("DELETE", "/v1/feedback", ("GET", "POST"), Dialect.PORTKEY),
        ("HEAD", "/v1/feedback/a", ("PUT",), Dialect.PORTKEY),
        ("GET", "/v1/request/a/feedback", ("POST",), Dialect.HELICONE),
        ("get", "/healthz", ("GET",), Dialect.OPENAI),
    ],
)
def test_another_method_on_a_path_of_ours_learns_which_there_are(
    method: str, target: str, methods: tuple[str, ...], dialect: Dialect
) -> None:
    match = find(method, target)
    assert match is not None
    assert (match.route, match.methods, match.dialect) == (None, methods, dialect)


def identifier(target: str) -> str:
    match = find("GET", target)
    assert match is not None
    return match.parameters["id"]


@given(st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text))
def test_any_id_comes_out_as_it_was_before_it_was_percent_encoded(text: str) -> None:
    assert identifier(f"/v1/request/{quote(text, safe='')}") == text


@pytest.mark.parametrize(
    ("segment", "text"),
    [("a%2Fb", "a/b"), ("a+b", "a+b"), ("100%", "100%"), ("%zz", "%zz"), ("Zo%EB", "Zoë"), ("Zo\udceb", "Zoë")],
)
def test_an_id_that_is_oddly_encoded_is_read_as_well_as_can_be(segment: str, text: str) -> None:
    assert identifier(f"/v1/request/{segment}") == text


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("", {}),
        ("?", {}),
        ("?a=1&b=2", {"a": "1", "b": "2"}),
        ("?a=1&a=2", {"a": "1"}),
        ("?a=&b", {"a": "", "b": ""}),
        ("?trace_id=a%2Fb%20c+d", {"trace_id": "a/b c d"}),
        ("?a=b=c", {"a": "b=c"}),
    ],
)
def test_a_query_gives_its_parameters_and_of_repeated_ones_the_first(query: str, parameters: dict[str, str]) -> None:
    assert read_query(query) == parameters


@given(st.binary(max_size=30))
def test_any_query_reads_as_text_that_can_be_told_and_looked_up(raw: bytes) -> None:
    """The server hands on bytes that are not UTF-8 as lone surrogates, which neither JSON nor a store takes."""
    for name, value in read_query("?a=" + raw.decode("utf-8", "surrogateescape")).items():
        assert (name + value).encode("utf-8").decode("utf-8") == name + value
