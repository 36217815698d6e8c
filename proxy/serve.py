"""Listening: the sockets, the signals, and an orderly end. Contract section 1."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial

from aiohttp import web

from proxy.app import running_kibitz
from proxy.config import ConfigError, Settings
from proxy.pauses import shorten_pauses
from proxy.siblings import Siblings
from proxy.supervisor import STOP_SIGNALS, Place

__all__ = ["announce", "listening_sockets", "serve", "serve_as_worker"]

logger = logging.getLogger(__name__)

_BACKLOG = 1024
# Seconds for what is still being answered once no call is relayed any more. aiohttp takes them twice.
_LAST_MOMENT = 1.0


@contextlib.contextmanager
def listening_sockets(settings: Settings) -> Iterator[list[socket.socket]]:
    """A bound socket for each worker, all on one address; closed on leaving.

    Raises `ConfigError` where the address can't or may not be had.
    """
    if not settings.keys and not settings.insecure_open and not _is_loopback(settings.host):
        raise ConfigError(
            f"host: {settings.host} is reachable from elsewhere and no key is configured: "
            "add [[keys]] (kibitz keys makes one), or say --insecure-open"
        )
    with contextlib.ExitStack() as stack:
        try:
            sockets = [stack.enter_context(bound) for bound in _bound(settings)]
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"can't listen on {settings.host}:{settings.port}: {reason}") from None
        yield sockets


def _bound(settings: Settings) -> Iterator[socket.socket]:
    """One after another; nobody is listened to before everything else stands."""
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    for number in range(settings.workers):
        one = socket.socket(family, kind, protocol)
        with contextlib.ExitStack() as unless_bound:
            unless_bound.enter_context(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if number > 0:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(address)
            if number == 0 and settings.workers > 1:
                # Not before it has the port to itself: another Kibitz there would be shared with, not told of.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                address = one.getsockname()
            unless_bound.pop_all()
        yield one


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


async def serve(settings: Settings, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then end what is under way, within ``shutdown_grace`` seconds, and commit.

    A second signal ends the process at once, as it does by itself.
    """
    stop = asyncio.Event()

    def told() -> None:
        stop.set()
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, told)
    await _serve_until(stop, settings, bound, Siblings(), partial(announce, settings, bound))


async def serve_as_worker(settings: Settings, place: Place) -> None:
    """The same as one of several, until the supervisor says so or has gone; it sees to a second signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:  # the supervisor never writes, so what can be read is the end
        loop.remove_reader(place.control)
        stop.set()

    for number in STOP_SIGNALS:  # to the whole group, as a terminal sends them, and the supervisor has it too
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(place.control, end)
    siblings = Siblings.in_directory(place.directory, place.number, place.count)
    try:
        await _serve_until(stop, settings, place.listening, siblings, place.report_ready)
    finally:
        place.clean_up()


async def _serve_until(
    stop: asyncio.Event, settings: Settings, bound: socket.socket, siblings: Siblings, ready: Callable[[], None]
) -> None:
    async with running_kibitz(settings, siblings) as kibitz:
        shorten_pauses()
        runner = web.ServerRunner(kibitz.server, shutdown_timeout=_LAST_MOMENT)
        await runner.setup()
        await web.SockSite(runner, bound, backlog=_BACKLOG).start()
        ready()
        await stop.wait()
        logger.info("stopping: calls in flight may end within %g s", settings.shutdown_grace)
        for site in runner.sites:
            await site.stop()
        kibitz.server.end_connections()
        await kibitz.forwarder.end_within(settings.shutdown_grace)
        await runner.cleanup()


def announce(settings: Settings, bound: socket.socket) -> None:
    """Say in one line on standard output where is listened, and what happens there."""
    host, port = bound.getsockname()[:2]
    where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    line = f"kibitz listens on {where}, forwards to {settings.upstream.base_url}, logs to {settings.database}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
