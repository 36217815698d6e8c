"""No spelling of a path reaches a route of Kibitz's own past its check, or leaves the base of an upstream."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from hashlib import sha256
from itertools import product
from urllib.parse import unquote, urljoin

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.base_url import BaseUrl
from proxy.headers import read_request_fields
from proxy.upstreams import Upstream, UpstreamTable, split_target
from tests.conftest import Running, StartKibitz
from tests.hostile.attack import Witness, converse, running_witness
from tests.hostile.strict_http import Message, read_answers
from tests.raw_client import request

KEY = b"Authorization: Bearer kbz_proxy_only"
OUT = [
    "/v1/..",
    "/v1/../",
    "/v1/../metrics",
    "/v1/a/../../metrics",
    "/v1/./../metrics",
    "/v1/%2e%2e/metrics",
    "/v1/.%2E/metrics",
    "/v1/..%2fmetrics",
    "/v1/a/..%2F..%2fmetrics",
    "/v1/a%2fb/../../metrics",
    "/v1/%252e%252e/metrics",
    "/v1/..%252fmetrics",
    "/v1/..%5cmetrics",
    "/v1/%2e%2e%5cmetrics",
    "/v1/..;/metrics",
    "/v1/..;a=b/metrics",
    "/v1/a//../../metrics",
    "/v1/;/../metrics",
    "/v1//../metrics",
    "/metrics/../v1/../metrics",
    "http://kibitz.test/v1/../metrics",
]
INSIDE = [
    "/v1/a/../b",
    "/v1/...",
    "/v1/..a",
    "/v1/a..",
    "/v1/a/b/../../c",
    "/v1/%2e",
    "/v1/a?../../..",
    "/v1/a%2f..%2fb",
]
OWN = ["/metrics", "/v1/request/x", "/v1/feedback", "/v1/logs", "/custom/v1/log"]


def spellings(path: str) -> list[str]:
    """Ways to write the path of an own route that one router or another takes for it."""
    first, rest = path[1:2], path[2:]
    return [
        path,
        path + "/",
        path + "?a=b",
        path + "?",
        "/" + path,
        "/." + path,
        "/x/.." + path,
        "/%2e" + path,
        f"/%{ord(first):02x}{rest}",
        path.upper(),
        path.title(),
        path + ";a",
        path + "%00",
        path + "%20",
        path + ".json",
        path + "%2f",
        path + "/.",
        path.replace("/", "%2f"),
        path.replace("/", "\\"),
        path.replace("/", "//"),
        "http://kibitz.test" + path,
        "HTTPS://user@other.test:1" + path,
        "http://kibitz.test?" + path,
        "ftp://kibitz.test" + path,
        "/v1" + path,
        "/v1/.." + path,
    ]


@pytest.fixture
async def witness() -> AsyncIterator[Witness]:
    async with running_witness() as running:
        yield running


@pytest.fixture
async def kibitz(start_kibitz: StartKibitz, witness: Witness) -> Running:
    digest = sha256(b"kbz_proxy_only").hexdigest()
    return await start_kibitz(
        upstream={"base_url": witness.base_url, "api_key": "sk-theirs"},
        upstreams={"named": {"base_url": witness.base_url}},
        keys=[{"name": "k", "organisation": "acme", "sha256": digest, "scopes": ["proxy"]}],
    )


async def answer_to(kibitz: Running, target: str, *lines: bytes, method: str = "GET") -> Message:
    asked = request(method, target, *lines, b"Connection: close")
    data = await converse(kibitz.port, asked)
    if method == "HEAD":  # to what is no HTTP a body is sent, since nobody can tell that it was HEAD
        head, end, _ = data.partition(b"\r\n\r\n")
        data = head + end
    return read_answers(data, first_to_head=method == "HEAD")[0]


@pytest.mark.parametrize("path", OWN)
async def test_nobody_gets_to_a_route_by_spelling_it_otherwise(kibitz: Running, witness: Witness, path: str) -> None:
    for target in spellings(path):
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            answer = await answer_to(kibitz, target, method=method)
            assert int(answer.start[0]) in (400, 401, 404, 405), (method, target, answer)
    assert witness.connections == []


@pytest.mark.parametrize("path", OWN)
async def test_a_key_that_may_only_call_gets_to_no_route_by_spelling_it_otherwise(
    kibitz: Running, witness: Witness, path: str
) -> None:
    for target in [*spellings(path), "/named" + path, "/named/.." + path]:
        answer = await answer_to(kibitz, target, KEY)
        if answer.start[0] == b"200":
            assert answer.body.startswith(b"/v1/")  # the upstream's, which says what it was asked for
        else:
            assert int(answer.start[0]) in (400, 403, 404, 405), (target, answer)
    assert all(request.start[1].startswith(b"/v1/") for request in witness.requests)


@pytest.mark.parametrize("target", OUT)
async def test_a_path_that_leaves_the_base_goes_nowhere(kibitz: Running, witness: Witness, target: str) -> None:
    for spelling in (target, target.replace("/v1/", "/named/", 1)):
        answer = await answer_to(kibitz, spelling, KEY)
        assert answer.start[0] == b"404"
    assert witness.connections == []


@pytest.mark.parametrize("target", INSIDE)
async def test_a_path_that_stays_inside_travels_as_sent(kibitz: Running, witness: Witness, target: str) -> None:
    await answer_to(kibitz, target, KEY)
    assert witness.targets == [target.encode()]


TABLE = UpstreamTable(Upstream("u", BaseUrl.parse("http://u.test/base/v1"), None, 1, 1, 1), {}, [])
PIECES = ["/", "//", "..", ".", "%2e", "%2E", "%2f", "%2F", "%5c", "%252e", "%252f", "%25", ";", ";a", "a", "v1", "?"]


def with_slashes(path: str) -> str:
    return path.replace("\\", "/")


def without_parameters(path: str) -> str:
    return "/".join(segment.partition(";")[0] for segment in path.split("/"))


STEPS: tuple[Callable[[str], str], ...] = (unquote, with_slashes, without_parameters, str)
# In any order, as often as a chain of servers does; decoded twice at most.
ORDERS = [steps for steps in product(STEPS, repeat=5) if steps.count(unquote) <= 2]


def taken(path: str, steps: Iterable[Callable[[str], str]]) -> str:
    for step in steps:
        path = step(path)
    return path


def readings(path: str) -> Iterator[str]:
    """What servers make of a path before they look for what lies there."""
    for reading in {taken(path, steps) for steps in ORDERS}:
        yield posixpath.normpath(reading)
        joined = urljoin("http://u.test/", reading.replace("?", "x").replace(";", "x"))
        yield joined.removeprefix("http://u.test")


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example("..")
@example("a%2f..%2f../..")
@example("a//../..")
@example(";%5c..../..%2f")
@example(";%2fa%2fb/%2e%2e/..")
def test_no_reading_of_a_path_that_is_passed_on_leaves_the_base(rest: str) -> None:
    mount, _ = split_target("/v1/" + rest)
    destination = TABLE.find(mount, read_request_fields([]))
    if destination is not None:
        for reading in readings(destination.path):
            assert (reading + "/").startswith("/base/v1/"), (destination.path, reading)
