"""What users of the two services have in their code already, and what real providers answered, through Kibitz."""

from __future__ import annotations

import asyncio
import hashlib
import io
import runpy
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import openai
import pytest
import requests
from aiohttp import web

from tests.conftest import Running, StartKibitz
from tests.upstream import Upstream

HELICONE_API_KEY: Final = "sk-helicone-abcdefg-hijklmn-opqrstu-vwxyzab"
PORTKEY_API_KEY: Final = "pk-live-0123456789"
QUESTION: Final[dict[str, Any]] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Explain tides"}]}


@pytest.fixture
async def address(start_kibitz: StartKibitz) -> str:
    """The address of a Kibitz that asks for the keys that the users have."""
    keys = [
        {"name": key[:2], "organisation": "acme", "sha256": hashlib.sha256(key.encode()).hexdigest()}
        for key in (HELICONE_API_KEY, PORTKEY_API_KEY)
    ]
    return (await start_kibitz(keys=keys)).url


@dataclass(frozen=True, slots=True)
class HeliconeUser:
    """Code as the documents of Helicone show it, but for the address."""

    address: str

    def chat(self, **headers: str) -> Any:
        """The raw response of a chat call."""
        with openai.OpenAI(
            api_key="sk-of-the-provider",
            base_url=f"{self.address}/v1",
            default_headers={"Helicone-Auth": f"Bearer {HELICONE_API_KEY}"},
        ) as client:
            fields = {name.replace("_", "-"): text for name, text in headers.items()}
            return client.chat.completions.with_raw_response.create(**QUESTION, extra_headers=fields)

    def post(self, path: str, body: Any) -> requests.Response:
        return requests.post(
            f"{self.address}/v1/{path}",
            headers={"Authorization": f"Bearer {HELICONE_API_KEY}", "Content-Type": "application/json"},
            json=body,
            timeout=10,
        )

    def rate(self, request_id: str, rating: Any) -> requests.Response:
        return self.post(f"request/{request_id}/feedback", {"rating": rating})

    def row(self, request_id: str) -> dict[str, Any]:
        fields = {"Authorization": f"Bearer {HELICONE_API_KEY}"}
        answer = requests.get(f"{self.address}/v1/request/{request_id}", headers=fields, timeout=10)
        assert answer.status_code == 200, answer.text
        row: dict[str, Any] = answer.json()["data"]
        return row


def without_case(properties: dict[str, str]) -> dict[str, str]:
    """Properties by their names in lower case, which is how the SDK's HTTP client sends them."""
    return {name.lower(): value for name, value in properties.items()}


async def test_a_custom_request_id_is_rated(address: str, upstream: Upstream) -> None:
    user, custom_id = HeliconeUser(address), str(uuid.uuid4())

    def run() -> None:
        user.chat(Helicone_Request_Id=custom_id)
        answer = user.rate(custom_id, True)
        assert answer.ok
        assert answer.json() == {"data": None, "error": None}
        assert user.row(custom_id)["scores"] == {"helicone-score-feedback": 1}

    await asyncio.to_thread(run)
    assert upstream.received[0].values("Authorization") == [b"Bearer sk-of-the-provider"]


async def test_the_id_of_the_response_headers_is_rated(address: str) -> None:
    user = HeliconeUser(address)

    def run() -> None:
        properties = {"Helicone_Property_Feature": "code-generation", "Helicone_Property_Language": "python"}
        helicone_id = user.chat(**properties).headers["helicone-id"]
        assert user.rate(helicone_id, False).ok
        row = user.row(helicone_id)
        assert row["scores"] == {"helicone-score-feedback": 0}
        assert without_case(row["properties"]) == {"feature": "code-generation", "language": "python"}

    await asyncio.to_thread(run)


