"""Every route and the calls, by every kind of key, in every place where a key may stand. Contract section 8.

The routes are those of the running server; one for which there is no sample request here fails the test.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from yarl import URL

from proxy.config import ALL_SCOPES
from proxy.dialects import Dialect
from tests.conftest import Running, StartKibitz
from tests.described import check_answer
from tests.feedback import NO_BODY
from tests.logs import custom, portkey
from tests.test_keys import key
from tests.upstream import Upstream

ACME, BETA = "kbz_acme-everything", "kbz_beta-everything"
OF_SCOPE: Final = {scope: f"kbz_acme-{scope}" for scope in ALL_SCOPES}
PROVIDERS: Final = "sk-of-the-provider"
CHAT: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
IDS: Final = {"Helicone-Request-Id": "r", "Helicone-Session-Id": "s", "x-portkey-trace-id": "t"}

PLACES: Final[dict[str, Callable[[str], dict[str, str]]]] = {
    "Helicone-Auth": lambda secret: {"Helicone-Auth": f"Bearer {secret}"},
    "x-portkey-api-key": lambda secret: {"x-portkey-api-key": secret},
    "Authorization": lambda secret: {"Authorization": f"Bearer {secret}"},
    "x-api-key": lambda secret: {"x-api-key": secret},  # Anthropic's SDK
    "api-key": lambda secret: {"api-key": secret},  # Azure's
    "Authorization, joined": lambda secret: {"Authorization": f"Bearer {PROVIDERS}, Bearer {secret}"},
    "beside the provider's": lambda secret: {"Authorization": f"Bearer {PROVIDERS}", "Helicone-Auth": secret},
}
STRANGERS: Final = {
    "none": {},
    "the provider's": {"Authorization": f"Bearer {PROVIDERS}"},
    **{f"empty, {place}": fields("") for place, fields in PLACES.items()},
    **{f"wrong, {place}": fields("kbz_acme-everythinG") for place, fields in PLACES.items()},
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A request that is right for its route; `{value}` and `{dataset}` are ids of acme's.

    `foreign` is the status for a key of another organisation: 200 where there is nothing to find.
    """

    target: str
    body: Any = NO_BODY
    foreign: int = 404


