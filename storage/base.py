"""The contract between Kibitz and a database: what the proxy asks for, and what a backend promises.

Every write is one transaction: when it returns it is committed, and when it raises nothing of it is there.
Every call takes the organisation that asks; nothing of another one is seen or changed. Only the methods that
tend the whole log, and the one that names the organisations, go over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from storage.filters import EVERYTHING, Node
from storage.pruning import Prunable, Pruning, Reached, Space
from storage.queries import FIGURES, Dimension, Group, GroupSort, Page, Position, Shuffled, Sort
from storage.records import (
    Call,
    Dataset,
    DatasetRow,
    DatasetSummary,
    Feedback,
    Found,
    NumberedCall,
    Score,
    StoredCall,
)

__all__ = ["IncompatibleStoreError", "QueryTooSlowError", "RefusedRowError", "Storage", "StorageError"]


class StorageError(Exception):
    """The store did not do what was asked; nothing of it was written. Asking again may succeed."""


class RefusedRowError(StorageError):
    """The store will never take what it was given, however often it is asked."""


class QueryTooSlowError(StorageError):
    """A question took longer than it may; a narrower one may be answered."""


class IncompatibleStoreError(StorageError):
    """The store can't be opened by this program: corrupt, of a newer version, or not a Kibitz store."""


