"""A database that can't be used, found at the start: one line, exit status 2, and not a byte of it changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.cli import main
from storage import open_storage
from storage.records import Body
from tests.storage import a_call

ROOT = Path(__file__).parent.parent
# Root may read and write everything; without these two capabilities (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, see
# capabilities(7)) it may as much as anybody. PR_CAPBSET_DROP is 24.
AS_ANYBODY = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "proxy", *sys.argv[1:]])
"""


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """A log with some rows in it, closed."""
    path = tmp_path / "log" / "kibitz.db"
    path.parent.mkdir()
    store = await open_storage(str(path))
    for number in range(20):
        await store.write_calls([a_call(f"r{number}", request=Body(os.urandom(5000), 5000))])
    await store.close()
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cut_to(length: int | float) -> Callable[[Path], None]:
    """Of a whole number so many bytes stay, else that part of them."""

    def cut(database: Path) -> None:
        size = database.stat().st_size
        os.truncate(database, length if isinstance(length, int) else int(size * length))

    return cut


def spoil_schema(database: Path) -> None:
    content = database.read_bytes()
    database.write_bytes(content[:100] + b"\xff" * 3996 + content[4096:])


SPOILT = {
    "header": cut_to(100),
    "first page": cut_to(4096),
    "in a page": cut_to(5000),
    "half": cut_to(0.5),
    "most": cut_to(0.9),
    "schema": spoil_schema,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_log_that_was_cut_or_spoilt_is_one_line_and_left_as_it_is(
    database: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None]
) -> None:
    spoil(database)
    before = contents(database.parent)
    status = main(["reparse", "--database", str(database)])
    assert (status, *capsys.readouterr()) == (2, "", malformed(database))
    assert contents(database.parent) == before


def test_a_schema_that_is_no_text_is_one_line_too(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = database.read_bytes()
    table = b"CREATE TABLE sharing (reached INTEGER NOT NULL)"
    assert content.count(table) == 1
    database.write_bytes(content.replace(table, table.replace(b"NULL", b"\xf5ULL")))
    before = contents(database.parent)
    assert main(["reparse", "--database", str(database)]) == 2
    assert capsys.readouterr().err == f"kibitz: can't use {database}: its schema is damaged\n"
    assert contents(database.parent) == before


def malformed(database: Path) -> str:
    return f"kibitz: can't use {database}: database disk image is malformed\n"


def serve(database: Path, *before: str) -> tuple[int, str, str]:
    """The exit status and the output of a server that does not start."""
    ended = subprocess.run(
        [sys.executable, *(before or ("-m", "proxy")), "serve", "--port", "0", "--database", str(database)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("spoil", ["half", "schema"])
def test_a_server_does_not_start_on_such_a_log(database: Path, spoil: str) -> None:
    SPOILT[spoil](database)
    before = contents(database.parent)
    assert serve(database) == (2, "", malformed(database))
    assert contents(database.parent) == before


def unreadable(database: Path) -> None:
    database.chmod(0o000)


def read_only(database: Path) -> None:
    database.chmod(0o444)


def in_a_read_only_folder(database: Path) -> None:
    database.parent.chmod(0o555)


def missing_in_a_read_only_folder(database: Path) -> None:
    database.unlink()
    database.parent.chmod(0o555)


@pytest.mark.skipif(sys.platform != "linux", reason="gives capabilities up")
@pytest.mark.parametrize("forbid", [unreadable, read_only, in_a_read_only_folder, missing_in_a_read_only_folder])
def test_a_log_that_may_not_be_written_is_one_line_and_left_as_it_is(
    database: Path, forbid: Callable[[Path], None]
) -> None:
    before = database.read_bytes()
    forbid(database)
    status, out, err = serve(database, "-c", AS_ANYBODY)
    database.parent.chmod(0o755)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"kibitz: can't open {database}: ")
    if database.exists():
        database.chmod(0o644)
        assert database.read_bytes() == before


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to("missing/kibitz.db")


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [a_pipe, a_link_to_nowhere, a_folder])
def test_what_is_no_file_is_one_line_and_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None]
) -> None:
    path = tmp_path / "kibitz.db"
    make(path)
    before = path.lstat().st_mode
    assert main(["reparse", "--database", str(path)]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert said.err.startswith(f"kibitz: can't open {path}: ")
    assert (path.lstat().st_mode, list(tmp_path.iterdir())) == (before, [path])
