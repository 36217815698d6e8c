"""The commands. Contract section 1: a mistake is one line on standard error and exit status 2."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import secrets
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import proxy
from proxy.config import ALL_SCOPES, DEFAULT_SCOPES, ConfigError, Settings, load_settings
from proxy.descriptors import raise_limit
from proxy.dialects import Failed
from proxy.export.command import export
from proxy.export.flags import add_export_flags, export_task
from proxy.log_lines import log_to_standard_error, tell_of_lost_exceptions
from proxy.memory import return_large_blocks
from proxy.prune import Wish, prune
from proxy.quantities import read_duration, read_size
from proxy.reads.filters import read_filter
from proxy.reparse import INTERRUPTED, reparse
from proxy.serve import announce, listening_sockets, serve, serve_as_worker
from proxy.supervisor import Place, supervise
from storage import StorageError
from storage.filters import EVERYTHING, Node
from storage.pruning import Pruning

__all__ = ["main"]

T = TypeVar("T")

_COMMANDS = ("serve", "keys", "reparse", "export", "prune")
_USAGE_ERROR = 2


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit status."""
    return _status_of(lambda: _run(sys.argv[1:] if arguments is None else list(arguments)))


def _run(arguments: list[str]) -> int:
    given = _parser().parse_args(_with_command(arguments))
    return int(given.run(given))


def _status_of(run: Callable[[], int]) -> int:
    """What it gives, or the status of a mistake, once that is told."""
    try:
        return run()
    except (ConfigError, StorageError) as error:
        sys.stderr.write(f"kibitz: {' '.join(str(error).split())}\n")
        return _USAGE_ERROR
    except KeyboardInterrupt:  # before a command could see to it itself
        return INTERRUPTED


def _with_command(arguments: list[str]) -> list[str]:
    """Plain ``kibitz``, and ``kibitz --port 80``, mean ``kibitz serve``."""
    if arguments and (arguments[0] in _COMMANDS or arguments[0] in ("-h", "--help", "--version")):
        return arguments
    if arguments and not arguments[0].startswith("-"):
        return arguments
    return ["serve", *arguments]


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="kibitz", description="A transparent logging proxy for LLM calls, with feedback.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {proxy.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_OneLineParser)

    serving = commands.add_parser("serve", help="run the proxy (what plain `kibitz` does)")
    _add_common(serving)
    serving.add_argument("--host", metavar="ADDRESS", help="address to listen on")
    serving.add_argument("--port", metavar="N", help="port to listen on; 0 takes a free one")
    serving.add_argument("--upstream", metavar="URL", help="base URL of the default upstream")
    serving.add_argument("--workers", metavar="N", help="processes that share the port")
    serving.add_argument(
        "--insecure-open", action="store_true", default=None, help="listen beyond loopback without keys"
    )
    serving.set_defaults(run=_serve)

    keys = commands.add_parser("keys", help="make an API key and print the configuration lines that hold its hash")
    _add_common(keys)
    keys.add_argument("--organisation", metavar="NAME", required=True, help="whose calls and feedback it reaches")
    keys.add_argument("--name", metavar="N", default="default", help="what the key is called")
    keys.add_argument(
        "--scopes", metavar="S,…", default=",".join(DEFAULT_SCOPES), help=f"any of {','.join(ALL_SCOPES)}"
    )
    keys.set_defaults(run=_make_key)

    reparsing = commands.add_parser("reparse", help="derive what stored rows say of their bodies again")
    _add_common(reparsing)
    reparsing.set_defaults(run=_reparse)

    exporting = commands.add_parser("export", help="write the log, or a part of it, as a file")
    _add_common(exporting)
    add_export_flags(exporting)
    exporting.set_defaults(run=_export)
    _add_prune(commands.add_parser("prune", help="delete stored calls by age, size or filter"))
    return parser


