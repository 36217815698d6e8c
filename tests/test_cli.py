"""The commands, as processes of their own. Contract section 1."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import threading
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import requests

from proxy.cli import main
from proxy.config import Settings, load_settings
from proxy.serve import listening_sockets
from storage import StorageError, open_storage
from tests.conftest import Launcher

ROOT = Path(__file__).parent.parent
MODULE = [sys.executable, "-m", "proxy"]
SCRIPT = [str(Path(sysconfig.get_path("scripts")) / "kibitz")]
LISTENING = re.compile(r"kibitz listens on (http://\S+), forwards to (\S+), logs to (\S+)\n")
KEY = re.compile(r"kbz_[\w-]{43}")
# What SQLite itself calls corrupt: a good header, and pages that make no sense.
SCRAMBLED = b"SQLite format 3\0" + bytes.fromhex("1000010100402020") + b"\xff" * 8168


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with files that Kibitz can't use."""
    (tmp_path / "malformed.toml").write_text("port = \n")
    (tmp_path / "unknown.toml").write_text("prot = 1\n")
    (tmp_path / "no-database.db").write_text("a letter that somebody wrote, and no database. " * 10)
    (tmp_path / "scrambled.db").write_bytes(SCRAMBLED)
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign.db")) as db:
        db.executescript("CREATE TABLE recipes (name TEXT); INSERT INTO recipes VALUES ('soup');")
    with contextlib.closing(sqlite3.connect(tmp_path / "newer.db")) as db:
        script = (ROOT / "storage/sqlite/migrations/0001_initial.sql").read_text(encoding="utf-8")
        db.executescript(f"{script} PRAGMA application_id = {0x4B62747A}; PRAGMA user_version = 9999;")
    return tmp_path


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without anything of Kibitz's, and these variables."""
    plain = {name: value for name, value in os.environ.items() if not name.upper().startswith("KIBITZ_")}
    return {**plain, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **variables}


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=30, check=False
    )


