"""The machine and the programs that the figures hold for."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["describe"]


def describe(peers: Path | None) -> dict[str, Any]:
    """What to know of where this runs; None for what can't be told."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "kibitz": _or_none(lambda: version("kibitz")),
        "aiohttp": _or_none(lambda: version("aiohttp")),
        "uvloop": _or_none(lambda: version("uvloop")),
        "nginx": _or_none(_nginx),
        "litellm": _or_none(lambda: _litellm(peers)),
        "portkey": _or_none(lambda: _portkey(peers)),
    }


def _or_none(find: Callable[[], str]) -> str | None:
    try:
        return find()
    except (OSError, LookupError, ValueError, PackageNotFoundError):
        return None


def _cpu_model() -> str:
    try:
        found = re.search(r"(?m)^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _nginx() -> str:
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise LookupError
    said = subprocess.run([binary, "-v"], capture_output=True, text=True, check=False).stderr
    return said.strip().rpartition("/")[2]


def _litellm(peers: Path | None) -> str:
    [found] = (peers or Path("/nowhere")).glob("lib/python*/site-packages/litellm-[0-9]*.dist-info")
    return found.name.removeprefix("litellm-").removesuffix(".dist-info")


def _portkey(peers: Path | None) -> str:
    text = ((peers or Path("/nowhere")) / "gateway/node_modules/@portkey-ai/gateway/package.json").read_text()
    return str(json.loads(text)["version"])