class Storage(Protocol):
    """One open store. Methods raise `StorageError` and nothing else of the backend's own."""

    async def write_calls(self, calls: Sequence[Call]) -> None:
        """Append calls, all or none. A request id seen before makes the next attempt of it."""
        ...

    def write_now(self, make: Callable[[], Call | None], then: Callable[[BaseException | None], None]) -> bool:
        """Have whoever writes make a call and append it, if there is nothing else to be written; answers whether.

        If so ``make`` is called in another thread, and ``then``, which must not raise, in the event loop: with why the
        call is not committed, be it a fault of ``make``'s, or with ``None`` if it is, or if there was none to be made.
        A `RefusedRowError` here does not mean that `write_calls` refuses it too. It spares a call that comes alone the
        ways between threads and tasks; a backend may answer False whenever it likes.
        """
        ...

    async def replace_response(self, call: Call) -> bool:
        """Write anew what the row of a call says of its response: how it ended, its body, what is derived from it.

        The row is the one of that request id and start. Answers whether there is one.
        """
        ...

    async def add_rating(self, rating: Feedback, *, known: bool) -> Found | None:
        """Add a rating of ``rating.request_id`` and make it the effective one.

        The id may be a provider's response id. An id with no row counts only if ``known`` (its call is in
        flight, or such ratings are kept on purpose); else nothing is written and the answer is ``None``.
        """
        ...

    async def add_session_rating(self, rating: Feedback, *, known: bool) -> Found | None:
        """The same for ``rating.session_id``; marks the session's earliest call with the verdict."""
        ...

    async def add_values(self, values: Sequence[Feedback], *, traces_in_flight: frozenset[str]) -> None:
        """Add weighted values, all or none.

        Where no trace, in the store or in flight, has the text of ``trace_id``, a request id or response id
        of that text is meant; where there is none of these either, the value waits for its trace.
        """
        ...

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
        """Change a weighted value; ``None`` leaves a part as it was. ``None`` where there is no such value."""
        ...

    async def delete_feedback(self, organisation: str, feedback_id: str) -> Found | None:
        """Remove a value or a rating for good; the newest rating left, if any, is the effective one again."""
        ...

    async def list_feedback(
        self,
        organisation: str,
        *,
        trace_id: str | None = None,
        request_id: str | None = None,
        session_id: str | None = None,
        unmatched: bool = False,
    ) -> Sequence[Feedback]:
        """Feedback that names all of what is given, oldest first; ``unmatched``: whose call is not there yet."""
        ...

    async def merge_scores(
        self, organisation: str, request_id: str, scores: Sequence[Score], *, known: bool, updated_at: int
    ) -> Found | None:
        """Set scores by name on a request; ``known`` and the answer as in `add_rating`."""
        ...

    async def set_property(
        self, organisation: str, request_id: str, name: str, value: str, *, known: bool, updated_at: int
    ) -> Found | None:
        """Set one property on every attempt of a request, landed or to come; ``known`` as in `add_rating`."""
        ...

    async def tag_session(
        self, organisation: str, session_id: str, tag: str, *, known: bool, updated_at: int
    ) -> Found | None:
        """Set a session's tag, of which it has one; ``known`` and the answer as in `add_session_rating`."""
        ...

    async def session_tag(self, organisation: str, session_id: str) -> str | None:
        """The tag of a session, if it has one."""
        ...

    async def read_call(self, organisation: str, call_id: str, attempt: int | None) -> StoredCall | None:
        """One row by request id or response id: that attempt of it, else the latest."""
        ...

    async def find_calls(self, organisation: str, where: Node, sort: Sort | Shuffled, page: Page) -> Sequence[Position]:
        """Where the calls that meet ``where`` stand in that order: a page of them. Raises `QueryTooSlowError`.

        ``page.after`` has no meaning where they are shuffled.
        """
        ...

    async def read_calls(
        self, organisation: str, numbers: Sequence[int], *, most_bytes: int
    ) -> Mapping[int, StoredCall]:
        """Rows by their numbers, in the order asked, without those that have gone meanwhile.

        None behind one with which their bodies reach ``most_bytes``; at least one, where there is one.
        """
        ...

    async def count_matching(self, organisation: str, where: Node) -> int:
        """How many calls meet ``where``. Raises `QueryTooSlowError`."""
        ...

    async def summarise(
        self,
        organisation: str,
        where: Node,
        by: Sequence[Dimension],
        sort: GroupSort,
        *,
        limit: int,
        offset: int = 0,
        having: Node = EVERYTHING,
        wanted: Collection[str] = FIGURES,
    ) -> tuple[Sequence[Group], int]:
        """What the calls that meet ``where`` add up to, by groups; and how many groups there are in all.

        Only groups count that meet ``having``, whose conditions are all on `storage.filters.Figure`.
        Without dimensions they are one group, also where there is no call. Of the figures only those ``wanted`` have to
        be told, which takes less time; any other may be 0 or ``None``. Raises `QueryTooSlowError`.
        """
        ...

    async def measure(
        self,
        organisation: str,
        where: Node,
        by: Sequence[Dimension],
        sort: GroupSort,
        figures: Sequence[str],
        *,
        limit: int,
        having: Node = EVERYTHING,
    ) -> Sequence[Sequence[Any]]:
        """Of each group, as of `summarise`, nothing but these figures in this order, for there may be very many groups.

        None of them is feedback's. Raises `QueryTooSlowError`.
        """
        ...

    async def count_values(self, organisation: str, where: Node) -> Mapping[int, int]:
        """Of each value, in order, how many effective items of feedback that speak of these calls have it."""
        ...

    async def property_names(self, organisation: str) -> Sequence[str]:
        """The names of all properties, in the order of their text without case."""
        ...

    async def create_dataset(self, dataset: Dataset) -> None:
        """Keep an empty dataset under its id, which is new."""
        ...

    async def add_to_dataset(self, organisation: str, dataset_id: str, rows: Sequence[DatasetRow]) -> bool:
        """Add copies of calls, all or none; a request that has a row there keeps that. False: no such dataset."""
        ...

    async def remove_from_dataset(self, organisation: str, dataset_id: str, row_ids: Sequence[str]) -> bool:
        """Remove rows by their ids, or by their requests'. False: no such dataset."""
        ...

    async def edit_dataset_row(
        self, organisation: str, dataset_id: str, row_id: str, *, request: str | None, response: str | None
    ) -> bool:
        """Put JSON texts in the place of a row's bodies; ``None`` leaves one. False: no such row, by either id."""
        ...

    async def delete_dataset(self, organisation: str, dataset_id: str) -> bool:
        """Remove it with its rows, some at a time, itself last. False: no such dataset."""
        ...

    async def list_datasets(
        self, organisation: str, dataset_ids: Sequence[str] | None = None
    ) -> Sequence[DatasetSummary]:
        """All of them, or those of these ids, oldest first."""
        ...

    async def read_dataset(
        self,
        organisation: str,
        dataset_id: str,
        *,
        after: int = 0,
        offset: int = 0,
        most_rows: int,
        most_bytes: int,
    ) -> Sequence[DatasetRow]:
        """Rows behind a number, in the order in which they were added; none where there is no such dataset.

        None behind one with which their bodies reach ``most_bytes``.
        """
        ...

    async def organisations(self) -> Sequence[str]:
        """Those that have calls or datasets, in the order of their names."""
        ...

    async def count_calls(self) -> int:
        """How many calls of all organisations there are."""
        ...

    async def read_batch(self, after: int, *, most_calls: int, most_bytes: int) -> Sequence[NumberedCall]:
        """The next calls of all organisations behind that number, in the order of their numbers, which begin at 1.

        At most ``most_calls``, and none behind one with which their bodies reach ``most_bytes``; empty at the end.
        """
        ...

    async def rewrite_derived(self, calls: Sequence[NumberedCall]) -> int:
        """Set the fields of `storage.records.Derived` of rows that `read_batch` gave, all or none.

        Answers how many there still were. What was said under a response id that is new joins its row.
        """
        ...

    async def find_prunable(
        self, what: Pruning, after: Reached | None, *, most_calls: int, most_bytes: int
    ) -> Prunable:
        """The next calls that are to go behind a place in the log, few enough for one step of `prune`.

        At most ``most_calls``, and none behind one with which their bodies reach ``most_bytes``. There may be none
        and yet more behind them: a step looks at a bounded number of rows.
        """
        ...

    async def prune(self, what: Pruning, found: Prunable) -> int:
        """Delete those of the calls found that are still to go, or their bodies; answers how many there were.

        What was said of calls goes once none of the calls that it speaks of is left.
        """
        ...

    async def share_bodies(self, before: int) -> bool:
        """Keep what requests of a session or trace repeat of each other once, of calls that began before that time.

        A small step, behind the last one; answers whether there was anything to look at. ``before`` is in
        microseconds since the epoch. What is read back stays the same.
        """
        ...

    async def space(self) -> Space:
        """How large the log is."""
        ...

    async def give_back(self, most_bytes: int) -> int:
        """Give space that is not in use back to the system, about so many bytes at most; answers how many it was."""
        ...

    async def purge_texts(self, *, begin: bool) -> bool:
        """Leave nothing of what was deleted in what searches use: a small step, and whether there was anything to do.

        The first one has to ``begin``, with all that has been deleted so far; the others go on with it.
        """
        ...

    async def purge_sums(self) -> bool:
        """Leave nothing of what was deleted in sums over calls: a small step, and whether there was anything to do."""
        ...

    async def settle(self) -> None:
        """Leave nothing of what was deleted in the files beside the log's, as far as those who read it allow."""
        ...

    async def index_texts(self, *, most_calls: int, most_bytes: int) -> int:
        """Make the texts of the next calls, of all organisations, quick to search; bounds as in `read_batch`.

        Answers how many calls it looked at, none where all are. Texts are found without it too, only slowly.
        """
        ...

    async def add_up(self, *, beside_calls: bool) -> bool:
        """Make sums over many calls quick: a small step, and whether there was anything to do.

        They are the same without it, only slow. ``beside_calls`` has it take longer, and leave the processor to calls.
        """
        ...

    async def check(self) -> None:
        """Raise `StorageError` if the store does not answer."""
        ...

    async def close(self) -> None:
        """Finish what was accepted and let go of the store."""
        ...