@contextlib.contextmanager
def listening(command: list[str], folder: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that serves, and the line that it printed."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def assert_refused(status: int, out: str, err: str, said: str) -> None:
    assert status == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("kibitz: ")
    assert said in err


def test_python_m_proxy_and_kibitz_are_the_same_program(tmp_path: Path) -> None:
    module, script = run([*MODULE, "--help"], tmp_path), run([*SCRIPT, "--help"], tmp_path)
    assert module.returncode == script.returncode == 0
    assert module.stdout == script.stdout
    assert all(command in module.stdout for command in ("usage: kibitz", "serve", "keys", "reparse", "export"))


def test_it_tells_its_version(tmp_path: Path) -> None:
    told = run([*SCRIPT, "--version"], tmp_path)
    assert (told.returncode, told.stdout, told.stderr) == (0, f"kibitz {version('kibitz')}\n", "")


SERVE = [*MODULE, "serve", "--host", "127.0.0.2", "--config", "kibitz.toml", "--upstream", "http://flag/v1"]


@pytest.mark.parametrize(
    ("command", "host", "upstream", "database"),
    [
        (SCRIPT, "127.0.0.1", "http://environment/v1", "environment.db"),
        ([*SCRIPT, "--database", "flag.db"], "127.0.0.1", "http://environment/v1", "flag.db"),
        (SERVE, "127.0.0.2", "http://flag/v1", "environment.db"),
    ],
    ids=["kibitz", "kibitz with a flag", "python -m proxy serve"],
)
def test_it_says_in_one_line_where_it_serves_and_leaves_one_file_when_told_to_stop(
    command: list[str], host: str, upstream: str, database: str, tmp_path: Path
) -> None:
    (tmp_path / "kibitz.toml").write_text('database = "file.db"\n[upstream]\nbase_url = "http://file/v1"\n')
    variables = {"KIBITZ_UPSTREAM__BASE_URL": "http://environment/v1", "KIBITZ_DATABASE": "environment.db"}
    with listening(command, tmp_path, KIBITZ_PORT="0", **variables) as (process, line):
        said = LISTENING.fullmatch(line)
        assert said is not None, line
        address = said[1]
        assert address.startswith(f"http://{host}:")
        assert said.groups() == (address, upstream, database)
        assert requests.get(f"{address}/healthz", timeout=10).json()["status"] == "ok"
        assert requests.get(f"{address}/readyz", timeout=10).json()["status"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert set(contents(tmp_path)) == {"kibitz.toml", database}


MISTAKES: list[tuple[list[str], str]] = [
    (["--prot", "1"], "--prot"),
    (["sevre"], "sevre"),
    (["--config", "missing.toml"], "missing.toml"),
    (["--config", "malformed.toml"], "malformed.toml"),
    (["--upstream", "ftp://files.example"], "upstream.base_url"),
    (["--host", "0.0.0.0"], "0.0.0.0"),
    (["--database", "no-database.db"], "no-database.db"),
    (["--database", "scrambled.db"], "scrambled.db"),
    (["--database", "foreign.db"], "foreign.db"),
    (["--database", "newer.db"], "newer.db"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(row[0])[:40] for row in MISTAKES])
def test_a_mistake_is_one_line_and_status_2_and_changes_nothing(arguments: list[str], said: str, folder: Path) -> None:
    before = contents(folder)
    ended = run([*MODULE, *arguments], folder, KIBITZ_PORT="0")
    assert_refused(ended.returncode, ended.stdout, ended.stderr, said)
    assert contents(folder) == before


FURTHER_MISTAKES: list[tuple[list[str], str]] = [
    (["serve", "--port"], "--port"),
    (["serve", "extra"], "extra"),
    (["--two\nlines"], "--two"),
    (["--port", "eighty"], "port"),
    (["--port", "65536"], "port"),
    (["--workers", "0"], "workers"),
    (["--workers", "-1"], "workers"),
    (["--workers", "two"], "workers"),
    (["--config", "unknown.toml"], "prot"),
    (["--config", "two\nlines.toml"], "lines.toml"),
    (["--config", "long" * 100], "long"),
    (["--host", "a..b", "--insecure-open"], "a..b"),
    (["--host", "203.0.113.1", "--insecure-open"], "203.0.113.1"),
    (["--database", "."], "."),
    (["--database", "missing/kibitz.db"], "missing/kibitz.db"),
    (["--database", "postgres://localhost/kibitz"], "postgres"),
    (["--database", ":memory:"], "file"),
    (["keys"], "--organisation"),
    (["keys", "--organisation", " "], "--organisation"),
    (["keys", "--organisation", "two\nlines"], "--organisation"),
    (["keys", "--organisation", "acme", "--name", ""], "--name"),
    (["keys", "--organisation", "acme", "--scopes", "read,write"], "write"),
    (["keys", "--organisation", "acme", "--scopes", ","], "--scopes"),
    (["keys", "--organisation", "acme", "--config", "unknown.toml"], "prot"),
    (["keys", "--organisation", "acme", "--port", "1"], "--port"),
    (["reparse", "--port", "1"], "--port"),
    (["reparse", "extra"], "extra"),
    (["reparse", "--config", "unknown.toml"], "prot"),
    (["reparse", "--database", "missing.db"], "missing.db"),
    (["reparse", "--database", "no-database.db"], "no-database.db"),
    (["reparse", "--database", "scrambled.db"], "scrambled.db"),
    (["reparse", "--database", "newer.db"], "newer.db"),
    (["reparse", "--database", "."], "."),
    (["reparse", "--database", ":memory:"], "file"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), FURTHER_MISTAKES, ids=[" ".join(row[0])[:40] for row in FURTHER_MISTAKES]
)
def test_a_further_mistake_is_one_line_and_status_2_and_changes_nothing(
    arguments: list[str],
    said: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, for the sake of time."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KIBITZ_PORT", "0")
    before = contents(folder)
    status = main(arguments)
    assert_refused(status, *capsys.readouterr(), said)
    assert contents(folder) == before


async def test_a_database_that_cannot_be_opened_leaves_no_thread_behind(tmp_path: Path) -> None:
    """One would find its loop closed, and say so on standard error below the one line that belongs there."""
    before = set(threading.enumerate())
    for _ in range(20):
        with pytest.raises(StorageError):
            await open_storage(str(tmp_path / "missing" / "kibitz.db"))
        left = set(threading.enumerate()) - before
        assert [thread for thread in left if not thread.name.startswith("asyncio_")] == []


def test_an_unknown_variable_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIBITZ_PROT", "1")
    assert_refused(main([]), *capsys.readouterr(), "KIBITZ_PROT")


def test_a_key_file_that_is_not_there_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIBITZ_UPSTREAM__API_KEY_FILE", "/nowhere/key")
    assert_refused(main([]), *capsys.readouterr(), "/nowhere/key")


def test_a_port_in_use_is_one_line_and_status_2_and_makes_no_database(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run([*MODULE, "--port", str(port)], tmp_path)
    assert_refused(ended.returncode, ended.stdout, ended.stderr, str(port))
    assert contents(tmp_path) == {}


def test_insecure_open_listens_beyond_loopback(launch: Launcher) -> None:
    running = launch("--host", "0.0.0.0", "--insecure-open")
    assert "http://0.0.0.0:" in running.first_line
    assert requests.get(f"http://127.0.0.1:{running.port}/healthz", timeout=10).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost"])
def test_loopback_needs_neither_a_key_nor_a_flag(host: str) -> None:
    with listening_sockets(Settings(host=host, port=0)) as [bound]:
        assert bound.getsockname()[1] > 0


def test_a_configured_key_opens_every_address() -> None:
    key = {"name": "n", "organisation": "acme", "sha256": "ab" * 32}
    with listening_sockets(Settings.model_validate({"host": "0.0.0.0", "port": 0, "keys": [key]})) as [bound]:
        assert bound.getsockname()[0] == "0.0.0.0"


def test_keys_prints_a_key_once_and_the_lines_that_let_it_in(tmp_path: Path, launch: Launcher) -> None:
    printed = run([*SCRIPT, "keys", "--organisation", "acme", "--name", "ci"], tmp_path)
    assert (printed.returncode, printed.stderr) == (0, "")
    [key] = KEY.findall(printed.stdout)
    digest = hashlib.sha256(key.encode()).hexdigest()
    scopes = ["proxy", "feedback", "read"]
    entry = {"name": "ci", "organisation": "acme", "sha256": digest, "scopes": scopes}
    assert tomllib.loads(printed.stdout) == {"keys": [entry]}

    (tmp_path / "kibitz.toml").write_text(printed.stdout)
    url = f"{launch('--config', 'kibitz.toml').base_url}/feedback?trace_id=t"
    for field in ("Authorization", "Helicone-Auth"):
        assert requests.get(url, headers={field: f"Bearer {key}"}, timeout=10).status_code == 200
    assert requests.get(url, headers={"x-portkey-api-key": key}, timeout=10).status_code == 200
    assert requests.get(url, headers={"Authorization": f"Bearer {digest}"}, timeout=10).status_code == 401
    assert requests.get(url, timeout=10).status_code == 401


def test_what_keys_prints_goes_to_the_end_of_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "kibitz.toml"
    config.write_text((ROOT / "config.example.toml").read_text(encoding="utf-8"), encoding="utf-8")
    organisations = ["acme", 'O"Neil \\ Söhne', "#[[x]]"]
    for organisation in organisations:
        assert main(["keys", "--organisation", organisation, "--scopes", "admin, read"]) == 0
        with config.open("a", encoding="utf-8") as file:
            file.write(capsys.readouterr().out)
    keys = load_settings({}, config).keys
    assert [key.organisation for key in keys] == organisations
    assert {key.scopes for key in keys} == {frozenset({"admin", "read"})}
    assert len({key.sha256 for key in keys}) == len(organisations)
