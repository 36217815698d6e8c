"""What the store holds, as values: no backend, no wire format, standard library only.

Times are microseconds since the Unix epoch, durations microseconds, sizes bytes, money US dollars.
``None`` is "not known", never a zero in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict, TypeVar, dataclass_transform

__all__ = [
    "Body",
    "Call",
    "Dataset",
    "DatasetRow",
    "DatasetSummary",
    "Derived",
    "Feedback",
    "FeedbackKind",
    "Found",
    "NumberedCall",
    "Score",
    "StoredCall",
    "Usage",
    "property_key",
    "record",
]

T = TypeVar("T")

FeedbackKind = Literal["rating", "value"]
"""A Helicone boolean (1 or 0), or a Portkey weighted integer (-10 to 10)."""


def property_key(name: str) -> str:
    """What property names are compared by: their text without its case."""
    return name.casefold()


@dataclass_transform(frozen_default=True)
def record(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """A frozen, slotted dataclass, frozen by the type checker: at run time that triples what making one takes."""
    return dataclass(slots=True, kw_only=kw_only, unsafe_hash=True)


@record()
class Body:
    """One side's message body as it crossed the wire, still in its content encoding.

    ``data`` is ``None`` where the client asked for the body not to be kept; ``size`` counts every byte
    that passed, ``truncated`` says that ``data`` is only their beginning.
    """

    data: bytes | None = None
    size: int = 0
    truncated: bool = False
    omitted: bool = False
    content_type: str | None = None
    content_encoding: str | None = None


@record()
class Usage:
    """Token counts as the provider reported them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    prompt_audio_tokens: int | None = None
    completion_audio_tokens: int | None = None
    reasoning_tokens: int | None = None


@record(kw_only=True)
class Call:
    """One attempt of one request: what an exchange becomes when it ends.

    ``cut`` names the fields whose texts were too long, with commas between them.
    """

    organisation: str
    request_id: str
    trace_id: str
    method: str
    path: str
    target_url: str
    provider: str
    started_at: int
    latency: int
    time_to_first_token: int | None = None
    status: int | None = None
    is_stream: bool = False
    span_id: str | None = None
    parent_span_id: str | None = None
    span_name: str | None = None
    session_id: str | None = None
    session_name: str | None = None
    session_path: str | None = None
    user_id: str | None = None
    prompt_id: str | None = None
    prompt_version: str | None = None
    model_override: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    provider_response_id: str | None = None
    finish_reason: str | None = None
    error_kind: str | None = None
    error_message: str | None = None
    cost: float | None = None
    cut: str | None = None
    usage: Usage = field(default_factory=Usage)
    properties: Mapping[str, str] = field(default_factory=dict)
    request: Body = field(default_factory=Body)
    response: Body = field(default_factory=Body)

    @property
    def model(self) -> str | None:
        """The name used for statistics: the client's override, else what answered, else what was asked for."""
        names = (self.model_override, self.response_model, self.request_model)
        return next((name for name in names if name is not None), None)


class Derived(TypedDict):
    """The fields of a `Call` that its bodies give, and would give again."""

    user_id: str | None
    is_stream: bool
    request_model: str | None
    response_model: str | None
    provider_response_id: str | None
    finish_reason: str | None
    error_kind: str | None
    error_message: str | None
    cost: float | None
    cut: str | None
    usage: Usage


@dataclass(frozen=True, slots=True)
class NumberedCall:
    """A row, and its number in the order in which rows landed. The call is without its properties."""

    number: int
    call: Call


@dataclass(frozen=True, slots=True)
class Score:
    """A named number that a program or a person gave a request; ``is_boolean`` remembers ``true``/``false``."""

    name: str
    value: float
    is_boolean: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One verdict. A rating names a request or a session; a value names a trace, or what stands in for one.

    ``metadata`` is JSON text. ``effective`` turns false when a later rating replaces this one.
    """

    id: str
    organisation: str
    kind: FeedbackKind
    value: int
    weight: float = 1.0
    comment: str | None = None
    metadata: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    session_id: str | None = None
    source: str
    effective: bool = True
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Found:
    """That what a write speaks of is there; and its trace, where it has one that is known already."""

    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A row with what has joined it: its number among the attempts, its scores and its feedback."""

    call: Call
    attempt: int
    scores: tuple[Score, ...]
    feedback: tuple[Feedback, ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A set of copies of calls. ``meta`` is JSON text."""

    id: str
    organisation: str
    name: str
    meta: str | None
    created_at: int


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """A dataset, and how many rows it has."""

    dataset: Dataset
    rows: int


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A copy of a call as it was then, or as it was edited. ``number`` is its place; a new row has none."""

    id: str
    created_at: int
    stored: StoredCall
    number: int = 0
