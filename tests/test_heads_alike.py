"""Calls of one connection whose heads are alike are each what they would be on a connection of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import permutations
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from proxy.field_names import is_secret
from proxy.identity import is_label
from tests.conftest import Running, StartKibitz
from tests.raw_client import ask, connect, one_value, request
from tests.upstream import Received, Upstream

PATH = "/v1/chat/completions"
SECRET = b"sk-abcdefghijklmnop-0123456789"
KEYS = [
    {
        "name": name,
        "organisation": name,
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "scopes": ["proxy", "read"],
    }
    for name in ("kbz_acme", "kbz_beta")
]
# Fields of calls, and what each may hold.
VALUES: dict[bytes, list[bytes]] = {
    b"Helicone-Auth": [b"Bearer kbz_acme", b"Bearer kbz_beta", b"Bearer kbz_none"],
    b"Authorization": [b"Bearer " + SECRET, b"Bearer another-0123456789-secret", b"Bearer kbz_beta"],
    b"Helicone-Request-Id": [b"r", b"r-2", b"\xc3\xbc", b" ", b"x" * 300, SECRET, b"r%2f1"],
    b"X-Portkey-Trace-Id": [b"t", b"t-2", b"", b".", b"t" + SECRET],
    b"traceparent": [
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b8-00",
        b"nothing",
    ],
    b"baggage": [b"team=a", b"team=b,stage=c%20d", b""],
    b"Helicone-User-Id": [b"u-1", b"u-2", b"u" * 2000, SECRET],
    b"Helicone-Session-Id": [b"s-1", b"s-2"],
    b"Helicone-Property-Team": [b"core", b"more", b"kbz_acme"],
    b"Helicone-Property-team": [b"again", b""],
    b"X-Portkey-Metadata": [b'{"_user":"m","a":"b"}', b'{"a":"c"}', b"[]"],
    b"Helicone-Omit-Request": [b"true", b"false"],
    b"X-Portkey-Provider": [b"other", b"none"],
    b"X-Portkey-Sensitive-Headers": [b"x-plain", b"helicone-user-id"],
    b"X-Request-Id": [b"1", b"2", b"kbz_acme", b"\xff\xfe"],
    b"X-Plain": [b"plain-word-0123456789", b"other-word-0123456789"],
    b"x-plain": [b"plain-word-0123456789", b"third-word-0123456789"],
    b"X-Some-Token": [b"token-0123456789-abcdef", b"token-9876543210-abcdef"],
    b"Content-Type": [b"application/json", b"text/plain"],
    b"Content-Encoding": [b"identity", b"gzip"],
    b"Connection": [b"keep-alive", b"X-Request-Id", b"traceparent"],
}
# Those of which a second one is no fault of the request's.
REPEATED = [b"Helicone-Request-Id", b"X-Portkey-Trace-Id", b"X-Request-Id", b"X-Plain"]
# Those that stand in each call but beside what takes their place.
SOME = [b"Helicone-Auth", b"Authorization", b"X-Plain", b"X-Request-Id", b"traceparent", b"Helicone-User-Id"]
WORDS = ["plain-word-0123456789", "token-0123456789-abcdef", "other-word-0123456789", "kbz_acme", "short"]
BODIES = [json.dumps({"model": model, "user": word}).encode() for model in ("gpt-4o", "a") for word in WORDS]
ALL_WORDS = json.dumps({"user": " ".join(WORDS)}).encode()
# What is each call's own, however it came.
OWN = frozenset({"request_created_at", "response_created_at", "delay_ms", "attempt", "time_to_first_token"})
MADE_UP = frozenset({"request_id", "trace_id"})


def message(names: Sequence[bytes], values: Sequence[bytes], body: bytes) -> bytes:
    lines = [b"%b: %b" % pair for pair in zip(names, values, strict=True)]
    return request("POST", PATH, *lines, body=body)


def by_chance(chance: Random) -> list[bytes]:
    """Requests of which each has the fields of the one before, nearly all with the same values."""
    names = [name for name in VALUES if chance.random() < 0.5 or name == b"Helicone-Auth"]
    names.append(chance.choice(REPEATED))
    values = [VALUES[name][0] for name in names]
    messages = []
    for _ in range(10):
        for place in chance.sample(range(len(names)), chance.randrange(3)):
            values[place] = chance.choice(VALUES[names[place]])
        messages.append(message(names, values, chance.choice(BODIES)))
    return messages


def each_behind_each(name: bytes, beside: Sequence[bytes]) -> list[bytes]:
    """Requests that only differ in one field: each value that it may have behind each other."""
    others = [*(other for other in SOME if other != name), *beside]
    values = [VALUES[other][0] for other in others]
    pairs = permutations(VALUES[name], 2)
    return [message([*others, name], [*values, value], ALL_WORDS) for pair in pairs for value in pair]


async def row_of(kibitz: Running, answer: Received) -> dict[str, Any] | None:
    """The row of a call that was let in, without what would be other if it came again."""
    path = f"/v1/request/{quote(one_value(answer, 'Helicone-Id'), safe='')}?includeBody=true"
    for key in KEYS:
        headers = {"Helicone-Auth": f"Bearer {key['name']}"}
        async with kibitz.client.get(URL(kibitz.url + path, encoded=True), headers=headers) as response:
            if response.status == 200:
                row: dict[str, Any] = (await response.json())["data"]
                left_out = OWN | {name for name in MADE_UP if len(row[name]) == 36 and row[name].count("-") == 4}
                return {name: value for name, value in row.items() if name not in left_out}
    return None


def told(answer: Received) -> tuple[bytes, bytes]:
    return answer.request_line, answer.body


async def assert_alike(messages: Sequence[bytes], start_kibitz: StartKibitz, upstream: Upstream) -> None:
    """Each call on the one connection leaves for the upstream, and is logged, as it is on a connection of its own."""
    other = {"base_url": upstream.base_url.removesuffix("v1") + "other"}
    kibitz = await start_kibitz(keys=KEYS, upstreams={"other": other})
    async with connect(kibitz.port) as connection:
        for message in messages:
            await connection.send(message)
            behind = await connection.read_request()
            row_behind = await row_of(kibitz, behind)
            alone = await ask(kibitz.port, message)
            assert told(behind) == told(alone)
            assert row_behind == await row_of(kibitz, alone)
            if alone.request_line.split()[1] == b"200":
                first, second = upstream.received[-2:]
                assert (first.request_line, first.fields) == (second.request_line, second.fields)


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        *((name, []) for name in VALUES),
        *((name, [name]) for name in REPEATED),
        *((name, [b"X-Portkey-Sensitive-Headers"]) for name in (b"X-Plain", b"Helicone-User-Id")),
    ],
)
async def test_a_call_is_the_same_behind_one_with_another_value(
    name: bytes, beside: Sequence[bytes], start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    await assert_alike(each_behind_each(name, beside), start_kibitz, upstream)


@pytest.mark.parametrize("seed", range(16))
async def test_a_call_is_the_same_behind_one_that_is_alike(
    seed: int, start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    await assert_alike(by_chance(Random(seed)), start_kibitz, upstream)


@pytest.mark.parametrize("name", sorted({name.lower() for name in VALUES if is_label(name.lower())}))
def test_a_label_is_no_secret(name: bytes) -> None:
    assert not is_secret(name)
