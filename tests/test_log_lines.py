"""Lines on standard error tell what went wrong and where, and quote nothing of what was being worked on."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from io import StringIO

import pytest

from proxy.log_lines import log_to_standard_error, tell_of_lost_exceptions

SECRET = "s3cr3t-in-an-exception"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """Standard error, to which is logged as `kibitz serve` does."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log_to_standard_error()
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def fail(text: str) -> None:
    try:
        int(text)
    except ValueError as error:
        raise RuntimeError(text) from error


def test_a_traceback_tells_types_and_places_and_no_texts(lines: StringIO) -> None:
    try:
        fail(SECRET)
    except RuntimeError:
        logging.getLogger("proxy.test").exception("reading %s", "a body")
    told = lines.getvalue()
    assert "ERROR proxy.test: reading a body\nTraceback" in told
    assert told.count("in fail") == 2
    assert "\nValueError\n" in told
    assert told.endswith("\nRuntimeError\n")
    assert SECRET not in told


def test_an_error_of_the_system_tells_its_reason(lines: StringIO) -> None:
    try:
        raise OSError(24, "Too many open files", SECRET)
    except OSError:
        logging.getLogger("proxy.test").exception("opening")
    assert lines.getvalue().endswith("\nOSError: Too many open files\n")


def test_what_nobody_waited_for_is_told_without_its_text(lines: StringIO) -> None:
    async def lose() -> None:
        loop = asyncio.get_running_loop()
        tell_of_lost_exceptions(loop)
        assert not loop.get_debug()
        loop.call_soon(fail, SECRET)
        task = loop.create_task(asyncio.to_thread(fail, SECRET))
        await asyncio.wait([task])
        del task

    asyncio.run(lose(), debug=True)
    told = lines.getvalue()
    assert "Exception in callback\nTraceback" in told
    assert "Task exception was never retrieved\nTraceback" in told
    assert SECRET not in told
