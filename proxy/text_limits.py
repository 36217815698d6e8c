"""How long the texts of a row may be, in characters. What is longer is cut, and the row says so."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Final, TypeVar

__all__ = ["DEFAULT_TEXT_LIMITS", "TextLimits", "cut_to"]

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


def cut_to(most: int, text: T, name: str, cut: MutableSequence[str]) -> T:
    """The text, or as much of it as may be; then ``name`` joins those of what was ``cut``."""
    if text is None or len(text) <= most:
        return text
    cut.append(name)
    return text[:most]
