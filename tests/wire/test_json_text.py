"""Objects are read out of JSON as it comes over the wire, whatever else came."""

from __future__ import annotations

import pytest

from proxy.wire.json_text import parse_object

BLANKS = " \t\r\n"


@pytest.mark.parametrize("before", ["", "\n", BLANKS * 32])
@pytest.mark.parametrize("behind", ["", "\n", BLANKS * 16, BLANKS * 32])
@pytest.mark.parametrize("text", ["{}", '{"a": 1}', '{"a": "}"}', '{"a": NaN}', '{"a": "\\ud800"}'])
def test_an_object_has_its_members_whatever_blanks_are_around_it(text: str, before: str, behind: str) -> None:
    whole = before + text + behind
    assert parse_object(whole) == parse_object(whole.encode()) == parse_object(text)
    assert bool(parse_object(whole)) == ("a" in text)


def test_a_byte_order_mark_before_an_object_is_none_of_it() -> None:
    assert parse_object(b'\xef\xbb\xbf{"a": 1}\n') == {"a": 1}


@pytest.mark.parametrize(
    "text", ["", " ", BLANKS * 32, "}", "{", '{"a": 1', "[{}]", '"}"', "1", "null", '{"a": 1}}', "{} x"]
)
def test_what_is_no_object_has_no_members(text: str) -> None:
    assert parse_object(text) == parse_object(text.encode()) == {}
