"""The keys that a call carried, found however they are spelt, split or cut; and what is no key, left alone."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.auth import Caller, KeyRing
from proxy.exchange import Capture
from proxy.pricing import Pricer
from proxy.redaction.credentials import Credentials
from proxy.redaction.keys import Keys
from proxy.redaction.rules import Rules, Search, Unsearchable
from proxy.redaction.spellings import Reading, unescaped
from proxy.redaction.streams import redact_events
from proxy.row import build_call
from proxy.wire import Message, read_response
from proxy.wire.gist import find_gist
from storage.records import Call
from tests.exchanges import begun_exchange
from tests.upstream import CHAT_BODY, chat_events

KEY = "sk-Zq3vT9/xLm2+KcW8uYb1Nd=="
EVENTS = "text/event-stream"
PATH = "/v1/chat/completions"


def row(
    response: bytes,
    content_type: str = "application/json",
    *,
    lines: tuple[tuple[bytes, bytes], ...] = ((b"Authorization", b"Bearer " + KEY.encode()),),
    limit: int = 2**20,
) -> Call:
    exchange = begun_exchange(
        lines, PATH, request=Capture(limit=limit), response=Capture(limit=limit, content_type=content_type)
    )
    exchange.response.feed(response)
    exchange.end()
    return build_call(exchange, Pricer({}))


def escaped_in_json(key: bytes) -> bytes:
    return b"".join(b"\\u%04x" % character for character in key)


def kept(response: bytes, content_type: str = "application/json", **more: object) -> bytes:
    data = row(response, content_type, **more).response.data  # type: ignore[arg-type]
    assert data is not None
    return data


def spelt(draw: st.DrawFn, text: str) -> str:
    """Some of a text's characters in other spellings."""
    forms = ("{}", "{}", "{}", "%{:02X}", "%25{:02x}", "\\u{:04x}")
    chosen = [(draw(st.sampled_from(forms)), one) for one in text]
    return "".join(one if form == "{}" else form.format(ord(one)) for form, one in chosen)


def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@settings(max_examples=200)
@given(st.data())
def test_a_key_is_not_kept_in_a_stream_however_it_is_spelt_and_split(data: st.DataObject) -> None:
    whole = data.draw(st.composite(spelt)("It is " + KEY + ", 50% sure"))
    pieces = data.draw(st.composite(pieces_of)(whole))
    stream = b"".join(chat_events(*["Hm,"] * data.draw(st.integers(0, 30)), *pieces))
    facts = read_response(PATH, Message(kept(stream, EVENTS), EVENTS))
    assert KEY not in Reading(facts.text or "").plain
    assert "[redacted]" in (facts.text or "")
    assert facts.usage == read_response(PATH, Message(stream, EVENTS)).usage


@settings(max_examples=100)
@given(st.data())
def test_a_key_is_not_kept_in_an_answer_however_it_is_spelt(data: st.DataObject) -> None:
    text = "so: " + data.draw(st.composite(spelt)(KEY))
    in_json = data.draw(st.sampled_from([json.dumps(text), json.dumps(json.dumps({"a": text})), f'"{text}"']))
    found = orjson.loads(kept(f'{{"a": {in_json}}}'.encode()))["a"]
    assert "[redacted]" in found
    assert KEY not in Reading(found).plain


@pytest.mark.parametrize("left", range(8, len(KEY)))
@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_of_a_key_that_was_cut_no_part_is_kept(left: int, content_type: str) -> None:
    body = b'{"a": "' + b"x" * 50 + KEY.encode() + b'"}'
    assert kept(body, content_type, limit=57 + left).removesuffix(b'"').endswith(b"x[redacted]")


@pytest.mark.parametrize(
    "answer", [CHAT_BODY, b"".join(chat_events(*["What", "is", "a", "kbz_", "key?", "100%", "text", ""] * 40))]
)
def test_an_answer_that_holds_no_key_is_kept_as_it_is(answer: bytes) -> None:
    assert kept(answer, EVENTS if answer.startswith(b"data") else "application/json") == answer