GRAPHS: Final = "/v1/analytics/graphs/feedbacks"
SPAN: Final = "?time_of_generation_min=2026-01-01&time_of_generation_max=2026-02-01"
DATASET: Final = "/v1/helicone-dataset/{dataset}"
NEW_DATASET: Final = {"datasetName": "n", "requestIds": ["r"]}
SAMPLES: Final = {
    ("POST", "/v1/request/{id}/feedback"): Sample("/v1/request/r/feedback", {"rating": True}),
    ("POST", "/v1/session/{id}/feedback"): Sample("/v1/session/s/feedback", {"rating": True}),
    ("POST", "/v1/request/{id}/score"): Sample("/v1/request/r/score", {"scores": {"a": 1}}),
    ("PUT", "/v1/request/{id}/property"): Sample("/v1/request/r/property", {"key": "k", "value": "v"}),
    ("POST", "/v1/feedback"): Sample("/v1/feedback", {"trace_id": "t", "value": 1}, foreign=200),
    ("GET", "/v1/feedback"): Sample("/v1/feedback?trace_id=t", foreign=200),
    ("PUT", "/v1/feedback/{id}"): Sample("/v1/feedback/{value}", {"value": 2}),
    ("POST", "/v1/feedback/{id}"): Sample("/v1/feedback/{value}", {"value": 2}),
    ("DELETE", "/v1/feedback/{id}"): Sample("/v1/feedback/{value}"),
    ("POST", "/v1/logs"): Sample("/v1/logs", portkey(), foreign=200),
    ("POST", "/custom/v1/log"): Sample("/custom/v1/log", custom(), foreign=200),
    ("GET", "/v1/request/{id}"): Sample("/v1/request/r"),
    ("POST", "/v1/helicone-dataset"): Sample("/v1/helicone-dataset", NEW_DATASET),
    ("POST", "/v1/helicone-dataset/query"): Sample("/v1/helicone-dataset/query", {}, foreign=200),
    ("POST", "/v1/helicone-dataset/{id}/mutate"): Sample(f"{DATASET}/mutate", {"addRequests": ["r"]}),
    ("POST", "/v1/helicone-dataset/{id}/query"): Sample(f"{DATASET}/query", {}),
    ("POST", "/v1/helicone-dataset/{id}/count"): Sample(f"{DATASET}/count"),
    ("POST", "/v1/helicone-dataset/{id}/request/{requestId}"): Sample(f"{DATASET}/request/r", {"requestBody": 1}),
    ("POST", "/v1/helicone-dataset/{id}/delete"): Sample(f"{DATASET}/delete"),
    ("GET", "/v1/export"): Sample("/v1/export", foreign=200),
    ("POST", "/v1/feedback/summary"): Sample("/v1/feedback/summary", {"by": ["model"]}, foreign=200),
    ("POST", "/v1/session/{id}/tag"): Sample("/v1/session/s/tag", {"tag": "t"}),
    ("GET", "/v1/session/{id}/tag"): Sample("/v1/session/s/tag", foreign=200),
    ("GET", "/v1/session/has-session"): Sample("/v1/session/has-session", foreign=200),
    ("POST", "/v1/session/query"): Sample("/v1/session/query", {}, foreign=200),
    ("POST", "/v1/session/name/query"): Sample("/v1/session/name/query", {}, foreign=200),
    ("POST", "/v1/session/metrics/query"): Sample("/v1/session/metrics/query", {}, foreign=200),
    ("POST", "/v1/user/query"): Sample("/v1/user/query", {}, foreign=200),
    ("POST", "/v1/user/metrics/query"): Sample("/v1/user/metrics/query", {"filter": "all"}, foreign=200),
    ("POST", "/v1/user/metrics-overview/query"): Sample(
        "/v1/user/metrics-overview/query", {"filter": "all"}, foreign=200
    ),
    ("POST", "/v1/property/query"): Sample("/v1/property/query", {}, foreign=200),
    ("POST", "/v1/property/{key}/search"): Sample("/v1/property/k/search", {"searchTerm": ""}, foreign=200),
    ("POST", "/v1/property/{key}/top-costs/query"): Sample("/v1/property/k/top-costs/query", {}, foreign=200),
    ("POST", "/v1/property/{key}/top-requests/query"): Sample("/v1/property/k/top-requests/query", {}, foreign=200),
    ("GET", "/v1/analytics/graphs/feedbacks"): Sample(f"{GRAPHS}{SPAN}", foreign=200),
    ("GET", "/v1/analytics/graphs/feedbacks/scores"): Sample(
        "/v1/analytics/graphs/feedbacks/scores" + SPAN, foreign=200
    ),
    ("GET", "/v1/analytics/graphs/feedbacks/weighted"): Sample(
        "/v1/analytics/graphs/feedbacks/weighted" + SPAN, foreign=200
    ),
    ("GET", "/v1/analytics/graphs/feedbacks/ai-models"): Sample(
        "/v1/analytics/graphs/feedbacks/ai-models" + SPAN, foreign=200
    ),
    ("GET", "/v1/analytics/groups/metadata/{key}"): Sample("/v1/analytics/groups/metadata/k" + SPAN, foreign=200),
    ("POST", "/v1/request/query"): Sample("/v1/request/query", {"filter": "all"}, foreign=200),
    ("POST", "/v1/request/query-clickhouse"): Sample("/v1/request/query-clickhouse", {"filter": "all"}, foreign=200),
    ("POST", "/v1/request/count/query"): Sample("/v1/request/count/query", {"filter": "all"}, foreign=200),
    ("POST", "/v1/request/query-ids"): Sample("/v1/request/query-ids", {"requestIds": ["r"]}, foreign=200),
    ("GET", "/healthz"): Sample("/healthz", foreign=200),
    ("GET", "/readyz"): Sample("/readyz", foreign=200),
    ("GET", "/metrics"): Sample("/metrics", foreign=200),
    ("GET", "/openapi.json"): Sample("/openapi.json", foreign=200),
}
CALLS: Final = [
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1", CHAT),
    ("GET", "/v1/models", NO_BODY),
    ("POST", "/groq/chat/completions", CHAT),
    ("DELETE", "/groq", NO_BODY),
    ("GET", "/v1/request", NO_BODY),  # next to a route, but none
]
NOWHERE: Final = ["/", "/nobody", "/openapi", "/v2/request/r", "/custom/v1", "/dashboard/x", "/metrics/x"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the matrix, and of which route it is, if it is of one."""

    method: str
    target: str
    body: Any
    dialect: Dialect = Dialect.OPENAI
    scope: str | None = "proxy"
    foreign: int = 200


@dataclass(frozen=True, slots=True)
class Matrix:
    """A Kibitz with keys, a call of acme's, a value on it and a dataset of it; asks, and notes what is wrong."""

    kibitz: Running
    upstream: Upstream
    database: Path
    value: str
    dataset: str
    faults: list[str]

    def requests(self) -> list[Request]:
        """What is asked of each route and of some paths of calls."""
        found = [Request(method, target, body) for method, target, body in CALLS]
        for route in self.kibitz.kibitz.router.routes:
            sample = SAMPLES[route.method, route.path]
            one = Request(route.method, sample.target, sample.body, route.dialect, route.scope, sample.foreign)
            path, mark, query = sample.target.partition("?")
            found.append(one)
            found.append(Request(one.method, f"{path}/{mark}{query}", one.body, one.dialect, one.scope, one.foreign))
        return found

    async def ask(self, request: Request, fields: dict[str, str], *, value: str | None = None) -> tuple[int, Any]:
        """The status, and the body as parsed or as text."""
        target = request.target.replace("{value}", value or self.value).replace("{dataset}", value or self.dataset)
        url = URL(self.kibitz.url + target, encoded=True)
        data = request.body if isinstance(request.body, bytes) else orjson.dumps(request.body)
        async with self.kibitz.client.request(request.method, url, data=data, headers=fields) as response:
            content = await response.read()
            is_json = response.content_type == "application/json"
            body = orjson.loads(content) if is_json and content else content.decode()
            router = self.kibitz.kibitz.router
            if request.method != "HEAD":
                check_answer(router, request.method, target, response.status, response.content_type, body)
            return response.status, body

    def expect(self, what: str, request: Request, actual: Any, expected: Any) -> None:
        if actual != expected:
            self.faults.append(f"{request.method} {request.target}, {what}: {actual} instead of {expected}")

    def stored(self) -> list[Any]:
        """Every row of every table."""
        with closing(sqlite3.connect(self.database)) as database:
            tables = [
                name
                for (name,) in database.execute(
                    "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow')"
                )
            ]
            return [sorted(map(repr, database.execute(f'SELECT * FROM "{table}"'))) for table in sorted(tables)]


def refusal(dialect: Dialect, status: int, body: Any) -> Any:
    """What a refusal with a status is to be, with the message that it has."""
    code = {401: "invalid_api_key", 403: "insufficient_scope"}[status]
    if dialect is Dialect.PORTKEY:
        message = body["message"]
        return {"status": "failure", "message": message, "error": {"message": message, "code": code}}
    if dialect is Dialect.HELICONE:
        more = {"trace": "isAuthenticated.error"} if status == 401 else {}
        return {"data": None, "error": body["error"], **more}
    kind = {401: "authentication_error", 403: "permission_error"}[status]
    return {"error": {"message": body["error"]["message"], "type": kind, "param": None, "code": code}}


async def prepared(kibitz: Running, upstream: Upstream, database: Path, fields: dict[str, str]) -> Matrix:
    async with kibitz.client.post(f"{kibitz.base_url}/chat/completions", json=CHAT, headers={**IDS, **fields}) as made:
        assert made.status == 200
        await made.read()
    matrix = Matrix(kibitz, upstream, database, "", "", [])
    value, dataset = await new_value(matrix, fields), await new_dataset(matrix, fields)
    return Matrix(kibitz, upstream, database, value, dataset, [])


async def new_value(matrix: Matrix, fields: dict[str, str]) -> str:
    status, body = await matrix.ask(Request("POST", "/v1/feedback", {"trace_id": "t", "value": 1}), fields)
    assert status == 200, body
    return str(body["feedback_ids"][0])


async def new_dataset(matrix: Matrix, fields: dict[str, str]) -> str:
    status, body = await matrix.ask(Request("POST", "/v1/helicone-dataset", NEW_DATASET), fields)
    assert status == 200, body
    return str(body["data"]["datasetId"])


async def new_id(matrix: Matrix, request: Request, fields: dict[str, str]) -> str | None:
    """The id of something new, for a request that needs one, and may remove it."""
    if "{value}" in request.target:
        return await new_value(matrix, fields)
    return await new_dataset(matrix, fields) if "{dataset}" in request.target else None


@pytest.fixture
async def matrix(start_kibitz: StartKibitz, upstream: Upstream, tmp_path: Path) -> Matrix:
    of_scopes = [key(secret, "acme", [scope]) for scope, secret in OF_SCOPE.items()]
    kibitz = await start_kibitz(
        keys=[key(ACME, "acme", ALL_SCOPES), key(BETA, "beta", ALL_SCOPES), *of_scopes],
        upstreams={"groq": {"base_url": f"{upstream.origin}/openai/v1"}},
    )
    made = await prepared(kibitz, upstream, tmp_path / "kibitz.db", PLACES["Helicone-Auth"](ACME))
    upstream.received.clear()
    return made


async def test_every_route_has_its_sample_request_here(kibitz: Running) -> None:
    assert set(SAMPLES) == {(route.method, route.path) for route in kibitz.kibitz.router.routes}


async def test_without_a_valid_key_nothing_is_answered_and_nothing_happens(matrix: Matrix) -> None:
    before = matrix.stored()
    for request in matrix.requests():
        for what, fields in STRANGERS.items():
            status, body = await matrix.ask(request, fields)
            if request.scope is None:
                matrix.expect(what, request, status, 200)
            else:
                matrix.expect(what, request, (status, body), (401, refusal(request.dialect, 401, body)))
    assert matrix.faults == []
    assert matrix.stored() == before
    assert matrix.upstream.received == []


async def test_a_key_without_the_scope_is_refused_and_nothing_happens(matrix: Matrix) -> None:
    before = matrix.stored()
    for request in matrix.requests():
        for scope, secret in OF_SCOPE.items():
            for place, fields in PLACES.items():
                if request.scope not in (None, scope):
                    status, body = await matrix.ask(request, fields(secret))
                    expected = (403, refusal(request.dialect, 403, body))
                    matrix.expect(f"{scope}, {place}", request, (status, body), expected)
    assert matrix.faults == []
    assert matrix.stored() == before
    assert matrix.upstream.received == []


async def test_a_key_of_another_organisation_finds_and_changes_nothing_of_the_first(matrix: Matrix) -> None:
    seen = [Request("GET", "/v1/request/r?includeBody=true", NO_BODY), Request("GET", "/v1/feedback?trace_id=t", b"")]
    before = [await matrix.ask(one, PLACES["Helicone-Auth"](ACME)) for one in seen]
    for request in matrix.requests():
        for place, fields in PLACES.items():
            status, body = await matrix.ask(request, fields(BETA))
            matrix.expect(place, request, status, request.foreign)
            if "acme" in orjson.dumps(body).decode():
                matrix.faults.append(f"{request.target} tells of acme: {body}")
    assert matrix.faults == []
    assert [await matrix.ask(one, PLACES["Helicone-Auth"](ACME)) for one in seen] == before


async def test_a_key_with_just_the_scope_does_what_the_route_is_for(matrix: Matrix) -> None:
    for request in matrix.requests():
        for place, fields in PLACES.items():
            value = await new_id(matrix, request, fields(ACME))
            secret = OF_SCOPE[request.scope] if request.scope else ACME  # type: ignore[index]
            status, _ = await matrix.ask(request, fields(secret), value=value)
            matrix.expect(place, request, status, 200)
    assert matrix.faults == []
    assert len(matrix.upstream.received) == len(CALLS) * len(PLACES)
    sent = [value for received in matrix.upstream.received for _, value in received.fields]
    assert not any(b"kbz_" in value for value in sent)


async def test_head_is_told_what_get_is(matrix: Matrix) -> None:
    cases = {**STRANGERS, "acme": PLACES["Helicone-Auth"](ACME), "proxy": PLACES["Helicone-Auth"](OF_SCOPE["proxy"])}
    for request in (one for one in matrix.requests() if one.method == "GET"):
        for what, fields in cases.items():
            status, _ = await matrix.ask(request, fields)
            head = Request("HEAD", request.target, request.body)
            if request.scope != "proxy":  # the scripted upstream would answer HEAD with a body
                matrix.expect(what, head, await matrix.ask(head, fields), (status, ""))
    assert matrix.faults == []


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
async def test_a_path_that_leads_nowhere_tells_a_stranger_only_that_a_key_is_needed(
    matrix: Matrix, method: str
) -> None:
    for target in NOWHERE:
        request = Request(method, target, NO_BODY)
        for what, fields in STRANGERS.items():
            status, body = await matrix.ask(request, fields)
            expected = "" if method == "HEAD" else refusal(Dialect.OPENAI, 401, body)
            matrix.expect(what, request, (status, body), (401, expected))
        status, body = await matrix.ask(request, PLACES["Authorization"](ACME))
        assert (status, body and body["error"]["code"]) == (404, "" if method == "HEAD" else "unknown_route")
    assert matrix.faults == []


async def test_a_method_that_a_path_does_not_have_is_told_alike_whether_or_not_there_is_such_a_thing(
    matrix: Matrix,
) -> None:
    for known, unknown in (
        ("/v1/request/r", "/v1/request/nobody"),
        ("/v1/session/s/feedback", "/v1/session/x/feedback"),
    ):
        answers = [await matrix.ask(Request("PATCH", target, NO_BODY), {}) for target in (known, unknown)]
        assert answers[0] == answers[1]
        assert answers[0][0] == 405


@pytest.mark.parametrize("fields", [{}, *(place("kbz_whatever") for place in PLACES.values())])
async def test_without_configured_keys_everything_is_open(
    kibitz: Running, upstream: Upstream, tmp_path: Path, fields: dict[str, str]
) -> None:
    matrix = await prepared(kibitz, upstream, tmp_path / "kibitz.db", fields)
    for request in matrix.requests():
        if not request.target.startswith("/groq"):
            value = await new_id(matrix, request, fields)
            status, _ = await matrix.ask(request, fields, value=value)
            matrix.expect("open", request, status, 200)
    assert matrix.faults == []
