"""A WebSocket's frames, and OpenAI's Realtime API in them: https://platform.openai.com/docs/api-reference/realtime.

The Responses API speaks the same way over a WebSocket, with other names for a response's end. One connection holds
many responses. Its usage is their sum, its text all that the assistant said or wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from proxy.wire.facts import (
    STANDARD_BILLING,
    Billing,
    RequestFacts,
    ResponseFacts,
    as_count,
    as_object,
    as_objects,
    as_text,
    error_message,
)
from proxy.wire.openai_responses import tool_calls_in
from proxy.wire.openai_usage import read_billing, read_usage
from storage.records import Usage

__all__ = ["FRAMES", "TELLING", "read_asked", "read_frames"]

FRAMES: Final = "application/x-kibitz-frames+json"

# RFC 6455 section 7.4.1: normal closure, and a side that goes away.
_GOOD_CODES: Final = frozenset({None, 1000, 1001})
_RESPONSE_ENDS: Final = frozenset({"response.done", "response.completed", "response.incomplete", "response.failed"})
_TEXT_DELTAS: Final = frozenset(
    {
        "response.text.delta",
        "response.output_text.delta",
        "response.audio_transcript.delta",
        "response.output_audio_transcript.delta",
    }
)


def read_asked(path: str) -> RequestFacts:
    """What the address of a WebSocket says."""
    [model, *_] = parse_qs(path.partition("?")[2]).get("model", [""])
    return RequestFacts(model=as_text(model), is_stream=True)


TELLING: Final = frozenset({"session.created", "session.updated", "error", *_RESPONSE_ENDS})
"""The events that facts are read from where a conversation is whole."""


@dataclass(slots=True)
class _Conversation:
    id: str | None = None
    model: str | None = None
    status: str | None = None
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    billing: Billing = STANDARD_BILLING
    texts: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    """What has come of a response that isn't done."""
    tool_calls: list[Any] = field(default_factory=list)

    def take(self, event: dict[str, Any]) -> None:
        kind, response = as_text(event.get("type")), as_object(event.get("response"))
        if kind in ("session.created", "session.updated"):
            self.model = as_text(as_object(event.get("session")).get("model")) or self.model
        elif kind == "response.created":
            self.id = as_text(response.get("id")) or self.id
            self.begun = []
        elif kind in _TEXT_DELTAS and isinstance(event.get("delta"), str):
            self.begun.append(event["delta"])
        elif kind in _RESPONSE_ENDS:
            self._end_response(response)
        elif kind == "error":
            self.error = error_message(event.get("error")) or "the upstream tells of an error"

    def _end_response(self, response: dict[str, Any]) -> None:
        self.id = as_text(response.get("id")) or self.id
        self.model = self.model or as_text(response.get("model"))
        self.status = as_text(response.get("status"))
        self.usage = _sum(self.usage, read_usage(response.get("usage")))
        self.billing = _together(self.billing, read_billing(response.get("usage"), response.get("service_tier")))
        output = as_objects(response.get("output"))
        text = "".join(_said(output)) or "".join(self.begun)
        self.texts, self.begun = [*self.texts, text] if text else self.texts, []
        self.tool_calls += tool_calls_in(output)
        # An error that the conversation got over is none of the row's.
        failed = self.status == "failed"
        details = response.get("error") or as_object(response.get("status_details")).get("error")
        self.error = (error_message(details) or "the response failed") if failed else None


def read_frames(body: dict[str, Any]) -> ResponseFacts:
    """Facts of a WebSocket: what came from the upstream."""
    told = _Conversation()
    code = None
    for frame in as_objects(body.get("frames")):
        if frame.get("direction") == "upstream":
            told.take(as_object(frame.get("data")))
            code = as_count(frame.get("code", code))
    error = told.error
    if error is None and code not in _GOOD_CODES:
        error = f"the upstream closed the WebSocket with code {code}"
    texts = [*told.texts, "".join(told.begun)] if told.begun else told.texts
    return ResponseFacts(
        id=told.id,
        model=told.model,
        finish_reason=told.status,
        usage=told.usage,
        billing=told.billing,
        text="\n".join(texts) if texts else None,
        tool_calls=told.tool_calls or None,
        is_stream=True,
        error=error,
    )


def _said(output: list[dict[str, Any]]) -> Iterator[str]:
    """The text of a response's messages, and what was spoken in them."""
    for item in output:
        for part in as_objects(item.get("content")) if item.get("type") == "message" else ():
            said = part.get("text") or part.get("transcript")
            if isinstance(said, str):
                yield said


def _sum(first: Usage, second: Usage) -> Usage:
    more = asdict(second)
    return Usage(**{name: _plus(count, more[name]) for name, count in asdict(first).items()})


def _together(first: Billing, second: Billing) -> Billing:
    units = {name: first.units.get(name, 0) + second.units.get(name, 0) for name in first.units | second.units}
    return Billing(units=units, terms=second.terms)


def _plus(first: int | None, second: int | None) -> int | None:
    return first + second if first is not None and second is not None else second if first is None else first