WORDS = [
    "completion_tokens",
    "content",
    "choices",
    "chat_completion",
    "x",
    "none",
    "EMPTY",
    "dummy",
    "test",
    "sk-x",
    "lm-studio",
]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("form", ["Bearer {}", "Basic {}", "{}", "Token {}"])
def test_a_key_that_is_a_plain_word_breaks_no_json(word: str, form: str) -> None:
    lines = ((b"Authorization", form.format(word).encode()), (b"Cookie", f"a={word}".encode()))
    stream = b"".join(chat_events("Hello", " there"))
    for answer, content_type in ((CHAT_BODY, "application/json"), (stream, EVENTS)):
        assert kept(answer, content_type, lines=lines) == answer
        assert row(answer, content_type, lines=lines).usage.completion_tokens


def test_a_key_of_digits_breaks_no_json() -> None:
    lines = ((b"x-api-key", b"1234567890123456"),)
    assert orjson.loads(kept(b'{"id": 1234567890123456, "b": "a 1234567890123456"}', lines=lines)) == {
        "id": "[redacted]",
        "b": "a [redacted]",
    }


SCHEMES = {
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
    "SignedHeaders=host;range;x-amz-content-sha256, Signature=fe5f80f77d5fa3beca038a248ff027d0": [
        "AKIAIOSFODNN7EXAMPLE",
        "fe5f80f77d5fa3beca038a248ff027d0",
    ],
    'Digest username="a-name-that-is-long", realm="a-realm-that-is-long@host.com", uri="/a/path/of/some/length", '
    'algorithm=SHA-512-256, qop=auth, nc=00000001, nonce="7ypf/xlj9XXwfDPEoM4URrv/", response="753927fa0e85d155"': [
        "7ypf/xlj9XXwfDPEoM4URrv/",
        "753927fa0e85d155",
    ],
    "Bearer abcdefgh-ijklmnop": ["abcdefgh-ijklmnop"],
    "Bearer abc123def456==, Bearer other-key-of-some-length": ["abc123def456==", "other-key-of-some-length"],
    "SCRAM-SHA-256 c2lkPUFBQUFCQkJCQ0ND": ["c2lkPUFBQUFCQkJCQ0ND"],
    "token hunter2hunter2": ["hunter2hunter2"],
    "sk-0123456789abcdef0123": ["sk-0123456789abcdef0123"],
}


@pytest.mark.parametrize("value", SCHEMES)
def test_of_an_authorization_only_what_is_secret_counts(value: str) -> None:
    lines = ((b"Authorization", value.encode()),)
    assert orjson.loads(kept(orjson.dumps({"a": " ".join(SCHEMES[value])}), lines=lines)) == {
        "a": " ".join("[redacted]" for _ in SCHEMES[value])
    }
    public = "AWS4-HMAC-SHA256 Bearer Digest us-east-1 aws4_request x-amz-content-sha256 SHA-512-256 SCRAM-SHA-256 "
    public += "20130524 a-realm-that-is-long@host.com a-name-that-is-long /a/path/of/some/length"
    assert kept(orjson.dumps({"a": public}), lines=lines) == orjson.dumps({"a": public})


def test_the_password_of_basic_counts_and_a_user_without_one() -> None:
    for pair, secret in (
        ("user-of-some-length:hunter2hunter2", "hunter2hunter2"),
        ("sk_live_0123456789:", "sk_live_0123456789"),
    ):
        encoded = base64.b64encode(pair.encode()).decode()
        lines = ((b"Proxy-Authorization", f"Basic {encoded}".encode()),)
        body = orjson.dumps({"a": [secret, encoded, "user-of-some-length"]})
        assert orjson.loads(kept(body, lines=lines)) == {"a": ["[redacted]", "[redacted]", "user-of-some-length"]}


