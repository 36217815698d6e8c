"""How long texts may be that are stored, in characters. What is longer in a call is cut, and its row says so."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Final, TypeVar

__all__ = ["DEFAULT_FEEDBACK_LIMITS", "DEFAULT_TEXT_LIMITS", "FeedbackLimits", "TextLimits", "cut_to"]

T = TypeVar("T", str, str | None)


@dataclass(frozen=True, slots=True)
class TextLimits:
    """``[limits]``, as far as texts of a row are concerned: characters, and properties of one call.

    Labels are the names and ids that a call bears, its properties' names and the names in its bodies; texts are
    properties' values, addresses and messages of errors.
    """

    max_label_characters: int = 1024
    max_text_characters: int = 8192
    max_properties: int = 128


DEFAULT_TEXT_LIMITS: Final = TextLimits()


@dataclass(frozen=True, slots=True)
class FeedbackLimits:
    """The same for feedback, where what is too long is refused. Labels are ids, and names of scores and properties.

    ``max_bulk_items`` is of logs of calls too.
    """

    max_label_characters: int = DEFAULT_TEXT_LIMITS.max_label_characters
    max_text_characters: int = DEFAULT_TEXT_LIMITS.max_text_characters
    max_comment_characters: int = 16384
    max_metadata_bytes: int = 65536
    max_scores: int = 100
    max_bulk_items: int = 1000


DEFAULT_FEEDBACK_LIMITS: Final = FeedbackLimits()


def cut_to(most: int, text: T, name: str, cut: MutableSequence[str]) -> T:
    """The text, or as much of it as may be; then ``name`` joins those of what was ``cut``."""
    if text is None or len(text) <= most:
        return text
    cut.append(name)
    return text[:most]
