"""How the pieces of a streamed answer add up.

What comes in pieces is told apart by its ``index``, never by its place: n > 1 answers come interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from proxy.wire.facts import as_object, as_objects

__all__ = [
    "GrowingList",
    "GrowingText",
    "add_logprobs",
    "add_members",
    "assemble_choices",
    "first_choice",
    "growing_list",
    "grown",
    "grown_text",
    "index_of",
    "settled",
]

# Members of chunks of which the last one that says something stands; of others it is the first.
_LAST_COUNTS: Final = frozenset({"usage", "x_groq", "error"})
# Without one of these a stream is not of such chunks.
_TELLING: Final = _LAST_COUNTS | {"choices"}
# Random text that hides how long the tokens in a chunk are: OpenAI's and Mistral's name for it.
_PADDING: Final = frozenset({"obfuscation", "p"})
# Parts of a delta that say what something is, and don't go on from chunk to chunk.
_SET_ONCE: Final = frozenset({"role", "id", "type", "index", "format"})
# Parts of a message that go on in the next part of their type, where they come without an index.
_GROWING_PARTS: Final = frozenset({"text", "thinking"})

# What holds other values, or may be one of the kinds below that grow.
_HOLDERS: Final = (dict, list)

Choice = dict[str, Any]
# Puts a member of a choice's next part to what came of the choice before.
Adder = Callable[[Choice, Any], None]
# Of a member's name, what came of it before and what comes next: both together.
Grower = Callable[[str, Any, Any], Any]
_NO_GROWERS: Final[dict[str, Grower]] = {}


def index_of(item: dict[str, Any]) -> int:
    """An item's ``index``, 0 where it has none."""
    index = item.get("index")
    return index if isinstance(index, int) else 0


def first_choice(body: dict[str, Any]) -> Choice:
    """Choice 0, or the one nearest to it; empty where there is none."""
    return min(as_objects(body.get("choices")), key=index_of, default={})


def assemble_choices(chunks: Iterable[dict[str, Any]], kind: str, adders: Mapping[str, Adder]) -> dict[str, Any]:
    """The unstreamed answer of type ``kind`` that chunks add up to; ``adders`` are of the members that go on.

    It is empty, if there is nothing in them that such chunks have.
    """
    answer: dict[str, Any] = {"object": kind}
    choices: dict[int, Choice] = {}
    told = {"object", *_PADDING}
    for chunk in chunks:
        if chunk.get("object") == "error":  # as vLLM and Mistral tell of one
            chunk = {"error": chunk}
        if not told.issuperset(chunk):
            _add_told(answer, chunk, told)
        parts = chunk.get("choices")
        if isinstance(parts, list):
            for part in parts:
                if isinstance(part, dict):
                    _add_choice(choices, part, adders)
    if answer.keys().isdisjoint(_TELLING):
        return {}
    answer["choices"] = [settled(choices[index]) for index in sorted(choices)]
    return answer


def _add_told(answer: dict[str, Any], chunk: dict[str, Any], told: set[str]) -> None:
    """Put in what a chunk says besides its choices. ``told`` are the members of which no chunk says more."""
    for name, value in chunk.items():
        if name not in told and (value or name not in answer):
            answer[name] = value
            if value and name not in _LAST_COUNTS:
                told.add(name)


def _add_choice(choices: dict[int, Choice], part: Choice, adders: Mapping[str, Adder]) -> None:
    index = part.pop("index", 0)
    if not isinstance(index, int):
        index = 0
    choice = choices.get(index)
    if choice is None:
        choice = choices[index] = {"index": index}
    for name, value in part.items():
        if value is None and name in choice:
            continue
        add = adders.get(name)
        if add is not None:
            add(choice, value)
        elif value != "" or name not in choice:
            choice[name] = value


def add_logprobs(choice: Choice, new: Any) -> None:
    """Log probabilities are lists, one entry a token, that go on from chunk to chunk."""
    choice["logprobs"] = _with_logprobs(choice.get("logprobs"), new)


