"""``GET /v1/export``. Contract section 7."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Final

from pydantic import Field

from proxy.dialects import Answer, Dialect, Failed
from proxy.export.formats import JSON_LINES, Format, json_line
from proxy.export.registry import FORMATS, FormatName, meant_by
from proxy.export.selection import Selection
from proxy.export.tables import PyarrowMissing
from proxy.export.walk import dataset_calls, exported, found_calls
from proxy.feedback.bodies import Flag
from proxy.feedback.reading import validate_query
from proxy.operations import Operation
from proxy.routes import Route, RouteCall
from storage.base import Storage
from storage.filters import Node
from storage.records import StoredCall

__all__ = ["Exports"]

_PROPERTY: Final = "property."


class ExportQuery(Selection):
    """What to export, and as what."""

    format: Annotated[FormatName, Field(description="What to make of the calls.")] = "rows"
    summary: Annotated[
        Flag, Field(description="`true`: a last line says how much was read and written; of lines of JSON only.")
    ] = False


_EXPORT: Final = Operation(
    summary="Calls as a file, streamed.",
    description="`rows`: a line a call, as `GET /v1/request/{id}?includeBody=true` shows it. `chat`: a line a "
    "conversation, for fine-tuning. `preference`: a line a pair of answers to the same prompt, one rated well and one "
    "badly. `csv` and `parquet`: a flat row a call. `property.NAME=VALUE` in the query asks for calls that have this "
    "property. A file that was broken off is told by the connection's end.",
    query=ExportQuery,
    answer=str,
    media_type=JSON_LINES,
    other_media_types=("text/csv", "application/vnd.apache.parquet"),
    failures=(400, 404),
)


class Exports:
    """Answers with files of any length."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [Route("GET", "/v1/export", Dialect.HELICONE, "read", _EXPORT, self.export)]

    async def export(self, call: RouteCall) -> Answer:
        """The file, in pieces."""
        named = {name: value for name, value in call.query.items() if not name.startswith(_PROPERTY)}
        query = validate_query(ExportQuery, replace(call, query=named))
        properties = {
            name.removeprefix(_PROPERTY): value for name, value in call.query.items() if name.startswith(_PROPERTY)
        }
        where = meant_by(query.format, query.node(properties))
        form = _new_format(query)
        calls = self._calls(call.organisation, where, query.dataset)
        pieces = exported(calls, form)
        return Answer(None, media_type=form.media_type, stream=_with_summary(pieces, form) if query.summary else pieces)

    async def _calls(self, organisation: str, where: Node, dataset: str | None) -> AsyncGenerator[Sequence[StoredCall]]:
        if dataset is not None and not await self._storage.list_datasets(organisation, [dataset]):
            raise Failed(404, "not_found", "Dataset not found")
        found = (
            dataset_calls(self._storage, organisation, dataset)
            if dataset is not None
            else found_calls(self._storage, organisation, where)
        )
        async with aclosing(found):
            async for some in found:
                yield some


def _new_format(query: ExportQuery) -> Format:
    try:
        form = FORMATS[query.format]()
    except PyarrowMissing as missing:
        raise Failed(400, "format_not_installed", f"On this server {missing}") from None
    if query.summary and form.media_type != JSON_LINES:
        form.close()
        raise Failed(400, "invalid_parameter", "summary: only files of JSON lines have a line for it")
    return form


async def _with_summary(pieces: AsyncGenerator[bytes], form: Format) -> AsyncGenerator[bytes]:
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece
    yield json_line({"summary": form.tally.as_json()})
