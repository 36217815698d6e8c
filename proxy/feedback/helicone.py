"""Helicone's feedback routes (contract section 6, first table)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel

from proxy.dialects import Answer, Dialect, Failed
from proxy.feedback.bodies import NewScores, OldRating, PropertyChange, RatingBody, SessionTag
from proxy.feedback.clock import now
from proxy.feedback.reading import JsonReader, validate_as_helicone
from proxy.feedback.shapes import Done, OldRatingSaved, TagAnswer
from proxy.identity import new_id
from proxy.in_flight import Kind
from proxy.operations import REQUEST, Operation
from proxy.routes import Handler, Route, RouteCall
from proxy.under_way import UnderWay
from storage.base import Storage
from storage.records import Feedback, Found, Score

__all__ = ["HeliconeFeedback"]

_SUCCESS: Final[Done] = {"data": None, "error": None}
_LEGACY_ID = "helicone-id"
_SESSION: Final = {"id": "The session's id."}
_READ_TAG: Final = Operation(summary="A session's tag.", parameters=_SESSION, answer=TagAnswer)


class HeliconeFeedback:
    """Ratings of requests and sessions, scores and properties.

    ``keep_unknown`` takes what is said of ids that nobody has seen yet, for rows that arrive by another way.
    """

    def __init__(self, storage: Storage, under_way: UnderWay, reader: JsonReader, *, keep_unknown: bool) -> None:
        self._storage = storage
        self._under_way = under_way
        self._reader = reader
        self._keep_unknown = keep_unknown

    def routes(self) -> list[Route]:
        """The routes that this class answers."""
        return [
            _route("POST", "/v1/request/{id}/feedback", self.rate_request, "Rates a call.", REQUEST, RatingBody),
            _route("POST", "/v1/session/{id}/feedback", self.rate_session, "Rates a session.", _SESSION, RatingBody),
            _route("POST", "/v1/request/{id}/score", self.score_request, "Scores a call by names.", REQUEST, NewScores),
            _route("PUT", "/v1/request/{id}/property", self.set_property, "Labels a call.", REQUEST, PropertyChange),
            _route("POST", "/v1/session/{id}/tag", self.tag_session, "Tags a session.", _SESSION, SessionTag),
            Route("GET", "/v1/session/{id}/tag", Dialect.HELICONE, "read", _READ_TAG, self.read_tag),
        ]

    async def rate_request(self, call: RouteCall) -> Answer:
        """``POST /v1/request/{id}/feedback``."""
        body = validate_as_helicone(RatingBody, await self._reader.read(call), self._reader.limits)
        found = await self._rate(call.organisation, call.parameters["id"], body)
        return Answer(_SUCCESS, trace_id=found.trace_id)

    async def rate_legacy(self, organisation: str, body: dict[str, Any]) -> Answer:
        """``POST /v1/feedback`` with ``helicone-id``: the route of Helicone's old proxy."""
        request_id = body[_LEGACY_ID]
        if not isinstance(request_id, str) or not request_id:
            raise Failed(400, "invalid_feedback", f"{_LEGACY_ID} must be a text that names a request")
        found = await self._rate(organisation, request_id, validate_as_helicone(OldRating, body, self._reader.limits))
        saved: OldRatingSaved = {"message": "Feedback added successfully.", "helicone_id": request_id}
        return Answer(saved, trace_id=found.trace_id)

    async def _rate(self, organisation: str, request_id: str, body: RatingBody) -> Found:
        known = await self._known("request", organisation, request_id)
        rating = _rating(organisation, body, request_id=request_id)
        found = await self._storage.add_rating(rating, known=known)
        if found is None:
            raise _request_not_found()
        return found

    async def rate_session(self, call: RouteCall) -> Answer:
        """``POST /v1/session/{id}/feedback``."""
        body = validate_as_helicone(RatingBody, await self._reader.read(call), self._reader.limits)
        session_id = call.parameters["id"]
        known = await self._known("session", call.organisation, session_id)
        rating = _rating(call.organisation, body, session_id=session_id)
        found = await self._storage.add_session_rating(rating, known=known)
        if found is None:
            raise Failed(404, "not_found", "No request found")
        return Answer(_SUCCESS, trace_id=found.trace_id)

    async def score_request(self, call: RouteCall) -> Answer:
        """``POST /v1/request/{id}/score``."""
        body = validate_as_helicone(NewScores, await self._reader.read(call), self._reader.limits)
        scores = [Score(name, float(value), isinstance(value, bool)) for name, value in body.scores.items()]
        request_id = call.parameters["id"]
        known = await self._known("request", call.organisation, request_id)
        found = await self._storage.merge_scores(call.organisation, request_id, scores, known=known, updated_at=now())
        if found is None:
            raise _request_not_found()
        return Answer(_SUCCESS, trace_id=found.trace_id)

    async def set_property(self, call: RouteCall) -> Answer:
        """``PUT /v1/request/{id}/property``."""
        body = validate_as_helicone(PropertyChange, await self._reader.read(call), self._reader.limits)
        request_id = call.parameters["id"]
        known = await self._known("request", call.organisation, request_id)
        found = await self._storage.set_property(
            call.organisation, request_id, body.key, body.value, known=known, updated_at=now()
        )
        if found is None:
            raise _request_not_found()
        return Answer(_SUCCESS, trace_id=found.trace_id)

    async def tag_session(self, call: RouteCall) -> Answer:
        """``POST /v1/session/{id}/tag``."""
        body = validate_as_helicone(SessionTag, await self._reader.read(call), self._reader.limits)
        session_id = call.parameters["id"]
        known = await self._known("session", call.organisation, session_id)
        found = await self._storage.tag_session(call.organisation, session_id, body.tag, known=known, updated_at=now())
        if found is None:
            raise Failed(404, "not_found", "No request found")
        return Answer(_SUCCESS, trace_id=found.trace_id)

    async def read_tag(self, call: RouteCall) -> Answer:
        """``GET /v1/session/{id}/tag``."""
        answer: TagAnswer = {
            "data": await self._storage.session_tag(call.organisation, call.parameters["id"]),
            "error": None,
        }
        return Answer(answer)

    async def _known(self, kind: Kind, organisation: str, text: str) -> bool:
        # Before the store is asked, or a call might be found neither here nor there.
        known = await self._under_way.known(kind, organisation, (text,))
        keep = self._keep_unknown and len(text) <= self._reader.limits.max_label_characters
        return keep or text in known


def _route(
    method: str, path: str, handler: Handler, summary: str, parameters: Mapping[str, str], body: type[BaseModel]
) -> Route:
    operation = Operation(summary=summary, parameters=parameters, body=body, answer=Done, failures=(404, 422))
    return Route(method, path, Dialect.HELICONE, "feedback", operation, handler)


def _rating(
    organisation: str, body: RatingBody, *, request_id: str | None = None, session_id: str | None = None
) -> Feedback:
    moment = now()
    return Feedback(
        id=new_id(),
        organisation=organisation,
        kind="rating",
        value=int(body.rating),
        comment=body.comment,
        metadata=orjson.dumps(body.metadata).decode("utf-8") if body.metadata is not None else None,
        request_id=request_id,
        session_id=session_id,
        source="helicone",
        created_at=moment,
        updated_at=moment,
    )


def _request_not_found() -> Failed:
    # On the route that both dialects share, too, the question was Helicone's.
    return Failed(404, "not_found", "Request not found", Dialect.HELICONE)
