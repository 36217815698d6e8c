"""What a call cost: as genai-prices would reckon it, or by one's own prices; unknown is none. Contract section 7."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import Any

import genai_prices
import orjson
import pytest
from genai_prices import Usage as LibraryUsage
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.exchange import Capture, Exchange
from proxy.headers import read_request_fields
from proxy.identity import identify
from proxy.pricing import Pricer
from proxy.row import build_call
from proxy.wire import ResponseFacts
from proxy.wire.facts import Billing
from proxy.wire.realtime import FRAMES
from storage.records import Call, Usage
from tests.conftest import StartKibitz
from tests.upstream import Upstream, chat_answer

OPENAI = "https://api.openai.com/v1/chat/completions"
ANTHROPIC = "https://api.anthropic.com/v1/messages"
XAI = "https://api.x.ai/v1/chat/completions"
VOYAGE = "https://api.voyageai.com/v1/embeddings"
GATEWAY = "http://127.0.0.1:4000/v1/chat/completions"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()

SAMPLE = {
    OPENAI: [
        *("gpt-3.5-turbo-0125", "gpt-4o-2024-08-06", "gpt-4o-mini", "gpt-4.1-nano", "gpt-5-2025-08-07", "gpt-5.4"),
        *("gpt-5.6-sol", "o3", "gpt-audio", "gpt-realtime", "gpt-4o-transcribe", "gpt-image-1.5", "davinci-002"),
    ],
    ANTHROPIC: ["claude-3-5-haiku-20241022", "claude-sonnet-4-5-20250929", "claude-opus-4-6", "claude-haiku-5-5"],
    "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions": [
        *("gemini-2.5-pro", "gemini-2.5-flash", "gemini-1.5-flash", "gemini-3-pro-preview", "gemini-3-flash-preview"),
    ],
    "https://api.deepseek.com/chat/completions": ["deepseek-chat", "deepseek-reasoner", "deepseek-v4-pro"],
    "https://api.groq.com/openai/v1/chat/completions": ["llama3-8b-8192", "openai/gpt-oss-120b"],
    "https://api.mistral.ai/v1/chat/completions": ["mistral-tiny", "mistral-large-4", "mistral-embed"],
    XAI: ["grok-3-mini", "grok-4.3", "grok-4.20"],
    "https://api.perplexity.ai/chat/completions": ["sonar", "sonar-deep-research"],
    "https://api.together.xyz/v1/chat/completions": ["mistralai/Mixtral-8x7B-Instruct-v0.1"],
    "https://openrouter.ai/api/v1/chat/completions": ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4.5"],
    "https://my.openai.azure.com/openai/deployments/d/chat/completions": ["gpt-35-turbo", "gpt-4o"],
    "https://bedrock-runtime.us-east-1.amazonaws.com/model/m/invoke": ["anthropic.claude-3-haiku-20240307-v1:0"],
    VOYAGE: ["voyage-3-lite"],
    GATEWAY: ["gpt-4o", "claude-sonnet-4-5", "deepseek-chat"],
}
MODELS = [(address, model) for address, models in SAMPLE.items() for model in models]
LIBRARY_NAMES = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "input_audio_tokens": "prompt_audio_tokens",
    "output_audio_tokens": "completion_audio_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}

PRICER = Pricer({})
PLAIN = Usage(prompt_tokens=2000, completion_tokens=1000)


def cost(
    model: str,
    usage: Usage = PLAIN,
    *other_names: str,
    pricer: Pricer = PRICER,
    at: str = OPENAI,
    provider: str = "custom",
    started: float = NOON,
    **billing: Any,
) -> float | None:
    """What the pricer says of an answer."""
    answered = ResponseFacts(usage=usage, billing=Billing(**billing))
    return pricer.cost(answered, (model, *other_names), target_url=at, provider=provider, started=started)


def library_cost(
    model: str,
    usage: Usage = PLAIN,
    *,
    at: str = OPENAI,
    started: float = NOON,
    terms: dict[str, str] | None = None,
    **units: int,
) -> float | None:
    """What the library says of the same; nothing where it refuses the counts."""
    counts = {name: getattr(usage, ours) for name, ours in LIBRARY_NAMES.items()}
    try:
        price = genai_prices.calc_price(
            LibraryUsage(**counts, **units),
            model,
            provider_api_url=None if at == GATEWAY else at,
            genai_request_timestamp=datetime.fromtimestamp(started, UTC),
            price_context=terms,
        )
    except ValueError:
        return None
    return float(price.total_price)


def same(cost: float | None, expected: float | None) -> bool:
    return cost is expected is None or cost == pytest.approx(expected, rel=1e-12, abs=0)


def find(address: str, model: str) -> ModelInfo:
    return get_snapshot().find_provider_model(model, None, None, None if address == GATEWAY else address)[1]


def test_the_sample_has_prices_by_length_by_date_and_by_time_of_day() -> None:
    prices = [find(address, model).prices for address, model in MODELS]
    conditional = [price.constraint for several in prices if isinstance(several, list) for price in several]
    assert {"StartDateConstraint", "TimeOfDateConstraint"} <= {type(constraint).__name__ for constraint in conditional}
    always = [price for price in prices if isinstance(price, ModelPrice)]
    assert sum(isinstance(price.input_mtok, TieredPrices) for price in always) > 3


few = st.none() | st.integers(0, 2000)
many = st.integers(0, 2_000_000) | st.sampled_from([0, 128_000, 200_000, 200_001, 272_000, 272_001, 2**63 - 1])
usages = st.builds(
    Usage,
    prompt_tokens=many,
    completion_tokens=many,
    cache_read_tokens=few,
    cache_write_tokens=few,
    prompt_audio_tokens=few,
    completion_audio_tokens=few,
    reasoning_tokens=few,
)
times = st.floats(datetime(2024, 1, 1, tzinfo=UTC).timestamp(), datetime(2028, 1, 1, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(("address", "model"), MODELS, ids=lambda value: value.rpartition("/")[2])
@given(usages, times)
@example(Usage(prompt_tokens=200_001, completion_tokens=5, cache_read_tokens=7, reasoning_tokens=3), NOON)
@example(Usage(prompt_tokens=9, completion_tokens=9, cache_read_tokens=4, prompt_audio_tokens=2), NOON)
@example(Usage(prompt_tokens=9, completion_tokens=9, completion_audio_tokens=6, reasoning_tokens=2), NOON)
@example(Usage(prompt_tokens=9, completion_tokens=9, cache_read_tokens=10), NOON)
@settings(max_examples=50)
def test_a_cost_is_the_librarys(address: str, model: str, usage: Usage, started: float) -> None:
    expected = library_cost(model, usage, at=address, started=started)
    assert same(cost(model, usage, at=address, started=started), expected)


def test_a_cost_is_the_librarys_at_every_provider() -> None:
    usage, compared = LibraryUsage(input_tokens=2000, output_tokens=1000), 0
    for provider in get_snapshot().providers:
        for model in provider.models[::20]:
            with contextlib.suppress(LookupError):  # some of its models it doesn't find by their own names
                price = genai_prices.calc_price(usage, model.id, provider_id=provider.id)
                got = cost(model.id, at="", provider=provider.id, started=time.time())
                assert same(got or 0.0, float(price.total_price)), model.id
                compared += 1
    assert compared > 100


@pytest.mark.parametrize(
    ("model", "units", "terms"),
    [
        ("claude-sonnet-4-5", {"cache_write_1h_tokens": 30}, {}),
        ("claude-sonnet-4-5", {"web_searches": 3}, {}),
        ("claude-opus-5", {}, {"speed": "fast"}),
        ("gpt-5", {}, {"service_tier": "priority"}),
        ("gpt-5", {}, {"service_tier": "flex"}),
        ("gpt-5", {}, {"service_tier": "unheard of"}),
        ("gpt-image-1.5", {"input_image_tokens": 500, "output_image_tokens": 900, "cache_image_read_tokens": 0}, {}),
    ],
)
def test_what_else_a_price_depends_on_counts(model: str, units: dict[str, int], terms: dict[str, str]) -> None:
    at = ANTHROPIC if model.startswith("claude") else OPENAI
    usage = Usage(prompt_tokens=2000, completion_tokens=1000, cache_write_tokens=40)
    expected = library_cost(model, usage, at=at, terms=terms, **units)
    assert expected
    assert same(cost(model, usage, at=at, units=units, terms=terms), expected)
    assert (expected == library_cost(model, usage, at=at)) == ("unheard of" in terms.values())


@pytest.mark.parametrize(
    ("model", "usage"),
    [
        pytest.param("gpt-4o", Usage(), id="no counts"),
        pytest.param("gpt-4o", Usage(completion_tokens=5), id="no prompt"),
        pytest.param("gpt-4o", Usage(completion_tokens=5, total_tokens=9), id="no prompt but a total"),
        pytest.param("gpt-4o", Usage(prompt_tokens=5, cache_read_tokens=6), id="more cached than asked"),
        pytest.param("gpt-realtime", Usage(9, 9, cache_read_tokens=6, prompt_audio_tokens=5), id="is it cached audio"),
        pytest.param("no-such-model", PLAIN, id="no such model"),
        pytest.param("", PLAIN, id="no name"),
        pytest.param("gpt-4o" * 100, PLAIN, id="a long name"),
        pytest.param("whisper-1", PLAIN, id="paid by the hour"),
        pytest.param("omni-moderation-latest", PLAIN, id="a model without prices"),
    ],
)
def test_what_is_not_known_is_none_and_not_zero(model: str, usage: Usage) -> None:
    assert cost(model, usage) is None


def test_an_answer_of_nothing_costs_nothing() -> None:
    assert cost("gpt-4o", Usage(prompt_tokens=0, completion_tokens=0)) == 0


def test_a_total_alone_is_that_of_the_prompt() -> None:
    expected = library_cost("voyage-3-lite", Usage(prompt_tokens=12_000), at=VOYAGE)
    assert same(cost("voyage-3-lite", Usage(total_tokens=12_000), at=VOYAGE), expected)


@pytest.mark.parametrize("completion", [20, 320], ids=["apart", "within"])
def test_reasoning_is_paid_for_whether_the_answers_count_has_it_or_not(completion: int) -> None:
    usage = Usage(prompt_tokens=100, completion_tokens=completion, reasoning_tokens=300, total_tokens=420)
    expected = library_cost("grok-3-mini", Usage(prompt_tokens=100, completion_tokens=320), at=XAI)
    assert same(cost("grok-3-mini", usage, at=XAI), expected)


@pytest.mark.parametrize(
    ("model", "at", "provider", "priced", "priced_at"),
    [
        ("gpt-4o", "https://x.openai.azure.com/v1?x=https://api.openai.com", "openai", "gpt-4o", None),
        ("gpt-4o", GATEWAY, "azure", "gpt-4o", "https://x.openai.azure.com"),
        ("gpt-4o", GATEWAY, "127.0.0.1", "gpt-4o", OPENAI),
        ("davinci-002", "", "openai", "davinci-002", OPENAI),
        ("claude-sonnet-4-5", GATEWAY, "openai", "claude-sonnet-4-5", ANTHROPIC),
        ("groq/llama3-8b-8192", GATEWAY, "custom", "llama3-8b-8192", "https://api.groq.com/openai/v1"),
        ("GPT-4o", OPENAI, "openai", "gpt-4o", OPENAI),
    ],
    ids=["address", "upstream's name", "model's name", "no address", "of another", "gateway's prefix", "any case"],
)
def test_a_model_is_looked_for_at_its_address_then_by_the_upstreams_name_then_by_its_own(
    model: str, at: str, provider: str, priced: str, priced_at: str | None
) -> None:
    expected = library_cost(priced, at=priced_at or at)
    assert expected
    assert same(cost(model, at=at, provider=provider), expected)


@pytest.mark.parametrize("model", ["deepseek-r1:8b", "deepseek-r1:latest", "DeepSeek-R1:1.5B", "gemma3:4b", "llama3.2"])
def test_a_model_that_runs_on_ones_own_machine_is_not_taken_for_its_namesake(model: str) -> None:
    assert cost(model, at=GATEWAY, provider="127.0.0.1") is None


def test_a_provider_that_is_known_is_not_left_for_another() -> None:
    assert cost("claude-sonnet-4-5", at=OPENAI) is None


OWN: dict[str, dict[str, float]] = {
    "gpt-4o": {"input": 1.0, "output": 2.0},
    "mine": {"input": 1, "output": 2, "cache_read": 0.1, "cache_write": 3, "input_audio": 10, "output_audio": 20},
    "Mine": {"input": 5, "output": 5},
    "free": {"input": 0, "output": 0},
    "partly": {"input": 1, "output": 2, "cache_read": 0.5},
}
OF_ALL_KINDS = Usage(
    prompt_tokens=1000,
    completion_tokens=500,
    cache_read_tokens=300,
    cache_write_tokens=200,
    completion_audio_tokens=100,
)


@pytest.mark.parametrize(
    ("model", "usage", "microdollars"),
    [
        ("gpt-4o", PLAIN, 4000),
        ("GPT-4O", PLAIN, 4000),
        ("mine", PLAIN, 4000),
        ("Mine", PLAIN, 15000),
        ("mine", OF_ALL_KINDS, 500 * 1 + 300 * 0.1 + 200 * 3 + 400 * 2 + 100 * 20),
        ("mine", Usage(prompt_tokens=1000, prompt_audio_tokens=400), 600 * 1 + 400 * 10),
        ("partly", OF_ALL_KINDS, 700 * 1 + 300 * 0.5 + 500 * 2),
        ("free", OF_ALL_KINDS, 0),
    ],
)
def test_prices_of_ones_own_go_first_by_the_exact_name_else_without_case(
    model: str, usage: Usage, microdollars: float
) -> None:
    assert cost(model, usage, pricer=Pricer(OWN)) == pytest.approx(microdollars / 1e6, rel=1e-12)


def test_prices_of_ones_own_apply_to_the_name_that_was_asked_for_too() -> None:
    assert cost("gpt-4o-2024-08-06", PLAIN, "gpt-4o", pricer=Pricer(OWN)) == 0.004
    assert cost("no-such-model", PLAIN, "gpt-4o") is None


def test_names_that_clients_make_up_do_not_fill_the_memory() -> None:
    pricer = Pricer({})
    for number in range(1100):
        assert cost(f"made-up-{number}", pricer=pricer) is None
    assert pricer._tariff.cache_info().currsize < 1100
    assert same(cost("gpt-4o", pricer=pricer), library_cost("gpt-4o"))


MEDIA = {"json": "application/json", "events": "text/event-stream", "frames": FRAMES}


def row(path: str, url: str, answer: dict[str, Any], *, override: str = "", media: str = "json") -> Call:
    """The row of a call that asked for gpt-4o-mini and got this answer."""
    exchange = Exchange(
        organisation="",
        identity=identify(read_request_fields([(b"Helicone-Model-Override", override.encode())])),
        method="POST",
        path=path,
        target_url=url,
        provider="test",
        request=Capture(limit=10_000, content_type="application/json"),
        response=Capture(limit=10_000, content_type=MEDIA[media]),
        status=200,
        started_at=NOON,
    )
    exchange.request.feed(b'{"model": "gpt-4o-mini", "messages": []}')
    exchange.response.feed(b"data: %b\n\n" % orjson.dumps(answer) if media == "events" else orjson.dumps(answer))
    exchange.end()
    return build_call(exchange, PRICER)


CHAT_TOKENS = Usage(prompt_tokens=1500, completion_tokens=10, cache_read_tokens=1400)
CHAT_USAGE = {"prompt_tokens": 1500, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 1400}}
CHAT = {"object": "chat.completion", "model": "gpt-4o-2024-08-06", "choices": [], "usage": CHAT_USAGE}
MESSAGE_USAGE = {
    "input_tokens": 100,
    "output_tokens": 10,
    "cache_read_input_tokens": 1400,
    "cache_creation_input_tokens": 60,
    "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 20},
    "server_tool_use": {"web_search_requests": 2},
}


@pytest.mark.parametrize(
    ("changed", "override", "model"),
    [
        ({}, "", "gpt-4o"),
        ({"model": None}, "", "gpt-4o-mini"),
        ({}, "gpt-4.1-nano", "gpt-4.1-nano"),
    ],
    ids=["answered", "asked", "overridden"],
)
def test_the_model_of_the_row_is_priced_and_the_prompt_of_a_chat_contains_what_was_cached(
    changed: dict[str, Any], override: str, model: str
) -> None:
    call = row("/v1/chat/completions", OPENAI, {**CHAT, **changed}, override=override)
    assert call.usage.prompt_tokens == 1500
    assert same(call.cost, library_cost(model, CHAT_TOKENS))


@pytest.mark.parametrize("media", ["json", "events"])
def test_the_prompt_of_a_message_is_beside_what_was_cached(media: str) -> None:
    message = {"type": "message", "model": "claude-sonnet-4-5", "content": [], "usage": MESSAGE_USAGE}
    answer = {"type": "message_start", "message": message} if media == "events" else message
    call = row("/v1/messages", ANTHROPIC, answer, media=media)
    [library] = [provider for provider in get_snapshot().providers if provider.id == "anthropic"]
    _, usage = library.extract_usage(message)
    assert call.usage.prompt_tokens == 100
    assert same(call.cost, float(find(ANTHROPIC, "claude-sonnet-4-5").calc_price(usage, library).total_price))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_the_tier_that_served_the_call_is_the_one_that_is_paid(path: str) -> None:
    costs = [row(path, OPENAI, {**CHAT, "service_tier": tier}).cost or 0 for tier in ("default", "auto", "priority")]
    assert 0 < costs[0] == costs[1] == row(path, OPENAI, CHAT).cost
    assert costs[2] > costs[0]


@pytest.mark.parametrize("media", ["json", "frames"])
def test_cached_audio_is_told_from_other_audio(media: str) -> None:
    details = {"audio_tokens": 80, "cached_tokens": 50, "cached_tokens_details": {"audio_tokens": 30}}
    usage = {"input_tokens": 100, "output_tokens": 10, "input_token_details": details}
    frame = {"direction": "upstream", "data": {"type": "response.done", "response": {"usage": usage}}}
    answer = {"frames": [frame]} if media == "frames" else {"usage": usage}
    call = row("/v1/responses?model=x", OPENAI, answer, override="gpt-realtime", media=media)
    tokens = Usage(prompt_tokens=100, completion_tokens=10, cache_read_tokens=50, prompt_audio_tokens=80)
    expected = library_cost("gpt-realtime", tokens, cache_audio_read_tokens=30)
    assert expected
    assert same(call.cost, expected)


async def test_a_row_tells_its_cost(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(prices={"Dear-Model": {"input": 1e6, "output": 2e6}})
    known, own, unknown = [
        await kibitz.row((await kibitz.chat(**headers)).headers["Helicone-Id"])
        for headers in ({}, {"Helicone_Model_Override": "dear-model"}, {"Helicone_Model_Override": "unknown"})
    ]
    assert same(known["cost"], library_cost("gpt-4o-mini", Usage(prompt_tokens=9, completion_tokens=3)))
    assert (own["cost"], unknown["cost"]) == (15, None)


async def test_an_answer_without_counts_has_no_cost(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    upstream.answer = chat_answer(orjson.dumps({**CHAT, "usage": None}))
    kibitz = await start_kibitz()
    assert (await kibitz.row((await kibitz.chat()).headers["Helicone-Id"]))["cost"] is None
