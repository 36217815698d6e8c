"""Keys in their simple form (contract section 8): who is let in, how others are told, and what stays apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import pytest

from tests.conftest import Running, StartKibitz
from tests.feedback import NO_BODY, SAVED, Reply, ask, failure_message
from tests.upstream import Upstream

ACME: Final = "kbz_acme-secret"
BETA: Final = "kbz_beta-secret"
CHAT: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}

GOOD_FIELDS: Final = [
    pytest.param({"Helicone_Auth": f"Bearer {ACME}"}, id="Helicone-Auth"),
    pytest.param({"x_portkey_api_key": ACME}, id="x-portkey-api-key"),
    pytest.param({"Authorization": f"Bearer {ACME}"}, id="Authorization"),
    pytest.param({"Authorization": f"bearer {ACME}"}, id="Authorization in lower case"),
    pytest.param({"Authorization": f"Bearer sk-provider, Bearer {ACME}"}, id="joined, last"),
    pytest.param({"Authorization": f"Bearer {ACME},Bearer sk-provider"}, id="joined, first"),
    pytest.param(
        {"Authorization": "Bearer sk-provider", "Helicone_Auth": f"Bearer {ACME}"}, id="beside the provider's"
    ),
    pytest.param({"Authorization": f"Bearer {ACME}", "x_portkey_api_key": ""}, id="beside an empty field"),
]
BAD_FIELDS: Final = [
    pytest.param({}, id="none"),
    pytest.param({"Authorization": "Bearer sk-provider"}, id="the provider's"),
    pytest.param({"Authorization": f"Bearer {ACME}x"}, id="a longer one"),
    pytest.param({"x_portkey_api_key": ACME[:-1]}, id="a shorter one"),
    pytest.param({"Helicone_Auth": f"Bearer {ACME.upper()}"}, id="another case"),
    pytest.param({"Authorization": f"Bearer {hashlib.sha256(ACME.encode()).hexdigest()}"}, id="its digest"),
]
HELICONE_ROUTES: Final = [
    ("POST", "/request/r/feedback", {"rating": True}),
    ("POST", "/session/s/feedback", {"rating": True}),
    ("POST", "/request/r/score", {"scores": {"a": 1}}),
    ("PUT", "/request/r/property", {"key": "k", "value": "v"}),
    ("GET", "/request/r", NO_BODY),
]
PORTKEY_ROUTES: Final = [
    ("POST", "/feedback", {"trace_id": "t", "value": 1}),
    ("POST", "/feedback", {"helicone-id": "r", "rating": True}),
    ("PUT", "/feedback/some-id", {"value": 1}),
    ("POST", "/feedback/some-id", {"value": 1}),
    ("DELETE", "/feedback/some-id", NO_BODY),
    ("GET", "/feedback?trace_id=t", NO_BODY),
]


def key(secret: str, organisation: str, scopes: Sequence[str] | None = None) -> dict[str, Any]:
    named = {"name": f"{organisation}'s", "organisation": organisation}
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return {**named, "sha256": digest, **({"scopes": scopes} if scopes else {})}


@pytest.fixture
async def keyed(start_kibitz: StartKibitz) -> Running:
    """A Kibitz with a key for each of two organisations."""
    return await start_kibitz(keys=[key(ACME, "acme"), key(BETA, "beta")])


async def as_one(kibitz: Running, secret: str, method: str, path: str, body: Any = NO_BODY, **fields: str) -> Reply:
    """Ask with a key."""
    return await ask(kibitz, method, path, body, Helicone_Auth=f"Bearer {secret}", **fields)


async def call(kibitz: Running, secret: str, **fields: str) -> None:
    """A call of request `r`, session `s` and trace `t`."""
    ids = {"Helicone_Request_Id": "r", "Helicone_Session_Id": "s", "x_portkey_trace_id": "t"}
    assert (await as_one(kibitz, secret, "POST", "/chat/completions", CHAT, **ids, **fields)).status == 200


async def shown(kibitz: Running, secret: str, path: str) -> Any:
    reply = await as_one(kibitz, secret, "GET", path)
    assert reply.status == 200, reply
    return reply.body["data"]


@pytest.mark.parametrize("fields", GOOD_FIELDS)
async def test_a_key_lets_in_wherever_the_clients_put_it(keyed: Running, fields: dict[str, str]) -> None:
    ids = {"Helicone_Request_Id": "r", "Helicone_Session_Id": "s"}
    called = await ask(keyed, "POST", "/chat/completions", CHAT, **ids, **fields)
    rated = await ask(keyed, "POST", "/request/r/feedback", {"rating": True}, **fields)
    valued = await ask(keyed, "POST", "/feedback", {"trace_id": "t", "value": 1}, **fields)
    read = await ask(keyed, "GET", "/request/r", **fields)
    assert [reply.status for reply in (called, rated, valued, read)] == [200] * 4
    assert read.body["data"]["organization_id"] == "acme"
    assert read.body["data"]["feedback"]["rating"] is True


@pytest.mark.parametrize("fields", BAD_FIELDS)
async def test_without_one_a_call_is_401_in_openais_shape(
    keyed: Running, upstream: Upstream, fields: dict[str, str]
) -> None:
    reply = await ask(keyed, "POST", "/chat/completions", CHAT, Helicone_Request_Id="r", **fields)
    error = reply.body["error"]
    assert (reply.status, reply.body) == (401, {"error": error})
    assert error == {**error, "param": None, "code": "invalid_api_key"}
    assert set(error) == {"message", "type", "param", "code"}
    assert upstream.received == []
    assert (await as_one(keyed, ACME, "GET", "/request/r")).status == 404


@pytest.mark.parametrize("fields", BAD_FIELDS[:3])
async def test_without_one_helicones_routes_are_401_in_helicones_shape(keyed: Running, fields: dict[str, str]) -> None:
    await call(keyed, ACME)
    for method, path, body in HELICONE_ROUTES:
        reply = await ask(keyed, method, path, body, **fields)
        error = reply.body["error"]
        assert (reply.status, reply.body) == (401, {"data": None, "error": error, "trace": "isAuthenticated.error"})
        assert isinstance(error, str)
    row = await shown(keyed, ACME, "/request/r")
    assert (row["feedback"]["items"], row["scores"], row["properties"]) == ([], {}, {})


@pytest.mark.parametrize("fields", BAD_FIELDS[:3])
async def test_without_one_portkeys_routes_are_401_in_portkeys_shape(keyed: Running, fields: dict[str, str]) -> None:
    for method, path, body in PORTKEY_ROUTES:
        failure_message(await ask(keyed, method, path, body, **fields), 401)
    assert await shown(keyed, ACME, "/feedback?trace_id=t") == []


async def test_who_may_not_is_told_so_before_what_is_wrong_with_the_body(keyed: Running) -> None:
    paths = ("/request/nobody/feedback", "/session/nobody/feedback", "/feedback")
    assert [(await ask(keyed, "POST", path, b"{")).status for path in paths] == [401] * 3


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_open_to_everybody(keyed: Running, path: str) -> None:
    async with keyed.client.get(keyed.url + path) as response:
        assert response.status == 200


async def test_with_no_key_configured_everything_is_open(kibitz: Running) -> None:
    await call(kibitz, "any")
    for method, path, body in (*HELICONE_ROUTES, *PORTKEY_ROUTES[:2]):
        assert (await ask(kibitz, method, path, body)).status == 200


@pytest.mark.parametrize(("method", "path", "body"), HELICONE_ROUTES)
async def test_helicones_routes_do_not_find_another_organisations_rows(
    keyed: Running, method: str, path: str, body: Any
) -> None:
    await call(keyed, ACME)
    reply = await as_one(keyed, BETA, method, path, body)
    error = "No request found" if "session" in path else "Request not found"
    assert (reply.status, reply.body) == (404, {"data": None, "error": error})
    row = await shown(keyed, ACME, "/request/r")
    assert (row["feedback"]["items"], row["scores"], row["properties"]) == ([], {}, {})


@pytest.mark.parametrize("text", ["r", "chatcmpl-1"], ids=["request id", "response id"])
async def test_ids_do_not_reach_across_organisations(keyed: Running, text: str) -> None:
    await call(keyed, ACME)
    rated = [
        await as_one(keyed, BETA, "POST", f"/request/{text}/feedback", {"rating": True}),
        await as_one(keyed, BETA, "POST", "/feedback", {"helicone-id": text, "rating": True}),
        await as_one(keyed, BETA, "GET", f"/request/{text}"),
    ]
    assert [reply.status for reply in rated] == [404] * 3
    assert (await as_one(keyed, BETA, "POST", "/feedback", {"trace_id": text, "value": 1})).status == 200
    assert (await shown(keyed, ACME, "/request/r"))["feedback"]["items"] == []


async def test_the_same_ids_are_other_calls_in_another_organisation(keyed: Running) -> None:
    for secret in (ACME, BETA):
        await call(keyed, secret)
        reply = await as_one(keyed, secret, "POST", "/session/s/feedback", {"rating": secret == ACME})
        assert (reply.status, reply.body) == (200, SAVED)
        await as_one(keyed, secret, "POST", "/request/r/feedback", {"rating": secret == ACME})
        await as_one(keyed, secret, "POST", "/request/r/score", {"scores": {"mine": len(secret)}})
        await as_one(keyed, secret, "POST", "/feedback", {"trace_id": "t", "value": 5 if secret == ACME else -5})
    for secret, rating, value, mark in ((ACME, True, 5, "1"), (BETA, False, -5, "0")):
        row = await shown(keyed, secret, "/request/r")
        assert (row["attempt"], row["feedback"]["rating"], row["feedback"]["count"]) == (1, rating, 2)
        assert row["properties"] == {"Helicone-Session-Feedback": mark}
        assert row["scores"] == {"mine": len(secret), "helicone-score-feedback": int(rating)}
        assert [item["value"] for item in await shown(keyed, secret, "/feedback?trace_id=t")] == [value]
        assert [item["value"] for item in await shown(keyed, secret, "/feedback?request_id=r")] == [int(rating)]
        assert [item["value"] for item in await shown(keyed, secret, "/feedback?session_id=s")] == [int(rating)]


async def test_a_value_can_not_be_changed_or_deleted_from_another_organisation(keyed: Running) -> None:
    created = await as_one(keyed, ACME, "POST", "/feedback", {"trace_id": "t", "value": 5})
    (feedback_id,) = created.body["feedback_ids"]
    for method, path in (("PUT", feedback_id), ("POST", feedback_id), ("DELETE", feedback_id), ("PUT", "undefined")):
        body = {"value": -5, "feedback_id": feedback_id}
        failure_message(await as_one(keyed, BETA, method, f"/feedback/{path}", body), 404)
    assert [item["value"] for item in await shown(keyed, ACME, "/feedback?trace_id=t")] == [5]


async def test_lists_do_not_show_another_organisations_feedback(keyed: Running) -> None:
    await call(keyed, ACME)
    await as_one(keyed, ACME, "POST", "/request/r/feedback", {"rating": True})
    await as_one(keyed, ACME, "POST", "/session/s/feedback", {"rating": True})
    for trace_id in ("t", "unseen"):
        await as_one(keyed, ACME, "POST", "/feedback", {"trace_id": trace_id, "value": 5})
    queries = ("trace_id=t", "request_id=r", "session_id=s", "unmatched=true")
    totals = {
        secret: [len(await shown(keyed, secret, f"/feedback?{query}")) for query in queries] for secret in (ACME, BETA)
    }
    assert totals == {ACME: [1, 1, 1, 1], BETA: [0, 0, 0, 0]}


async def test_a_value_that_waits_does_not_join_another_organisations_call(keyed: Running) -> None:
    for trace_id in ("t", "r", "chatcmpl-1"):
        await as_one(keyed, BETA, "POST", "/feedback", {"trace_id": trace_id, "value": 5})
    await call(keyed, ACME)
    assert (await shown(keyed, ACME, "/request/r"))["feedback"]["items"] == []
    await call(keyed, BETA)
    assert len((await shown(keyed, BETA, "/request/r"))["feedback"]["items"]) == 3


@pytest.mark.parametrize("scope", ["proxy", "feedback", "read"])
async def test_a_key_does_what_its_scopes_say_and_no_more(start_kibitz: StartKibitz, scope: str) -> None:
    kibitz = await start_kibitz(keys=[key(ACME, "acme"), key(BETA, "acme", [scope])])
    await call(kibitz, ACME)
    replies = {
        "proxy": [await as_one(kibitz, BETA, "POST", "/chat/completions", CHAT)],
        "feedback": [
            await as_one(kibitz, BETA, "POST", "/request/r/feedback", {"rating": True}),
            await as_one(kibitz, BETA, "POST", "/feedback", {"trace_id": "t", "value": 1}),
        ],
        "read": [
            await as_one(kibitz, BETA, "GET", "/request/r"),
            await as_one(kibitz, BETA, "GET", "/feedback?trace_id=t"),
        ],
    }
    allowed = {name for name, answers in replies.items() if {reply.status for reply in answers} == {200}}
    refused = {name for name, answers in replies.items() if {reply.status for reply in answers} == {403}}
    assert (allowed, refused) == ({scope}, set(replies) - {scope})
    if scope != "feedback":
        told = replies["feedback"][0].body
        assert told == {"data": None, "error": told["error"]}
        failure_message(replies["feedback"][1], 403)