async def test_a_chat_handler_rates_by_the_response_id_that_its_front_end_holds(address: str) -> None:
    user, request_ids = HeliconeUser(address), {}

    def handle_chat_message(user_id: str) -> str:
        request_id = str(uuid.uuid4())
        fields = {"Helicone_Request_Id": request_id, "Helicone_User_Id": user_id, "Helicone_Property_Feature": "chat"}
        response_id: str = user.chat(**fields).parse().id
        request_ids[user_id, response_id] = request_id
        return response_id

    def run() -> None:
        response_id = handle_chat_message("ada")
        assert user.rate(request_ids["ada", response_id], True).ok
        row = user.row(response_id)
        assert (row["request_user_id"], without_case(row["properties"])) == ("ada", {"feature": "chat"})
        assert row["feedback"]["rating"] is True

    await asyncio.to_thread(run)


async def test_a_support_tickets_id_is_logged_and_rated(address: str) -> None:
    user, request_id = HeliconeUser(address), "ticket-42-1700000000"

    def run() -> None:
        user.chat(Helicone_Request_Id=request_id, Helicone_Property_Type="support", Helicone_Property_TicketId="42")
        assert user.rate(request_id, True).ok
        row = user.row(request_id)
        assert row["request_id"] == request_id
        assert without_case(row["properties"]) == {"ticketid": "42", "type": "support"}

    await asyncio.to_thread(run)


async def test_ratings_sent_in_parallel_fail_one_by_one(address: str) -> None:
    user, ratings = HeliconeUser(address), {"a": True, "b": False, "never-seen": True, "c": True}

    def run() -> None:
        for request_id in ratings:
            if request_id != "never-seen":
                user.chat(Helicone_Request_Id=request_id)
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(user.rate, ratings, ratings.values()))
        assert [answer.ok for answer in answers] == [True, True, False, True]
        assert [user.row(request_id)["feedback"]["rating"] for request_id in "abc"] == [True, False, True]

    await asyncio.to_thread(run)


async def test_an_implicit_rating_that_came_out_undefined_is_told(address: str) -> None:
    """JSON drops what is undefined, so the body is an empty object."""
    user = HeliconeUser(address)

    def run() -> None:
        user.chat(Helicone_Request_Id="r")
        answer = user.post("request/r/feedback", {})
        assert answer.status_code == 422
        assert "requestBody.rating" in answer.json()["details"]
        assert user.row("r")["feedback"]["count"] == 0

    await asyncio.to_thread(run)


async def test_a_rating_and_a_rounded_score_stand_side_by_side(address: str) -> None:
    user = HeliconeUser(address)

    def run() -> None:
        user.chat(Helicone_Request_Id="r")
        assert user.rate("r", True).ok
        assert user.post("request/r/score", {"scores": {"click_through_rate": round(2 / 3 * 100)}}).ok
        assert user.row("r")["scores"] == {"helicone-score-feedback": 1, "click_through_rate": 67}

    await asyncio.to_thread(run)


async def test_a_session_is_rated_and_its_first_request_marked(address: str) -> None:
    user = HeliconeUser(address)

    def run() -> None:
        session = {"Helicone_Session_Id": "chat-1", "Helicone_Session_Name": "Chat"}
        first, second = [user.chat(**session).headers["helicone-id"] for _ in range(2)]
        answer = user.post("session/chat-1/feedback", {"rating": True})
        assert (answer.status_code, answer.json()) == (200, {"data": None, "error": None})
        marks = [user.row(request_id)["properties"].get("Helicone-Session-Feedback") for request_id in (first, second)]
        assert marks == ["1", None]
        unknown = user.post("session/chat-2/feedback", {"rating": True})
        assert (unknown.ok, unknown.json()) == (False, {"data": None, "error": "No request found"})

    await asyncio.to_thread(run)


@dataclass(frozen=True, slots=True)
class PortkeyUser:
    """Code as Portkey's documents show it: plain `requests`, one header."""

    address: str

    def send(self, method: str, path: str, body: Any = None, **fields: str) -> requests.Response:
        headers = {"x-portkey-api-key": PORTKEY_API_KEY, "Content-Type": "application/json"}
        headers |= {name.replace("_", "-"): text for name, text in fields.items()}
        data = body.encode() if isinstance(body, str) else None
        json = None if isinstance(body, str) else body
        return requests.request(method, f"{self.address}/v1/{path}", headers=headers, data=data, json=json, timeout=10)


