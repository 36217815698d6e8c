"""What the workers of one server ask each other, over Unix sockets in a directory that is only theirs.

A question is a connection: the name of the question and its arguments as a JSON array, then the end of the stream;
the answer is JSON likewise. A worker that does not answer, or not in time, knows nothing: it has died, and what it
had committed is in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

__all__ = ["Answerer", "Siblings"]

Answerer = Callable[..., Awaitable[Any]]
"""Gives the JSON value that answers a question, from its arguments."""

# Seconds that an answer may take: those that a row may be waited for (`in_flight`), and a moment.
_PATIENCE: Final = 6.0
# A Unix socket whose queue is full refuses. So each worker asks another one no more at once than its queue has room
# for, were there 256 of them; 4096 is also what Linux allows.
_AT_ONCE: Final = 16
_BACKLOG: Final = 256 * _AT_ONCE


class Siblings:
    """The other workers of this server, and this one as they see it; by itself, a worker without any."""

    def __init__(self, own: Path | None = None, others: Sequence[Path] = (), *, is_first: bool = True) -> None:
        self.is_first = is_first
        """Whether this is the one worker that does what one alone has to do."""
        self._own = own
        self._others = {path: asyncio.Semaphore(_AT_ONCE) for path in others}
        self._answers: Mapping[str, Answerer] = {}
        self._answering: set[asyncio.Task[Any]] = set()

    @classmethod
    def in_directory(cls, directory: Path, number: int, count: int) -> Siblings:
        """Those of worker ``number`` of ``count``, whose sockets lie in ``directory``."""
        sockets = [directory / str(one) for one in range(count)]
        own = sockets.pop(number)
        return cls(own, sockets, is_first=number == 0)

    @property
    def for_successor(self) -> Path | None:
        """A file that whoever takes this worker's place finds, unless the whole server has ended."""
        return _left_beside(self._own) if self._own else None

    async def gather(
        self,
        question: str,
        *arguments: Any,
        within: float = _PATIENCE,
        instead: Callable[[Path], Any] | None = None,
    ) -> list[Any]:
        """The answers of those that gave one ``within`` so many seconds; arguments and answers are JSON values.

        ``instead`` gives one for each of the others, by the file that it has for its successor.
        """
        if not self._others:
            return []
        asked = orjson.dumps([question, *arguments])
        told = await asyncio.gather(*(_ask(path, turn, asked, within) for path, turn in self._others.items()))
        answers = [answer[0] for answer in told if answer]
        if instead is not None:
            silent = [path for path, answer in zip(self._others, told, strict=True) if not answer]
            answers += map(instead, map(_left_beside, silent))
        return answers

    @contextlib.asynccontextmanager
    async def answering(self, answers: Mapping[str, Answerer]) -> AsyncIterator[None]:
        """Answer these questions of the others' for as long as the context lasts."""
        if self._own is None:
            yield
            return
        self._answers = answers
        self._own.unlink(missing_ok=True)  # of one that died in this place
        server = await asyncio.start_unix_server(self._answer, self._own, backlog=_BACKLOG)
        try:
            yield
        finally:
            server.close()
            for task in self._answering:
                task.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            name, *arguments = orjson.loads(await reader.read())
            writer.write(orjson.dumps([await self._answers[name](*arguments)]))
            await writer.drain()
        except (ConnectionError, orjson.JSONDecodeError):
            pass  # whoever asked has died over it
        finally:
            self._answering.discard(task)
            writer.close()


def _left_beside(socket: Path) -> Path:
    return socket.with_suffix(".left")


async def _ask(path: Path, turn: asyncio.Semaphore, question: bytes, within: float) -> list[Any]:
    """The answer in a list, or nothing."""
    try:
        async with asyncio.timeout(within), turn:
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(question)
                writer.write_eof()
                answer: list[Any] = orjson.loads(await reader.read())
                return answer
            finally:
                writer.close()
    except (OSError, TimeoutError, orjson.JSONDecodeError):
        return []
