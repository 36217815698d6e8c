"""`POST /custom/v1/log`, and the published `helicone-helpers` as its client (contracts/helicone section 5.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helicone_helpers import HeliconeManualLogger

from tests.conftest import Running
from tests.feedback import SAVED, rate
from tests.logs import ANSWER, ASKED, chunks, custom, send, tell_helicone

HEADERS = {"Helicone-Request-Id": "by-the-helper", "Helicone-User-Id": "lin", "Helicone-Property-App": "x"}

Told = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def told(kibitz: Running, capsys: pytest.CaptureFixture[str]) -> Told:
    """Lets the helper log as ``use`` does, and gives the row. What fails the helper prints, and does not raise."""

    async def tell(use: Callable[[Any], None]) -> dict[str, Any]:
        logger = HeliconeManualLogger("key", headers={"Helicone-Session-Id": "s"}, logging_endpoint=kibitz.url)
        await asyncio.to_thread(use, logger)
        assert capsys.readouterr().out == ""
        return await kibitz.row("by-the-helper")

    return tell


async def test_a_call_logged_by_the_helper_gives_a_row_that_can_be_rated(kibitz: Running, told: Told) -> None:
    def use(logger: Any) -> None:
        logger.log_request(ASKED, lambda recorder: recorder.append_results(ANSWER), HEADERS)

    row = await told(use)
    assert (row["request_body"], row["response_text"], row["total_tokens"]) == (ASKED, "Hello there.", 12)
    assert (row["request_user_id"], row["session_id"], row["properties"]) == ("lin", "s", {"App": "x"})
    assert (row["response_status"], row["model"], row["is_stream"]) == (200, ANSWER["model"], False)
    assert (row["target_url"], row["request_path"]) == ("custom-model-nopath", "/custom/v1/log")
    assert (await rate(kibitz, "by-the-helper")).body == SAVED


def build(logger: Any, request: dict[str, Any], fill: Callable[[Any], None]) -> None:
    builder = logger.new_builder(request, additional_headers=HEADERS)
    fill(builder)
    asyncio.run(builder.send_log())


async def test_chunks_given_to_the_helpers_builder_are_put_together(told: Told) -> None:
    def fill(builder: Any) -> None:
        for chunk in chunks("Hel", "lo"):
            builder.add_chunk(chunk)

    row = await told(lambda logger: build(logger, {**ASKED, "stream": True}, fill))
    assert (row["is_stream"], row["response_text"], row["finish_reason"]) == (True, "Hello", "stop")
    assert row["time_to_first_token"] is not None
    assert row["delay_ms"] >= 0


async def test_plain_text_given_to_the_helpers_builder_is_shown(told: Told) -> None:
    def fill(builder: Any) -> None:
        builder.add_chunk("Hello")
        builder.add_chunk("there.")

    row = await told(lambda logger: build(logger, {"model": "own"}, fill))
    assert (row["is_stream"], row["response_body"], row["model"]) == (True, "Hello\nthere.", "own")
    assert row["time_to_first_token"] is not None


async def test_an_answer_given_to_the_helpers_builder_is_read_as_json(told: Told) -> None:
    row = await told(lambda logger: build(logger, ASKED, lambda builder: builder.add_response(ANSWER)))
    assert (row["response_body"], row["response_text"], row["is_stream"]) == (ANSWER, "Hello there.", False)


async def test_the_times_are_those_of_the_log(kibitz: Running) -> None:
    timing = {**custom()["timing"], "timeToFirstToken": 300}
    row = await tell_helicone(kibitz, custom(timing=timing))
    assert row["request_created_at"] == "2023-11-14T22:13:20.250Z"
    assert row["response_created_at"] == "2023-11-14T22:13:21.500Z"
    assert (row["delay_ms"], row["time_to_first_token"], row["is_stream"]) == (1250.0, 300.0, True)


async def test_a_call_that_ended_before_it_began_took_no_time(kibitz: Running) -> None:
    timing = {"startTime": {"seconds": 10}, "endTime": {"seconds": 9, "milliseconds": 5}}
    assert (await tell_helicone(kibitz, custom(timing=timing)))["delay_ms"] == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"provider": "ANTHROPIC"}, "anthropic"), ({"provider": None}, "custom"), ({}, "custom")],
)
async def test_the_provider_is_the_one_named(kibitz: Running, given: dict[str, Any], expected: str) -> None:
    assert (await tell_helicone(kibitz, custom(**given)))["provider"] == expected


async def test_the_provider_is_told_by_the_address_where_it_is_not_named(kibitz: Running) -> None:
    row = await tell_helicone(kibitz, custom(request={"url": "https://api.groq.com/openai/v1/chat/completions"}))
    assert (row["provider"], row["request_path"]) == ("groq", "/openai/v1/chat/completions")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "providerRequest is required"),
        (custom() | {"providerRequest": {"url": "x"}}, "providerRequest.json is required"),
        (custom() | {"providerResponse": None}, "providerResponse"),
        (custom(response={"status": 1000}), "providerResponse.status"),
        (custom(response={"textBody": {}}), "providerResponse.textBody"),
        (custom(request={"meta": [1]}), "providerRequest.meta"),
        (custom(timing={"startTime": {"seconds": 1}}), "timing.endTime is required"),
        (
            custom(timing={"startTime": {"seconds": 1700000000000}, "endTime": {"seconds": 1}}),
            "timing.startTime.seconds",
        ),
        ([custom()], "the body must be an object"),
    ],
)
async def test_a_bad_log_is_refused_and_the_error_names_the_field(kibitz: Running, body: Any, told: str) -> None:
    reply, fields = await send(kibitz, "/custom/v1/log", body, Helicone_Request_Id="bad")
    assert (reply.status, reply.body["data"]) == (400, None)
    assert told in reply.body["error"]
    assert "helicone-id" not in fields
    assert (await send(kibitz, "/v1/request/bad/feedback", {"rating": True}))[0].status == 404
