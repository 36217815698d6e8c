"""What the published SDKs make of a refusal: their own exceptions, with the message and the code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import portkey_ai
import pytest
from helicone_helpers import HeliconeManualLogger
from portkey_ai._vendor import openai as portkeys_openai
from portkey_ai.api_resources import exceptions as portkey_errors
from portkey_ai.api_resources.apis.logger import Logger

from tests.conftest import Running, StartKibitz
from tests.logs import ANSWER, ASKED, portkey
from tests.test_keys import key
from tests.upstream import Upstream

READER, WRONG = "kbz_reader", "kbz_wrong"


@pytest.fixture
async def keyed(start_kibitz: StartKibitz) -> Running:
    """A Kibitz whose only key may read."""
    return await start_kibitz(keys=[key(READER, "acme", ["read"])])


def chat(kibitz: Running, secret: str) -> None:
    with openai.OpenAI(base_url=kibitz.base_url, api_key=secret) as client:
        client.chat.completions.create(**ASKED)


def portkeys_chat(kibitz: Running, secret: str) -> None:
    client = portkey_ai.Portkey(base_url=kibitz.base_url, api_key=secret)
    with client, client.openai_client:
        client.chat.completions.create(**ASKED)


def value(kibitz: Running, secret: str) -> None:
    client = portkey_ai.Portkey(base_url=kibitz.base_url, api_key=secret)
    with client, client.openai_client:
        client.feedback.create(trace_id="t", value=1)


@pytest.mark.parametrize(
    ("use", "unauthorized", "forbidden"),
    [
        (chat, openai.AuthenticationError, openai.PermissionDeniedError),
        (portkeys_chat, portkeys_openai.AuthenticationError, portkeys_openai.PermissionDeniedError),
        (value, portkey_errors.AuthenticationError, portkey_errors.PermissionDeniedError),
    ],
)
async def test_a_refusal_is_the_sdks_own_exception(
    keyed: Running,
    upstream: Upstream,
    use: Callable[[Running, str], None],
    unauthorized: type[Exception],
    forbidden: type[Exception],
) -> None:
    with pytest.raises(unauthorized, match="No valid Kibitz key"):
        await asyncio.to_thread(use, keyed, WRONG)
    with pytest.raises(forbidden, match="does not have the scope"):
        await asyncio.to_thread(use, keyed, READER)
    assert upstream.received == []


async def test_the_openai_sdk_gets_the_code_of_a_refusal(keyed: Running) -> None:
    for secret, code in ((WRONG, "invalid_api_key"), (READER, "insufficient_scope")):
        with pytest.raises(openai.APIStatusError) as raised:
            await asyncio.to_thread(chat, keyed, secret)
        assert raised.value.code == code


@pytest.mark.parametrize(("secret", "told"), [(WRONG, "No valid Kibitz key"), (READER, "does not have the scope")])
async def test_helicones_helper_prints_a_refusal(
    keyed: Running, capsys: pytest.CaptureFixture[str], secret: str, told: str
) -> None:
    def use() -> None:
        logger: Any = HeliconeManualLogger(secret, logging_endpoint=keyed.url)
        logger.log_request(ASKED, lambda recorder: recorder.append_results(ANSWER), {})

    await asyncio.to_thread(use)
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(("secret", "status"), [(WRONG, 401), (READER, 403)])
async def test_portkeys_logger_gives_a_refusal_back(keyed: Running, secret: str, status: int) -> None:
    answer = await asyncio.to_thread(Logger(secret, keyed.base_url).log, portkey())
    assert (answer.status_code, answer.json()["status"]) == (status, "failure")
