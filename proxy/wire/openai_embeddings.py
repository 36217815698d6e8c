"""Embeddings: https://platform.openai.com/docs/api-reference/embeddings. The vectors stay in the body."""

from __future__ import annotations

from typing import Any

from proxy.wire.facts import ResponseFacts, as_text, told_error
from proxy.wire.openai_usage import read_billing, read_usage

__all__ = ["read_answer"]


def read_answer(body: dict[str, Any]) -> ResponseFacts:
    """Facts of an answer; the same members tell of reranking, images, moderations and transcriptions."""
    return ResponseFacts(
        id=as_text(body.get("id")),
        model=as_text(body.get("model")),
        usage=read_usage(body.get("usage")),
        billing=read_billing(body.get("usage"), body.get("service_tier")),
        error=told_error(body),
        body=body,
    )
