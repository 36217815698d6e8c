"""How the pieces of a streamed answer add up, where they come as objects with choices.

Choices are told apart by their ``index``, never by their place: n > 1 answers come interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from proxy.wire.facts import as_objects

__all__ = ["add_logprobs", "assemble_choices", "first_choice", "grown", "grown_text", "index_of", "settled"]

# Members of chunks of which the last one that says something stands; of others it is the first.
_LAST_COUNTS: Final = frozenset({"usage", "x_groq", "error"})
# Parts of a delta that say what something is, and don't go on from chunk to chunk.
_SET_ONCE: Final = frozenset({"role", "id", "type", "index", "format"})

Choice = dict[str, Any]


def index_of(item: dict[str, Any]) -> int:
    """An item's ``index``, 0 where it has none."""
    index = item.get("index")
    return index if isinstance(index, int) else 0


def first_choice(body: dict[str, Any]) -> Choice:
    """Choice 0, or the one nearest to it; empty where there is none."""
    return min(as_objects(body.get("choices")), key=index_of, default={})


def assemble_choices(
    chunks: Iterable[dict[str, Any]], kind: str, add: Callable[[Choice, str, Any], None]
) -> dict[str, Any]:
    """The unstreamed answer of type ``kind`` that chunks add up to; ``add`` puts a choice's member to its others."""
    answer: dict[str, Any] = {"object": kind}
    choices: dict[int, Choice] = {}
    for chunk in chunks:
        for name, value in chunk.items():
            if name == "choices":
                _add_choices(choices, value, add)
            elif name != "object":
                _add_member(answer, name, value)
    answer["choices"] = [settled(choices[index]) for index in sorted(choices)]
    return answer


def _add_member(answer: dict[str, Any], name: str, value: Any) -> None:
    if name not in answer or (value and (name in _LAST_COUNTS or not answer[name])):
        answer[name] = value


def _add_choices(choices: dict[int, Choice], new: Any, add: Callable[[Choice, str, Any], None]) -> None:
    for part in as_objects(new):
        index = index_of(part)
        choice = choices.setdefault(index, {"index": index})
        for name, value in part.items():
            if name == "logprobs":
                choice["logprobs"] = add_logprobs(choice.get("logprobs"), value)
            elif name != "index":
                add(choice, name, value)


def add_logprobs(known: Any, new: Any) -> Any:
    """Log probabilities are lists, one entry a token, that go on from chunk to chunk."""
    if not isinstance(known, dict) or not isinstance(new, dict):
        return known if new is None else new
    for name, value in new.items():
        both_lists = isinstance(known.get(name), list) and isinstance(value, list)
        if value is not None:
            if both_lists:
                known[name].extend(value)
            else:
                known[name] = value
    return known


class GrowingText(list[str]):
    """Text that is still arriving, in pieces: adding each to a whole would copy the whole each time."""


def grown_text(known: object, new: str) -> GrowingText | str:
    """Text with the next piece of it."""
    if isinstance(known, GrowingText):
        known.append(new)
        return known
    return GrowingText([known, new]) if isinstance(known, str) else new


def settled(value: Any) -> Any:
    """An assembled answer with its texts in one piece."""
    if isinstance(value, GrowingText):
        return "".join(value)
    if isinstance(value, dict):
        return {name: settled(item) for name, item in value.items()}
    return [settled(item) for item in value] if isinstance(value, list) else value


def grown(name: str, known: Any, new: Any) -> Any:
    """A member of a delta added to what came of it before."""
    if new is None:
        return known
    if known is None or (name in _SET_ONCE and not known):
        return new
    if name in _SET_ONCE:
        return known
    if isinstance(new, str) and isinstance(known, str | GrowingText):
        return grown_text(known, new)
    if isinstance(known, list) and isinstance(new, list) and not isinstance(known, GrowingText):
        known.extend(new)
        return known
    if isinstance(known, list) and isinstance(new, str):  # first parts, then text, within one stream
        return [*known, {"type": "text", "text": new}] if new else known
    if isinstance(known, dict) and isinstance(new, dict):
        return {**known, **{key: grown(key, known.get(key), value) for key, value in new.items()}}
    return new
