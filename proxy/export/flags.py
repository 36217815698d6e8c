"""The flags of `kibitz export`, which say what the parameters of ``GET /v1/export`` say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from proxy.config import ConfigError
from proxy.dialects import Failed
from proxy.export.command import Task
from proxy.export.registry import FORMATS
from proxy.export.selection import Selection

__all__ = ["add_export_flags", "export_task"]

_METAVARS: Final = {"filter": "JSON", "rating": "true|false|none", "since": "TIME", "until": "TIME"}


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    """All but those that every command has."""
    parser.add_argument("--format", choices=list(FORMATS), default="rows", help="what to make of the calls")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where to write; without it to standard output")
    parser.add_argument("--organisation", metavar="NAME", help="whose calls; without it everybody's")
    for name, field in Selection.model_fields.items():
        parser.add_argument(f"--{name}", metavar=_METAVARS.get(name, "NAME"), help=field.description)
    parser.add_argument(
        "--property", metavar="NAME=VALUE", action="append", default=[], help="Have this property; may come again."
    )


def export_task(given: argparse.Namespace) -> Task:
    """What the flags ask for. Raises `ConfigError`."""
    try:
        selection = _selection(given)
        where = selection.node(dict(map(_property, given.property)))
    except Failed as failed:
        raise ConfigError(failed.message) from None
    return Task(where, selection.dataset, given.format, given.organisation, given.output)


def _selection(given: argparse.Namespace) -> Selection:
    chosen: dict[str, Any] = {name: getattr(given, name) for name in Selection.model_fields}
    try:
        return Selection(**chosen)
    except ValidationError as error:
        [fault, *_] = error.errors()
        raise ConfigError(f"--{fault['loc'][0]}: {fault['msg']}") from None


def _property(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise ConfigError(f"--property: {text!r} is not NAME=VALUE")
    return name, value
