"""The tables and columns of Helicone's filter trees, and what of calls each stands for. contracts/helicone.md 4.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from storage.filters import FIELDS, Field
from storage.records import property_key

__all__ = ["CALLS", "CALL_COLUMNS", "KEYED_TABLES", "RATING", "TABLES", "Column", "Constant", "property_field"]

RATING: Final = Field("rating")
_RATING_SCORE: Final = "helicone-score-feedback"
_BOOLEAN_SCORE: Final = "-hcone-bool"
# What Helicone keeps among the properties, and calls have fields of their own for.
_OWN: Final = {
    "helicone-session-id": "session_id",
    "helicone-session-name": "session_name",
    "helicone-session-path": "session_path",
    "helicone-prompt-id": "prompt_id",
}


def property_field(name: str) -> Field:
    """A property by its name, those among them for which a call has a field of its own."""
    key = property_key(name)
    return Field(_OWN[key]) if key in _OWN else Field("property", key)


def _score_field(name: str) -> Field:
    """A score by its name. Helicone has the rating among them, and marks booleans."""
    return RATING if name == _RATING_SCORE else Field("score", name.removesuffix(_BOOLEAN_SCORE))


@dataclass(frozen=True, slots=True)
class Column:
    """A column as it is asked for: the field, and how many of the field's units one of the column's is."""

    field: str
    unit: int = 1
    figure_of: str | None = None
    """Of what groups it is a figure, if it is one."""

    @property
    def is_keyed(self) -> bool:
        """Whether it has names below it."""
        return self.field in ("property", "score")

    def at(self, key: str | None) -> Field:
        """The field; of a column with names the one of that name."""
        if key is None:
            return Field(self.field)
        return property_field(key) if self.field == "property" else _score_field(key)


@dataclass(frozen=True, slots=True)
class Constant:
    """A column in which all calls are alike, since Kibitz has nothing of the kind; ``None`` is unknown."""

    name: str
    value: bool | None = None


_MILLISECONDS: Final = 1000
CALL_COLUMNS: Final = {
    **{name: Column(name) for name in FIELDS if name not in ("property", "score", "latency", "time_to_first_token")},
    "id": Column("request_id"),
    "request_created_at": Column("started_at"),
    "created_at": Column("started_at"),
    "response_created_at": Column("ended_at"),
    "latency": Column("latency", _MILLISECONDS),
    "delay_ms": Column("latency", _MILLISECONDS),
    "time_to_first_token": Column("time_to_first_token", _MILLISECONDS),
    "organization_id": Column("organisation"),
    "response_status": Column("status"),
    "request_path": Column("path"),
    "request_user_id": Column("user_id"),
    "helicone_user": Column("user_id"),
    "response_id": Column("provider_response_id"),
    "body_model": Column("model"),
    "costUSD": Column("cost"),
    "prompt_cache_read_tokens": Column("cache_read_tokens"),
    "prompt_cache_write_tokens": Column("cache_write_tokens"),
    "helicone-score-feedback": Column("rating"),
    "feedback_rating": Column("rating"),
    "request_body": Column("request_text"),
    "response_body": Column("response_text"),
    "prompt": Column("request_text"),
    "body_completion": Column("response_text"),
    "body_tokens": Column("total_tokens"),
    "org_id": Column("organisation"),
    "modelOverride": Column("model_override"),
    "properties": Column("property"),
    "search_properties": Column("property"),
    "values": Column("property"),
    "scores": Column("score"),
}
_NEVER: Final = ("cached", "cache_enabled", "threat", "is_passthrough_billing")
_UNKNOWN: Final = (
    "cache_reference_id",
    "country_code",
    "assets",
    "node_id",
    "job_id",
    "request_referrer",
    "auth_hash",
)
_CONSTANTS: Final = {
    **{name: Constant(name, value=False) for name in _NEVER},
    **{name: Constant(name) for name in _UNKNOWN},
}
_ALL_COLUMNS: Final[Mapping[str, Column | Constant]] = {**CALL_COLUMNS, **_CONSTANTS}
_SESSION_COLUMNS: Final = {
    "session_session_id": Column("session_id"),
    "session_session_name": Column("session_name"),
    "session_session_tag": Column("session_tag"),
    "session_rating": Column("session_rating"),
    "session_created_at": Column("first_started_at", figure_of="session"),
    "session_latest_request_created_at": Column("last_started_at", figure_of="session"),
    "session_total_cost": Column("cost", figure_of="session"),
    "session_total_tokens": Column("total_tokens", figure_of="session"),
    "session_total_requests": Column("calls", figure_of="session"),
    "session_prompt_tokens": Column("prompt_tokens", figure_of="session"),
    "session_completion_tokens": Column("completion_tokens", figure_of="session"),
    "session_avg_latency": Column("latency_mean", _MILLISECONDS, figure_of="session"),
}
_USER_COLUMNS: Final = {
    "user_user_id": Column("user_id"),
    "user_active_for": Column("active_days", figure_of="user"),
    "user_first_active": Column("first_started_at", figure_of="user"),
    "user_last_active": Column("last_started_at", figure_of="user"),
    "user_total_requests": Column("calls", figure_of="user"),
    "user_average_requests_per_day_active": Column("calls_per_active_day", figure_of="user"),
    "user_average_tokens_per_request": Column("tokens_per_call", figure_of="user"),
    "user_total_prompt_tokens": Column("prompt_tokens", figure_of="user"),
    "user_total_completion_tokens": Column("completion_tokens", figure_of="user"),
    "user_cost": Column("cost", figure_of="user"),
}
CALLS: Final = "request_response_rmt"
"""Helicone's main table."""
TABLES: Final[Mapping[str, Mapping[str, Column | Constant]]] = {
    CALLS: _ALL_COLUMNS,
    "request_response": _ALL_COLUMNS,
    "request": _ALL_COLUMNS,
    "response": _ALL_COLUMNS,
    "request_response_search": {
        "request_body_vector": Column("request_text"),
        "response_body_vector": Column("response_text"),
    },
    "feedback": {"rating": Column("rating")},
    "sessions_request_response_rmt": {**_ALL_COLUMNS, **_SESSION_COLUMNS},
    "users_view": {**_ALL_COLUMNS, **_USER_COLUMNS},
}
# Tables whose columns are names that people chose.
KEYED_TABLES: Final = {"properties": Column("property"), "values": Column("property"), "scores": Column("score")}
