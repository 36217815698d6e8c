"""Pairs of answers to the same prompt, one rated well and one badly, as OpenAI's preference fine-tuning takes them.

Rated answers are set aside in temporary files, divided by a digest of their prompts, and paired at the end, a file
after the other: memory holds a small part of them at once, however many there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

import orjson

from proxy.export.conversation import Conversation, Message
from proxy.export.formats import JSON_LINES, Tally, conversations, json_line
from proxy.feedback.items import feedback_summary
from storage.records import StoredCall

__all__ = ["Preference"]

_UNRATED: Final = "unrated"
_UNDECIDED: Final = "rated both ways"
_UNPAIRED: Final = "without a counterpart"
_FILES: Final = 64


@dataclass(slots=True)
class _Answer:
    """An answer to one prompt, with all the verdicts on it: the same words, given and rated again, are one answer."""

    message: Message
    digest: str
    verdict: int = 0
    merit: float = 0.0
    calls: int = 0

    @property
    def mean(self) -> float:
        return self.merit / self.calls


class Preference:
    """``{"input", "preferred_output", "non_preferred_output"}``."""

    media_type = JSON_LINES

    def __init__(self) -> None:
        self.tally = Tally()
        self._files: dict[int, IO[bytes]] = {}
        self._opened = contextlib.ExitStack()

    def add(self, calls: Sequence[StoredCall]) -> Iterator[bytes]:
        """Nothing yet."""
        for stored, talk in conversations(calls, self.tally):
            verdict = _verdict(stored)
            if verdict is None:
                self.tally.skipped[_UNRATED] += 1
            else:
                self._keep(stored.call.organisation, talk, *verdict)
        return iter(())

    def _keep(self, organisation: str, talk: Conversation, verdict: int, merit: float) -> None:
        prompt = {"messages": talk.messages, **talk.settings}
        # Nobody's answers are compared with those of another organisation.
        digest = _digest([organisation, prompt])
        place = int(digest[:8], 16) % _FILES
        if place not in self._files:
            self._files[place] = self._opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # see close()
        self._files[place].write(json_line([digest, prompt, _digest(talk.answer), talk.answer, verdict, merit]))

    def end(self) -> Iterator[bytes]:
        """A line a pair."""
        for file in self._files.values():
            file.seek(0)
            for prompt, answers in _by_prompt(file):
                yield from self._pairs(prompt, answers)

    def _pairs(self, prompt: Any, answers: Sequence[_Answer]) -> Iterator[bytes]:
        """The best with the worst, the second best with the second worst: no answer is in two pairs."""
        good = sorted((one for one in answers if one.verdict > 0), key=lambda one: (-one.mean, one.digest))
        bad = sorted((one for one in answers if one.verdict < 0), key=lambda one: (one.mean, one.digest))
        for preferred, other in zip(good, bad, strict=False):
            self.tally.written += 1
            outputs = {"preferred_output": [preferred.message], "non_preferred_output": [other.message]}
            yield json_line({"input": prompt, **outputs})
        pairs = min(len(good), len(bad))
        undecided = sum(one.calls for one in answers if one.verdict == 0)
        unpaired = sum(one.calls for one in (*good[pairs:], *bad[pairs:]))
        self.tally.skipped += Counter({_UNDECIDED: undecided, _UNPAIRED: unpaired})

    def close(self) -> None:
        """Remove what was set aside."""
        self._opened.close()


def _by_prompt(lines: Iterable[bytes]) -> Iterator[tuple[Any, list[_Answer]]]:
    prompts: dict[str, Any] = {}
    found: dict[str, dict[str, _Answer]] = defaultdict(dict)
    for digest, prompt, of_answer, message, verdict, merit in map(orjson.loads, lines):
        prompts.setdefault(digest, prompt)
        answer = found[digest].setdefault(of_answer, _Answer(message, of_answer))
        answer.verdict += verdict
        answer.merit += merit
        answer.calls += 1
    for digest, prompt in prompts.items():
        yield prompt, list(found[digest].values())


def _verdict(stored: StoredCall) -> tuple[int, float] | None:
    """1 or -1, and the weighted mean of all that was said; the effective rating decides, without one the mean."""
    said = feedback_summary(stored.feedback)
    mean = said["weighted_mean"]
    if mean is None:
        return None
    is_good = said["rating"] if said["rating"] is not None else mean > 0
    return (1 if is_good else -1), mean


def _digest(value: Any) -> str:
    """Of what is said, not of how it was written: the order of names, and a text that is a list of one part."""
    return hashlib.sha256(orjson.dumps(_normal(value), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _normal(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], dict) and value[0].keys() == {"type", "text"}:
            return value[0]["text"]
        return [_normal(part) for part in value]
    return value
