"""Answers that say of what API they are, in the member that each of these APIs has for it.

That is ``object`` of OpenAI's answers and chunks, and ``type`` of Anthropic's messages and of either's events. One
that says nothing is read for the few names that all APIs use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from proxy.wire import anthropic_messages, openai_chat, openai_completions, openai_embeddings, openai_responses
from proxy.wire.facts import ResponseFacts

__all__ = ["assemble", "read_answer"]

_READERS: Final[dict[str, Callable[[dict[str, Any]], ResponseFacts]]] = {
    "chat.completion": openai_chat.read_answer,
    "text_completion": openai_completions.read_answer,
    "response": openai_responses.read_answer,
    "message": anthropic_messages.read_answer,
}
_ASSEMBLERS: Final[dict[str, Callable[[Iterable[dict[str, Any]]], dict[str, Any]]]] = {
    "chat.completion.chunk": openai_chat.assemble,
    "text_completion": openai_completions.assemble,
    "response.created": openai_responses.assemble,
    "message_start": anthropic_messages.assemble,
}


def read_answer(body: dict[str, Any]) -> ResponseFacts:
    """Facts of an answer, by what it declares itself to be."""
    return _READERS.get(_kind(body), openai_embeddings.read_answer)(body)


def assemble(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The answer that a stream's chunks add up to, by the first that says what it is; none of an unknown API."""
    known = list(chunks)
    for chunk in known:
        if assembler := _ASSEMBLERS.get(_kind(chunk)):
            return assembler(known)
    return {}


def _kind(body: dict[str, Any]) -> str:
    return str(body.get("object") or body.get("type") or "")