@pytest.mark.parametrize("key", ["s3cret=0123456789", "s3cret_0123456789=a", "s3cret=0123456789abcdef"])
@pytest.mark.parametrize("form", ["{}", "Bearer {}", "Token {}", "Basic eDp5, Token {}"])
def test_a_key_may_hold_an_equals_sign(key: str, form: str) -> None:
    lines = ((b"Authorization", form.format(key).encode()),)
    assert orjson.loads(kept(orjson.dumps({"a": f"is {key}"}), lines=lines)) == {"a": "is [redacted]"}


@pytest.mark.parametrize("key", ["s3cret_0123456789\\", "s3cret\\\\0123456789", 's3cret\\/0123456789\\"'])
@pytest.mark.parametrize("behind", ["", "\u2026", '"', "\n", "/"])
@pytest.mark.parametrize("size", [1, 5, 100])
def test_a_key_may_hold_backslashes(key: str, behind: str, size: int) -> None:
    lines, said = ((b"x-api-key", key.encode()),), f"is {key}{behind}"
    stream = "\n".join(json.dumps({"a": said[start : start + size]}) for start in range(0, len(said), size))
    left = [json.loads(line)["a"] for line in kept(stream.encode(), "application/jsonl", lines=lines).split(b"\n")]
    assert "".join(left) == f"is [redacted]{behind}"


def test_a_short_key_counts_as_a_word_only() -> None:
    keys = Keys([b"abc12345"])
    assert [edit[:2] for edit in keys.edits("abc12345 xabc12345 abc123456 (abc12345)")] == [(0, 8), (30, 38)]


@pytest.mark.parametrize("before", ["\\n", "\\\\t", "%0A", "%20", "%2520", "%0d%0a"])
def test_a_short_key_behind_a_blank_in_escapes_is_a_word(before: str) -> None:
    keys = Keys([b"abc12345"])
    text = f"a{before}abc12345 {before}a-word"
    start = text.index("abc")
    assert [edit[:2] for edit in keys.edits(text)] == [(start, start + 8)]


def test_a_search_for_thousands_of_keys_ends_when_its_time_is_up() -> None:
    stream = b"".join(chat_events(*(f"a text of its own, the {number}th of them" for number in range(100)))).decode()
    few, many = ([b"key-0123456789-%04d" % number for number in range(count)] for count in (10, 5000))
    assert redact_events(Search(Rules(), 0.0, Keys(few)), stream, is_cut=False) == stream
    with pytest.raises(Unsearchable):
        redact_events(Search(Rules(), 0.0, Keys(many)), stream, is_cut=False)


def test_a_key_in_keys_of_json_goes_unless_it_is_a_name() -> None:
    body = b'{"%b": 1, "completion_tokens": "completion_tokens"}' % KEY.encode()
    lines = ((b"x-api-key", KEY.encode()), (b"api-key", b"completion_tokens"))
    assert orjson.loads(kept(body, lines=lines)) == {"[redacted]": 1, "completion_tokens": "[redacted]"}


def test_settings_in_json_are_searched_for_what_their_names_call_secret() -> None:
    config = {
        "targets": [{"provider": "openai", "api_key": KEY, "override_params": {"model": "gpt-4o-mini-2024-07-18"}}]
    }
    fallbacks = [{"target-url": "https://a.example.com/v1", "headers": {"Authorization": "Bearer fallback-key-0123"}}]
    lines = ((b"x-portkey-config", orjson.dumps(config)), (b"Helicone-Fallbacks", orjson.dumps(fallbacks)))
    said = {"model": "gpt-4o-mini-2024-07-18", "a": f"{KEY} fallback-key-0123 https://a.example.com/v1"}
    assert orjson.loads(kept(orjson.dumps(said), lines=lines)) == {
        **said,
        "a": "[redacted] [redacted] https://a.example.com/v1",
    }


def test_what_only_seems_to_be_a_credential_stays() -> None:
    lines = ((b"Idempotency-Key", b"ticket-42-1700000000"), (b"Helicone-Property-Token", b"a-token-of-thanks"))
    body = orjson.dumps({"a": "ticket-42-1700000000 a-token-of-thanks"})
    assert kept(body, lines=lines) == body


