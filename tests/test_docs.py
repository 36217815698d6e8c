"""What the documents say is so: links, routes, settings, examples, the tree of modules and which way imports point."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.cli import main
from proxy.config import load_settings
from tests.conftest import Running
from tests.upstream import CHAT_BODY, Upstream, chat_answer

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
ADDRESS = "http://localhost:8787"
# What differs from call to call in the answers that the README shows.
VARYING = {"delay_ms", "feedback_ids"}
# Paths below /v1 that the README names as examples of what is forwarded.
FORWARDED = {"/v1/chat/completions", "/v1/realtime", "/v1/X"}


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[tuple[str, str]]:
    """The fenced blocks, as language and content."""
    return re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", text(document))


def prose(document: str) -> str:
    return re.sub(r"(?ms)^```\w*\n.*?^```$", "", text(document))


def inline_code(document: str) -> list[str]:
    return re.findall(r"`([^`]+)`", prose(document))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_lead_to_files(document: str) -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", prose(document))]
    paths = [code for code in inline_code(document) if re.fullmatch(r"(proxy|storage|tests)/[\w./]+", code)]
    assert [path for path in (*links, *paths) if "://" not in path and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document: str) -> None:
    targets = set(re.findall(r"(?:^|`)make (\w+)", text(document), re.MULTILINE))
    assert targets <= set(re.findall(r"(?m)^(\w+):", text("Makefile")))


def test_the_readme_lists_every_route_and_no_other(kibitz: Running) -> None:
    listed = re.findall(r"(?m)^\| `(GET|POST|PUT|DELETE) (/\S+)` \|", text("README.md"))
    assert sorted(listed) == sorted((route.method, route.path) for route in kibitz.kibitz.router.routes)


def test_every_path_in_the_readme_is_a_route_or_forwarded(kibitz: Running) -> None:
    routes = {re.sub(r"\{\w+\}", "[^/]+", route.path) for route in kibitz.kibitz.router.routes}
    named = re.findall(r"(?<![\w.])(?:http://localhost:8787)?(/(?:v1|healthz|readyz)[\w/{}-]*)", text("README.md"))
    unknown = {path for path in named if not any(re.fullmatch(route, path) for route in routes)}
    assert unknown - FORWARDED == {"/v1"}


def curls(block: str) -> Iterator[tuple[str, str, bytes | None]]:
    """The requests that a block's curl commands make, as method, path and body."""
    for line in block.splitlines():
        _, *words = shlex.split(line)
        options = {words[n]: words[n + 1] for n, word in enumerate(words) if word in ("-X", "-d")}
        [url] = [word for word in words if word.startswith("http")]
        assert url.startswith(ADDRESS)
        body = options.get("-d")
        yield options.get("-X", "GET"), url.removeprefix(ADDRESS), body.encode() if body is not None else None


def as_shown(actual: Any, shown: Any) -> Any:
    """An answer, cut to what the README shows of it, and with the shown values where they differ from call to call."""
    if not isinstance(shown, dict):
        return actual
    return {
        name: value if name in VARYING and type(value) is type(actual[name]) else as_shown(actual[name], value)
        for name, value in shown.items()
    }


def shown_answer() -> bytes:
    """The answer of a model that the README's session got."""
    [row] = [orjson.loads(block)["data"] for language, block in blocks("README.md") if '"response_text"' in block]
    body = orjson.loads(CHAT_BODY)
    body["model"] = row["model"]
    body["choices"][0]["message"]["content"] = row["response_text"]
    body["usage"] = {name: row[name] for name in ("prompt_tokens", "completion_tokens")}
    return chat_answer(orjson.dumps(body))


