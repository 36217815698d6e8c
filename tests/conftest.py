"""Fixtures: a scripted upstream, a Kibitz on a free port inside the test's loop, and one as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from hypothesis import settings as hypothesis_settings

from proxy.app import Kibitz, running_kibitz
from proxy.config import Settings
from storage import open_storage
from tests.described import check_answer
from tests.hostile.fuzz import TIMES
from tests.upstream import Upstream, drop, running_upstream

# A run of the suite tries the same examples each time, so that it says something of the change that it is to judge;
# a longer one (TEST_FUZZ) tries others, and what that finds becomes an example. No machine is too slow.
hypothesis_settings.register_profile("suite", derandomize=TIMES == 1, deadline=None)
hypothesis_settings.load_profile("suite")


@dataclass(slots=True)
class Running:
    """A Kibitz that listens, and a client session for talking to it."""

    port: int
    kibitz: Kibitz
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    async def row(self, request_id: str, **query: Any) -> dict[str, Any]:
        """The logged row of a request, with its bodies."""
        parameters = {"includeBody": "true", **{name: str(value) for name, value in query.items()}}
        async with self.client.get(f"{self.base_url}/request/{request_id}", params=parameters) as response:
            answer = await response.json()
            assert response.status == 200, answer
            check_answer(self.kibitz.router, "GET", response.url.raw_path, 200, response.content_type, answer)
            row: dict[str, Any] = answer["data"]
            return row

    async def chat(self, **headers: str) -> aiohttp.ClientResponse:
        """A small chat call, read to its end; header names take `_` for `-`."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
        async with self.client.post(f"{self.base_url}/chat/completions", json=body, headers=fields) as response:
            await response.read()
            return response


async def end(kibitz: Kibitz, runner: web.ServerRunner) -> None:
    transports = [connection.transport for connection in kibitz.server.connections]
    await runner.cleanup()
    await drop(cast(asyncio.WriteTransport, transport) for transport in transports if transport is not None)


StartKibitz = Callable[..., Awaitable[Running]]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream() as running:
        yield running


@pytest.fixture(scope="session")
def unused_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that Kibitz has made and closed: making one takes longer than most tests."""
    path = tmp_path_factory.mktemp("unused") / "kibitz.db"

    async def make() -> None:
        await (await open_storage(str(path))).close()

    with ThreadPoolExecutor(1) as aside:  # from the loops of tests
        aside.submit(asyncio.run, make()).result()
    return path


@pytest.fixture
async def start_kibitz(upstream: Upstream, tmp_path: Path, unused_database: Path) -> AsyncIterator[StartKibitz]:
    """Starts a Kibitz in front of the scripted upstream; settings as keyword arguments.

    Unless they name another, its database is one that was not used before.
    """
    database = tmp_path / "kibitz.db"
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings: Any) -> Running:
            settings.setdefault("upstream", {"base_url": upstream.base_url})
            if "database" not in settings and not database.exists():
                shutil.copy(unused_database, database)
            settings.setdefault("database", str(database))
            kibitz = await stack.enter_async_context(running_kibitz(Settings(**settings)))
            runner = web.ServerRunner(kibitz.server, shutdown_timeout=1)
            await runner.setup()
            stack.push_async_callback(end, kibitz, runner)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            client = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
            return Running(runner.addresses[0][1], kibitz, client)

        yield start


@pytest.fixture
async def kibitz(start_kibitz: StartKibitz) -> Running:
    return await start_kibitz()


@dataclass(slots=True)
class Process:
    """A Kibitz process: its port, and what it has said."""

    process: subprocess.Popen[str]
    port: int
    first_line: str

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def kill(self) -> None:
        """SIGKILL to the process and all that it has started; what it had said by then is dropped."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def stop(self, timeout: float = 20) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


@dataclass(slots=True)
class Launcher:
    """Starts Kibitz processes and sees to it that none is left."""

    directory: Path
    started: list[Process] = field(default_factory=list)

    def __call__(self, *flags: str, **environment: str) -> Process:
        command = [sys.executable, "-m", "proxy", "serve", "--port", "0", *flags]
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            _, errors = process.communicate(timeout=10)
            raise AssertionError(f"kibitz did not start: {errors}")
        port = int(line.split("http://", 1)[1].split(",")[0].rsplit(":", 1)[1])
        running = Process(process, port, line)
        self.started.append(running)
        return running

    def close(self) -> None:
        for running in self.started:
            running.process.kill()
            running.process.communicate(timeout=10)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    """Starts `kibitz serve` in a process of its own; flags and environment as arguments."""
    launcher = Launcher(tmp_path)
    yield launcher
    launcher.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]:
    """Waits until something that is bound to happen soon has happened."""

    async def wait(attempt: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(10):
            while True:
                try:
                    return await attempt()
                except AssertionError:
                    await asyncio.sleep(0.01)

    return wait
