"""Answers of Kibitz's own that are too long to be held: they go out as they are made and as the client takes them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus

from proxy.client_http import RelayedResponse, Request, reset_connection
from proxy.dialects import Answer
from proxy.responses import response_head

__all__ = ["begun", "send_stream"]

logger = logging.getLogger(__name__)


async def begun(answer: Answer) -> Answer:
    """The answer once the first piece is there: what fails until then can still be told by a status."""
    if answer.stream is None:
        return answer
    first = await anext(answer.stream, b"")
    return replace(answer, body=first)


async def send_stream(
    request: Request, answer: Answer, stream: AsyncGenerator[bytes], fields: Sequence[tuple[bytes, bytes]]
) -> RelayedResponse:
    """Send an answer that has `begun`, ``fields`` among its header fields.

    A client that leaves, or takes nothing for too long, ends the work. What fails cuts the connection, so that nobody
    takes what has come for the whole.
    """
    async with aclosing(stream):
        has_chunks = request.version >= (1, 1)
        response = _response(request, answer, fields, has_chunks=has_chunks)
        if request.method == "HEAD":
            return response
        try:
            await _send(response, answer.body, stream)
        except ConnectionError:
            pass  # the client is gone
        except Exception:
            logger.exception("streaming an answer")
            _break_off(request, has_chunks=has_chunks)
    return response


async def _send(response: RelayedResponse, first: bytes, stream: AsyncGenerator[bytes]) -> None:
    if first:
        response.write([first])
        await response.drained()
    async for piece in stream:
        response.write([piece])
        await response.drained()
    await response.write_eof()


def _response(
    request: Request, answer: Answer, fields: Sequence[tuple[bytes, bytes]], *, has_chunks: bool
) -> RelayedResponse:
    keep_alive = request.keep_alive and has_chunks  # else the connection's end is the body's
    own = [
        (b"Content-Type", answer.media_type.encode("ascii")),
        (b"Date", formatdate(usegmt=True).encode("ascii")),
        *fields,
    ]
    phrase = HTTPStatus(answer.status).phrase
    head = response_head(request, answer.status, phrase, own, chunked=has_chunks, keep_alive=keep_alive)
    chunked = has_chunks and request.method != "HEAD"
    return RelayedResponse(request, answer.status, head, chunked=chunked, keep_alive=keep_alive)


def _break_off(request: Request, *, has_chunks: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    if has_chunks:
        transport.close()  # what was written still arrives; the framing shows that more was to come
    else:
        reset_connection(transport)  # without framing a clean close would say that this was all
