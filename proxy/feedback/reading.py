"""A feedback request's body: read within bounds, parsed, validated; what is wrong with it told in its dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from aiohttp import StreamReader
from pydantic import BaseModel, ValidationError

from proxy.dialects import Failed
from proxy.feedback.bodies import DEEPEST
from proxy.routes import RouteCall
from proxy.text_limits import DEFAULT_FEEDBACK_LIMITS, FeedbackLimits
from proxy.wire.json_text import nested_deeper_than

__all__ = ["Invalid", "JsonReader", "validate_as_helicone", "validate_as_portkey", "validate_query"]

M = TypeVar("M", bound=BaseModel)
_MISSING = "missing"
# Faults of one body that are told one by one: to tell of a hundred thousand holds other calls up.
_MOST_DETAILS = 100
# Bytes of a value that is shown to who sent it.
_MOST_SHOWN = 1024


class Invalid(Failed):
    """A Helicone body of the wrong shape: 422, with details by path (contracts/helicone 1.1)."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        super().__init__(422, "validation_failed", "Validation Failed")
        self.details = details


class JsonReader:
    """Reads request bodies of at most ``largest`` bytes that come within ``timeout`` seconds.

    ``setting`` is the name of the limit, for who exceeds it; ``limits`` are those of what the bodies hold.
    """

    def __init__(
        self, largest: int, timeout: float, setting: str, limits: FeedbackLimits = DEFAULT_FEEDBACK_LIMITS
    ) -> None:
        self.limits = limits
        self._largest = largest
        self._timeout = timeout
        self._setting = setting

    async def read(self, call: RouteCall) -> Any:
        """The body's JSON value. Raises `Failed` with 413, 408 or 400."""
        data = await self.read_bytes(call)
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Failed(400, "invalid_json", f"The body is not JSON: {error}.") from None
        if nested_deeper_than(body, DEEPEST):
            raise Failed(400, "invalid_json", f"The body is nested more than {DEEPEST} levels deep.")
        return body

    async def read_bytes(self, call: RouteCall) -> bytes:
        """The body as it came. Raises `Failed` with 413, 408 or 400."""
        if (call.waiting_to_send or 0) > self._largest:
            call.request.end_connection()  # whether the body comes all the same nobody knows
            raise self._too_large()
        call.tell_to_send()
        try:
            with call.request.waits_for_client():
                async with asyncio.timeout(self._timeout):
                    return await self._read_all(call.request.content)
        except TimeoutError:
            call.request.give_up()
            text = f"The body was not complete within {self._timeout:g} seconds (limits.body_timeout)."
            raise Failed(408, "request_timeout", text) from None

    async def _read_all(self, content: StreamReader) -> bytes:
        parts: list[bytes] = []
        size = 0
        while not content.at_eof():
            try:
                part = await content.readany()
            except Exception as error:
                raise Failed(400, "invalid_body", "The body is not whole.") from error
            size += len(part)
            if size > self._largest:
                raise self._too_large()
            parts.append(part)
        return b"".join(parts)

    def _too_large(self) -> Failed:
        text = f"The body is larger than {self._largest} bytes (limits.{self._setting})."
        return Failed(413, "request_too_large", text)


def validate_as_helicone(model: type[M], body: Any, limits: FeedbackLimits) -> M:
    """The body as ``model``. Raises `Invalid` with a detail for each fault, keyed ``requestBody.…``."""
    if not isinstance(body, dict):
        raise Invalid({"requestBody": {"message": "invalid object", "value": _shown(body)}})
    try:
        return model.model_validate(body, context=limits)
    except ValidationError as error:
        if error.error_count() > _MOST_DETAILS:
            raise Invalid({"requestBody": {"message": f"more than {_MOST_DETAILS} faults"}}) from None
        raise Invalid(dict(_helicone_detail(fault) for fault in _faults(error))) from None


def _faults(error: ValidationError) -> list[Any]:
    return list(error.errors(include_url=False)[:_MOST_DETAILS])


def _path(fault: Any) -> str:
    return ".".join(str(part)[:_MOST_SHOWN] for part in fault["loc"] if part != "[key]")


def _helicone_detail(fault: Any) -> tuple[str, dict[str, Any]]:
    path = _path(fault)
    if fault["type"] == _MISSING:
        return f"requestBody.{path}", {"message": f"'{path}' is required"}
    value = fault["input"]
    message = "excess property" if fault["type"] == "extra_forbidden" else _say(fault)
    return f"requestBody.{path}", {"message": message, "value": _shown(value)}


def _shown(value: Any) -> Any:
    """A faulty value as the answer shows it; of a large one the beginning of its JSON."""
    text = orjson.dumps(value)
    return value if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN].decode("utf-8", "ignore") + "…"


def validate_as_portkey(
    model: type[M], body: Any, where: str = "", code: str = "invalid_feedback", limits: FeedbackLimits | None = None
) -> M:
    """The body as ``model``. Raises `Failed` with 400 and a message that names ``where`` and the field."""
    if not isinstance(body, dict):
        raise Failed(400, code, f"{where or 'the body '}must be an object")
    try:
        return model.model_validate(body, context=limits)
    except ValidationError as error:
        faults = "; ".join(_portkey_fault(fault) for fault in _faults(error))
        raise Failed(400, code, f"{where}{faults}") from None


def validate_query(model: type[M], call: RouteCall) -> M:
    """The query as ``model``; names that it doesn't have are ignored. Raises `Failed` with 400."""
    try:
        return model.model_validate(call.query)
    except ValidationError as error:
        faults = "; ".join(_portkey_fault(fault) for fault in _faults(error))
        raise Failed(400, "invalid_parameter", faults) from None


def _portkey_fault(fault: Any) -> str:
    field = _path(fault)
    return f"{field} is required" if fault["type"] == _MISSING else f"{field} {_say(fault)}"


def _say(fault: Any) -> str:
    message: str = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return message.replace("input should be", "must be")
