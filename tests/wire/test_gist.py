"""A stream's gist says what the stream does, in less."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from proxy.wire.gist import find_gist, find_gist_if_worth
from proxy.wire.sse import event_batches
from tests.wire.recordings import beside_the_repository, recordings

WORDS = [f"word {number}" for number in range(40)]
SPACED, DENSE = (", ", ": "), (",", ":")


def chat(word: str) -> dict[str, object]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": word}}],
    }


def padded(word: str) -> dict[str, object]:
    return {**chat(word), "usage": None, "obfuscation": word[::-1]}


def block(word: str) -> dict[str, object]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}


def stream(
    shape: Callable[[str], object], words: list[str], separators: tuple[str, str], name: str = "", end: str = "\n"
) -> bytes:
    texts = [json.dumps(shape(word), separators=separators) for word in words]
    return "".join(f"{name}{end if name else ''}data: {text}{end}{end}" for text in texts).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separators", [SPACED, DENSE])
@pytest.mark.parametrize(("shape", "name"), [(chat, ""), (padded, ""), (block, "event: content_block_delta")])
def test_events_that_differ_in_texts_only_are_left_out(
    shape: Callable[[str], object], name: str, separators: tuple[str, str], end: str
) -> None:
    whole = stream(shape, WORDS, separators, name, end)
    gist = find_gist(whole)
    assert len(gist.rest) < len(whole) / 10
    assert whole.startswith(gist.rest.partition(end.encode() * 2)[0])
    assert len(gist.templates) == 1
    for word in WORDS:
        assert f'"{word}"'.encode() in gist.rest + gist.texts


def test_events_of_several_kinds_are_left_out() -> None:
    whole = stream(chat, WORDS, DENSE) + stream(block, WORDS, DENSE) + stream(padded, WORDS, DENSE)
    gist = find_gist(whole)
    assert (len(gist.templates), len([*event_batches(gist.rest, 1)])) == (3, 6)


def test_what_differs_otherwise_is_kept() -> None:
    numbered = b"".join(b'data: {"number":%d,"%b":"a"}\n\n' % (number, b"long" * 20) for number in range(40))
    named = b"".join(b'data: {"%b%d":1,"a":"a"}\n\n' % (b"long" * 20, number) for number in range(40))
    for whole in (numbered, named):
        assert find_gist(whole) == (whole, b"", [])


def test_an_event_that_only_ends_like_others_is_kept() -> None:
    events = stream(chat, WORDS, DENSE).split(b"data: ")
    for place in (0, 20):
        odd = events[place + 1].replace(b"chatcmpl-1", b"another").replace(b"word", b"text")
        whole = b"data: ".join((*events[: place + 1], odd, *events[place + 1 :]))
        assert odd in find_gist(whole).rest


def test_of_events_like_others_an_odd_one_is_kept() -> None:
    odd = [b'"}}],"error":{"message":"', b'a"b', b'"},{"delta":{"content":"']
    for text in odd:
        events = stream(chat, WORDS, DENSE).split(b"word 30")
        whole = text.join(events)
        assert text in find_gist(whole).rest


def test_what_only_events_left_out_have_is_kept() -> None:
    events = stream(padded, WORDS, DENSE).split(b"data: ")
    events[1] = events[1].replace(b"chatcmpl-1", b"another").replace(b"null", b"1")
    events[-1] = events[-1].replace(b"null", b"2")
    assert b"null" in find_gist(b"data: ".join(events)).rest


@beside_the_repository
def test_what_recorded_streams_are_without_their_gist_is_whole_events() -> None:
    shorter = 0
    for item in recordings():
        if item["content_type"].startswith("text/event-stream"):
            gist = find_gist(item["body"])
            shorter += len(gist.rest) < len(item["body"]) / 2
            events = re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", item["body"])
            assert {*re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", gist.rest)} <= {*events}
    assert shorter > 40


def test_a_short_stream_that_is_whole_is_left_as_it_is() -> None:
    event = b"data: %b\n\n" % json.dumps(chat("word %d")).encode()
    short, long = (b"".join(event % number for number in range(count)) for count in (40, 400))
    assert find_gist(short).texts
    assert find_gist_if_worth(short) == (short, b"", [])
    assert find_gist_if_worth(long) == find_gist(long)
