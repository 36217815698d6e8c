from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.headers import decode_value, read_request_fields, read_response_fields, serialize

Pairs = list[tuple[bytes, bytes]]

# RFC 9110 section 7.6.1.
HOP_BY_HOP = {b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade"}
OWN = (b"helicone-", b"x-portkey-")
IDS = {b"helicone-id", b"helicone-request-id", b"helicone-status", b"x-portkey-trace-id"}
NAMES = [
    *(b"Connection", b"Keep-Alive", b"TE", b"Transfer-Encoding", b"Upgrade", b"Proxy-Connection", b"Host", b"Expect"),
    *(b"Content-Length", b"Content-Type", b"Content-Encoding", b"Authorization", b"X-API-Key", b"Set-Cookie", b"X-A"),
    *(b"Helicone-Auth", b"Helicone-Id", b"helicone-property-a", b"X-Portkey-Trace-Id", b"traceparent", b"baggage"),
]
NAME = st.sampled_from(NAMES).flatmap(lambda name: st.sampled_from([name, name.lower(), name.upper()]))
TOKEN = st.from_regex(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True)
VALUE = st.binary(max_size=24) | st.sampled_from([b"x-a", b"close, X-A", b"12", b"gzip", b"100-continue", b"a b\xfc"])
FIELDS = st.lists(st.tuples(NAME | TOKEN, VALUE), max_size=12)


def named_by_connection(raw: Pairs) -> set[bytes]:
    values = [value for name, value in raw if name.lower() == b"connection"]
    return {token.strip().lower() for value in values for token in value.split(b",")}


def names(pairs: Pairs) -> set[bytes]:
    return {name.lower() for name, _ in pairs}


def assert_sorted(raw: Pairs, forward: Pairs, removable: set[bytes]) -> None:
    """What is handed on is untouched and in order; what is not has a reason, and every field of its name shares it."""
    assert forward == [pair for pair in raw if pair[0].lower() in names(forward)]
    assert names(raw) - names(forward) <= removable
    assert not names(forward) & (removable - named_by_connection(raw))


@given(FIELDS)
def test_every_request_field_is_forwarded_as_it_is_or_stays_behind_for_a_reason(raw: Pairs) -> None:
    fields = read_request_fields(raw)
    own = {name for name in names(raw) if name.startswith(OWN)}
    assert_sorted(raw, fields.forward, HOP_BY_HOP | {b"host", b"expect"} | own | named_by_connection(raw))
    assert set(fields.own) == own
    for name, pairs in fields.own.items():
        assert pairs == [pair for pair in raw if pair[0].lower() == name]
    for name, value in fields.noted.items():
        assert value == b",".join(value for known, value in fields.forward if known.lower() == name)
    for index in fields.credentials:
        assert fields.forward[index][0].lower() in {b"authorization", b"x-api-key", b"api-key"}


@given(FIELDS)
def test_every_response_field_is_forwarded_as_it_is_or_stays_behind_for_a_reason(raw: Pairs) -> None:
    fields = read_response_fields(raw)
    framing = {b"content-length"} if b"transfer-encoding" in names(raw) else set()
    assert_sorted(raw, fields.forward, HOP_BY_HOP | IDS | framing | named_by_connection(raw))


@given(st.lists(st.tuples(TOKEN, st.binary()), max_size=8))
def test_a_written_field_is_one_line_whatever_its_value(fields: Pairs) -> None:
    written = serialize(fields)
    lines = written.split(b"\r\n")
    assert lines.pop() == b""
    assert [line.partition(b": ")[0] for line in lines] == [name for name, _ in fields]
    assert written.count(b"\n") == written.count(b"\r") == len(fields)
    assert b"\0" not in written


def test_a_field_without_line_breaks_is_written_to_the_byte() -> None:
    assert serialize([(b"ETag", b'W/"\xfc"'), (b"x-a", b""), (b"X-A", b"\tb  ")]) == (
        b'ETag: W/"\xfc"\r\nx-a: \r\nX-A: \tb  \r\n'
    )


@given(st.binary())
def test_any_bytes_read_as_text_that_can_be_stored(value: bytes) -> None:
    text = decode_value(value)
    assert text.encode("utf-8").decode("utf-8") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(b"plain", "plain"), ("Zoë 北".encode(), "Zoë 北"), (b"Zo\xeb", "Zoë"), (b"", "")],
)
def test_a_value_is_utf_8_or_else_latin_1(value: bytes, text: str) -> None:
    assert decode_value(value) == text


