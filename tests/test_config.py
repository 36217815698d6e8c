"""Settings: what may be said where, who wins, and how a mistake is told. Contract section 1."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from proxy.config import ConfigError, KeySettings, ModelPrices, Settings, Upstream, load_settings

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
SECRET = "sk-hush-0123456789"
DIGEST = "ab" * 32

LoadFile = Callable[..., Settings]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own environment says nothing."""
    for variable in os.environ:
        if variable.upper().startswith("KIBITZ_"):
            monkeypatch.delenv(variable)


@pytest.fixture
def load_file(tmp_path: Path) -> LoadFile:
    """Loads settings from a file of this text, with these flags."""

    def load(text: str, **flags: Any) -> Settings:
        path = tmp_path / "kibitz.toml"
        path.write_text(text, encoding="utf-8")
        return load_settings(flags, path)

    return load


def complaint(load: Callable[[], Settings]) -> str:
    """What is said of settings that can't be used; one line, whatever they hold."""
    with pytest.raises(ConfigError) as caught:
        load()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert SECRET not in message
    return message


def whole_example() -> str:
    """The example with the settings that have no default commented in."""
    return re.sub(r"(?m)^#(?=[^ \n])", "", EXAMPLE.read_text(encoding="utf-8"))


# Settings that hold tables of further settings under names or numbers of the user's own.
REPEATED: dict[str, type[BaseModel]] = {"upstreams": Upstream, "prices": ModelPrices, "keys": KeySettings}


def setting_names(model: type[BaseModel], prefix: str = "") -> set[str]:
    names: set[str] = set()
    for name, field in model.model_fields.items():
        table: Any = REPEATED.get(name, field.annotation)
        is_table = isinstance(table, type) and issubclass(table, BaseModel)
        names |= setting_names(table, f"{prefix}{name}.") if is_table else {f"{prefix}{name}"}
    return names


def names_in(table: dict[str, Any], prefix: str = "") -> set[str]:
    names: set[str] = set()
    for name, value in table.items():
        entries = value.values() if name in ("upstreams", "prices") else value if name == "keys" else [value]
        for entry in entries:
            names |= names_in(entry, f"{prefix}{name}.") if isinstance(entry, dict) else {f"{prefix}{name}"}
    return names


def test_a_key_file_that_is_a_pipe_is_not_waited_for(tmp_path: Path, load_file: LoadFile) -> None:
    os.mkfifo(tmp_path / "key")
    assert "is a pipe" in complaint(lambda: load_file(f'[upstream]\napi_key_file = "{tmp_path / "key"}"'))


def test_blanks_around_a_key_are_no_part_of_it(load_file: LoadFile) -> None:
    assert load_file('[upstream]\napi_key = " sk-1 "').upstream.held_key == "sk-1"


def test_the_example_names_every_setting() -> None:
    assert names_in(tomllib.loads(whole_example())) == setting_names(Settings)


def test_the_example_equals_the_defaults() -> None:
    assert load_settings({}, EXAMPLE).model_dump() == load_settings({}).model_dump()


def test_the_example_states_every_setting_that_has_a_default() -> None:
    optional = {"upstream.api_key", "upstream.api_key_file", "limits.max_request_body"}
    optional |= {"retention.max_age", "retention.max_size"}
    repeated = {name for name in setting_names(Settings) if name.split(".")[0] in REPEATED}
    stated = names_in(tomllib.loads(EXAMPLE.read_text(encoding="utf-8")))
    assert stated == setting_names(Settings) - optional - repeated


def test_the_example_loads_with_everything_commented_in(load_file: LoadFile) -> None:
    # A key is given itself or in a file that is there, not both.
    settings = load_file(re.sub(r"(?m)^api_key_file = .*$", "", whole_example()))
    defaults = Upstream(base_url=settings.upstreams["groq"].base_url)
    assert settings.upstreams["groq"].model_dump(exclude={"api_key"}) == defaults.model_dump(exclude={"api_key"})
    assert settings.keys[0].scopes == KeySettings.model_fields["scopes"].default


