"""A log of any size for questions to be asked of: months of calls of a team, and what was said of them."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, Final

from storage import Storage
from storage.records import Body, Call, Usage

__all__ = ["DAY", "DAYS", "END", "ORGANISATION", "START", "fill"]

ORGANISATION: Final = "default"
DAY: Final = 86_400_000_000
DAYS: Final = 90
END: Final = 1_760_000_000_000_000
START: Final = END - DAYS * DAY
_GROUP: Final = 128
_USERS: Final = 5_000
_CALLS_OF_A_SESSION: Final = 10
# Of so many calls one is rated or valued; of so many sessions one is rated.
_RATED: Final = 11
_SCORED: Final = 20
_MODELS: Final = ("gpt-4o-mini", "gpt-4o", "claude-4-sonnet", "gpt-4.1", "gemini-2.5-pro", "mistral-large")
_WEIGHTS: Final = (40, 25, 15, 10, 6, 4)
_WORDS: Final = ("invoice", "refund", "weather", "summary", "contract", "order", "delivery", "password", "garden")
_FEEDBACK: Final = """
INSERT INTO feedback (id, organisation, kind, value, weight, request_id, trace_id, session_id, source, effective,
                      created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'helicone', ?, ?, ?)
"""
_SCORES: Final = "INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?, 0, ?)"


async def fill(storage: Storage, database: Path, number: int) -> int:
    """Write ``number`` calls to an empty log, and a tenth as many items of feedback; answers how many those are."""
    random = Random(1)
    feedback, scores = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    sessions = set[str]()
    for group in _grouped(_calls(random, number)):
        await storage.write_calls(group)
        for call in group:
            feedback += _said(random, call, len(feedback), sessions)
            if random.randrange(_SCORED) == 0:
                scores.append((ORGANISATION, call.request_id, "accuracy", random.randrange(101), call.started_at))
    with closing(sqlite3.connect(database, timeout=30)) as db, db:
        db.executemany(_FEEDBACK, feedback)
        db.executemany(_SCORES, scores)
    return len(feedback)


def _grouped(calls: Iterator[Call]) -> Iterator[list[Call]]:
    while group := list(itertools.islice(calls, _GROUP)):
        yield group


def _calls(random: Random, number: int) -> Iterator[Call]:
    step = DAYS * DAY // number
    users = [f"user-{place}" for place in range(_USERS)]
    # Few users make most of the calls.
    shares = list(itertools.accumulate(1 / (place + 5) for place in range(_USERS)))
    open_sessions = [_a_session(random, place) for place in range(20)]
    before = ""
    for place in range(number):
        started_at = START + place * step + random.randrange(step)
        session = random.randrange(20) if random.random() < 0.4 else None
        user = random.choices(users, cum_weights=shares)[0] if random.random() < 0.7 else None
        name, session_name = (None, None) if session is None else open_sessions[session]
        if session is not None and random.randrange(_CALLS_OF_A_SESSION) == 0:
            open_sessions[session] = _a_session(random, place)
        again = before and random.randrange(200) == 0
        request_id = before if again else f"019a{place:012x}-{random.getrandbits(64):016x}"
        before = request_id
        yield _a_call(random, place, request_id, started_at, user, name, session_name)


def _a_session(random: Random, place: int) -> tuple[str, str]:
    return f"session-{place}-{random.getrandbits(32):08x}", f"flow {random.randrange(25)}"


def _a_call(
    random: Random,
    place: int,
    request_id: str,
    started_at: int,
    user: str | None,
    session: str | None,
    name: str | None,
) -> Call:
    model = random.choices(_MODELS, _WEIGHTS)[0]
    failed = random.randrange(40) == 0
    sent, received = random.randrange(50, 4000), random.randrange(5, 800)
    words = " ".join(random.choices(_WORDS, k=6))
    request = b'{"model":"%b","messages":[{"role":"user","content":"%b %d"}]}' % (model.encode(), words.encode(), place)
    response = b'{"id":"chatcmpl-%d","choices":[{"message":{"role":"assistant","content":"%b"}}]}' % (
        place,
        " ".join(random.choices(_WORDS, k=10)).encode(),
    )
    properties = {"Release": f"2.{(started_at - START) * 12 // (DAYS * DAY)}", "Team": random.choice("abcdefgh")}
    if random.random() < 0.3:
        properties["Experiment"] = f"variant-{random.randrange(40)}"
    return Call(
        organisation=ORGANISATION,
        request_id=request_id,
        trace_id=f"trace-{place // 3}" if place % 4 == 0 else request_id,
        span_name=random.choice(("plan", "answer", "check")) if place % 4 == 0 else None,
        method="POST",
        path="/v1/chat/completions",
        target_url="https://api.openai.com/v1/chat/completions",
        provider="openai",
        started_at=started_at,
        latency=int(random.lognormvariate(14, 0.8)),
        time_to_first_token=random.randrange(100_000, 900_000) if place % 2 else None,
        is_stream=bool(place % 2),
        status=(500 if random.random() < 0.5 else 429) if failed else 200,
        session_id=session,
        session_name=name,
        session_path="/" if session else None,
        user_id=user,
        prompt_id=f"prompt-{random.randrange(30)}" if place % 5 == 0 else None,
        request_model=model,
        response_model=None if failed else model,
        provider_response_id=None if failed else f"chatcmpl-{place:x}{random.getrandbits(60):x}",
        finish_reason=None if failed else "stop",
        cost=None if failed else (sent + 4 * received) * 1e-6,
        usage=Usage()
        if failed
        else Usage(prompt_tokens=sent, completion_tokens=received, total_tokens=sent + received),
        properties=properties if random.random() < 0.7 else {},
        request=Body(request, len(request), content_type="application/json"),
        response=Body(response, len(response), content_type="application/json"),
    )


def _said(random: Random, call: Call, number: int, sessions: set[str]) -> list[tuple[Any, ...]]:
    """Of some calls a rating, now and then a second one that replaces it; of some traces values; of some sessions."""
    if random.randrange(_RATED):
        return []
    at, kind = call.started_at + 60_000_000, random.randrange(10)
    good = random.random() < 0.8
    if kind < 7:
        rating = ("rating", int(good), 1.0, call.request_id, None, None)
        rated = [(f"f{number}", ORGANISATION, *rating, 1, at, at)]
        if random.randrange(10) == 0:
            rated = [(f"f{number}", ORGANISATION, "rating", int(not good), 1.0, *rating[3:], 0, at, at)]
            rated.append((f"f{number + 1}", ORGANISATION, *rating, 1, at, at))
        return rated
    if kind < 9 or call.session_id is None or call.session_id in sessions:
        weight, value = random.choice((0.5, 1.0)), random.choice((-10, -5, 5, 5, 10))
        request_id = call.request_id if call.trace_id == call.request_id else None
        said = ("value", value, weight, request_id, call.trace_id, None)
        return [(f"f{number}", ORGANISATION, *said, 1, at, at)]
    sessions.add(call.session_id)
    return [(f"f{number}", ORGANISATION, "rating", int(good), 1.0, None, None, call.session_id, 1, at, at)]
