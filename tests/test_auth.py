from __future__ import annotations

import hashlib

import pytest

from proxy.auth import DEFAULT_ORGANISATION, Caller, KeyRing
from proxy.base_url import BaseUrl
from proxy.credentials import settle_credentials
from proxy.headers import RequestFields, read_request_fields
from proxy.upstreams import Upstream

Pairs = list[tuple[bytes, bytes]]

ACME, BETA = b"kbz_acme", b"kbz_beta"
ALL = frozenset({"proxy", "feedback", "read", "admin"})


def ring(**organisations: bytes) -> KeyRing:
    digests = (
        (hashlib.sha256(key).hexdigest(), Caller(name, frozenset({"proxy"}))) for name, key in organisations.items()
    )
    return KeyRing(digests)


RING = ring(acme=ACME, beta=BETA)
OPEN = KeyRing([])


def upstream(base: str = "https://api.openai.com/v1", api_key: str | None = "sk-own") -> Upstream:
    return Upstream("u", BaseUrl.parse(base), api_key, 1, 1, 1)


def fields(*pairs: tuple[str, str]) -> RequestFields:
    return read_request_fields([(name.encode(), value.encode()) for name, value in pairs])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Helicone-Auth", "Bearer kbz_acme"),
        ("helicone-auth", "bearer  kbz_acme "),
        ("x-portkey-api-key", "kbz_acme"),
        ("x-portkey-api-key", "Bearer kbz_acme"),
        ("Authorization", "Bearer kbz_acme"),
        ("AUTHORIZATION", "BEARER kbz_acme"),
        ("Authorization", "Bearer\tkbz_acme"),
        ("Authorization", "\tBearer \t kbz_acme\t"),
        ("Authorization", "Bearer sk-provider, Bearer kbz_acme"),
    ],
)
def test_a_key_is_known_wherever_a_client_puts_it(name: str, value: str) -> None:
    caller = RING.identify(fields((name, value)))
    assert caller is not None
    assert (caller.organisation, caller.scopes) == ("acme", frozenset({"proxy"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("Authorization", "Bearer sk-provider"),
            ("Authorization", ""),
            ("Helicone-Auth", "Bearer"),
            ("X", "kbz_acme"),
        ),
        *(
            ("Authorization", "Bearer kbz_acme2"),
            ("Authorization", "Bearer KBZ_ACME"),
            ("Authorization", "Basic kbz_acme"),
        ),
        ("Authorization", f"Bearer {hashlib.sha256(ACME).hexdigest()}"),
    ],
)
def test_anything_else_is_no_key(name: str, value: str) -> None:
    assert RING.identify(fields((name, value))) is None


def test_an_empty_field_of_one_service_leaves_the_others_to_speak() -> None:
    caller = RING.identify(
        fields(("x-portkey-api-key", ""), ("Helicone-Auth", "Bearer x"), ("Authorization", "Bearer kbz_beta"))
    )
    assert caller is not None
    assert caller.organisation == "beta"


def test_a_key_among_blanks_is_known_and_one_behind_very_many_is_not_looked_for() -> None:
    assert RING.identify(fields(("Authorization", ", ,Bearer ,Bearer kbz_acme"))) is not None
    assert RING.identify(fields(("Authorization", "x," * 100_000 + "Bearer kbz_acme"))) is None


def test_with_no_key_configured_everybody_may_do_everything() -> None:
    caller = OPEN.identify(fields(("Authorization", "Bearer anything")))
    assert caller == Caller(DEFAULT_ORGANISATION, ALL)
    assert OPEN.is_empty
    assert not OPEN.is_within(b"anything")


def settled(pairs: Pairs, api_key: str | None = "sk-own", base: str = "https://api.openai.com/v1") -> Pairs:
    return settle_credentials(read_request_fields(pairs), RING, upstream(base, api_key))


OWN = (b"Authorization", b"Bearer sk-own")
CLIENTS = (b"authorization", b"Bearer sk-client")


@pytest.mark.parametrize(
    "pairs",
    [
        [CLIENTS],
        [(b"X-Api-Key", b"sk-ant")],
        [(b"api-key", b"azure")],
        [(b"Authorization", b"AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c")],
        [(b"x-a", b"1"), CLIENTS, (b"x-b", b"2"), (b"x-api-key", b"3")],
    ],
)
def test_the_clients_own_credentials_pass_untouched(pairs: Pairs) -> None:
    assert settled(pairs) == pairs
    assert settled(pairs, api_key=None) == pairs