def test_a_configured_key_is_found_by_its_digest_alone() -> None:
    digests = ["fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603"]  # of "ab"
    digests.append("88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589")  # of "abcd"
    ring = KeyRing((digest, Caller("o", frozenset())) for digest in digests)
    credentials = Credentials((), ring)
    assert credentials.keys_for(["ab abcd"]).edits("ab abcd, %61bcd abcde")[0][:2] == (3, 7)
    assert not credentials.is_repeated_by("abc")
    assert credentials.is_repeated_by("is %61bcd")


@given(st.text('ab"\n{}:%\\u0061', max_size=400), st.integers(0, 40))
def test_what_is_left_of_a_stream_holds_whatever_has_no_quotation_mark(text: str, times: int) -> None:
    stream = (b'data: {"a":"0123456789012345678901234567890123456789","b":"' + text.encode() + b'"}\n\n') * times
    gist = find_gist(stream)
    left = gist.rest + gist.texts
    for part in (part for line in stream.split(b"\n") for part in line.split(b'"')):
        assert part in left


@pytest.mark.parametrize("spell", [bytes, escaped_in_json], ids=["as it is", "escaped"])
def test_a_long_key_is_found_wherever_it_stands_in_a_long_body(spell: Callable[[bytes], bytes]) -> None:
    key = b"0123456789abcdef" * 1024
    keys, spelt, size = Keys([key]), spell(key), 3 * 2**19
    for place in range(0, size, len(spelt) // 2):
        assert keys.may_be_in(b" " * place + spelt + b"-" * (size - place))
    assert not keys.may_be_in(b" " * size + spelt[: len(spelt) // 2] + b" " * size)


@given(st.text('ab%\\u0261254"/', max_size=60))
def test_a_place_in_a_text_without_its_escapes_is_told_in_the_text(text: str) -> None:
    reading = Reading(text)
    places = [reading.place(place) for place in range(len(reading.plain) + 1)]
    assert (places[0], places[-1]) == (0, len(text))
    assert places == sorted(set(places))
    assert unescaped(text.encode("utf-8", "surrogatepass")) == reading.plain.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/octet-stream", ""])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n" * 100])
def test_a_stream_is_known_by_its_looks_whatever_it_is_called(content_type: str, before: bytes) -> None:
    told = [json.dumps({"message": {"content": piece}}).encode() for piece in ("It is ", *KEY, "!")]
    array = before + b"[" + b",".join(told) + b"]"
    lines = b"\n".join(told)
    windows = b"\r\n".join(told)
    events = before + b"".join(b"event: message\ndata: %b\n\n" % one for one in told)
    for stream in (array, lines, windows, events):
        left = kept(stream, content_type).removeprefix(b"\xef\xbb\xbf").decode()
        pieces = [json.loads(one)["message"]["content"] for one in re.findall(r'\{"message".*?\}\}', left)]
        assert "".join(pieces) == "It is [redacted]!", stream


JOINTS = ["", "\n\n", "\r", " ", "\x1e", ",", ",\r\n", "\n\x1e"]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json-seq", "text/plain", "application/jsonl"]
)
@pytest.mark.parametrize("is_indented", [False, True])
@pytest.mark.parametrize("joint", JOINTS)
def test_a_stream_of_values_is_known_whatever_stands_between_them(
    joint: str, is_indented: bool, content_type: str
) -> None:
    told = [json.dumps({"a": {"b": piece}}, indent=is_indented or None) for piece in ("It is ", *KEY, "!")]
    stream = ("[" if "," in joint else "\x1e" if "\x1e" in joint else "") + joint.join(told)
    left = kept(stream.encode(), content_type).decode()
    assert "".join(re.findall(r'"b": ?"(.*?)"', left)) == "It is [redacted]!"


@pytest.mark.parametrize("end", range(60, 200, 7))
def test_an_array_of_events_that_was_cut_keeps_no_part_of_a_key(end: int) -> None:
    told = [json.dumps({"a": {"b": piece}}) for piece in (KEY[:9], KEY[9:14], *KEY[14:])]
    left = kept(f"[{','.join(told)}".encode(), limit=end).decode()
    assert "".join(re.findall(r'"b": ?"([^"]*)"', left)) == "[redacted]"


