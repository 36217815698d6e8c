"""Listening: the socket, the signals, and an orderly end. Contract section 1."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import sys

from aiohttp import web

from proxy.app import running_kibitz
from proxy.config import ConfigError, Settings

__all__ = ["listening_socket", "serve"]

logger = logging.getLogger(__name__)

_BACKLOG = 1024
# Seconds for what is still being answered once no call is relayed any more. aiohttp takes them twice.
_LAST_MOMENT = 1.0


def listening_socket(settings: Settings) -> socket.socket:
    """The bound socket. Raises `ConfigError` where the address can't or may not be had."""
    if not settings.keys and not settings.insecure_open and not _is_loopback(settings.host):
        raise ConfigError(
            f"host: {settings.host} is reachable from elsewhere and no key is configured: "
            "add [[keys]] (kibitz keys makes one), or say --insecure-open"
        )
    try:
        return _bind(settings.host, settings.port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"can't listen on {settings.host}:{settings.port}: {reason}") from None


def _bind(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)  # nobody is listened to before everything else stands
    except BaseException:
        bound.close()
        raise
    return bound


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


async def serve(settings: Settings, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then end what is under way, within ``shutdown_grace`` seconds, and commit."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_kibitz(settings) as kibitz:
        runner = web.ServerRunner(kibitz.server, shutdown_timeout=_LAST_MOMENT)
        await runner.setup()
        await web.SockSite(runner, bound, backlog=_BACKLOG).start()
        _announce(settings, bound)
        await stop.wait()
        logger.info("stopping: calls in flight may end within %g s", settings.shutdown_grace)
        for site in runner.sites:
            await site.stop()
        await kibitz.forwarder.end_within(settings.shutdown_grace)
        await runner.cleanup()


def _announce(settings: Settings, bound: socket.socket) -> None:
    host, port = bound.getsockname()[:2]
    where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    line = f"kibitz listens on {where}, forwards to {settings.upstream.base_url}, logs to {settings.database}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
