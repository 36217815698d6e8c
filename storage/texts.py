"""What of a call can be searched: the texts of its two bodies, as somebody reads them who knows their formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from storage.records import Body

__all__ = ["PLAIN_TEXTS", "ReadText", "TextReader", "fold"]

ReadText: TypeAlias = Callable[[str, Body], str]
"""Gives the text of a body, empty where there is none, from it and from the path of the call. Never raises."""


@dataclass(frozen=True, slots=True)
class TextReader:
    """Reads texts: always the same of the same call, as long as ``version`` is the same."""

    version: int
    request: ReadText
    response: ReadText


def fold(text: str) -> str:
    """What texts are compared by: without case, and without what no database takes."""
    return text.casefold().replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _plain(_: str, body: Body) -> str:
    return (body.data or b"").decode("utf-8", "replace")


PLAIN_TEXTS: Final = TextReader(0, _plain, _plain)
"""For who knows no formats: the bodies as they are."""
