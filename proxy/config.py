"""Settings: flags beat the environment (``KIBITZ_…``), which beats the TOML file, which beats the defaults.

Units stand in the name, or are seconds (durations) and bytes (sizes). An unknown name is an error wherever it
stands. Contract section 1; ``config.example.toml`` lists every setting.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from proxy.base_url import BaseUrl
from proxy.cors import ANY_ORIGIN, canonical_origin
from proxy.origins import canonical_name
from proxy.redaction.rules import checked_pattern
from proxy.text_limits import DEFAULT_FEEDBACK_LIMITS, DEFAULT_TEXT_LIMITS

__all__ = [
    "ALL_SCOPES",
    "DEFAULT_SCOPES",
    "ConfigError",
    "DefaultUpstream",
    "FeedbackSettings",
    "KeySettings",
    "Limits",
    "ModelPrices",
    "Redact",
    "RetentionSettings",
    "Scope",
    "Settings",
    "Upstream",
    "load_settings",
]

Scope = Literal["proxy", "feedback", "read", "admin"]
ALL_SCOPES: tuple[Scope, ...] = ("proxy", "feedback", "read", "admin")
DEFAULT_SCOPES: tuple[Scope, ...] = ("proxy", "feedback", "read")

KiB = 1024
MiB = 1024 * KiB

_ENVIRONMENT_PREFIX = "KIBITZ_"
_LEVEL_SEPARATOR = "__"
# Seconds whose nanoseconds still fit in 64 bits, as the system wants them.
_LONGEST: Final = 9_000_000_000
# Bytes.
_LARGEST_KEY_FILE: Final = 16 * KiB
_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
# The first segments of paths that Kibitz answers itself, now or by its contract (sections 2 and 7).
_OWN_SEGMENTS = frozenset({"v1", "v2", "custom", "healthz", "readyz", "metrics", "openapi.json", "dashboard"})
_UPSTREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _not_truth(value: Any) -> Any:
    """Whatever else; pydantic would take ``true`` for 1."""
    if isinstance(value, bool):
        raise ValueError("is a number, not true or false")
    return value


Whole = Annotated[int, BeforeValidator(_not_truth)]
Seconds = Annotated[float, BeforeValidator(_not_truth), Field(gt=0, le=_LONGEST, allow_inf_nan=False)]
Price = Annotated[float, BeforeValidator(_not_truth), Field(ge=0, allow_inf_nan=False)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)]
NonEmpty = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
HostName = Annotated[str, AfterValidator(canonical_name)]
Origin = Annotated[str, AfterValidator(canonical_origin)]
Pattern = Annotated[str, StringConstraints(min_length=1), AfterValidator(checked_pattern)]
BaseUrlText = Annotated[str, AfterValidator(lambda text: str(BaseUrl.parse(text)))]


class ConfigError(Exception):
    """A setting that can't be used; the text is one line for the person who wrote it."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(character if character.isprintable() else " " for character in text))


def _usable_key(key: SecretStr) -> SecretStr:
    """Without blanks around it, which no header field can carry."""
    text = key.get_secret_value().strip()
    if not text:
        raise ValueError("is empty")
    if not (text.isascii() and text.isprintable()):
        raise ValueError("holds characters that are not printable ASCII, which no header field can carry")
    return SecretStr(text)


def _key_in(file: Path) -> SecretStr:
    """The key that a file holds, without the line's end. Raises ValueError where there is none."""
    try:
        if file.is_fifo():
            raise ValueError("is a pipe, which might never give anything")
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_KEY_FILE + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"api_key_file: {file}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > _LARGEST_KEY_FILE:
        raise ValueError(f"api_key_file: {file} is too large for a key")
    try:
        return _usable_key(SecretStr(content.decode("latin-1")))
    except ValueError as error:
        raise ValueError(f"api_key_file: {file} {error}") from None


def _not_empty_keys(digest: str) -> str:
    if digest == _EMPTY_SHA256:
        raise ValueError("is the digest of nothing, not of a key")
    return digest


