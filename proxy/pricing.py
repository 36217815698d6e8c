"""What a call cost in US dollars: by the user's own prices, else by those of genai-prices. Unknown is ``None``.

Finding a model among the library's takes up to milliseconds, and pricing one call 70 microseconds. So its prices of
single tokens are asked for once a model, and kept; it prices itself only what is more than a plain sum of tokens.
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice, Provider, TieredPrices, Usage

from proxy.wire.facts import Billing, ResponseFacts

__all__ = ["Pricer"]

logger = logging.getLogger(__name__)

_MILLION: Final = 1_000_000
# Models are named by clients: of names and addresses that are longer, or more than this many, none is kept.
_LONGEST: Final = 256
_MOST: Final = 1024
# A gateway that names the provider before the model, or not at all, as genai-prices calls it.
_ANY_PROVIDER: Final = "litellm"
# So Ollama marks which of a model's variants runs, on one's own machine: deepseek-r1:8b.
_LOCAL_VARIANT: Final = re.compile(r":(latest|[\d.]+[bm]\b)")
# What `_Counts` tells apart, as the library's usage of one such token.
_CLASSES: Final = (
    ("input_tokens",),
    ("input_tokens", "cache_read_tokens"),
    ("input_tokens", "cache_write_tokens"),
    ("input_tokens", "input_audio_tokens"),
    ("output_tokens",),
    ("output_tokens", "output_audio_tokens"),
    ("output_tokens", "output_reasoning_tokens"),
)


class _Counts(NamedTuple):
    """Tokens; what ``prompt`` and ``answer`` count contains the others."""

    prompt: int
    cache_read: int
    cache_write: int
    prompt_audio: int
    answer: int
    answer_audio: int
    reasoning: int

    @property
    def plain(self) -> bool:
        """Whether no token is of two classes, as far as can be known."""
        prompt, cache_read, cache_write, prompt_audio, answer, answer_audio, reasoning = self
        return (
            prompt >= cache_read + cache_write + prompt_audio
            and answer >= answer_audio + reasoning
            and not (prompt_audio and (cache_read or cache_write))
            and not (answer_audio and reasoning)
        )

    def usage(self, units: Mapping[str, int]) -> Usage:
        """The same for the library."""
        return Usage(**{names[-1]: count for names, count in zip(_CLASSES, self, strict=True)}, **units)


class _Rates(NamedTuple):
    """US dollars of a request, and of a million tokens of each class."""

    request: float
    prompt: float
    cache_read: float
    cache_write: float
    prompt_audio: float
    answer: float
    answer_audio: float
    reasoning: float

    def total(self, counts: _Counts) -> float:
        prompt, cache_read, cache_write, prompt_audio, answer, answer_audio, reasoning = counts
        of_request, of_prompt, of_read, of_write, of_prompt_audio, of_answer, of_answer_audio, of_reasoning = self
        tokens = (
            (prompt - cache_read - cache_write - prompt_audio) * of_prompt
            + cache_read * of_read
            + cache_write * of_write
            + prompt_audio * of_prompt_audio
            + (answer - answer_audio - reasoning) * of_answer
            + answer_audio * of_answer_audio
            + reasoning * of_reasoning
        )
        return of_request + tokens / _MILLION


class _Scale:
    """The rates of one `ModelPrice`, which may depend on the length of the prompt."""

    def __init__(self, price: ModelPrice) -> None:
        tiered = [value for value in vars(price).values() if isinstance(value, TieredPrices)]
        self._starts = sorted({tier.start for value in tiered for tier in value.tiers})
        self._rates = [_rates(_flat(price, tokens)) for tokens in (0, *(start + 1 for start in self._starts))]

    def total(self, counts: _Counts) -> float:
        return self._rates[bisect_left(self._starts, counts.prompt) if self._starts else 0].total(counts)


def _flat(price: ModelPrice, tokens: int) -> ModelPrice:
    """What is paid for a prompt of that many tokens."""
    return ModelPrice(
        **{
            name: next((tier.price for tier in reversed(value.tiers) if tokens > tier.start), value.base)
            if isinstance(value, TieredPrices)
            else value
            for name, value in vars(price).items()
        }
    )


def _rates(price: ModelPrice) -> _Rates:
    request = price.calc_price(Usage())["total_price"]
    millions = [price.calc_price(Usage(**dict.fromkeys(names, _MILLION)))["total_price"] for names in _CLASSES]
    return _Rates(float(request), *(float(total - request) for total in millions))


def _is_of_tokens(price: ModelPrice) -> bool:
    """Whether anything is known that a call with tokens costs: nothing is, for a model that is paid by the hour."""
    return any(
        value is not None and (name.endswith("_mtok") or name == "requests_kcount")
        for name, value in vars(price).items()
    )


class _Tariff:
    """How one model is paid for."""

    def __init__(self, provider: Provider, model: ModelInfo) -> None:
        self._provider = provider
        self._model = model
        self._always = model.prices if isinstance(model.prices, ModelPrice) else None
        # By the identity of prices that the model holds.
        self._scales: dict[int, _Scale | None] = {}

    def total(self, counts: _Counts, billing: Billing, started: float) -> float | None:
        """Raises `ValueError` for counts that contradict each other, or don't tell enough."""
        price = self._always
        if price is None:
            price = self._model.get_prices(datetime.fromtimestamp(started, UTC))
        try:
            scale = self._scales[id(price)]
        except KeyError:
            scale = self._scales[id(price)] = _Scale(price) if _is_of_tokens(price) else None
        if scale is None:
            return None
        if counts.plain and not billing.units and not (billing.terms and self._model.price_variants):
            return scale.total(counts)
        whole = self._model.calc_price(
            counts.usage(billing.units),
            self._provider,
            genai_request_timestamp=datetime.fromtimestamp(started, UTC),
            price_context=billing.terms,
        )
        return float(whole.total_price)


