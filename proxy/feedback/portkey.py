"""Portkey's feedback routes, and the two that we add (contract section 6, second table)."""

from __future__ import annotations

from typing import Any, Final

import orjson

from proxy.dialects import Answer, Dialect, Failed, HeliconeFailure, HeliconeInvalid
from proxy.feedback.bodies import ListQuery, NewFeedback, NewValue, ValueChange
from proxy.feedback.clock import now
from proxy.feedback.helicone import HeliconeFeedback
from proxy.feedback.items import feedback_item
from proxy.feedback.reading import JsonReader, validate_as_portkey, validate_query
from proxy.feedback.shapes import FeedbackList, FeedbackSaved, OldRatingSaved
from proxy.identity import new_id
from proxy.operations import Link, Operation
from proxy.routes import Route, RouteCall
from proxy.text_limits import FeedbackLimits
from proxy.under_way import UnderWay
from storage.base import Storage
from storage.records import Feedback

__all__ = ["PortkeyFeedback"]

_TRACE_ID: Final = "trace_id"
_HELICONE_ID: Final = "helicone-id"
# How the Node SDK spells it inside a bulk, where it converts no keys.
_TRACE_ID_SPELLINGS: Final = ("traceID", "traceId")
# What the SDKs put into the path where they were given no id.
_NO_ID: Final = frozenset({"undefined", "null", "NOT_GIVEN"})
_FILTERS: Final = ("trace_id", "request_id", "session_id")
_ITEM: Final = {"id": "The id of one item of feedback."}

_CREATE: Final = Operation(
    summary="Adds values to a trace, or rates a call in Helicone's old form.",
    description="Takes one item, an array of them, all or none of which are saved, or an object of numbered ones, "
    "`0` and on without a gap. `traceID` and `traceId` are read as `trace_id`.",
    body=NewFeedback,
    answer=FeedbackSaved | OldRatingSaved,
    others={404: HeliconeFailure, 422: HeliconeInvalid},
    links=tuple(
        Link(method, "/v1/feedback/{id}", "$response.body#/feedback_ids/0") for method in ("PUT", "POST", "DELETE")
    ),
)
_UPDATE: Final = Operation(
    summary="Changes a value.",
    description="What is left out stays as it was. Where the path says `undefined`, the body's `feedback_id` counts.",
    parameters=_ITEM,
    body=ValueChange,
    answer=FeedbackSaved,
    failures=(404,),
)
_DELETE: Final = Operation(
    summary="Removes a value or a rating.", parameters=_ITEM, answer=FeedbackSaved, failures=(404,)
)
_LIST: Final = Operation(
    summary="Lists what was said of a trace, a request or a session.",
    query=ListQuery,
    answer=FeedbackList,
    failures=(400,),
)


