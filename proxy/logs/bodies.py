"""What the log routes are sent, as pydantic models: contracts/portkey section 4, contracts/helicone section 5.4.

Strict about what a row can't do without, lenient about the rest: the clients throw a log away that is refused.
Header fields of the told call are kept nowhere: they hold credentials, which are taken out of the rest for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema

from proxy.feedback.bodies import BLANKS

__all__ = ["CANCELLED", "LATEST", "LONGEST", "TIMED_OUT", "HeliconeLog", "Moment", "PortkeyLog"]

# Helicone's stand-ins for a status where there was none (contracts/helicone section 5.1).
CANCELLED: Final = -3
TIMED_OUT: Final = -2
LATEST: Final = 253_402_300_799.0
"""The end of the year 9999, where dates end."""
LONGEST: Final = 1e7
"""Seconds that a call may have taken."""
_LONGEST_MILLISECONDS: Final = 1000 * LONGEST


def _status(status: int) -> int:
    if status not in (CANCELLED, TIMED_OUT) and not 100 <= status <= 999:
        raise ValueError(f"must be an HTTP status, {CANCELLED} (cancelled) or {TIMED_OUT} (timed out)")
    return status


def _given(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


# For the description: what pydantic takes for the types behind, in its usual forms.
SecondsText = Annotated[str, Field(pattern=r"^[ \t\r\n]*\+?[0-9]{1,11}(\.[0-9]{1,9})?(e-[0-9]{1,2})?[ \t\r\n]*$")]
MillisecondsText = Annotated[str, Field(pattern=r"^[ \t\r\n]*\+?[0-9]{1,10}(\.[0-9]{1,9})?(e-[0-9]{1,2})?[ \t\r\n]*$")]
BlankText = Annotated[str, Field(pattern=f"^[{BLANKS}]*$")]
StatusText = Annotated[str, Field(pattern=r"^[ \t\r\n]*([1-9][0-9]{2}|-2|-3)[ \t\r\n]*$")]
StatusNumber = Annotated[int, Field(ge=100, le=999)] | Literal[-3, -2]
AnyStatus = StatusNumber | StatusText
SecondsNumber = Annotated[float, Field(ge=0, le=LATEST, allow_inf_nan=False)]
AnySeconds = SecondsNumber | SecondsText
MillisecondsNumber = Annotated[float, Field(ge=0, le=_LONGEST_MILLISECONDS, allow_inf_nan=False)]
AnyMilliseconds = MillisecondsNumber | MillisecondsText
_TRUTH_TEXT: Final = r"^(?:[01TtFfYyNn]|[Tt]rue|TRUE|[Ff]alse|FALSE|[Yy]es|YES|[Nn]o|NO|[Oo]n|ON|[Oo]ff|OFF)$"
_TRUTH: Final[dict[str, Any]] = {
    "anyOf": [{"type": "boolean"}, {"enum": [0, 1]}, {"pattern": _TRUTH_TEXT, "type": "string"}]
}

Status = Annotated[int, AfterValidator(_status), BeforeValidator(_number, json_schema_input_type=AnyStatus)]
Seconds = Annotated[SecondsNumber, BeforeValidator(_number, json_schema_input_type=AnySeconds)]
Milliseconds = Annotated[MillisecondsNumber, BeforeValidator(_number, json_schema_input_type=AnyMilliseconds)]
Truth = Annotated[bool, WithJsonSchema(_TRUTH)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Moment(_Body):
    """A time of the wall clock in two parts."""

    seconds: Seconds
    milliseconds: Milliseconds = 0


class Timing(_Body):
    """When the call began and ended, and after how many milliseconds its first token came."""

    start: Annotated[Moment, Field(alias="startTime")]
    end: Annotated[Moment, Field(alias="endTime")]
    time_to_first_token: Annotated[Milliseconds | None, Field(alias="timeToFirstToken")] = None


class ProviderRequest(_Body):
    """What was asked; ``meta`` holds what the proxied form of the call would carry in Helicone's header fields."""

    url: str | None = None
    body: Annotated[Any, Field(alias="json")]
    meta: dict[str, Any] | None = None
    headers: SkipJsonSchema[Any] = None


class ProviderResponse(_Body):
    """What came: an object, or text, which the object then is empty beside."""

    status: Status | None = None
    body: Annotated[Any, Field(alias="json")] = None
    text: Annotated[str | None, Field(alias="textBody")] = None
    headers: SkipJsonSchema[Any] = None


class HeliconeLog(_Body):
    """The body of ``POST /custom/v1/log``."""

    request: Annotated[ProviderRequest, Field(alias="providerRequest")]
    response: Annotated[ProviderResponse, Field(alias="providerResponse")]
    timing: Timing | None = None
    provider: str | None = None


class _Side(_Body):
    """One side of Portkey's log. The agent handlers send spans too, which have no ``body``: they are one."""

    headers: Any = None
    body: Any = None

    @model_validator(mode="before")
    @classmethod
    def _span_as_body(cls, value: object) -> object:
        if isinstance(value, str):
            return {"body": value}
        if not isinstance(value, dict) or "body" in value:
            return value
        about = {field.alias or name for name, field in cls.model_fields.items()}
        body = {name: member for name, member in value.items() if name not in about}
        return {**value, "body": body or None}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "string"}]}

    @property
    def content_type(self) -> str | None:
        """The ``Content-Type`` among the side's header fields."""
        fields = self.headers if isinstance(self.headers, Mapping) else {}
        found = [text for name, text in fields.items() if name.lower() == "content-type" and isinstance(text, str)]
        return found[0] if found else None


class LoggedRequest(_Side):
    """What was asked."""

    url: str | None = None
    method: str | None = None
    provider: str | None = None


class LoggedResponse(_Side):
    """What came; the handlers send their milliseconds as text."""

    status: Status | None = None
    response_time: Annotated[
        Milliseconds | None, BeforeValidator(_given, json_schema_input_type=Milliseconds | BlankText | None)
    ] = None
    streaming_mode: Annotated[Truth | None, Field(alias="streamingMode")] = None


class PortkeyLog(_Body):
    """One item of ``POST /v1/logs``. ``extra`` holds the trace's names, which stand in the item or its metadata."""

    model_config = ConfigDict(extra="allow", frozen=True)

    request: LoggedRequest
    response: LoggedResponse
    metadata: dict[str, Any] | None = None
    start_time: Seconds | None = None