def _add_prune(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--older-than", metavar="AGE", help="calls that began before, as 90d; s, m, h, d and w")
    parser.add_argument(
        "--max-size", metavar="SIZE", help="the oldest calls, until what is used of the file fits: 10GB"
    )
    parser.add_argument("--organisation", metavar="NAME", help="calls of this organisation only")
    parser.add_argument(
        "--filter", metavar="JSON", help="calls that this tree means, as POST /v1/request/query takes it"
    )
    parser.add_argument("--keep", choices=["rated", "nothing"], default="nothing", help="which of them stay")
    parser.add_argument("--bodies-only", action="store_true", help="remove their bodies; their figures stay")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would go")
    parser.set_defaults(run=_prune)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML file of settings")
    parser.add_argument("--database", metavar="PATH", help="path or sqlite:/// URL of the log")


def _settings(given: argparse.Namespace) -> Settings:
    names = ("host", "port", "workers", "insecure_open", "database")
    flags: dict[str, Any] = {name: getattr(given, name, None) for name in names}
    flags = {name: value for name, value in flags.items() if value is not None}
    if getattr(given, "upstream", None) is not None:
        flags["upstream"] = {"base_url": given.upstream}
    return load_settings(flags, given.config)


def _serve(given: argparse.Namespace) -> int:
    settings = _settings(given)
    raise_limit()
    log_to_standard_error()
    return_large_blocks()
    with listening_sockets(settings) as (first, *further):
        if not further:
            _run_in_loop(serve(settings, first))
            return 0
        work = partial(_work, settings)
        ready = partial(announce, settings, first)
        return supervise((first, *further), work, announce=ready, grace=settings.shutdown_grace)


def _work(settings: Settings, place: Place) -> int:
    """What a worker does, in a process of its own."""

    def run() -> int:
        _run_in_loop(serve_as_worker(settings, place))
        return 0

    return _status_of(run)


def _reparse(given: argparse.Namespace) -> int:
    return _run_in_loop(reparse(_settings(given)))


def _export(given: argparse.Namespace) -> int:
    task = export_task(given)
    return _run_in_loop(export(_settings(given), task))


def _prune(given: argparse.Namespace) -> int:
    if not any((given.older_than, given.max_size, given.organisation, given.filter)):
        raise ConfigError("prune: say what is to go, by --older-than, --max-size, --organisation or --filter")
    what = Pruning(
        organisation=given.organisation,
        where=_value("--filter", _filter, given.filter) or EVERYTHING,
        keep_rated=given.keep == "rated",
        bodies_only=given.bodies_only,
    )
    max_age = _value("--older-than", read_duration, given.older_than)
    max_size = _value("--max-size", read_size, given.max_size)
    return _run_in_loop(prune(_settings(given), Wish(what, max_age, max_size, given.dry_run)))


def _filter(text: str) -> Node:
    return read_filter(text if text == "all" else json.loads(text), "--filter")


def _value(flag: str, read: Callable[[str], T], text: str | None) -> T | None:
    """What a flag's text means, where it is given."""
    try:
        return None if text is None else read(text)
    except ValueError as error:
        raise ConfigError(f"{flag}: {error}") from None
    except Failed as error:  # which names the flag itself
        raise ConfigError(error.message) from None


def _run_in_loop(command: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        tell_of_lost_exceptions(runner.get_loop())
        return runner.run(command)


def _loop_factory() -> Any:
    """uvloop where it is installed; it isn't made for every system."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop


def _make_key(given: argparse.Namespace) -> int:
    _settings(given)  # a mistake in the configuration is told before a key is made for it
    scopes = [scope.strip() for scope in given.scopes.split(",") if scope.strip()]
    unknown = [scope for scope in scopes if scope not in ALL_SCOPES]
    if unknown or not scopes:
        raise ConfigError(f"--scopes: {', '.join(unknown) or 'none'}; there is {', '.join(ALL_SCOPES)}")
    for flag, text in (("--organisation", given.organisation), ("--name", given.name)):
        if not text.strip() or not text.isprintable():
            raise ConfigError(f"{flag}: must be printable text that is not blank")
    key = f"kbz_{secrets.token_urlsafe(32)}"
    sys.stdout.write(
        f"# The key, shown this once: {key}\n"
        "# What follows goes into the configuration file.\n"
        "[[keys]]\n"
        f"name = {_toml(given.name)}\n"
        f"organisation = {_toml(given.organisation)}\n"
        f'sha256 = "{hashlib.sha256(key.encode("ascii")).hexdigest()}"\n'
        f"scopes = [{', '.join(_toml(scope) for scope in scopes)}]\n"
    )
    return 0


def _toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