@pytest.mark.parametrize("left", [8, 15])
@pytest.mark.parametrize(
    ("before", "joint", "content_type"),
    [("data: ", "\n\n", EVENTS), ("", "\n", "application/jsonl"), ("", "\n", "text/plain"), ("[", ",", "text/plain")],
)
def test_of_a_key_that_begins_in_the_last_whole_event_no_part_is_kept(
    left: int, before: str, joint: str, content_type: str
) -> None:
    first, second = (json.dumps({"a": {"b": piece}}) for piece in (f"It is {KEY[:left]}", KEY[left:]))
    stream = f"{before}{first}{joint}{before.strip('[')}{second}"
    kept_of_it = kept(stream.encode(), content_type, limit=len(stream) - len(second) + 9).decode()
    assert re.findall(r'"b": ?"(.*?)"', kept_of_it) == ["It is [redacted]"]


@pytest.mark.parametrize("spell", ["%2541", "%255a", "\\\\u0025\\\\u0034\\\\u0031", "%5Cu00%34%31"])
def test_of_a_key_that_was_cut_within_escapes_of_escapes_no_part_is_kept(spell: str) -> None:
    key = "0123456789-sk-" + ("Z" if "5a" in spell else "A") + "-abcdef"
    lines, said = ((b"x-api-key", key.encode()),), "is " + key[:14] + spell
    for limit in range(12, len(said) + 1):
        assert kept(f"{said}-abcdef".encode(), "text/plain", lines=lines, limit=limit) == b"is [redacted]"


@pytest.mark.parametrize(
    ("before", "behind"), [('{"a": "f() {}{", "b": {}, "c": "', '"'), ('[{"a": "', '"'), ("f() {\n}\n{ x = ", "")]
)
def test_of_a_body_that_was_cut_and_is_no_stream_all_is_kept_but_a_key(before: str, behind: str) -> None:
    left = kept(f'{before}{KEY}"}}'.encode(), limit=len(before) + 12)
    assert left.decode() == f"{before}[redacted]{behind}"


BEYOND_ASCII = "пароль-und-Schlüssel-😀-1"


@pytest.mark.parametrize(
    ("field", "sent", "said"),
    [
        *(
            (b"X-Auth-Token", BEYOND_ASCII.encode(), spelling)
            for spelling in (
                BEYOND_ASCII,
                json.dumps(BEYOND_ASCII)[1:-1],
                re.sub(r"(?<=\\u)....", lambda code: code[0].upper(), json.dumps(BEYOND_ASCII)[1:-1]),
                quote(BEYOND_ASCII),
            )
        ),
        (b"X-Auth-Token", "ein-längerer-Schlüssel".encode("latin-1"), "ein-längerer-Schlüssel"),
        (b"Cookie", b"sid=s%3A0123456789abcdef.x%2Fy", "s:0123456789abcdef.x/y"),
        (b"Cookie", b"sid=s%3A0123456789abcdef.x%2Fy", "s%3A0123456789abcdef.x%2Fy"),
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_a_key_is_found_as_it_reads_elsewhere(field: bytes, sent: bytes, said: str, content_type: str) -> None:
    answer = kept(b'{"e": "%b"}' % said.encode(), content_type, lines=((field, sent),))
    assert answer == b'{"e": "[redacted]"}'


@pytest.mark.parametrize("key", [b"sk-0123456789abcdef", b"kbz_" + b"Ab0-_" * 8])
def test_a_text_that_is_no_more_than_a_key_is_looked_through(key: bytes) -> None:
    keys = Keys([] if key.startswith(b"kbz_") else [key])
    assert keys.may_be_in(key)
    assert keys.edits(key.decode())
    assert not keys.may_be_in(key[:-1])
    assert keys.may_be_in(key[:-1], is_cut=True)