def test_every_field_that_a_connection_field_names_is_removed() -> None:
    raw = [(b"CONNECTION", b"close, x-Hop"), (b"X-HOP", b"1"), (b"x-kept", b"2"), (b"connection", b" other ")]
    raw.append((b"Other", b"3"))
    assert read_request_fields(raw).forward == [(b"x-kept", b"2")]
    assert read_response_fields(raw).forward == [(b"x-kept", b"2")]


def test_two_spellings_of_a_name_stay_two_fields() -> None:
    raw = [(b"X-A", b"1"), (b"x-a", b"2"), (b"X-A", b"1")]
    assert read_request_fields(raw).forward == raw


def test_fields_that_the_log_wants_are_noted_and_forwarded() -> None:
    raw = [(b"Content-Type", b"application/json"), (b"traceparent", b"00-1"), (b"Traceparent", b"00-2")]
    fields = read_request_fields(raw)
    assert fields.noted == {b"content-type": b"application/json", b"traceparent": b"00-1,00-2"}
    assert fields.forward == raw


def test_fields_of_its_own_keep_their_spelling_and_their_repeats() -> None:
    raw = [(b"Helicone-Property-City", b"Bonn"), (b"helicone-property-city", b""), (b"Helicone-Property-City", b"Oslo")]
    fields = read_request_fields(raw)
    assert fields.own == {b"helicone-property-city": raw}
    assert fields.own_values(b"helicone-property-city") == [b"Bonn", b"Oslo"]
    assert fields.own_values(b"helicone-auth") == []


def test_credentials_are_found_where_they_stand_among_the_forwarded_fields() -> None:
    raw = [(b"Host", b"a"), (b"x-api-key", b"1"), (b"X", b"2"), (b"AUTHORIZATION", b"3"), (b"Api-Key", b"4")]
    fields = read_request_fields(raw)
    assert [fields.forward[index][1] for index in fields.credentials] == [b"1", b"3", b"4"]


@pytest.mark.parametrize(
    ("value", "length"),
    [
        *((b"12", 12), (b"0", 0), (b"", None), (b"+1", None), (b"1, 1", None), (b"1_0", None), (b"\xb2", None)),
        pytest.param(b"9" * 5000, None, id="more-digits-than-python-converts"),
    ],
)
def test_a_length_that_is_no_number_is_none(value: bytes, length: int | None) -> None:
    raw = [(b"content-length", value)]
    assert read_request_fields(raw).content_length == length
    assert read_response_fields(raw).content_length == length


def test_a_chunked_request_is_known_as_one_and_its_framing_not_forwarded() -> None:
    fields = read_request_fields([(b"Transfer-Encoding", b"chunked"), (b"Expect", b"100-Continue")])
    assert (fields.chunked, fields.expects_continue, fields.forward) == (True, True, [])


def test_a_length_beside_a_transfer_encoding_is_dropped_from_a_response() -> None:
    fields = read_response_fields([(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked"), (b"A", b"b")])
    assert (fields.content_length, fields.forward) == (None, [(b"A", b"b")])


def test_a_response_loses_the_ids_that_the_proxy_sets_and_nothing_else_of_either_service() -> None:
    kept = [(b"Helicone-Cache", b"HIT"), (b"x-portkey-provider", b"groq")]
    raw = [(b"HELICONE-ID", b"1"), *kept, (b"x-portkey-trace-id", b"2"), (b"helicone-status", b"3")]
    assert read_response_fields([*raw, (b"Helicone-Request-Id", b"4")]).forward == kept


def test_a_response_tells_the_log_its_type_and_encoding() -> None:
    fields = read_response_fields([(b"Content-Type", b"text/event-stream"), (b"content-encoding", b"br")])
    assert (fields.content_type, fields.content_encoding) == (b"text/event-stream", b"br")
