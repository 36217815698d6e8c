"""Completions, the older text API: https://platform.openai.com/docs/api-reference/completions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from proxy.wire.accumulate import add_logprobs, assemble_choices, first_choice, grown
from proxy.wire.facts import ResponseFacts, as_text, told_error
from proxy.wire.openai_usage import find_usage, read_billing, read_usage

__all__ = ["assemble", "read_answer"]


def read_answer(body: dict[str, Any]) -> ResponseFacts:
    """Facts of an unstreamed answer, or of a stream's assembled one."""
    choice = first_choice(body)
    text = choice.get("text")
    usage = find_usage(body)
    return ResponseFacts(
        id=as_text(body.get("id")),
        model=as_text(body.get("model")),
        finish_reason=as_text(choice.get("finish_reason")),
        usage=read_usage(usage),
        billing=read_billing(usage, body.get("service_tier")),
        text=text if isinstance(text, str) else None,
        error=told_error(body),
        body=body,
    )


def assemble(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The answer that a stream's chunks add up to."""
    return assemble_choices(chunks, "text_completion", _ADDERS)


def _add_text(choice: dict[str, Any], text: Any) -> None:
    choice["text"] = grown("text", choice.get("text"), text)


_ADDERS: Final = {"text": _add_text, "logprobs": add_logprobs}