def test_every_setting_of_the_example_is_explained() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    settings = [n for n, line in enumerate(lines) if re.match(r"#?[a-z_0-9]+ = ", line)]
    unexplained = [lines[n] for n in settings if not lines[n - 1].startswith("# ")]
    # A further upstream has the settings of [upstream], which are explained there.
    groq = lines.index("#[upstreams.groq]")
    assert [line for line in unexplained if line not in lines[groq : groq + 7]] == []


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load_settings({})
    assert (settings.host, settings.port, settings.workers, settings.shutdown_grace) == ("127.0.0.1", 8787, 1, 30)
    assert (settings.database, settings.durability) == ("kibitz.db", "strict")
    assert (settings.commit_wait, settings.sync) == (0.25, "normal")
    assert (settings.allowed_targets, settings.on_disconnect) == ((), "cancel")
    assert settings.max_logged_body == 10 * 1024 * 1024
    assert settings.upstream.model_dump() == {
        "base_url": "https://api.openai.com/v1",
        "api_key": None,
        "api_key_file": None,
        "connect_timeout": 10,
        "first_byte_timeout": 600,
        "idle_timeout": 600,
    }
    assert settings.feedback.unknown_request == "reject"
    assert settings.limits.max_request_body is None
    assert settings.limits.max_header_field == 64 * 1024


@pytest.mark.parametrize(
    ("places", "winner"),
    [({"flag", "env", "file"}, 1), ({"env", "file"}, 2), ({"file"}, 3), (set(), 8787)],
    ids=["flag", "environment", "file", "default"],
)
def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    places: set[str], winner: int, load_file: LoadFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "env" in places:
        monkeypatch.setenv("KIBITZ_PORT", "2")
    flags = {"port": "1"} if "flag" in places else {}
    assert load_file("port = 3" if "file" in places else "", **flags).port == winner