def run_python(code: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    names["client"].close()


async def test_the_session_of_the_readme_runs_as_shown(
    kibitz: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    upstream.answer = shown_answer()
    answers: list[Any] = []
    compared = 0
    for language, block in blocks("README.md"):
        if language == "python":
            await asyncio.to_thread(run_python, block.replace(ADDRESS, kibitz.url))
        elif language == "sh" and block.startswith("curl "):
            for method, path, body in curls(block):
                async with kibitz.client.request(method, kibitz.url + path, data=body) as response:
                    answers.append(await response.json())
                    assert response.status == 200, answers[-1]
        elif language == "json":
            shown = orjson.loads(block)
            assert as_shown(answers[-1], shown) == shown
            compared += 1
    assert upstream.received[0].values("Authorization") == [b"Bearer sk-test"]
    assert "Capital of France" in capsys.readouterr().out
    assert (len(answers), compared) == (7, 3)


def test_the_configuration_of_the_readme_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [redaction, example, _] = [block for language, block in blocks("README.md") if language == "toml"]
    (tmp_path / "kibitz.toml").write_text(example + redaction)
    variables = re.findall(r"(?m)^\| `(KIBITZ_\w+)=(.*?)` \|", text("README.md"))
    assert len(variables) == len(re.findall(r"KIBITZ_\w+", text("README.md"))) > 0
    for name, value in variables:
        monkeypatch.setenv(name, value)
    settings = load_settings({}, tmp_path / "kibitz.toml")
    assert (settings.port, settings.database) == (9000, "calls.db")
    assert settings.upstreams["groq"].api_key is not None


def test_the_key_of_the_readme_has_the_digest_shown() -> None:
    [*_, printed] = [block for language, block in blocks("README.md") if language == "toml"]
    key = printed.splitlines()[0].rpartition(" ")[2]
    assert tomllib.loads(printed)["keys"][0]["sha256"] == hashlib.sha256(key.encode()).hexdigest()


def test_every_setting_given_in_the_readmes_text_loads(tmp_path: Path) -> None:
    given = re.findall(r"(?:`(\[[\w.]+\])` )?`([a-z_]+ = .+?)`", prose("README.md"))
    assert len(given) > 3
    for table, setting in given:
        path = tmp_path / "kibitz.toml"
        path.write_text(f"{table}\n{setting}\n")
        load_settings({}, path)


def test_every_name_in_the_readmes_text_is_one_of_the_sources() -> None:
    named = {name for code in inline_code("README.md") for name in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", code)}
    known = {word for path in modules().values() for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    # Of the SDKs.
    assert named - known == {"portkey_ai", "bulk_create", "logging_endpoint"}


def test_every_flag_in_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("serve", "keys", "reparse", "export", "prune"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text("README.md"))) <= flags


def test_the_changelog_has_an_unreleased_section() -> None:
    assert re.search(r"(?m)^## \[Unreleased\]$", text("CHANGELOG.md"))


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    files = [file for package in ("proxy", "storage") for file in (ROOT / package).rglob("*.py")]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in sorted(files)
    }


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports: modules of ours by their full names, others by their first."""
    names = set[str]()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inner & modules().keys() or {node.module or ""}
    return frozenset(name if name in modules() else name.partition(".")[0] for name in names)


@cache
def reached(module: str) -> frozenset[str]:
    """What a module imports, and what that imports in turn."""
    found, ahead = set[str](), [module]
    while ahead:
        new = imports(ahead.pop()) - found
        found |= new
        ahead += new & modules().keys()
    return frozenset(found)


def tree() -> dict[str, bool]:
    """The modules of ARCHITECTURE.md's tree, and whether it says that they are pure."""
    [block] = [block for _, block in blocks("ARCHITECTURE.md") if block.startswith("proxy/\n")]
    folders: list[str] = []
    found = {}
    for line in block.splitlines():
        name, *rest = line.split()
        folders = folders[: (len(line) - len(line.lstrip())) // 2]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        else:
            found[".".join([*folders, name.removesuffix(".py")]).removesuffix(".__init__")] = rest[0] == "*"
    return found


def test_the_tree_names_every_module() -> None:
    bare = {name for name, path in modules().items() if path.name == "__init__.py" and name not in tree()}
    assert tree().keys() == modules().keys() - bare
    assert [name for name in bare if len(modules()[name].read_text().splitlines()) > 10] == []


def test_the_modules_marked_as_pure_are_those_that_are() -> None:
    impure = {"asyncio", "aiohttp", "aiosqlite"}
    assert {name for name, pure in tree().items() if pure} == {name for name in tree() if not reached(name) & impure}


def test_imports_point_one_way() -> None:
    assert [name for name in modules() if name in reached(name)] == []
    of_proxy = {name for name in modules() if name.startswith("proxy")}
    of_storage = modules().keys() - of_proxy
    assert {name for name in of_storage if reached(name) & {*of_proxy, "proxy", "aiohttp"}} == set()
    assert {name for name in of_proxy if "storage" in imports(name)} == {"proxy.app", "proxy.cli"}
    seen = {name for module in of_proxy for name in imports(module) & of_storage}
    assert seen == {
        *("storage", "storage.base", "storage.filters", "storage.pruning"),
        *("storage.queries", "storage.records", "storage.texts"),
    }
    calls = {name for name in of_proxy if "open_storage(" in modules()[name].read_text(encoding="utf-8")}
    assert calls == {"proxy.app"}


def test_the_chains_of_imports_in_the_architecture_are_so() -> None:
    [block] = [block for _, block in blocks("ARCHITECTURE.md") if block.startswith("cli -> ")]
    short = {name.removeprefix("proxy."): name for name in modules()}
    for line in block.splitlines():
        steps = [[short[name] for name in step.split(", ")] for step in line.strip().split(" -> ")]
        for users, used in itertools.pairwise(steps):
            reach = {name for user in users for name in reached(user)}
            assert [name for name in used if not any(found.startswith(name) for found in reach)] == []
            assert [name for name in used if reached(name) & set(users)] == []
