from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.base_url import BaseUrl
from proxy.headers import read_request_fields
from proxy.upstreams import Destination, Mount, TargetNotAllowed, Upstream, UpstreamTable, provider_name, split_target


def upstream(name: str, base: str) -> Upstream:
    return Upstream(name, BaseUrl.parse(base), f"key-of-{name}", 1, 2, 3)


TABLE = UpstreamTable(
    upstream("openai", "https://api.openai.com/v1"),
    {
        "anthropic": upstream("anthropic", "https://api.anthropic.com"),
        "groq": upstream("groq", "https://api.groq.com/openai/v1"),
    },
    [BaseUrl.parse(target) for target in ("https://api.mistral.ai/v1", "https://gateway.example", "http://[::1]:9000")],
)
TARGET_FIELDS = ["Helicone-Target-URL", "Helicone-OpenAI-Api-Base", "x-portkey-custom-host"]


def find(target: str, **headers: str) -> Destination | None:
    mount, _ = split_target(target)
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return TABLE.find(mount, read_request_fields(fields))


def address(target: str, **headers: str) -> str | None:
    destination = find(target, **headers)
    return destination.upstream.base.origin + destination.path if destination else None


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/v1/chat/completions", {}, "https://api.openai.com/v1/chat/completions"),
        ("/v1", {}, "https://api.openai.com/v1"),
        ("/v1/", {}, "https://api.openai.com/v1/"),
        ("/anthropic/v1/messages", {}, "https://api.anthropic.com/v1/messages"),
        ("/anthropic", {}, "https://api.anthropic.com/"),
        ("/groq/chat/completions", {}, "https://api.groq.com/openai/v1/chat/completions"),
        ("/v1/models", {"x_portkey_provider": "groq"}, "https://api.groq.com/openai/v1/models"),
        ("/v1/models", {"X_Portkey_Provider": " @GROQ "}, "https://api.groq.com/openai/v1/models"),
        ("/v1/models", {"x_portkey_provider": "cohere"}, "https://api.openai.com/v1/models"),
        ("/v1/models", {"x_portkey_provider": ""}, "https://api.openai.com/v1/models"),
        ("/v1/a%2Fb/%7Ec//d/../e", {}, "https://api.openai.com/v1/a%2Fb/%7Ec//d/../e"),
        ("/v1//chat/completions", {}, "https://api.openai.com/v1/chat/completions"),
        ("/v1///chat", {}, "https://api.openai.com/v1/chat"),
    ],
)
def test_what_follows_the_base_follows_the_upstreams_base(target: str, headers: dict[str, str], expected: str) -> None:
    assert address(target, **headers) == expected


@pytest.mark.parametrize("target", ["/", "/v2/chat", "/V1/chat", "/openai/chat", "//v1/chat", "/v1x", "*", ""])
def test_a_path_that_nothing_is_mounted_on_goes_nowhere(target: str) -> None:
    assert find(target) is None


PATH = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?"), max_size=30)


@given(PATH, st.none() | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20))
def test_path_and_query_travel_exactly_as_sent(path: str, query: str | None) -> None:
    sent_query = "" if query is None else f"?{query}"
    target = f"/groq/{path}{sent_query}"
    mount, found_query = split_target(target)
    assert found_query == sent_query
    assert mount.name == "groq"
    assert address(target) == "https://api.groq.com/openai/v1/" + path.lstrip("/")


@pytest.mark.parametrize(
    ("target", "mount", "query"),
    [
        ("http://host:1/v1/chat?a=b", Mount("v1", "/chat"), "?a=b"),
        ("https://host/v1", Mount("v1", ""), ""),
        ("http://host", Mount("", ""), ""),
        ("/v1/x?u=http://h/p?q", Mount("v1", "/x"), "?u=http://h/p?q"),
        ("/v1?", Mount("v1", ""), "?"),
    ],
)
def test_an_absolute_target_means_the_path_in_it(target: str, mount: Mount, query: str) -> None:
    assert split_target(target) == (mount, query)


@pytest.mark.parametrize("field", TARGET_FIELDS)
@pytest.mark.parametrize(
    ("target", "path", "expected"),
    [
        ("https://gateway.example", "/v1/chat", "https://gateway.example/v1/chat"),
        ("https://GATEWAY.example:443/", "/v1/chat", "https://gateway.example/v1/chat"),
        ("https://gateway.example/openai/v1", "/v1/chat", "https://gateway.example/openai/v1/chat"),
        ("https://api.mistral.ai/v1/", "/v1/chat", "https://api.mistral.ai/v1/chat"),
        ("http://[0::1]:9000", "/v1/chat", "http://[::1]:9000/v1/chat"),
    ],
)
def test_an_allowed_target_takes_the_call(field: str, target: str, path: str, expected: str) -> None:
    assert address(path, **{field: target}) == expected


@pytest.mark.parametrize("field", TARGET_FIELDS)
@pytest.mark.parametrize(
    "target",
    [
        *("http://169.254.169.254/latest", "http://localhost:8787", "https://api.openai.com/v1"),
        *("http://gateway.example", "https://gateway.example:8443", "https://gateway.example.evil.example"),
        *("https://gateway.example@evil.example", "https://evil.example#https://gateway.example"),
        *("https://api.mistral.ai", "https://api.mistral.ai/v10", "https://api.mistral.ai/v1/../admin"),
        *(
            "gateway.example",
            "//gateway.example",
            "nonsense",
            "",
            "http\u017f://gateway.example",
            "https://[::1",
            "file:///x",
        ),
    ],
)
def test_a_target_that_is_not_allowed_or_not_readable_is_refused(field: str, target: str) -> None:
    with pytest.raises(TargetNotAllowed):
        find("/v1/chat", **{field: target})


def test_one_allowed_target_does_not_excuse_another() -> None:
    with pytest.raises(TargetNotAllowed):
        find("/v1/chat", Helicone_Target_URL="https://gateway.example", x_portkey_custom_host="http://10.0.0.1")


def test_a_target_goes_before_a_provider() -> None:
    headers = {"Helicone_Target_URL": "https://gateway.example", "x_portkey_provider": "groq"}
    assert address("/v1/chat", **headers) == "https://gateway.example/v1/chat"


def test_no_configured_key_goes_to_a_target_that_the_call_chose() -> None:
    destination = find("/v1/chat", Helicone_Target_URL="https://api.mistral.ai/v1")
    assert destination is not None
    assert destination.upstream.api_key is None
    assert destination.upstream.name == "mistral"
    assert (destination.upstream.connect_timeout, destination.upstream.first_byte_timeout) == (1, 2)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.anthropic.com", "anthropic"),
        ("http://localhost:11434/v1", "localhost"),
        ("https://api.openai.com.evil.example", "api.openai.com.evil.example"),
    ],
)
def test_a_provider_is_called_by_its_usual_name_else_by_its_host(base: str, name: str) -> None:
    assert provider_name(BaseUrl.parse(base)) == name


def test_a_key_is_not_shown_with_its_upstream() -> None:
    upstream = Upstream("u", BaseUrl.parse("https://api.openai.com/v1"), "sk-secret", 1, 1, 1)
    assert "sk-secret" not in repr(Destination(upstream, "/"))
