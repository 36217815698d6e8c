"""What `[redact]` names is found in a text, whatever it is written like; and all else stays as it is."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.redaction.rules import Rules, TooSlow, Unsearchable, checked_pattern

KEY = "sk-[a-z]{4,}"
ESCAPED = r"\u0073k-abcde"


def redacted(text: str, *patterns: str, fields: tuple[str, ...] = (), is_cut: bool = False) -> str:
    return Rules(fields, patterns).search(len(text)).document(text, is_cut=is_cut)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("my key is sk-abcde.", "my key is [redacted]."),
        ('{"a": "my sk-abcde", "n": 1.10, "n": 123456789012345678901234}', None),
        (f'{{"a":"my {ESCAPED}"}}', '{"a":"my [redacted]"}'),
        ('{"sk-abcde": 1}', '{"[redacted]": 1}'),
        ('{"a": "{\\"b\\": \\"sk-abcde\\"}"}', '{"a": "{\\"b\\": \\"[redacted]\\"}"}'),
        (f'{{"a": "{{\\"b\\": \\"\\{ESCAPED}\\"}}"}}', '{"a": "{\\"b\\": \\"[redacted]\\"}"}'),
        ('["sk-abcde and sk-fghij"]', '["[redacted] and [redacted]"]'),
        ("{no JSON: sk-abcde}", "{no JSON: [redacted]}"),
        ('{"a": "x", sk-abcde', '{"a": "x", [redacted]'),
        ('"sk-abcde"', '"[redacted]"'),
        ('{"a": "SK-ABCDE, sk-abc"}', '{"a": "SK-ABCDE, sk-abc"}'),
    ],
)
def test_what_a_pattern_matches_is_redacted(text: str, kept: str | None) -> None:
    assert redacted(text, KEY) == (kept or text.replace("sk-abcde", "[redacted]"))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"password": "x", "b": 1.10}', '{"password": "[redacted]", "b": 1.10}'),
        ('{"PassWord" : {"a": ["}", 1]}, "b": 2}', '{"PassWord" : "[redacted]", "b": 2}'),
        ('{"a": [{"password": [1, {"b": 2}]}, 3]}', '{"a": [{"password": "[redacted]"}, 3]}'),
        ('{"password": true, "a": null}', '{"password": "[redacted]", "a": null}'),
        ('{"p\\u0061ssword": -1.5e3}', '{"p\\u0061ssword": "[redacted]"}'),
        ('{"password": 1, "password": 2}', '{"password": "[redacted]", "password": "[redacted]"}'),
        ('{"a": "{\\"password\\": \\"x y\\"}"}', '{"a": "{\\"password\\": \\"[redacted]\\"}"}'),
        ('{"a": "so: {\\"password\\": \\"x y\\"}"}', '{"a": "so: {\\"password\\": \\"[redacted]\\"}"}'),
        ("so: {'password': 'x y', 'a': 1}", "so: {'password': '[redacted]', 'a': 1}"),
        ('{"a": 1, "password": "cut he', '{"a": 1, "password": "[redacted]"'),
        ('{"a": 1, "password": {"b": [', '{"a": 1, "password": "[redacted]"'),
        ('{"my_password": "x", "a": "password"}', '{"my_password": "x", "a": "password"}'),
        ("the password: none", "the password: none"),
    ],
)
def test_the_value_of_a_field_is_redacted_whole(text: str, kept: str) -> None:
    assert redacted(text, fields=("Password",)) == kept


def test_json_in_a_string_in_json_in_a_string_is_looked_into() -> None:
    text = json.dumps({"password": "hunter2", "b": 1})
    for _ in range(6):
        text = json.dumps({"inner": text})
    found: Any = redacted(text, fields=("password",))
    assert "hunter2" not in found
    for _ in range(6):
        found = json.loads(found)["inner"]
    assert json.loads(found) == {"password": "[redacted]", "b": 1}


def test_a_long_integer_is_searched_and_a_count_is_not() -> None:
    text = '{"card": 4111111111111111, "total_tokens": 12345678, "at": 0.4111111111111111, "-": -4111111111111111}'
    assert redacted(text, r"\d{8,16}") == (
        '{"card": "[redacted]", "total_tokens": 12345678, "at": 0.4111111111111111, "-": "[redacted]"}'
    )


def test_anchors_are_those_of_each_string() -> None:
    assert redacted('["secret", "a secret", "secrets"]', "^secret$") == '["[redacted]", "a secret", "secrets"]'


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a key: sk-ab", "a key: [redacted]"),
        ('{"a": "sk-ab", "b": "a key: sk-ab', '{"a": "sk-ab", "b": "a key: [redacted]"'),
        ('{"a": "a key: sk-\\', '{"a": "a key: [redacted]"'),
        ('{"a": "{\\"b\\": \\"sk-ab', '{"a": "{\\"b\\": \\"[redacted]\\""'),
        ('{"a": "no key"', '{"a": "no key"'),
    ],
)
def test_of_a_text_that_was_cut_half_a_match_at_its_end_is_redacted(text: str, kept: str) -> None:
    assert redacted(text, KEY, is_cut=True) == kept
    assert redacted(text, KEY) != kept or "ab" not in text


MAIL = r"(?i)\b[a-z0-9.]+@example\.com\b"


@pytest.mark.parametrize(
    ("text", "is_json"),
    [("The quick brown fox jumps. " * 40_000, False), ('{"image": "' + "iVBORw0KGgo" * 200_000, True)],
)
def test_a_large_text_that_was_cut_is_searched_in_the_time_that_there_is(text: str, is_json: bool) -> None:
    """Looking for halves everywhere takes a pattern without a fixed beginning longer than that."""
    kept = redacted(f"{text} bob@exam", MAIL, is_cut=True)
    assert kept.startswith(text)
    assert kept.removeprefix(text) == " [redacted]" + ('"' if is_json else "")


@pytest.mark.parametrize(
    ("pattern", "text", "kept"),
    [
        (".*secret", "a" * 10_000, "a" * 7952 + "[redacted]"),
        (MAIL, "I am fine", "I am [redacted]"),
        ('"[^"]*"', 'x "' + "a" * 5000 + '" y "z', "x [redacted] y [redacted]"),
        ('"[^"]*"', '"x" ' * 1000 + 'y"z', "[redacted] " * 1000 + "y[redacted]"),
        (KEY, "sk-abcde sk-abcde", "[redacted] [redacted]"),
    ],
)
def test_no_more_of_a_cut_text_is_taken_for_half_a_match_than_its_end(pattern: str, text: str, kept: str) -> None:
    assert redacted(text, pattern, is_cut=True) == kept


def test_a_pattern_that_would_take_for_ever_ends_the_search() -> None:
    with pytest.raises(Unsearchable):
        Rules((), ["(a|aa)+$"]).search(0).redacted("a" * 60 + "b")


TEXT_WITH_MEMBERS = "so: " + '"password": 1, "a": 2, ' * 300_000


@pytest.mark.parametrize(
    "text",
    [TEXT_WITH_MEMBERS, "[" + '"a",' * 300_000 + "1]"],
    ids=["prose", "json"],
)
def test_a_search_for_fields_ends_in_time_too(text: str) -> None:
    search = Rules(["password"]).search(0, time.monotonic() + 0.02)
    with pytest.raises(TooSlow):
        search.document(text)


def test_all_searches_end_when_they_are_to_hurry() -> None:
    rules = Rules((), [KEY])
    begun = rules.search(2**30)
    rules.hurry(0)
    for search in (begun, rules.search(2**30)):
        with pytest.raises(Unsearchable):
            search.document("sk-abcde")


@pytest.mark.parametrize("name", ["STRASSE", "straße", "Straße"])
def test_the_name_of_a_field_is_compared_without_case_in_prose_as_in_json(name: str) -> None:
    for text in (f'{{"{name}": 1}}', f'so: {{"{name}": 1}}'):
        assert redacted(text, fields=("Strasse",)) == text.replace("1", '"[redacted]"')


@pytest.mark.parametrize("pattern", ["(", "[", "*", "a{2,1}", "\\", "(?P<a>x)(?P<a"])
def test_what_is_no_regular_expression_is_told_without_quoting_it(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^no regular expression: [^?{\\]+ at position \d+$"):
        checked_pattern(pattern)


TEXTS = st.text("sk-abé\"\\/{}[]:'\n\0\x7f", max_size=12) | st.sampled_from(["sk-aaaa", "x sk-bbbb y", "pass"])
VALUES = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers(-(10**8), 10**8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def model(value: Any) -> Any:
    """What is to come of a value, in the plainest way."""
    if isinstance(value, str):
        return re.sub("sk-[a-z]{4,}", "[redacted]", value)
    if isinstance(value, list):
        return [model(item) for item in value]
    if isinstance(value, dict):
        return {model(name): "[redacted]" if name == "pass" else model(item) for name, item in value.items()}
    return value


@settings(max_examples=400)
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_json_is_redacted_as_its_values_would_be(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    found = redacted(text, KEY, fields=("pass",))
    if json.loads(found) != model(value):  # a string that begins like JSON, or has a member in it, is looked into
        assert any(mark in text for mark in ("{", "[", '\\"', "'"))
    assert "sk-aaaa" not in found
    assert "sk-bbbb" not in found
    if model(value) == value:
        assert json.loads(found) == value or "'" in text or '\\"' in text
