from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.redaction.addresses import redact_address, redact_query


@pytest.mark.parametrize(
    ("query", "logged"),
    [
        ("?key=AIza-secret", "?key=[redacted]"),
        ("?alt=sse&key=s3cret&x=1", "?alt=sse&key=[redacted]&x=1"),
        ("?KEY=s3cret", "?KEY=[redacted]"),
        ("?k%65y=s3cret", "?k%65y=[redacted]"),
        ("?key=a=b", "?key=[redacted]"),
        ("?key=a&key=b", "?key=[redacted]&key=[redacted]"),
        ("?api-key=s&api_key=s&access_token=s", "?api-key=[redacted]&api_key=[redacted]&access_token=[redacted]"),
        ("?key=", "?key=[redacted]"),
        ("?%6b%65%79=s3cret", "?%6b%65%79=[redacted]"),
        ("?a=1;key=s3cret&b=2", "?a=1;key=[redacted]&b=2"),
        ("?key=s3;cret&b=2", "?key=[redacted]&b=2"),
        ("?a=1?key=s3cret", "?a=1?key=[redacted]"),
        ("?a=1#access_token=s3cret", "?a=1#access_token=[redacted]"),
        (
            "?api%5Fkey%5B%5D=s&x-api-key=s&apiKey=s",
            "?api%5Fkey%5B%5D=[redacted]&x-api-key=[redacted]&apiKey=[redacted]",
        ),
        ("?X-Amz-Signature=s&X-Goog-Credential=s", "?X-Amz-Signature=[redacted]&X-Goog-Credential=[redacted]"),
        (
            "?openai_api_key=s&app_secret=s&appkey=s",
            "?openai_api_key=[redacted]&app_secret=[redacted]&appkey=[redacted]",
        ),
        (
            "?api-token=s&db.password=s&passphrase=s",
            "?api-token=[redacted]&db.password=[redacted]&passphrase=[redacted]",
        ),
        ("?to=https%3A%2F%2Fx%2Fy%3Fkey%3Ds3cret&a=1", "?to=[redacted]&a=1"),
        ("?to=https%3A%2F%2Fu%3As3cret%40x%2F&a=1", "?to=[redacted]&a=1"),
    ],
)
def test_the_value_of_a_parameter_that_carries_a_credential_is_not_logged(query: str, logged: str) -> None:
    assert redact_query(query) == logged


@pytest.mark.parametrize(
    "query",
    ["", "?", "?key", "?monkey=1", "?max_tokens=1&pageToken=a", "?keys=1&a=%20b+c&&=&a", "?a=key", "?q=a%26key%3Db"],
)
def test_any_other_query_is_logged_as_sent(query: str) -> None:
    assert redact_query(query) == query


@pytest.mark.parametrize(
    ("address", "logged"),
    [
        ("/v1/models;key=s3cret/x?a=1", "/v1/models;key=[redacted]/x?a=1"),
        ("/v1/models;version=2", "/v1/models;version=2"),
        ("https://user:s3cret@host/v1?key=s3cret", "https://[redacted]@host/v1?key=[redacted]"),
        ("/v1/https://user:s3cret@host/x", "/v1/https://[redacted]@host/x"),
        ("/v1/x?to=//user:s3cret@host/", "/v1/x?to=//[redacted]@host/"),
        ("/v1/@scope/model", "/v1/@scope/model"),
        ("/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_an_address_is_logged_without_credentials(address: str, logged: str) -> None:
    assert redact_address(address) == logged


@given(st.lists(st.text("ab=%?+;&", max_size=6), max_size=3), st.text("xyz", min_size=8), st.text("ab&=", max_size=6))
def test_a_key_is_gone_whatever_stands_around_it(before: list[str], secret: str, after: str) -> None:
    query = "?" + "&".join([*before, f"key={secret}", after])
    assert secret not in redact_query(query)
