"""`kibitz export`: the log, or a part of it, as a file. Contract section 1.

A server may log on meanwhile. A file gets its name once it is whole; what goes to a pipe ends with the reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from tqdm import tqdm

from proxy.app import open_store
from proxy.config import ConfigError, Settings
from proxy.export.formats import Format
from proxy.export.output import write_all
from proxy.export.registry import FORMATS, FormatName, meant_by
from proxy.export.tables import PyarrowMissing
from proxy.export.walk import dataset_calls, exported, found_calls
from storage.base import Storage
from storage.filters import Node
from storage.records import DatasetSummary, StoredCall

__all__ = ["BROKEN_PIPE", "Task", "export"]

BROKEN_PIPE: Final = 128 + signal.SIGPIPE
"""The exit status where nobody reads what is written any more, as shells have it."""

_STANDARD_OUTPUT: Final = 1
_REDRAWN: Final = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Task:
    """What to export, of which organisation or of all, as what, and to which file or to standard output."""

    where: Node
    dataset: str | None
    format: FormatName
    organisation: str | None
    output: Path | None


async def export(settings: Settings, task: Task) -> int:
    """Write the file, and say on standard error how much it is; gives the exit status.

    Raises `StorageError`, of a log that is not there too, and `ConfigError` for what can't be done as it was asked.
    """
    form = _new_format(task.format)
    told = _cancel_when_told()
    try:
        async with open_store(settings, create=False) as storage:
            source = await _source(storage, task)
            with _output(task.output) as output, await _progress_bar(source, task) as bar:
                async with aclosing(exported(source.calls(bar), form)) as pieces:
                    async for piece in pieces:
                        await write_all(output, piece)
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:
        raise ConfigError(f"can't write: {error.strerror}") from error
    except asyncio.CancelledError:
        return 128 + told[0]
    finally:
        form.close()
    sys.stderr.write(f"{form.tally.as_text()}\n")
    return 0


def _cancel_when_told() -> list[int]:
    """By a cancellation what is open is closed in order, which an exception between any two instructions prevents.

    The list gets the signal.
    """
    loop, task, told = asyncio.get_running_loop(), asyncio.current_task(), list[int]()

    def cancel(number: int) -> None:
        if not told and task is not None:
            task.cancel()
        told.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, cancel, number)
    return told


def _new_format(name: FormatName) -> Format:
    try:
        return FORMATS[name]()
    except PyarrowMissing as missing:
        raise ConfigError(str(missing)) from None


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the calls come from: a filter, or a dataset."""

    storage: Storage
    organisations: Sequence[str]
    where: Node
    dataset: DatasetSummary | None

    async def count(self) -> int:
        if self.dataset is not None:
            return self.dataset.rows
        return sum([await self.storage.count_matching(one, self.where) for one in self.organisations])

    async def calls(self, bar: tqdm[NoReturn]) -> AsyncGenerator[Sequence[StoredCall]]:
        for organisation in self.organisations:
            async with aclosing(self._of(organisation)) as found:
                async for some in found:
                    yield some
                    bar.update(len(some))

    def _of(self, organisation: str) -> AsyncGenerator[Sequence[StoredCall]]:
        if self.dataset is not None:
            return dataset_calls(self.storage, organisation, self.dataset.dataset.id)
        return found_calls(self.storage, organisation, self.where)


async def _source(storage: Storage, task: Task) -> _Source:
    organisations = await _organisations(storage, task.organisation)
    where = meant_by(task.format, task.where)
    if task.dataset is None:
        return _Source(storage, organisations, where, None)
    for organisation in organisations:
        for found in await storage.list_datasets(organisation, [task.dataset]):
            return _Source(storage, [organisation], where, found)
    raise ConfigError(f"--dataset: there is no dataset {task.dataset!r}")


async def _organisations(storage: Storage, wanted: str | None) -> Sequence[str]:
    known = await storage.organisations()
    if wanted is None:
        return known
    if wanted not in known:
        raise ConfigError(f"--organisation: there are no calls of {wanted!r}; there is {', '.join(known) or 'none'}")
    return [wanted]


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[int]:
    """The descriptor to write to: standard output's, or that of a file which gets its name once it is whole."""
    if path is None:
        yield _STANDARD_OUTPUT
        return
    try:
        if path.is_char_device() or path.is_fifo():
            with path.open("wb") as stream:
                yield stream.fileno()
        else:
            with _replacing(path) as descriptor:
                yield descriptor
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(f"--output {path}: {error.strerror}") from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[int]:
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with open(unfinished, "wb", opener=_private) as file:
            yield file.fileno()
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    """Prompts and answers are nobody else's to read, whatever the umask."""
    return os.open(path, flags, 0o600)


async def _progress_bar(source: _Source, task: Task) -> tqdm[NoReturn]:
    """For a terminal, on which nothing else is written."""
    is_shown = sys.stderr.isatty() and (task.output is not None or not sys.stdout.isatty())
    return tqdm(
        total=await source.count() if is_shown else None,
        unit=" calls",
        mininterval=_REDRAWN,
        miniters=1,
        dynamic_ncols=True,
        file=sys.stderr,
        disable=not is_shown,
    )
