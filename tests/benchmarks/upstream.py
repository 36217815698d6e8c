"""An upstream that costs next to nothing: ready-made bytes over keep-alive, a chat completion or a stream of one.

``python -m tests.benchmarks.upstream PORT [GAP]`` serves until it is ended; GAP is the seconds between events. Only
each answer's id is new, as a provider's is.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import re
import sys
from collections import deque
from typing import Any, Final, cast

import uvloop

from tests.benchmarks.pace import Pace

__all__ = ["EVENTS"]

EVENTS: Final = 20  # of text; a first one with the role, one with the usage and the end come on top
_ID: Final = "chatcmpl-000000000000"
_PLACE: Final = _ID.encode()
_STREAMING: Final = re.compile(rb'"stream":\s*true')
_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_WORDS: Final = (
    "Red",
    "is",
    "warm",
    ",",
    "green",
    "is",
    "calm",
    ",",
    "blue",
    "is",
    "far",
    "away",
    ",",
    "and",
    "violet",
    "rests",
)
_USAGE: Final = {"prompt_tokens": 24, "completion_tokens": EVENTS, "total_tokens": 24 + EVENTS}
_FIELDS: Final = b"Date: Sat, 21 Nov 2026 09:52:28 GMT\r\nServer: upstream\r\nx-request-id: req_0123456789abcdef\r\n"


def _json_answer() -> bytes:
    message = {"role": "assistant", "content": " ".join(_WORDS), "refusal": None}
    body = json.dumps(
        {
            "id": _ID,
            "object": "chat.completion",
            "created": 1700000000,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": _USAGE,
            "service_tier": "default",
            "system_fingerprint": "fp_0123456789",
        }
    ).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    return head % (_FIELDS, len(body)) + body


def _event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    chunk = {"id": _ID, "object": "chat.completion.chunk", "created": 1700000000, "model": "gpt-4o-mini-2024-07-18"}
    return b"data: %b\n\n" % json.dumps({**chunk, "choices": choices, **more}, separators=(",", ":")).encode()


def _choice(finish_reason: str | None = None, **delta: str) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _stream_pieces() -> list[bytes]:
    """What is written one after the other: the head with the first event, each further one, the end."""
    events = [_event([_choice(role="assistant", content="")])]
    events += [_event([_choice(content=f"{_WORDS[n % len(_WORDS)]} ")]) for n in range(EVENTS)]
    events += [_event([_choice("stop")]), _event([], usage=_USAGE) + b"data: [DONE]\n\n"]
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%bTransfer-Encoding: chunked\r\n\r\n" % _FIELDS
    return [head + chunks[0], *chunks[1:-1], chunks[-1] + b"0\r\n\r\n"]


_JSON: Final = _json_answer()
_STREAM: Final = _stream_pieces()
_numbers = itertools.count(1)


class _Answering(asyncio.Protocol):
    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._received = b""
        self._pieces: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases

    def connection_lost(self, exc: Exception | None) -> None:
        self._pieces.clear()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end >= 0 and self._is_whole(self._received[:end], end + 4):
            streaming = _STREAMING.search(self._received, end)
            self._received = b""  # nobody here sends a request before the answer to the last one
            self._answer(streaming is not None)

    def _is_whole(self, head: bytes, body: int) -> bool:
        if _CHUNKED.search(head):
            return self._received.endswith(b"\r\n0\r\n\r\n")
        length = _LENGTH.search(head)
        return len(self._received) >= body + (int(length[1]) if length else 0)

    def _answer(self, streaming: bool) -> None:
        this = b"chatcmpl-%012d" % next(_numbers)
        if not streaming:
            self._transport.write(_JSON.replace(_PLACE, this, 1))
            return
        self._pieces.extend([piece.replace(_PLACE, this) for piece in _STREAM])
        self._pace.repeat(self._send_next_piece)

    def _send_next_piece(self) -> bool:
        """Whether there is another one. One piece a turn of the loop, so each is sent by itself even without a gap."""
        if self._pieces:  # else the client has gone
            self._transport.write(self._pieces.popleft())
        return bool(self._pieces)  # another step would find the next request, and send its answer at double pace


async def _serve(port: int, gap: float) -> None:
    loop = asyncio.get_running_loop()
    pace = Pace(gap)
    server = await loop.create_server(lambda: _Answering(pace), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    gc.disable()  # nothing here makes cycles
    uvloop.run(_serve(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
