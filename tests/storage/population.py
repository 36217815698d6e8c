"""A log of chance, what is known of each of its calls told by plain Python, and filters of chance."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from storage import Storage
from storage.filters import FIELDS, All, Condition, Field, Figure, Kind, Node, Not, OneOf, Operator, Value, operators_of
from storage.filters import Any as AnyOf
from storage.records import Body, Feedback, Score, StoredCall, Usage
from tests.storage import ACME, NOW, a_call, a_rating, a_session_rating, a_value, add_values

__all__ = ["Known", "a_field", "a_filter", "compares", "everything_known", "fill", "meets"]

DAY = 86_400_000_000
START = 1_700_000_000_000_000
TEXTS = ("gpt-4o", "GPT-4o-mini", "50%", "a_b", "x*y?[z]", "back\\slash", "", "Größe")
KEYS = ("release", "team")


def _maybe(random: Random, value: Any) -> Any:
    return value if random.random() < 0.7 else None


def _a_body(random: Random) -> Body:
    text = " ".join(random.sample(TEXTS, 3)).encode()
    return Body(text, len(text)) if random.random() < 0.8 else Body(None, len(text), omitted=True)


async def fill(store: Storage, random: Random, number: int) -> None:
    """Calls of chance and what was said of them; beside them those of another organisation, under the same ids."""
    calls = []
    for place in range(number):
        request_id = f"r{random.randrange(number)}"
        text = random.choice(TEXTS)
        calls.append(
            a_call(
                request_id,
                trace_id=random.choice((request_id, f"t{random.randrange(5)}")),
                session_id=_maybe(random, f"s{random.randrange(6)}"),
                user_id=_maybe(random, random.choice(TEXTS)),
                response_model=_maybe(random, text),
                span_name=_maybe(random, "chat"),
                status=_maybe(random, random.choice((200, 200, 429, 500))),
                error_kind="upstream_cut" if random.random() < 0.1 else None,
                is_stream=random.random() < 0.5,
                started_at=START + random.randrange(5) * DAY + random.randrange(1000),
                latency=random.randrange(1, 5000),
                time_to_first_token=_maybe(random, random.randrange(1, 500)),
                cost=_maybe(random, random.randrange(100) / 4),
                usage=Usage(prompt_tokens=_maybe(random, place), total_tokens=_maybe(random, place + 3)),
                properties={key.title(): random.choice(TEXTS) for key in KEYS if random.random() < 0.5},
                request=_a_body(random),
                response=_a_body(random),
            )
        )
    await store.write_calls(calls[: number // 2])
    await store.index_texts(most_calls=number, most_bytes=2**30)
    for call in random.sample(calls[: number // 2], 3):
        await store.replace_response(replace(call, response=_a_body(random)))
    if random.random() < 0.5:
        await store.index_texts(most_calls=2, most_bytes=2**30)  # not all of what was replaced
    await store.write_calls(calls[number // 2 :])
    await store.write_calls([a_call(call.request_id, organisation="other", session_id="s1") for call in calls])
    for place in range(number):
        request_id, session_id = f"r{random.randrange(number)}", f"s{random.randrange(6)}"
        await store.add_rating(a_rating(f"f{place}", request_id, random.randrange(2)), known=False)
        await store.merge_scores(ACME, request_id, [Score("quality", random.randrange(10))], **NOW)
        if place % 5 == 0:
            value = random.randrange(-10, 11)
            await store.add_session_rating(a_session_rating(f"g{place}", session_id, value > 0), known=False)
            await store.tag_session(ACME, f"s{random.randrange(6)}", random.choice(TEXTS), **NOW)
            trace = random.choice((f"t{random.randrange(5)}", request_id))
            await add_values(store, a_value(f"v{place}", trace, value, weight=random.choice((0.0, 0.5, 1.0))))


@dataclass(frozen=True, slots=True)
class Known:
    """A call of the log, by its number, with its session's effective rating and tag; whether no attempt followed."""

    number: int
    stored: StoredCall
    session_rating: bool | None
    session_tag: str | None
    is_latest_attempt: bool

    def value(self, field: Field | Figure) -> Any:
        """What a field is, reckoned anew."""
        assert isinstance(field, Field)
        call, said = self.stored.call, [item for item in self.stored.feedback if item.effective]
        match field.name:
            case "property":
                return {name.casefold(): value for name, value in call.properties.items()}.get(str(field.key))
            case "score":
                return {score.name: score.value for score in self.stored.scores}.get(str(field.key))
            case "is_scored":
                return bool(self.stored.scores) or any(item.kind == "rating" for item in said)
            case "rating":
                return next((bool(item.value) for item in said if item.kind == "rating"), None)
            case "session_rating":
                return self.session_rating
            case "session_tag":
                return self.session_tag
            case "weighted_mean":
                weights = sum(item.weight for item in said)
                return sum(item.value * item.weight for item in said) / weights if weights else None
            case "mean_product":
                return sum(item.value * item.weight for item in said) / len(said) if said else None
            case "request_text":
                return _text(call.request)
            case "response_text":
                return _text(call.response)
            case "text":
                return f"{_text(call.request)}\n{_text(call.response)}"
            case "attempt":
                return self.stored.attempt
            case "is_latest_attempt":
                return self.is_latest_attempt
            case "ended_at":
                return call.started_at + call.latency
            case name:
                return getattr(call, name) if hasattr(call, name) else getattr(call.usage, name)


