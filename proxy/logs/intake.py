"""A log's way in: its body read, understood and committed, all of it or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from proxy.auth import KeyRing
from proxy.dialects import Failed
from proxy.feedback.reading import JsonReader
from proxy.headers import RequestFields, read_request_fields
from proxy.logs.calls import Told, build_told_call
from proxy.pricing import Pricer
from proxy.recorder import Recorder
from proxy.redaction.credentials import NO_KEYS
from proxy.redaction.redactor import Redactor
from proxy.routes import RouteCall
from proxy.text_limits import TextLimits
from proxy.wire.json_text import nested_deeper_than, parse
from storage.records import Call

__all__ = ["INVALID", "Intake"]

INVALID: Final = "invalid_log"
"""The code of a failure that tells of a body of the wrong shape."""
# Understanding a body of more bytes than this takes long enough to hold other calls up; a thread does it.
_READ_IN_THREAD: Final = 256 * 1024
_THREADS: Final = 2
# Levels of arrays and objects that can be written as JSON again.
_DEEPEST: Final = 200

ReadLog = Callable[[Any, RequestFields], Sequence[Told]]
"""A dialect's reading of a body, with the header fields beside it. Raises `Failed`."""


class Intake:
    """What the log routes of both dialects share."""

    def __init__(
        self,
        recorder: Recorder,
        reader: JsonReader,
        pricer: Pricer,
        limits: TextLimits,
        *,
        max_logged_body: int,
        redactor: Redactor | None = None,
        keys: KeyRing = NO_KEYS,
    ) -> None:
        self._recorder = recorder
        self._reader = reader
        self._pricer = pricer
        self._limits = limits
        self._max_logged_body = max_logged_body
        self._redactor = redactor
        self._keys = keys
        # Not the default executor's, which the store uses too: searches that take long would hold it up.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="read-log")

    async def take(self, call: RouteCall, read: ReadLog) -> list[Call]:
        """The rows of a log, committed. Raises `Failed`, or `storage.base.StorageError` where nothing was written."""
        data = await self._reader.read_bytes(call)
        fields = read_request_fields(call.request.raw_headers)
        if self._redactor is not None or len(data) > _READ_IN_THREAD:
            reading = partial(self._rows, data, fields, call.organisation, read)
            rows = await asyncio.get_running_loop().run_in_executor(self._threads, reading)
        else:
            rows = self._rows(data, fields, call.organisation, read)
        await self._recorder.write(rows)
        return rows

    def _rows(self, data: bytes, fields: RequestFields, organisation: str, read: ReadLog) -> list[Call]:
        body, most = parse(data), self._reader.limits.max_bulk_items
        if isinstance(body, list) and len(body) > most:
            raise Failed(400, INVALID, f"The body holds more than {most} items (limits.max_bulk_items).")
        if body is None or nested_deeper_than(body, _DEEPEST):
            raise Failed(400, "invalid_json", f"The body is not JSON of at most {_DEEPEST} levels.")
        return [self._row(told, organisation) for told in read(body, fields)]

    def _row(self, told: Told, organisation: str) -> Call:
        most, limits = self._max_logged_body, self._limits
        return build_told_call(told, organisation, self._pricer, most, limits, self._redactor, self._keys)
