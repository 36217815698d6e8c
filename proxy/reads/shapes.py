"""A call as the read routes show it: Helicone's names, and Kibitz's own beside them. Contract section 7.

What is not known is null. Durations are milliseconds, money is US dollars, sizes are bytes.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from proxy.feedback.shapes import FeedbackSummary, Time

__all__ = [
    "CountAnswer",
    "LatestRating",
    "NothingOfTheKind",
    "Row",
    "RowAnswer",
    "RowError",
    "RowIdentity",
    "RowOutcome",
    "RowUsage",
    "RowsAnswer",
]


class RowIdentity(TypedDict):
    """Which call, whose, and what it belongs to."""

    request_id: str
    response_id: str | None
    attempt: int
    trace_id: str
    span_id: str | None
    parent_span_id: str | None
    span_name: str | None
    session_id: str | None
    session_name: str | None
    session_path: str | None
    request_user_id: str | None
    helicone_user: str | None
    request_properties: dict[str, str]
    properties: dict[str, str]
    prompt_id: str | None
    prompt_version: str | None
    organization_id: str


class RowError(TypedDict):
    """How a call failed."""

    kind: str
    message: str | None


class RowOutcome(TypedDict):
    """Where it went, when, and how it ended."""

    request_created_at: Time
    response_created_at: Time
    request_method: str
    request_path: str
    target_url: str
    provider: str
    provider_response_id: str | None
    response_status: int | None
    delay_ms: float | None
    time_to_first_token: float | None
    is_stream: bool
    finish_reason: str | None
    error: RowError | None
    model: str | None
    model_override: str | None
    request_model: str | None
    response_model: str | None
    cut: list[str] | None


class RowUsage(TypedDict):
    """Tokens, and what they cost."""

    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    prompt_cache_read_tokens: int | None
    prompt_cache_write_tokens: int | None
    prompt_audio_tokens: int | None
    completion_audio_tokens: int | None
    reasoning_tokens: int | None
    cost: float | None
    costUSD: float | None


class LatestRating(TypedDict):
    """The rating that counts."""

    feedback_id: str | None
    feedback_rating: bool | None
    feedback_created_at: Time | None


class NothingOfTheKind(TypedDict):
    """What Helicone's rows have and Kibitz has nothing for, the same in every row. contracts/helicone.md 4.3."""

    signed_body_url: None
    storage_location: None
    asset_ids: None
    asset_urls: None
    assets: list[str]
    request_referrer: None
    country_code: None
    ai_gateway_body_mapping: None
    llmSchema: None
    cache_enabled: bool
    cache_reference_id: None
    updated_at: None


class Row(RowIdentity, RowOutcome, RowUsage, LatestRating, NothingOfTheKind):
    """A call with all that joined it. Bodies are JSON where they were, else text, else ``{"encoding", "data"}``."""

    scores: dict[str, bool | int | float]
    feedback: FeedbackSummary
    response_text: str | None
    tool_calls: list[Any] | None
    request_body: Any
    response_body: Any
    request_body_size: int
    response_body_size: int
    request_body_truncated: bool
    response_body_truncated: bool


class RowsAnswer(TypedDict):
    """Calls, and where to go on behind them; ``cursor`` is null where there are none."""

    data: list[Row]
    error: None
    cursor: str | None


class CountAnswer(TypedDict):
    """How many calls."""

    data: int
    error: None


class RowAnswer(TypedDict):
    """One call."""

    data: Row
    error: None