def _with_logprobs(known: Any, new: Any) -> Any:
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


class GrowingList(dict[int, Any]):
    """A list that is still arriving, by the places of its items: they may come in any order, and some never."""


def grown_text(known: object, new: str) -> GrowingText | str:
    """Text with the next piece of it."""
    if not new and isinstance(known, str | GrowingText):
        return known
    if isinstance(known, GrowingText):
        known.append(new)
        return known
    return GrowingText([known, new]) if isinstance(known, str) else new


def growing_list(holder: dict[str, Any], name: str) -> GrowingList:
    """The member of that name, as a list that can grow in any place."""
    known = holder.get(name)
    if not isinstance(known, GrowingList):
        known = holder[name] = GrowingList(enumerate(known if isinstance(known, list) else ()))
    return known


def settled(value: Any) -> Any:
    """An assembled answer with its texts in one piece, and its lists in order."""
    if not isinstance(value, _HOLDERS):
        return value
    if isinstance(value, GrowingText):
        return "".join(value)
    if isinstance(value, GrowingList):
        return [settled(value[index]) for index in sorted(value)]
    if isinstance(value, dict):
        return {name: settled(item) for name, item in value.items()}
    return [settled(item) for item in value]


def add_members(known: dict[str, Any], new: dict[str, Any], growers: Mapping[str, Grower] = _NO_GROWERS) -> None:
    """Add each member of ``new`` to what came of it before, by its own of the ``growers``, else by `grown`.

    In place: copying what grows would take the square of its size.
    """
    for name, value in new.items():
        before = known.get(name)
        if isinstance(before, GrowingText) and isinstance(value, str):  # most pieces are more of a text
            before.append(value)
        else:
            known[name] = growers.get(name, grown)(name, before, value)


def grown(name: str, known: Any, new: Any) -> Any:
    """A member of a delta added to what came of it before."""
    if new is None:
        return known
    if isinstance(new, list):
        return _as_parts(known).gone_on(new)
    if isinstance(new, dict) and (known is None or type(known) is dict):
        known = {} if known is None else known
        add_members(known, new)
        return known
    if known is None or (name in _SET_ONCE and not known):
        return new
    if name in _SET_ONCE:
        return known
    if isinstance(new, str) and isinstance(known, str | GrowingText):
        return grown_text(known, new)
    if isinstance(new, str) and isinstance(known, list):
        return _as_parts(known).gone_on(_text_part(new))  # first parts, then text, within one stream
    return new


class GrowingParts(list[Any]):
    """A list of which some entries go on with entries that came before: by their index, else with the last one."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[tuple[int, str | None], int] = {}

    def gone_on(self, new: list[Any]) -> GrowingParts:
        """With further entries."""
        for entry in new:
            index, kind = _index_and_type(entry)
            place = self._last_alike(kind) if index is None else self._places.get((index, kind))
            if place is None:
                self.append(grown("", None, entry))
                place = len(self) - 1
            else:
                self[place] = grown("", self[place], entry)
            if index is not None:
                self._places[index, kind] = self._places[index, None] = place
        return self

    def _last_alike(self, kind: str | None) -> int | None:
        last = _index_and_type(self[-1]) if self else None
        return len(self) - 1 if kind in _GROWING_PARTS and last == (None, kind) else None


def _index_and_type(entry: Any) -> tuple[int | None, str | None]:
    part = as_object(entry)
    index, kind = part.get("index"), part.get("type")
    return index if isinstance(index, int) else None, kind if isinstance(kind, str) else None


def _as_parts(known: Any) -> GrowingParts:
    if isinstance(known, GrowingParts):
        return known
    if isinstance(known, str | GrowingText):
        known = _text_part(settled(known))
    return GrowingParts().gone_on(known if isinstance(known, list) else [])


def _text_part(text: str) -> list[Any]:
    return [{"type": "text", "text": text}] if text else []