ApiKey = Annotated[SecretStr, AfterValidator(_usable_key)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Upstream(_Table):
    """``[upstreams.NAME]``: the base URL that an SDK would be given, and how long to wait for it."""

    base_url: BaseUrlText
    api_key: ApiKey | None = None
    api_key_file: Path | None = None
    connect_timeout: Seconds = 10
    first_byte_timeout: Seconds = 600
    idle_timeout: Seconds = 600

    _from_file: SecretStr | None = PrivateAttr(None)

    @property
    def held_key(self) -> str | None:
        """The key that Kibitz holds for this upstream, wherever it was given."""
        key = self.api_key or self._from_file
        return None if key is None else key.get_secret_value()

    @model_validator(mode="after")
    def _read_key(self) -> Self:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("api_key and api_key_file are both given, for one key")
        if self.api_key_file is not None:
            self._from_file = _key_in(self.api_key_file)
        return self


class DefaultUpstream(Upstream):
    """``[upstream]``, which has an address even if none is given."""

    base_url: BaseUrlText = "https://api.openai.com/v1"


class FeedbackSettings(_Table):
    """``[feedback]``."""

    unknown_request: Literal["reject", "keep"] = "reject"


class RetentionSettings(_Table):
    """``[retention]``: how much of the log is kept."""

    max_age: Seconds | None = None
    max_size: Annotated[Whole, Field(ge=1 * MiB)] | None = None
    keep: Literal["nothing", "rated"] = "nothing"
    share_bodies: bool = True
    interval: Seconds = 60


class Limits(_Table):
    """``[limits]``: what is refused, or cut. Those of connections and calls are of each worker."""

    max_request_body: Annotated[Whole, Field(ge=0)] | None = None
    max_header_field: Annotated[Whole, Field(ge=1 * KiB)] = 64 * KiB
    max_header_fields: Annotated[Whole, Field(ge=16)] = 512
    max_header_bytes: Annotated[Whole, Field(ge=1 * KiB)] = 256 * KiB
    header_timeout: Seconds = 60
    keep_alive_timeout: Seconds = 600
    body_timeout: Seconds = 120
    upload_idle_timeout: Seconds = 300
    download_idle_timeout: Seconds = 300
    max_connections: Annotated[Whole, Field(ge=1)] = 4096
    max_requests_in_flight: Annotated[Whole, Field(ge=1)] = 2048
    max_label_characters: Annotated[Whole, Field(ge=256)] = DEFAULT_TEXT_LIMITS.max_label_characters
    max_text_characters: Annotated[Whole, Field(ge=256)] = DEFAULT_TEXT_LIMITS.max_text_characters
    max_properties: Annotated[Whole, Field(ge=0)] = DEFAULT_TEXT_LIMITS.max_properties
    max_comment_characters: Annotated[Whole, Field(ge=1)] = DEFAULT_FEEDBACK_LIMITS.max_comment_characters
    max_metadata_bytes: Annotated[Whole, Field(ge=2)] = DEFAULT_FEEDBACK_LIMITS.max_metadata_bytes
    max_scores: Annotated[Whole, Field(ge=1)] = DEFAULT_FEEDBACK_LIMITS.max_scores
    max_bulk_items: Annotated[Whole, Field(ge=1)] = DEFAULT_FEEDBACK_LIMITS.max_bulk_items
    max_feedback_body: Annotated[Whole, Field(ge=1 * KiB)] = 1 * MiB
    max_log_body: Annotated[Whole, Field(ge=1 * KiB)] = 50 * MiB


class Redact(_Table):
    """``[redact]``: what is not stored."""

    fields: tuple[NonEmpty, ...] = ()
    patterns: tuple[Pattern, ...] = ()


class ModelPrices(_Table):
    """``[prices.MODEL]``: US dollars of a million tokens. What is left out costs what ``input`` or ``output`` does."""

    input: Price
    output: Price
    cache_read: Price | None = None
    cache_write: Price | None = None
    input_audio: Price | None = None
    output_audio: Price | None = None


class KeySettings(_Table):
    """``[[keys]]``: who may call, as ``kibitz keys`` prints it."""

    name: NonEmpty
    organisation: NonEmpty
    sha256: Annotated[Sha256, AfterValidator(_not_empty_keys)]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)] = frozenset(DEFAULT_SCOPES)


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=_ENVIRONMENT_PREFIX,
        env_nested_delimiter=_LEVEL_SEPARATOR,
        extra="forbid",
        frozen=True,
    )

    host: NonEmpty = "127.0.0.1"
    port: Annotated[Whole, Field(ge=0, le=65535)] = 8787
    workers: Annotated[Whole, Field(ge=1, le=256)] = 1
    shutdown_grace: Seconds = 30
    insecure_open: bool = False
    allowed_hosts: tuple[HostName, ...] = ()
    cors_origins: tuple[Origin, ...] = ()

    database: NonEmpty = "kibitz.db"
    durability: Literal["strict", "relaxed"] = "strict"
    commit_wait: Seconds = 0.25
    sync: Literal["normal", "full"] = "normal"
    search: bool = False
    max_waiting_bytes: Annotated[Whole, Field(ge=1 * MiB)] = 64 * MiB

    allowed_targets: tuple[BaseUrlText, ...] = ()
    on_disconnect: Literal["cancel", "drain"] = "cancel"
    max_logged_body: Annotated[Whole, Field(ge=0)] = 10 * MiB

    upstream: DefaultUpstream = DefaultUpstream()
    upstreams: dict[str, Upstream] = {}
    feedback: FeedbackSettings = FeedbackSettings()
    retention: RetentionSettings = RetentionSettings()
    limits: Limits = Limits()
    redact: Redact = Redact()
    prices: dict[str, ModelPrices] = {}
    keys: tuple[KeySettings, ...] = ()

    @field_validator("keys")
    @classmethod
    def _of_one_organisation(cls, keys: tuple[KeySettings, ...]) -> tuple[KeySettings, ...]:
        known: dict[str, KeySettings] = {}
        for key in keys:
            other = known.setdefault(key.sha256, key)
            if other is not key:
                raise ValueError(f"{other.name!r} and {key.name!r} have the same sha256: it can't be told who calls")
        return keys

    @field_validator("upstreams")
    @classmethod
    def _mountable(cls, upstreams: dict[str, Upstream]) -> dict[str, Upstream]:
        for name in upstreams:
            if not _UPSTREAM_NAME.fullmatch(name):
                raise ValueError(f"{name!r} can't stand in a path: letters, digits, '.', '_' and '-' can")
            if name.lower() in _OWN_SEGMENTS:
                raise ValueError(f"/{name} is a path of Kibitz itself; choose another name")
        if len({name.lower() for name in upstreams}) < len(upstreams):
            raise ValueError("two names differ in their case only")
        return upstreams

    @model_validator(mode="after")
    def _closed_to_unknown_pages(self) -> Self:
        if ANY_ORIGIN in self.cors_origins and not self.keys:
            raise ValueError('cors_origins: without [[keys]] "*" would let every web page read the log')
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags (as arguments), environment, file: the first that has a value wins."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(flags: Mapping[str, Any], config_file: Path | None = None) -> Settings:
    """The settings in force; ``flags`` as keyword arguments of `Settings`. Raises `ConfigError`."""
    _refuse_unreadable(config_file)
    _refuse_unknown_variables()

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config_file)

    try:
        return FromFile(**flags)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(detail) for detail in error.errors(include_input=False))) from None
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config_file}: {error}") from None
    except SettingsError as error:
        raise ConfigError(_explain_variable(str(error))) from None


