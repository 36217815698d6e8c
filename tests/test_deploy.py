"""The files in `deploy/`: what they start does start, and what they copy is there."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

import pytest
import requests

from tests.conftest import Launcher

ROOT = Path(__file__).parent.parent
CONTAINERFILE = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
UNIT = (ROOT / "deploy/kibitz.service").read_text(encoding="utf-8")
KEY = "kbz_of-this-test"
CONFIGURATION = f"""
[[keys]]
name = "test"
organisation = "acme"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIGURATION)
    return path


def directive(name: str) -> str:
    [value] = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def served(port: int) -> tuple[int, int]:
    """What a probe and a stranger's call are answered."""
    address = f"http://127.0.0.1:{port}"
    return requests.get(f"{address}/readyz", timeout=10).status_code, requests.get(
        f"{address}/v1/models", timeout=10
    ).status_code


def test_the_units_command_serves_from_its_own_directories(
    launch: Launcher, configuration: Path, tmp_path: Path
) -> None:
    (tmp_path / "kibitz").mkdir()
    command = directive("ExecStart").replace("%d", str(configuration.parent)).replace("%S", str(tmp_path))
    program, serve, *flags = shlex.split(command)
    running = launch(*flags)
    assert (Path(program).name, serve) == ("kibitz", "serve")
    assert served(running.port) == (200, 401)
    assert (tmp_path / directive("StateDirectory") / "kibitz.db").exists()


def test_the_containers_command_and_variables_serve_beyond_loopback_with_keys_only(
    launch: Launcher, configuration: Path, tmp_path: Path
) -> None:
    [command] = re.findall(r"^CMD (\[.*\])$", CONTAINERFILE, re.MULTILINE)
    serve, *flags = re.findall(r'"([^"]+)"', command)
    flags = [flag.replace("/etc/kibitz", str(configuration.parent)) for flag in flags]
    variables = dict(re.findall(r"(KIBITZ_\w+)=(\S+)", CONTAINERFILE))
    inside = {name: value.replace("/data", str(tmp_path)) for name, value in variables.items()}
    assert (serve, inside["KIBITZ_HOST"]) == ("serve", "0.0.0.0")
    running = launch(*flags, "--host", "127.0.0.1", **inside)
    assert served(running.port) == (200, 401)
    configuration.write_text("")
    with pytest.raises(AssertionError, match=r"0\.0\.0\.0 is reachable .* no key is configured"):
        launch(*flags, **inside)


def test_what_the_container_is_built_from_is_there_and_not_kept_from_it() -> None:
    sources = re.findall(r"^COPY ((?:(?!--).)+) \S+$", CONTAINERFILE, re.MULTILINE)
    copied = {name for line in sources for name in line.split()}
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied == {line.removeprefix("!") for line in let_in if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