@pytest.mark.parametrize(
    "value", [b"Bearer kbz_acme", b"bearer kbz_beta", b"kbz_acme", b"Bearer OPENAI_API_KEY", b"Bearer\tDUMMY-KEY"]
)
@pytest.mark.parametrize("name", [b"Authorization", b"x-api-key", b"API-Key", b"X-Goog-Api-Key"])
def test_the_upstreams_key_takes_the_place_of_a_key_or_a_placeholder(name: bytes, value: bytes) -> None:
    pairs = [(b"x-a", b"1"), (name, value), (b"x-b", b"2")]
    assert settled(pairs) == [(b"x-a", b"1"), OWN, (b"x-b", b"2")]
    assert settled(pairs, api_key=None) == [(b"x-a", b"1"), (b"x-b", b"2")]


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"Bearer sk-client, Bearer kbz_acme", b"Bearer sk-client"),
        (b"Bearer kbz_acme, Bearer sk-client", b"Bearer sk-client"),
        (b"Bearer sk-client,Bearer OPENAI_API_KEY", b"Bearer sk-client"),
    ],
)
def test_a_key_joined_to_the_clients_own_credential_is_cut_out(value: bytes, left: bytes) -> None:
    assert settled([(b"Authorization", value)]) == [(b"Authorization", left)]


@pytest.mark.parametrize(
    ("base", "field"),
    [
        ("https://api.openai.com/v1", OWN),
        ("https://api.anthropic.com", (b"x-api-key", b"sk-own")),
        ("https://acme.openai.azure.com/openai", (b"api-key", b"sk-own")),
        ("https://acme.services.ai.azure.com/models", (b"api-key", b"sk-own")),
        ("https://generativelanguage.googleapis.com", (b"x-goog-api-key", b"sk-own")),
        ("https://generativelanguage.googleapis.com/v1beta", (b"x-goog-api-key", b"sk-own")),
        ("https://generativelanguage.googleapis.com/v1beta/openai", OWN),
        ("https://api.anthropic.com.evil.example", OWN),
        ("https://evil.example/a.anthropic.com", OWN),
    ],
)
def test_the_upstreams_key_stands_where_its_provider_looks_for_it(base: str, field: tuple[bytes, bytes]) -> None:
    assert settled([], base=base) == [field]
    assert settled([(b"Authorization", b"Bearer kbz_acme")], base=base) == [field]


@pytest.mark.parametrize(
    "pairs",
    [
        [CLIENTS, (b"x-api-key", b"kbz_acme")],
        [(b"x-api-key", b"kbz_acme"), CLIENTS],
        [(b"api-key", b"DUMMY-KEY"), CLIENTS, (b"x-api-key", b"kbz_acme")],
    ],
)
def test_the_clients_own_credential_is_not_joined_by_the_upstreams_key(pairs: Pairs) -> None:
    """Two `Authorization` fields are a bad request to most providers, and the second key was nobody's wish."""
    assert settled(pairs) == [CLIENTS]


def test_a_short_key_is_one_too() -> None:
    short = ring(acme=b"k1")
    sent = read_request_fields([(b"Authorization", b"Bearer k1"), (b"Cookie", b"k1"), (b"X", b"a k1 b")])
    assert settle_credentials(sent, short, upstream()) == [OWN, (b"X", b"a k1 b")]


def test_a_credential_of_nothing_is_the_clients_own_too() -> None:
    pairs = [(b"Authorization", b""), (b"x-api-key", b"")]
    assert settled(pairs, api_key=None) == pairs


def test_the_upstreams_key_is_sent_once_however_many_keys_came() -> None:
    pairs = [(b"Authorization", b"Bearer kbz_acme"), (b"x-api-key", b"kbz_acme"), (b"api-key", b"DUMMY-KEY")]
    assert settled(pairs) == [OWN]
    assert settled(pairs, api_key=None) == []


def test_without_keys_of_its_own_only_placeholders_are_replaced() -> None:
    known = [(b"Authorization", b"Bearer kbz_acme")]
    assert settle_credentials(read_request_fields(known), OPEN, upstream()) == known
    placeholder = read_request_fields([(b"Authorization", b"Bearer OPENAI_API_KEY")])
    assert settle_credentials(placeholder, OPEN, upstream()) == [OWN]
