"""Edits of a text can be made one after the other, and in the pieces that it came in."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.redaction.edits import Edit, apply, in_turn, of_piece


@st.composite
def edits_of(draw: st.DrawFn, length: int) -> list[Edit]:
    places = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    spans = list(pairwise(places))[::2]
    return [Edit(start, end, draw(st.text("xyz", max_size=3))) for start, end in spans if start < end]


@settings(max_examples=500)
@given(st.data(), st.text("abcdef", max_size=20))
def test_edits_made_in_turn_are_one_list_of_edits(data: st.DataObject, text: str) -> None:
    first = data.draw(edits_of(len(text)))
    between = apply(text, first)
    second = data.draw(edits_of(len(between)))
    both = in_turn(text, first, second)
    assert apply(text, both) == apply(between, second)
    assert all(one.end <= other.start for one, other in pairwise(both))


@settings(max_examples=500)
@given(st.data(), st.lists(st.text("abcdef", max_size=5), max_size=8))
def test_the_pieces_of_a_text_are_edited_as_the_text_is(data: st.DataObject, pieces: list[str]) -> None:
    edits = data.draw(edits_of(len("".join(pieces))))
    edited, end = "", 0
    for piece in pieces:
        start, end = end, end + len(piece)
        edited += apply(piece, of_piece(edits, start, end))
    assert edited == apply("".join(pieces), edits)
