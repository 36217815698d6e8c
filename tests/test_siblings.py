"""What workers ask each other, over real Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from proxy.siblings import Siblings

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def directory() -> Iterator[Path]:
    """One whose name leaves room: a socket's path has a hundred bytes."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


async def greet(*names: str) -> list[str]:
    return [f"hello {name}" for name in names]


@contextlib.asynccontextmanager
async def serving(path: Path, serve: Serve) -> AsyncIterator[None]:
    over = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        await over.wait()
        writer.close()

    server = await asyncio.start_unix_server(accept, path)
    try:
        yield
    finally:
        over.set()
        server.close()


async def test_a_worker_by_itself_has_nobody_to_ask_and_nobody_to_answer() -> None:
    alone = Siblings()
    async with alone.answering({"greet": greet}):
        assert await alone.gather("greet", "Ada") == []


async def test_all_others_are_asked_and_answer(directory: Path) -> None:
    three = [Siblings.in_directory(directory, number, 3) for number in range(3)]
    async with three[0].answering({"greet": greet}), three[1].answering({"greet": greet}):
        assert (
            await three[2].gather("greet", "Ada", "Söhne", "x" * 2**20)
            == [["hello Ada", "hello Söhne", "hello " + "x" * 2**20]] * 2
        )
        assert len(await three[0].gather("greet")) == 1


async def test_an_answer_is_told_from_none(directory: Path) -> None:
    async def nothing() -> None: ...

    asking, answering = (Siblings.in_directory(directory, number, 2) for number in range(2))
    async with answering.answering({"nothing": nothing}):
        assert await asking.gather("nothing") == [None]


async def test_a_worker_takes_the_place_of_one_that_died(directory: Path) -> None:
    asking, answering = (Siblings.in_directory(directory, number, 2) for number in range(2))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "1"))
    assert await asking.gather("greet", "Ada") == []
    async with answering.answering({"greet": greet}):
        assert await asking.gather("greet", "Ada") == [["hello Ada"]]
    assert await asking.gather("greet", "Ada") == []


async def test_a_worker_that_stops_answering_lets_go_of_who_asks(directory: Path) -> None:
    asked = asyncio.Event()

    async def take_forever() -> None:
        asked.set()
        await asyncio.Event().wait()

    asking, answering = (Siblings.in_directory(directory, number, 2) for number in range(2))
    async with answering.answering({"take": take_forever}):
        answer = asyncio.ensure_future(asking.gather("take"))
        await asked.wait()
    assert await answer == []


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.write(b'[["hello')
    writer.close()


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.parametrize("serve", [silent, half, deaf])
async def test_a_worker_without_an_answer_knows_nothing_and_the_others_are_heard(directory: Path, serve: Serve) -> None:
    one, other = directory / "1", directory / "2"
    asking, answering = Siblings(directory / "0", [one, other]), Siblings(other, [one])
    async with serving(one, serve), answering.answering({"greet": greet}):
        assert await asking.gather("greet", "Ada", within=0.2) == [["hello Ada"]]


@pytest.mark.parametrize("question", [b"", b"[", b'["greet"'])
async def test_half_a_question_is_not_answered_and_harms_nobody(
    directory: Path, question: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    asking, answering = (Siblings.in_directory(directory, number, 2) for number in range(2))
    async with answering.answering({"greet": greet}):
        reader, writer = await asyncio.open_unix_connection(directory / "1")
        writer.write(question)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert await asking.gather("greet", "Ada") == [["hello Ada"]]
    assert caplog.records == []


async def test_each_of_many_questions_at_once_is_answered(directory: Path) -> None:
    """More than a listening socket's queue holds, where one that is full refuses."""
    asking, answering = (Siblings.in_directory(directory, number, 2) for number in range(2))
    async with answering.answering({"greet": greet}):
        answers = await asyncio.gather(*(asking.gather("greet", str(number)) for number in range(2000)))
    assert answers == [[[f"hello {number}"]] for number in range(2000)]