class Pricer:
    """Prices calls. ``own_prices`` are US dollars of a million tokens, by model: `proxy.config.ModelPrices`."""

    def __init__(self, own_prices: Mapping[str, Mapping[str, float]]) -> None:
        self._own = {name: _own_tariff(name, prices) for name, prices in own_prices.items()}
        self._own_in_any_case = {name.casefold(): self._own[name] for name in reversed(self._own)}
        self._providers = get_snapshot().providers
        self._addresses = [(re.compile(provider.api_pattern), provider.id) for provider in self._providers]
        self._tariff = lru_cache(_MOST)(self._find)
        self._listed = lru_cache(_MOST)(self._find_listed)

    def cost(
        self, answered: ResponseFacts, names: tuple[str, ...], *, target_url: str, provider: str, started: float
    ) -> float | None:
        """What an answer cost, if that is known. ``names`` are the model's, first the one that counts for statistics;
        a price of one's own may go by the others too. ``started`` is a time of the wall clock in seconds.
        """
        counts = _count(answered)
        if counts is None or not names or len(names[0]) > _LONGEST or len(names[-1]) > _LONGEST:
            return None
        try:
            tariff = self._tariff(names, target_url[:_LONGEST].partition("?")[0], provider[:_LONGEST])
            return tariff.total(counts, answered.billing, started) if tariff else None
        except ValueError:  # counts that contradict each other
            return None
        except Exception:  # the library's: a price is no reason to lose a row
            logger.exception("pricing a call")
            return None

    def _find(self, names: tuple[str, ...], address: str, provider: str) -> _Tariff | None:
        for own, spelt in ((self._own, str), (self._own_in_any_case, str.casefold)):
            for name in names:
                if tariff := own.get(spelt(name)):
                    return tariff
        known = next((id for pattern, id in self._addresses if pattern.match(address)), None)
        if known:
            return self._listed(known, names[0])
        return self._listed(provider, names[0]) or (
            None if _LOCAL_VARIANT.search(names[0].lower()) else self._listed(_ANY_PROVIDER, names[0])
        )

    def _find_listed(self, provider_id: str, name: str) -> _Tariff | None:
        # A snapshot remembers without bound what it was asked for; this one does so for one question.
        try:
            found = DataSnapshot(self._providers, from_auto_update=False).find_provider_model(
                name, None, provider_id, None
            )
        except LookupError:
            return None
        return _Tariff(*found)


def _own_tariff(name: str, prices: Mapping[str, float]) -> _Tariff:
    paid = {f"{kind}_mtok": Decimal(str(price)) for kind, price in prices.items()}
    if "input_audio_mtok" in paid:  # then the library wants to know what cached audio costs
        for access in ("read", "write"):
            if f"cache_{access}_mtok" in paid:
                paid[f"cache_audio_{access}_mtok"] = paid[f"cache_{access}_mtok"]
    model = ModelInfo(id=name, match=ClauseEquals(name), prices=ModelPrice(**paid))
    return _Tariff(Provider(id="own", name="own", api_pattern="", models=[model]), model)


def _count(answered: ResponseFacts) -> _Counts | None:
    """The tokens that are paid for; none where too little was reported."""
    usage, apart = answered.usage, answered.billing.cache_apart
    prompt, answer = usage.prompt_tokens, usage.completion_tokens or 0
    if prompt is None:
        # Embeddings of some providers count only a total, and no other answer lacks both parts.
        if usage.total_tokens is None or usage.completion_tokens is not None:
            return None
        prompt = usage.total_tokens
    cache_read, cache_write = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    reasoning = usage.reasoning_tokens or 0
    if reasoning and usage.total_tokens == prompt + answer + reasoning:  # xAI counts an answer without it
        answer += reasoning
    return _Counts(
        prompt + cache_read + cache_write if apart else prompt,
        cache_read,
        cache_write,
        usage.prompt_audio_tokens or 0,
        answer,
        usage.completion_audio_tokens or 0,
        reasoning,
    )
