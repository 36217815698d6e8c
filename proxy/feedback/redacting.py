"""The store as the feedback routes see it: what is not to be stored does not come to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

from proxy.dialects import Failed
from proxy.redaction.credentials import CALLING
from proxy.redaction.redactor import Redactor, Words
from storage.base import Storage
from storage.records import Dataset, Feedback, Found, Score

__all__ = ["redacting"]

_THREADS: Final = 2
# Characters that are searched for keys in the event loop.
_MOST_AT_ONCE: Final = 16 * 1024
_KEY_AS_ID: Final = Failed(400, "misplaced_key", "An id that this feedback names is a key, or holds one.")
T = TypeVar("T")


def redacting(storage: Storage, redactor: Redactor) -> Storage:
    """The same store, to which feedback comes without what is to be redacted, and is asked for in the same words."""
    return cast(Storage, _Redacting(storage, redactor))


def _without(words: Words, one: Feedback) -> Feedback:
    return replace(
        one,
        comment=words.label(one.comment),
        metadata=words.json(one.metadata),
        session_id=words.label(one.session_id),
    )


class _Redacting:
    """Searches in a thread, since a search may take as long as it is allowed to. Methods are those of `Storage`."""

    def __init__(self, storage: Storage, redactor: Redactor) -> None:
        self._storage = storage
        self._redactor = redactor
        # Not the default executor's, which the store uses too: searches that take long would hold it up.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="redact-feedback")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def _redacted(self, redact: Callable[[Words], T], *texts: str | None) -> T:
        """What ``redact`` makes of the texts with what takes out of them what is not to be stored."""
        credentials, present = CALLING.get(), [text for text in texts if text]
        size = sum(map(len, present))

        def search() -> T:
            return redact(self._redactor.words(keys=credentials.keys_repeated_by(present), size=size))

        if not self._redactor.has_rules and size <= _MOST_AT_ONCE:
            return search()
        return await asyncio.get_running_loop().run_in_executor(self._threads, search)

    async def _of(self, *feedback: Feedback) -> list[Feedback]:
        ids = [text for one in feedback for text in (one.request_id, one.trace_id) if text]
        if any(map(CALLING.get().is_repeated_by, ids)):
            raise _KEY_AS_ID
        texts = (text for one in feedback for text in (one.comment, one.metadata, one.session_id))
        return await self._redacted(lambda words: [_without(words, one) for one in feedback], *texts)

    async def add_rating(self, rating: Feedback, *, known: bool) -> Found | None:
        [redacted] = await self._of(rating)
        return await self._storage.add_rating(redacted, known=known)

    async def add_session_rating(self, rating: Feedback, *, known: bool) -> Found | None:
        [redacted] = await self._of(rating)
        return await self._storage.add_session_rating(redacted, known=known)

    async def add_values(self, values: Sequence[Feedback], *, traces_in_flight: frozenset[str]) -> None:
        redacted = await self._of(*values)
        await self._storage.add_values(redacted, traces_in_flight=traces_in_flight)

    async def update_value(
        self,
        organisation: str,
        feedback_id: str,
        *,
        value: int,
        weight: float | None,
        metadata: str | None,
        updated_at: int,
    ) -> Found | None:
        metadata = await self._redacted(lambda words: words.json(metadata), metadata)
        return await self._storage.update_value(
            organisation, feedback_id, value=value, weight=weight, metadata=metadata, updated_at=updated_at
        )

    async def list_feedback(
        self,
        organisation: str,
        *,
        trace_id: str | None = None,
        request_id: str | None = None,
        session_id: str | None = None,
        unmatched: bool = False,
    ) -> Sequence[Feedback]:
        session_id = await self._redacted(lambda words: words.label(session_id), session_id)
        return await self._storage.list_feedback(
            organisation, trace_id=trace_id, request_id=request_id, session_id=session_id, unmatched=unmatched
        )

    async def merge_scores(
        self, organisation: str, request_id: str, scores: Sequence[Score], *, known: bool, updated_at: int
    ) -> Found | None:
        names = [score.name for score in scores]
        redacted = await self._redacted(
            lambda words: [replace(score, name=words.text(score.name)) for score in scores], *names
        )
        return await self._storage.merge_scores(organisation, request_id, redacted, known=known, updated_at=updated_at)

    async def create_dataset(self, dataset: Dataset) -> None:
        name, meta = await self._redacted(
            lambda words: (words.text(dataset.name), words.json(dataset.meta)), dataset.name, dataset.meta
        )
        await self._storage.create_dataset(replace(dataset, name=name, meta=meta))

    async def edit_dataset_row(
        self, organisation: str, dataset_id: str, row_id: str, *, request: str | None, response: str | None
    ) -> bool:
        request, response = await self._redacted(
            lambda words: (words.json(request), words.json(response)), request, response
        )
        return await self._storage.edit_dataset_row(
            organisation, dataset_id, row_id, request=request, response=response
        )

    async def tag_session(
        self, organisation: str, session_id: str, tag: str, *, known: bool, updated_at: int
    ) -> Found | None:
        session_id, tag = await self._redacted(lambda words: (words.text(session_id), words.text(tag)), session_id, tag)
        return await self._storage.tag_session(organisation, session_id, tag, known=known, updated_at=updated_at)

    async def session_tag(self, organisation: str, session_id: str) -> str | None:
        session_id = await self._redacted(lambda words: words.text(session_id), session_id)
        return await self._storage.session_tag(organisation, session_id)

    async def set_property(
        self, organisation: str, request_id: str, name: str, value: str, *, known: bool, updated_at: int
    ) -> Found | None:
        name, value = await self._redacted(lambda words: words.pair(name, value), name, value)
        return await self._storage.set_property(
            organisation, request_id, name, value, known=known, updated_at=updated_at
        )
