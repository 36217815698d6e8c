"""Audio into text and text into audio: https://platform.openai.com/docs/api-reference/audio.

A transcript comes as JSON or as plain text, or is streamed; speech comes as bytes that nothing here looks at, or as
events that carry it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from proxy.wire.facts import ResponseFacts, as_object, as_objects, as_text, error_message
from proxy.wire.openai_usage import read_billing, read_usage

__all__ = ["assemble_speech", "assemble_transcript", "read_answer", "read_transcript"]


def read_answer(body: dict[str, Any]) -> ResponseFacts:
    """Facts of a transcript or a translation, of any of the JSON shapes, or of what a stream was assembled to.

    Usage that counts seconds and not tokens is in the body only.
    """
    text = body.get("text")
    return ResponseFacts(
        id=as_text(body.get("id")),
        model=as_text(body.get("model")),
        usage=read_usage(body.get("usage")),
        billing=read_billing(body.get("usage"), None),
        text=text if isinstance(text, str) else None,
        error=error_message(body.get("error")),
        body=body,
    )


def read_transcript(text: str) -> ResponseFacts:
    """Facts of a transcript that came as text, subtitles or not."""
    return ResponseFacts(text=text)


def assemble_transcript(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The JSON answer that a streamed transcript adds up to. The last event repeats what the others said."""
    texts, logprobs, segments = list[str](), list[Any](), list[Any]()
    last: dict[str, Any] = {}
    for event in events:
        kind, delta = as_text(event.get("type")), event.get("delta")
        if kind == "transcript.text.delta" and isinstance(delta, str):
            texts.append(delta)
            logprobs += as_objects(event.get("logprobs"))
        elif kind == "transcript.text.segment":
            segments.append(event)
        elif kind == "transcript.text.done":
            last |= {name: value for name, value in event.items() if name != "type"}
        elif kind == "error" or "error" in event:
            last["error"] = event.get("error") or event
    told = {"text": "".join(texts), "segments": segments, "logprobs": logprobs}
    return {name: value for name, value in told.items() if value} | last


def assemble_speech(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What streamed speech adds up to: the bytes as an answer of bytes is shown, and the usage beside them."""
    audio, answer = bytearray(), dict[str, Any]()
    for event in events:
        kind = as_text(event.get("type"))
        if kind == "speech.audio.delta":
            audio += _decoded(event.get("audio"))
        elif kind == "speech.audio.done":
            answer["usage"] = as_object(event.get("usage"))
        elif kind == "error" or "error" in event:
            answer["error"] = event.get("error") or event
    if audio:
        answer = {"encoding": "base64", "data": base64.b64encode(audio).decode("ascii"), **answer}
    return answer


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text) if isinstance(text, str) else b""
    except ValueError:
        return b""
