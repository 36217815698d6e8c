"""The arrows between modules, as ARCHITECTURE.md draws them, read from the source."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = {folder: sorted((ROOT / folder).rglob("*.py")) for folder in ("proxy", "storage", "tests")}
LONGEST_FILE = 500
PURE = ["base_url", "headers", "identity", "upstreams", "redaction", "row", "pricing", "exchange", "wire"]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(file): file.read_text(encoding="utf-8") for file in FILES["proxy"] + FILES["storage"]}


def imported(source: str) -> set[str]:
    """The modules that a source imports, wherever in it; of ``from package import name`` the module, if it is one."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & SOURCES.keys()) | ({node.module} if inner - SOURCES.keys() else set())
    return found


IMPORTS = {name: imported(source) for name, source in SOURCES.items()}


def users(*libraries: str, among: str = "") -> set[str]:
    """The modules below ``among`` that import one of the libraries, or something inside it."""
    return {
        name
        for name, imports in IMPORTS.items()
        if is_below(name, among) and any(is_below(one, library) for one in imports for library in libraries)
    }


def is_below(name: str, package: str) -> bool:
    return not package or name == package or name.startswith(f"{package}.")


def test_the_store_knows_nothing_of_the_proxy_nor_of_http() -> None:
    assert users("proxy", "aiohttp", among="storage") == set()


def test_only_the_backend_knows_its_database() -> None:
    assert {name for name in users("sqlite3", "aiosqlite") if not is_below(name, "storage.sqlite")} == set()


def test_the_proxy_sees_the_contract_of_the_store_and_its_records_only() -> None:
    seen = {
        (name, one) for name in users("storage", among="proxy") for one in IMPORTS[name] if is_below(one, "storage")
    }
    others = {
        (name, one)
        for name, one in seen
        if one
        not in (
            *("storage.base", "storage.records", "storage.filters", "storage.pruning"),
            *("storage.queries", "storage.texts"),
        )
    }
    assert others <= {("proxy.app", "storage"), ("proxy.cli", "storage")}


def test_only_the_composition_root_opens_the_store() -> None:
    calling = {name for name, source in SOURCES.items() if is_below(name, "proxy") and "open_storage" in source}
    assert calling == {"proxy.app"}


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_and_all_that_it_stands_on_know_no_event_loop(name: str) -> None:
    reached: set[str] = set()
    waiting = {module for module in SOURCES if is_below(module, f"proxy.{name}")}
    assert waiting
    while waiting:
        reached |= waiting
        waiting = set(chain.from_iterable(IMPORTS[module] for module in waiting)) & SOURCES.keys() - reached
    assert reached & users("asyncio", "aiohttp", "aiosqlite", "threading", "socket") == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: imports & SOURCES.keys() - {name} for name, imports in IMPORTS.items()}
    assert set(TopologicalSorter(graph).static_order()) == SOURCES.keys()  # raises CycleError, and names it


@pytest.mark.parametrize("folder", FILES)
def test_no_file_is_longer_than_can_be_read_at_once(folder: str) -> None:
    lengths = {module_name(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES[folder]}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}