async def everything_known(store: Storage) -> list[Known]:
    """Every call of the organisation, as it is read by itself."""
    sessions = {
        item.session_id: bool(item.value)
        for item in await store.list_feedback(ACME)
        if item.session_id is not None and item.effective
    }
    known: list[Known] = []
    for row in await store.read_batch(0, most_calls=100_000, most_bytes=2**40):
        if row.call.organisation == ACME:
            attempts = [one for one in known if one.stored.call.request_id == row.call.request_id]
            stored = await store.read_call(ACME, row.call.request_id, len(attempts) + 1)
            assert stored is not None
            tag = await store.session_tag(ACME, row.call.session_id or "")
            known.append(Known(row.number, stored, sessions.get(row.call.session_id or ""), tag, True))
    last = {one.stored.call.request_id: one.number for one in known}
    return [replace(one, is_latest_attempt=last[one.stored.call.request_id] == one.number) for one in known]


def _text(body: Body) -> str:
    return (body.data or b"").decode().casefold()


def a_field(random: Random, *, documents: bool = False) -> Field:
    """Any field there is that can be sorted by, or any at all."""
    name = random.choice([name for name, kind in FIELDS.items() if documents or kind is not Kind.DOCUMENT])
    keys = {"property": random.choice((*KEYS, "none")), "score": random.choice(("quality", "none"))}
    return Field(name, keys.get(name))


def a_filter(random: Random, known: list[Known], depth: int = 3) -> Node:
    """A tree whose values mostly stand in the log."""
    kind = random.randrange(6) if depth else 0
    if kind < 2:
        return _a_condition(random, known)
    if kind == 5:
        return OneOf(Field("user_id"), tuple(random.sample(TEXTS, 3)))
    parts = tuple(a_filter(random, known, depth - 1) for _ in range(random.randrange(4)))
    return (All(parts), AnyOf(parts), Not(All(parts)))[kind - 2]


def _a_condition(random: Random, known: list[Known]) -> Condition:
    field = a_field(random, documents=True)
    if field.kind is Kind.DOCUMENT or random.random() < 0.1:
        return _a_search(random)
    operator = Operator(random.choice(operators_of(field.kind)))
    value = random.choice(known).value(field)
    if value is None and operator not in (Operator.EQUALS, Operator.NOT_EQUALS):
        value = {Kind.TEXT: "%4o%", Kind.NUMBER: 1, Kind.TIME: START, Kind.BOOLEAN: True}[field.kind]
    if operator in (Operator.LIKE, Operator.ILIKE) and random.random() < 0.5:
        value = random.choice(("%4O%", "_%", "%\\%", "gpt%", "%", "a\\_b", "x*y?[z]", "%\\\\%", "%[z]", "GRÖSSE"))
    return Condition(field, operator, value)


def _a_search(random: Random) -> Condition:
    """For a part of a text, too short for an index now and then, in any case."""
    text = random.choice((*TEXTS, "no such text", "größe 50", "\0", '"'))
    begin = random.randrange(len(text) + 1)
    part = text[begin : begin + random.choice((1, 2, 3, 5, 20))]
    field = Field(random.choice(("request_text", "response_text", "text")))
    return Condition(field, random.choice((Operator.CONTAINS, Operator.NOT_CONTAINS)), part.upper())


def meets(one: Known, node: Node) -> bool:
    """Whether a call is meant by a filter, reckoned anew."""
    match node:
        case All(parts):
            return all(meets(one, part) for part in parts)
        case AnyOf(parts):
            return any(meets(one, part) for part in parts)
        case Not(part):
            return not meets(one, part)
        case OneOf(field, values):
            return one.value(field) in values
        case Condition(field, operator, value) if field.kind is Kind.DOCUMENT:
            return (str(value).casefold() in one.value(field)) == (operator is Operator.CONTAINS)
        case Condition(field, operator, value):
            return compares(one.value(field), operator, value)


def compares(left: Any, operator: Operator, right: Value) -> bool:
    """Whether a comparison holds, reckoned anew."""
    if operator in (Operator.EQUALS, Operator.NOT_EQUALS):
        return bool(left == right) == (operator is Operator.EQUALS)
    if operator is Operator.NOT_CONTAINS:
        return left is None or not compares(left, Operator.CONTAINS, right)
    if left is None:
        return False
    match operator:
        case Operator.GT | Operator.GTE | Operator.LT | Operator.LTE:
            return bool(getattr(left, f"__{operator.name.replace('GTE', 'ge').replace('LTE', 'le').lower()}__")(right))
        case Operator.CONTAINS:
            return _lower(str(right)) in _lower(left)
        case _:
            flags = re.DOTALL | re.ASCII | (re.IGNORECASE if operator is Operator.ILIKE else 0)
            return re.fullmatch(_as_regex(str(right)), left, flags) is not None


def _lower(text: str) -> str:
    """Without case as far as ASCII goes, which is as far as every database agrees."""
    return "".join(character.lower() if character.isascii() else character for character in text)


def _as_regex(pattern: str) -> str:
    tokens = re.findall(r"\\.|.", pattern, re.DOTALL)
    signs = {"%": ".*", "_": "."}
    return "".join(signs.get(token) or re.escape(token[-1]) for token in tokens)


def effective(known: list[Known]) -> dict[str, Feedback]:
    """The effective feedback of some calls, each item once."""
    return {item.id: item for one in known for item in one.stored.feedback if item.effective}