def test_a_table_is_put_together_setting_by_setting(load_file: LoadFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIBITZ_UPSTREAM__BASE_URL", "https://environment.example/v1")
    monkeypatch.setenv("KIBITZ_UPSTREAM__IDLE_TIMEOUT", "2")
    file = '[upstream]\nbase_url = "https://file.example/v1"\nidle_timeout = 3\nconnect_timeout = 4\n'
    upstream = load_file(file, upstream={"base_url": "https://flag.example/v1"}).upstream
    assert upstream.base_url == "https://flag.example/v1"
    assert upstream.idle_timeout == 2
    assert upstream.connect_timeout == 4
    assert upstream.first_byte_timeout == 600


def test_a_named_upstream_of_the_file_takes_its_key_from_the_environment(
    load_file: LoadFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIBITZ_UPSTREAMS__GROQ__API_KEY", SECRET)
    file = '[upstreams.groq]\nbase_url = "https://groq.example/v1"\n[upstreams.other]\nbase_url = "http://other"\n'
    upstreams = load_file(file).upstreams
    assert {name: upstream.base_url for name, upstream in upstreams.items()} == {
        "groq": "https://groq.example/v1",
        "other": "http://other",
    }
    assert upstreams["groq"].api_key is not None
    assert upstreams["groq"].api_key.get_secret_value() == SECRET
    assert upstreams["other"].api_key is None


def test_the_environment_can_say_everything_that_the_file_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIBITZ_ALLOWED_TARGETS", '["https://one.example", "https://two.example/v1"]')
    monkeypatch.setenv("KIBITZ_KEYS", f'[{{"name": "n", "organisation": "acme", "sha256": "{DIGEST}"}}]')
    monkeypatch.setenv("kibitz_limits__max_request_body", "1000")
    monkeypatch.setenv("KIBITZ_FEEDBACK__UNKNOWN_REQUEST", "keep")
    monkeypatch.setenv("KIBITZ_INSECURE_OPEN", "true")
    monkeypatch.setenv("KIBITZ_ALLOWED_HOSTS", '["Kibitz.example."]')
    monkeypatch.setenv("KIBITZ_CORS_ORIGINS", '["https://App.example:443", "*"]')
    settings = load_settings({})
    assert settings.allowed_targets == ("https://one.example", "https://two.example/v1")
    assert [(key.name, key.organisation, key.sha256) for key in settings.keys] == [("n", "acme", DIGEST)]
    assert settings.limits.max_request_body == 1000
    assert settings.feedback.unknown_request == "keep"
    assert settings.insecure_open is True
    assert settings.allowed_hosts == ("kibitz.example",)
    assert settings.cors_origins == ("https://app.example", "*")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("prot = 1", "prot"),
        ('[upstream]\nbaseurl = "http://x"', "upstream.baseurl"),
        ('[upstreams.x]\nbase_url = "http://x"\nkey = "k"', "upstreams.x.key"),
        ("[limits]\nmax_body = 1", "limits.max_body"),
        ("[prices.m]\ninput = 1\noutput = 1\ncached = 1", "prices.m.cached"),
        ('[feedback]\nunknown = "keep"', "feedback.unknown"),
        (f'[[keys]]\nname = "n"\norganisation = "o"\nsha256 = "{DIGEST}"\nscope = "read"', "keys.0.scope"),
        ("[server]\nport = 1", "server"),
        ('"two\\nlines" = 1', "two"),
    ],
)
def test_an_unknown_name_in_the_file_is_an_error(text: str, name: str, load_file: LoadFile) -> None:
    message = complaint(lambda: load_file(text))
    assert name in message
    assert "unknown setting" in message


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("KIBITZ_PROT", "KIBITZ_PROT"),
        ("kibitz_prot", "kibitz_prot"),
        ("KIBITZ_UPSTREAM_BASE_URL", "KIBITZ_UPSTREAM_BASE_URL"),
        ("KIBITZ_UPSTREAM__BASEURL", "upstream.baseurl"),
        ("KIBITZ_UPSTREAMS__GROQ__KEY", "upstreams.groq.key"),
        ("KIBITZ_LIMITS__MAX_BODY", "limits.max_body"),
        ("KIBITZ_PORT__NUMBER", "port"),
    ],
)
def test_an_unknown_name_in_the_environment_is_an_error(
    variable: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIBITZ_UPSTREAMS__GROQ__BASE_URL", "http://groq")
    monkeypatch.setenv(variable, "1")
    assert name.lower() in complaint(lambda: load_settings({})).lower()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("port = 65536", "port"),
        ('port = "eighty"', "port"),
        ('host = ""', "host"),
        ("workers = 0", "workers"),
        ("workers = 257", "workers"),
        ("shutdown_grace = 0", "shutdown_grace"),
        ("commit_wait = -1", "commit_wait"),
        ("commit_wait = inf", "commit_wait"),
        ("commit_wait = true", "commit_wait"),
        ("workers = true", "workers"),
        ("shutdown_grace = 1e10", "shutdown_grace"),
        ("commit_wait = nan", "commit_wait"),
        ('durability = "eventual"', "durability"),
        ('sync = "off"', "sync"),
        ('on_disconnect = "retry"', "on_disconnect"),
        ("max_logged_body = -1", "max_logged_body"),
        ('allowed_targets = ["api.groq.com"]', "allowed_targets.0"),
        ('allowed_hosts = ["kibitz.example:80"]', "allowed_hosts.0"),
        ('allowed_hosts = "kibitz.example"', "allowed_hosts"),
        ('cors_origins = ["app.example"]', "cors_origins.0"),
        ('cors_origins = ["https://app.example/"]', "cors_origins.0"),
        ('cors_origins = ["*"]', "cors_origins"),
        ('allowed_targets = "https://api.groq.com"', "allowed_targets"),
        ("upstream = 1", "upstream"),
        ('[upstream]\nbase_url = "ftp://files.example"', "upstream.base_url"),
        ('[upstream]\nbase_url = "https://host/v1?key=x"', "upstream.base_url"),
        ("[upstream]\nidle_timeout = 0", "upstream.idle_timeout"),
        ("[upstreams.x]\nidle_timeout = 1", "upstreams.x.base_url"),
        ('[upstream]\napi_key = ""', "upstream.api_key"),
        ('[upstream]\napi_key = " "', "upstream.api_key"),
        ('[upstream]\napi_key = "sk-\\r\\nX: y"', "upstream.api_key"),
        ('[upstream]\napi_key = "sk-\\u007f"', "upstream.api_key"),
        ('[upstream]\napi_key = "sk-\u00e9"', "upstream.api_key"),
        ('[upstream]\napi_key = "sk"\napi_key_file = "/dev/null"', "upstream: api_key and api_key_file"),
        ('[upstream]\napi_key_file = "/nowhere/key"', "upstream: api_key_file: /nowhere/key: No such file"),
        ('[upstream]\napi_key_file = "/"', "upstream: api_key_file: /: Is a directory"),
        ('[upstream]\napi_key_file = "/dev/null"', "upstream: api_key_file: /dev/null is empty"),
        ('[upstream]\napi_key_file = "/dev/zero"', "upstream: api_key_file: /dev/zero is too large"),
        ('[upstreams.x]\nbase_url = "http://x"\napi_key_file = ""', "upstreams.x: api_key_file: "),
        ('[upstreams.v1]\nbase_url = "http://x"', "upstreams"),
        ('[upstreams.Dashboard]\nbase_url = "http://x"', "upstreams"),
        ('[upstreams."a/b"]\nbase_url = "http://x"', "upstreams"),
        ('[upstreams.groq]\nbase_url = "http://x"\n[upstreams.Groq]\nbase_url = "http://y"', "upstreams"),
        ('[feedback]\nunknown_request = "drop"', "feedback.unknown_request"),
        ("[limits]\nmax_request_body = -1", "limits.max_request_body"),
        ('[prices."gpt-4.1"]\ninput = 1', "prices.gpt-4.1.output"),
        ("[prices.m]\ninput = -1\noutput = 1", "prices.m.input"),
        ("[prices.m]\ninput = 1\noutput = inf", "prices.m.output"),
        ("[limits]\nmax_header_field = 0", "limits.max_header_field"),
        ("[redact]\npatterns = ['a', '(']", "redact.patterns.1"),
        ("[redact]\npatterns = ['']", "redact.patterns.0"),
        ("[redact]\npatterns = 'a'", "redact.patterns"),
        ("[redact]\nfields = [' ']", "redact.fields.0"),
        ("[redact]\nheaders = []", "redact.headers"),
        ('[[keys]]\nname = "n"\norganisation = "o"\nsha256 = "abc"', "keys.0.sha256"),
        (2 * f'[[keys]]\nname = "n"\norganisation = "o"\nsha256 = "{DIGEST}"\n', "keys: 'n' and 'n' have the same"),
        (
            f'[[keys]]\nname = "n"\norganisation = "o"\nsha256 = "{hashlib.sha256(b"").hexdigest().upper()}"',
            "keys.0.sha256",
        ),
        (f'[[keys]]\nname = "n"\nsha256 = "{DIGEST}"', "keys.0.organisation"),
        (f'[[keys]]\nname = "n"\norganisation = " "\nsha256 = "{DIGEST}"', "keys.0.organisation"),
        (f'[[keys]]\nname = "n"\norganisation = "o"\nsha256 = "{DIGEST}"\nscopes = ["all"]', "keys.0.scopes"),
        (f'[[keys]]\nname = "n"\norganisation = "o"\nsha256 = "{DIGEST}"\nscopes = []', "keys.0.scopes"),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_setting(text: str, name: str, load_file: LoadFile) -> None:
    assert re.match(rf"{re.escape(name)}(?!\w)", complaint(lambda: load_file(text)))


def test_every_mistake_is_told_at_once(load_file: LoadFile) -> None:
    message = complaint(lambda: load_file("port = -1\nprot = 1\n[limits]\nmax_header_field = 0"))
    assert {"port: ", "prot: ", "limits.max_header_field: "} <= set(re.findall(r"[a-z._]+: ", message))


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("KIBITZ_PORT", "eighty", "port"),
        ("KIBITZ_PORT", "", "port"),
        ("KIBITZ_UPSTREAM__IDLE_TIMEOUT", "soon", "upstream.idle_timeout"),
        ("KIBITZ_UPSTREAM", "not JSON", "upstream"),
        ("KIBITZ_ALLOWED_TARGETS", "https://api.groq.com", "allowed_targets"),
        ("KIBITZ_KEYS", "[{}]", "keys.0"),
    ],
)
def test_a_bad_value_in_the_environment_is_an_error_that_names_the_setting(
    variable: str, value: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert name in complaint(lambda: load_settings({}))


@pytest.mark.parametrize(
    "text",
    [
        f'[upstream]\napi_key = ["{SECRET}"]',
        f'[upstream]\napikey = "{SECRET}"',
        f'[upstream]\napi_key = "{SECRET}"\nidle_timeout = 0',
        f'[upstream]\napi_key = "{SECRET}',
        f"[upstream]\napi_key = {SECRET}",
        f'[upstream]\napi_key = "x"\napi_key = "{SECRET}"',
        f'upstream = "{SECRET}"',
        f'[upstream]\nbase_url = "https://user:{SECRET}@host/v1"',
        f'[[keys]]\nname = "n"\norganisation = "o"\nsha256 = "{SECRET}"',
    ],
)
def test_no_message_shows_a_secret_of_the_file(text: str, load_file: LoadFile) -> None:
    complaint(lambda: load_file(text))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KIBITZ_UPSTREAM", f'{{"api_key": "{SECRET}"'),
        ("KIBITZ_UPSTREAM", f'{{"api_key": ["{SECRET}"]}}'),
        ("KIBITZ_UPSTREAM_API_KEY", SECRET),
        ("KIBITZ_UPSTREAM__API_KEY__SECRET", SECRET),
        ("KIBITZ_KEYS", f'[{{"sha256": "{SECRET}"}}]'),
    ],
)
def test_no_message_shows_a_secret_of_the_environment(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    complaint(lambda: load_settings({}))


def test_the_settings_printed_show_no_secret(load_file: LoadFile) -> None:
    settings = load_file(f'[upstream]\napi_key = "{SECRET}"')
    assert settings.upstream.api_key is not None
    assert settings.upstream.api_key.get_secret_value() == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize("content", [f"{SECRET}\0", f"{SECRET}\nsecond", f"\ufeff{SECRET}", f"{SECRET}\u00e9"])
def test_a_key_file_that_holds_more_than_a_key_is_named_and_not_shown(
    load_file: LoadFile, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "key.txt"
    file.write_text(content, encoding="utf-8")
    assert str(file) in complaint(lambda: load_file(f'[upstream]\napi_key_file = "{file}"'))


def test_the_settings_printed_do_not_show_what_a_key_file_holds(load_file: LoadFile, tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(f"{SECRET}\n")
    settings = load_file(f'[upstreams.x]\nbase_url = "http://x"\napi_key_file = "{tmp_path / "key.txt"}"')
    assert settings.upstreams["x"].held_key == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert SECRET not in f"{settings.upstreams['x']!r} {settings.upstreams['x'].model_copy()!r}"


def test_a_file_that_is_not_toml_is_named_with_the_place(load_file: LoadFile) -> None:
    message = complaint(lambda: load_file("port = 1\nhost = \n"))
    assert "kibitz.toml" in message
    assert "line 2" in message


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes('database = "müll.db"'.encode("latin-1"))
    assert "latin.toml" in complaint(lambda: load_settings({}, path))


@pytest.mark.parametrize("name", ["missing.toml", "directory", "two\nlines.toml", "long" * 100])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    message = complaint(lambda: load_settings({}, tmp_path / name))
    assert name.split("\n")[0][:20] in message