class PortkeyFeedback:
    """Weighted values on traces; on ``POST /v1/feedback`` Helicone's old form too, told apart by its key."""

    def __init__(self, storage: Storage, under_way: UnderWay, reader: JsonReader, helicone: HeliconeFeedback) -> None:
        self._storage = storage
        self._under_way = under_way
        self._reader = reader
        self._helicone = helicone

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [
            Route("POST", "/v1/feedback", Dialect.PORTKEY, "feedback", _CREATE, self.create),
            Route("GET", "/v1/feedback", Dialect.PORTKEY, "read", _LIST, self.list),
            Route("PUT", "/v1/feedback/{id}", Dialect.PORTKEY, "feedback", _UPDATE, self.update),
            Route("POST", "/v1/feedback/{id}", Dialect.PORTKEY, "feedback", _UPDATE, self.update),
            Route("DELETE", "/v1/feedback/{id}", Dialect.PORTKEY, "feedback", _DELETE, self.delete),
        ]

    async def create(self, call: RouteCall) -> Answer:
        """``POST /v1/feedback``: one item, an array of them, or the Node SDK's object of numbered ones."""
        body = await self._reader.read(call)
        if isinstance(body, dict) and _HELICONE_ID in body:
            if any(name in body for name in (_TRACE_ID, *_TRACE_ID_SPELLINGS)):
                raise Failed(400, "ambiguous_feedback", f"Name {_TRACE_ID} or {_HELICONE_ID}, not both.")
            return await self._helicone.rate_legacy(call.organisation, body)
        values = [_stored(call.organisation, item) for item in _read_items(body, self._reader.limits)]
        traces = (value.trace_id for value in values if value.trace_id)
        in_flight = await self._under_way.known("trace", call.organisation, traces)
        await self._storage.add_values(values, traces_in_flight=in_flight)
        return _saved("saved", [value.id for value in values], values[0].trace_id)

    async def update(self, call: RouteCall) -> Answer:
        """``PUT /v1/feedback/{id}``, and ``POST`` as Portkey's own sample has it."""
        body = await self._reader.read(call)
        change = validate_as_portkey(ValueChange, body, limits=self._reader.limits)
        feedback_id = call.parameters["id"]
        if feedback_id in _NO_ID:
            feedback_id = body.get("feedback_id")
            if not isinstance(feedback_id, str) or not feedback_id:
                raise Failed(400, "invalid_feedback", "feedback_id is required where the path names none")
        changed = await self._storage.update_value(
            call.organisation,
            feedback_id,
            value=change.value,
            weight=change.weight,
            metadata=_json(change.metadata),
            updated_at=now(),
        )
        if changed is None:
            raise _unknown(feedback_id)
        return _saved("updated", [feedback_id], changed.trace_id)

    async def delete(self, call: RouteCall) -> Answer:
        """``DELETE /v1/feedback/{id}``."""
        feedback_id = call.parameters["id"]
        deleted = await self._storage.delete_feedback(call.organisation, feedback_id)
        if deleted is None:
            raise _unknown(feedback_id)
        return _saved("deleted", [feedback_id], deleted.trace_id)

    async def list(self, call: RouteCall) -> Answer:
        """``GET /v1/feedback``: what was said of one trace, request or session; or what matches no call yet."""
        query = validate_query(ListQuery, call)
        if query == ListQuery():
            raise Failed(400, "missing_filter", f"Name one of {', '.join(_FILTERS)}, or unmatched=true.")
        found = await self._storage.list_feedback(
            call.organisation,
            trace_id=query.trace_id or None,
            request_id=query.request_id or None,
            session_id=query.session_id or None,
            unmatched=query.unmatched,
        )
        items = [feedback_item(feedback) for feedback in found]
        listed: FeedbackList = {"object": "list", "total": len(items), "data": items}
        return Answer(listed, trace_id=query.trace_id or None)


def _read_items(body: Any, limits: FeedbackLimits) -> list[NewValue]:
    if isinstance(body, dict) and (numbered := _numbered(body)):
        body = numbered
    if isinstance(body, list):
        if not body:
            raise Failed(400, "empty_feedback", "The body holds no feedback.")
        if len(body) > limits.max_bulk_items:
            text = f"The body holds more than {limits.max_bulk_items} items (limits.max_bulk_items)."
            raise Failed(400, "too_much_feedback", text)
        return [_read_item(item, f"item {number}: ", limits) for number, item in enumerate(body)]
    if not isinstance(body, dict):
        raise Failed(400, "invalid_feedback", "The body must be an object or an array of objects.")
    if not any(name in body for name in (_TRACE_ID, *_TRACE_ID_SPELLINGS)):
        raise Failed(400, "invalid_feedback", f"{_TRACE_ID} is required (or {_HELICONE_ID}, for a Helicone rating)")
    return [_read_item(body, "", limits)]


def _numbered(body: dict[str, Any]) -> list[Any] | None:
    """The items of ``{"0": …, "1": …}``, the Node SDK's way to send an array."""
    keys = [str(number) for number in range(len(body))]
    return [body[key] for key in keys] if body and all(key in body for key in keys) else None


def _read_item(item: Any, where: str, limits: FeedbackLimits) -> NewValue:
    if isinstance(item, dict):
        if _HELICONE_ID in item:
            raise Failed(400, "ambiguous_feedback", f"{where}{_HELICONE_ID} can't stand in a bulk")
        for spelling in _TRACE_ID_SPELLINGS:
            if spelling in item and _TRACE_ID not in item:
                item = {**item, _TRACE_ID: item[spelling]}
    return validate_as_portkey(NewValue, item, where, limits=limits)


def _stored(organisation: str, item: NewValue) -> Feedback:
    moment = now()
    return Feedback(
        id=new_id(),
        organisation=organisation,
        kind="value",
        value=item.value,
        weight=1.0 if item.weight is None else item.weight,
        metadata=_json(item.metadata),
        trace_id=item.trace_id,
        source="portkey",
        created_at=moment,
        updated_at=moment,
    )


def _json(metadata: dict[str, Any] | None) -> str | None:
    return orjson.dumps(metadata).decode("utf-8") if metadata is not None else None


def _saved(what: str, ids: list[str], trace_id: str | None = None) -> Answer:
    saved: FeedbackSaved = {"status": "success", "message": f"Feedback successfully {what}", "feedback_ids": ids}
    return Answer(saved, trace_id=trace_id)


def _unknown(feedback_id: str) -> Failed:
    return Failed(404, "not_found", f"There is no feedback with the id {feedback_id}.")
