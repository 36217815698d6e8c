"""What a row wants of a request, and of a chat's answer, read in C without building what it does not: texts, above all.

Nearly every answer has the shapes below; of all others, odd or special in whatever way, nothing is said here, and they
are read in full. So a type may be as narrow as is simple, as long as what passes it says all that counts. Of what is
skipped only the outline has to be JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypedDict

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

from proxy.wire.facts import LARGEST_COUNT, ResponseFacts, as_text
from proxy.wire.gist import Template
from storage.records import Usage

__all__ = [
    "is_piece_of_message",
    "is_piece_of_response",
    "says_nothing",
    "skim_answer",
    "skim_chunks",
    "skim_request",
]

_Count = Annotated[int, Meta(ge=0, le=LARGEST_COUNT)]
_END_OF_STREAM: Final = b"[DONE]"
_DATA: Final = b"data: "
_LINE_END: Final = b"\n"
_ANY_TEXT: Final = "any text"


class _Asked(Struct, forbid_unknown_fields=True):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    audio_tokens: _Count | None = None


class _Answered(Struct, forbid_unknown_fields=True):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    accepted_prediction_tokens: Any = None
    rejected_prediction_tokens: Any = None


_NOTHING_ASKED: Final = _Asked()
_NOTHING_ANSWERED: Final = _Answered()


class _Usage(Struct, forbid_unknown_fields=True):
    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _Asked | None = None
    completion_tokens_details: _Answered | None = None


class _Choice(Struct):
    index: int
    finish_reason: str | None = None
    usage: None = None
    error: None = None


class _Chunk(Struct, kw_only=True):
    """A chunk of an answer, or a whole one. What tells of an error, in any way, is none."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice]
    object: Literal["chat.completion", "chat.completion.chunk", "text_completion"]
    usage: _Usage | None = None
    service_tier: Literal["auto", "default", "standard"] | None = None
    error: None = None
    x_groq: None = None
    type: None = None


class _Delta(Struct):
    """An event of Anthropic's, of which the type tells all."""

    type: Literal["content_block_delta"]


class _OutputDelta(Struct):
    """An event of the Responses API that tells of no error, nor of a response."""

    type: Literal[
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.mcp_call_arguments.delta",
        "response.code_interpreter_call_code.delta",
    ]
    error: None = None
    response: None = None


class _Request(TypedDict, total=False):
    """The members that some API's reader of requests looks at, whatever they are."""

    model: Any
    user: Any
    stream: Any
    metadata: Any


_decode_chunk: Final = Decoder(_Chunk).decode
_decode_request: Final = Decoder(_Request).decode
_UNREADABLE: Final = (DecodeError, RecursionError, UnicodeDecodeError)


def skim_request(text: bytes) -> dict[str, Any] | None:
    """Those members of a request that are wanted of any; ``None`` of one that is no JSON object."""
    try:
        members: dict[str, Any] = _decode_request(text)  # type: ignore[assignment]  # a dictionary it is
        return members
    except _UNREADABLE:
        return None


def skim_answer(text: bytes) -> ResponseFacts | None:
    """Facts of an unstreamed answer; ``None`` of one that has to be read in full."""
    try:
        answer = _decode_chunk(text)
    except _UNREADABLE:
        return None
    if len(answer.choices) > 1:
        return None
    reason = answer.choices[0].finish_reason if answer.choices else None
    return _facts(answer.id, answer.model, reason, answer.usage)


def skim_chunks(texts: Iterable[bytes]) -> ResponseFacts | None:
    """The same of an answer in chunks, each the data of an event without a name."""
    name = model = usage = chunk = None
    reasons: dict[int, str | None] = {}
    try:
        for text in texts:
            if text == _END_OF_STREAM:
                continue
            chunk = _decode_chunk(text)
            if not (name and model):  # what the first chunk says of these stands
                name, model = name or chunk.id, model or chunk.model
            usage = chunk.usage or usage
            for choice in chunk.choices:
                if choice.finish_reason or choice.index not in reasons:
                    reasons[choice.index] = choice.finish_reason
    except _UNREADABLE:
        return None
    return _facts(name, model, reasons[min(reasons)] if reasons else None, usage) if chunk else None


@lru_cache(maxsize=64)  # of a stream that comes slowly this is asked before its end, while nobody waits for the answer
def says_nothing(template: Template) -> bool:
    """Whether events of a kind say nothing that others of it don't, nor what counts by being said last."""
    if template.gap == _LINE_END:
        return False  # which does not end an event
    event = template.filled(_ANY_TEXT.encode())
    if not event.startswith(_DATA):
        return False
    try:
        chunk = _decode_chunk(event[len(_DATA) :])
    except _UNREADABLE:
        return False
    if chunk.usage is not None or any(choice.finish_reason for choice in chunk.choices):
        return False
    return _ANY_TEXT not in (chunk.id, chunk.model)  # no other member that is kept takes any text


def _told_by(piece: type[Struct]) -> Callable[[bytes], bool]:
    """Whether an event is such a piece, told by its data."""
    decode = Decoder(piece).decode

    def is_piece(data: bytes) -> bool:
        try:
            decode(data)
        except _UNREADABLE:
            return False
        return True

    return is_piece


is_piece_of_message: Final = _told_by(_Delta)
"""Whether an event of Anthropic's brings no more than a piece of a block: a text's, or of a tool's input."""
is_piece_of_response: Final = _told_by(_OutputDelta)
"""Whether an event of the Responses API brings no more than a piece of the output."""


def _facts(name: str | None, model: str | None, reason: str | None, usage: _Usage | None) -> ResponseFacts:
    return ResponseFacts(as_text(name), as_text(model), as_text(reason), _usage(usage) if usage else Usage())


def _usage(usage: _Usage) -> Usage:
    asked = usage.prompt_tokens_details or _NOTHING_ASKED
    answered = usage.completion_tokens_details or _NOTHING_ANSWERED
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        asked.cached_tokens,
        asked.cache_write_tokens,
        asked.audio_tokens,
        answered.audio_tokens,
        answered.reasoning_tokens,
    )
