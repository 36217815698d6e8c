"""Answers that say of what API they are, in the member that each of these APIs has for it.

That is ``object`` of OpenAI's answers and chunks, and ``type`` of Anthropic's messages and of either's events. So an
answer is understood whose address tells nothing: of a provider with paths of its own, or of no address at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Final

from proxy.wire import anthropic_messages, openai_chat, openai_completions, openai_embeddings, openai_responses
from proxy.wire.facts import ResponseFacts

__all__ = ["assemble", "read_answer", "read_declared"]

Assembler = Callable[[Iterable[dict[str, Any]]], dict[str, Any]]

# With the member that such an answer has, and nothing else of that name: an item of a conversation is a message too.
_READERS: Final[dict[str, tuple[str, Callable[[dict[str, Any]], ResponseFacts]]]] = {
    "chat.completion": ("choices", openai_chat.read_answer),
    "text_completion": ("choices", openai_completions.read_answer),
    "response": ("output", openai_responses.read_answer),
    "message": ("stop_reason", anthropic_messages.read_answer),
}
_ASSEMBLERS: Final[dict[str, Assembler]] = {
    "chat.completion.chunk": openai_chat.assemble,
    "text_completion": openai_completions.assemble,
    "message_start": anthropic_messages.assemble,
}
_RESPONSES_EVENT: Final = "response."
# Chunks that may come before the first that says what it is.
_SILENT_CHUNKS: Final = 16


def read_answer(body: dict[str, Any]) -> ResponseFacts:
    """Facts of an answer, by what it declares itself to be; of another, by the few names that all APIs use."""
    return (_reader(body) or openai_embeddings.read_answer)(body)


def read_declared(body: dict[str, Any]) -> ResponseFacts:
    """The same, and none of an answer that declares nothing known: what ``id`` and ``model`` are there isn't known."""
    reader = _reader(body)
    return reader(body) if reader else ResponseFacts()


def _reader(body: dict[str, Any]) -> Callable[[dict[str, Any]], ResponseFacts] | None:
    member, reader = _READERS.get(_kind(body), ("", None))
    return reader if member in body else None


def assemble(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The answer that a stream's chunks add up to, by the first that says what it is; none of an unknown API."""
    silent, ahead = list[dict[str, Any]](), iter(chunks)
    for chunk in ahead:
        silent.append(chunk)
        if assembler := _assembler(_kind(chunk)):
            return assembler(chain(silent, ahead))
        if len(silent) > _SILENT_CHUNKS:
            break
    return {}


def _assembler(kind: str) -> Assembler | None:
    return openai_responses.assemble if kind.startswith(_RESPONSES_EVENT) else _ASSEMBLERS.get(kind)


def _kind(body: dict[str, Any]) -> str:
    return str(body.get("object") or body.get("type") or "")