async def test_thumbs_go_to_every_request_of_the_trace(address: str) -> None:
    user = PortkeyUser(address)

    def run() -> None:
        ids = [
            user.send("POST", "chat/completions", QUESTION, x_portkey_trace_id="t-1").headers["helicone-id"]
            for _ in range(2)
        ]
        for path, value in (("feedback", 1), ("feedback/", 0)):
            answer = user.send("POST", path, {"trace_id": "t-1", "value": value})
            assert answer.status_code == 200
            assert answer.json()["status"] == "success"
        for request_id in ids:
            feedback = user.send("GET", f"request/{request_id}").json()["data"]["feedback"]
            assert (feedback["count"], feedback["positive"], feedback["negative"]) == (2, 1, 1)

    await asyncio.to_thread(run)


async def test_weighted_feedback_takes_its_metadata_as_text(address: str) -> None:
    user = PortkeyUser(address)

    def run() -> None:
        metadata = '{"text": "title was irrelevant", "_user": "fef653", "_environment": "production"}'
        body = {"trace_id": "t-1", "value": -10, "weight": 0.5, "metadata": metadata}
        assert user.send("POST", "feedback", body).ok
        (item,) = user.send("GET", "feedback?trace_id=t-1").json()["data"]
        assert (item["value"], item["weight"], item["metadata"]["text"]) == (-10, 0.5, "title was irrelevant")

    await asyncio.to_thread(run)


async def test_a_body_in_single_quotes_is_refused_in_portkeys_shape(address: str) -> None:
    answer = await asyncio.to_thread(PortkeyUser(address).send, "POST", "feedback", "{'trace_id': 't-1', 'value': 1}")
    assert (answer.status_code, answer.json()["status"]) == (400, "failure")


TRAFFIC: Final = Path(__file__).parents[2] / "shared" / "traffic"


def chat_recordings() -> dict[str, list[dict[str, Any]]]:
    """The recorded chat completions by provider; none where the recordings are not there."""
    by_provider: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in REPLAY["load"](TRAFFIC) if REPLAY else ():
        if item["path"].partition("?")[0].endswith("/chat/completions"):
            by_provider[item["provider"]].append(item)
    return by_provider


# Run, not imported: an import would leave its bytecode beside it.
REPLAY: Final = runpy.run_path(str(TRAFFIC / "replay.py")) if (TRAFFIC / "replay.py").is_file() else {}
RECORDINGS: Final = chat_recordings()


@pytest.fixture
async def provider() -> AsyncIterator[str]:
    """The address of a server that plays the recordings."""
    player = REPLAY["Player"]([item for items in RECORDINGS.values() for item in items], 0)
    app = web.Application(client_max_size=0)
    app.on_response_prepare.append(REPLAY["own_headers_off"])
    app.router.add_route("*", "/{path:.*}", player.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def played(kibitz: Running, base: str, item: dict[str, Any]) -> tuple[int, bytes, str | None, str | None]:
    """What comes back when a recorded call is made to a base."""
    fields = {"Content-Type": "application/json", "X-Replay": item["name"], "Helicone-Request-Id": item["name"]}
    body = io.BytesIO(item["request_bytes"])
    async with kibitz.client.request(item["method"], base + item["path"], data=body, headers=fields) as it:
        return it.status, await it.read(), it.headers.get("Content-Type"), it.headers.get("Content-Encoding")


@pytest.mark.skipif(not RECORDINGS, reason="the recordings are not part of this repository")
@pytest.mark.parametrize("name", RECORDINGS)
async def test_a_providers_chat_answers_arrive_as_sent_and_are_logged(
    start_kibitz: StartKibitz, provider: str, name: str
) -> None:
    kibitz = await start_kibitz(upstreams={"played": {"base_url": provider}})

    async def compare(item: dict[str, Any]) -> None:
        direct = await played(kibitz, provider, item)
        through = await played(kibitz, f"{kibitz.url}/played", item)
        assert through == direct, item["name"]
        row = await kibitz.row(item["name"])
        assert (row["response_status"], row["attempt"]) == (item["status"], 1), item["name"]
        assert row["response_body"] is not None, item["name"]

    await asyncio.gather(*(compare(item) for item in RECORDINGS[name]))