def _explain_variable(message: str) -> str:
    field = re.search(r'field "(\w+)"', message)
    if field is None:
        return message
    variable = _ENVIRONMENT_PREFIX + field[1].upper()
    told = f"{field[1]}: {variable} must be JSON"
    if isinstance(Settings.model_fields[field[1]].default, tuple):
        return told
    return f"{told}; the parts of a table can be set one by one as {variable}{_LEVEL_SEPARATOR}NAME"


def _refuse_unreadable(config_file: Path | None) -> None:
    # pydantic-settings takes a file that isn't there for one without settings.
    try:
        if config_file is not None and not config_file.is_file():
            raise ConfigError(f"{config_file}: no such file")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{config_file}: {error}") from None


def _refuse_unknown_variables() -> None:
    # pydantic-settings reads the variables that it knows, and so would overlook a misspelt one.
    for variable in os.environ:
        if variable.upper().startswith(_ENVIRONMENT_PREFIX):
            name, *below = variable[len(_ENVIRONMENT_PREFIX) :].lower().split(_LEVEL_SEPARATOR)
            field = Settings.model_fields.get(name)
            if field is None or (below and not isinstance(field.default, BaseModel | dict)):
                raise ConfigError(f"{variable}: unknown setting")


def _explain(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown setting"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}" if where else message
