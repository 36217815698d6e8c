from __future__ import annotations

from itertools import repeat

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.wire.sse import Events, LastEventWatch, _any_events, _lone_data, _named_data, event_batches

# U+2028 and the like end lines for Python, but not in an event stream.
LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
EVENTS = st.lists(st.tuples(st.none() | LINE, st.lists(LINE, min_size=1, max_size=3), LINE, ENDS), max_size=4)


def told(body: bytes) -> list[tuple[str, str]]:
    """The type and data of each event."""
    return [
        (kind, data.decode())
        for batch in event_batches(body)
        for kind, data in zip(batch.types or repeat("message"), batch.data, strict=False)
    ]


@given(EVENTS, st.sampled_from(["", "\ufeff"]))
def test_events_come_out_however_their_lines_end(sent: list[tuple[str | None, list[str], str, str]], mark: str) -> None:
    body = mark
    for name, values, comment, end in sent:
        lines = [f":{comment}", *([] if name is None else [f"event: {name}"]), *(f"data: {value}" for value in values)]
        body += "".join(line + end for line in [*lines, ""])
    assert told(body.encode()) == [(name or "message", "\n".join(values)) for name, values, _, _ in sent]


@given(st.binary() | st.text("daten: \r\n\ufeff").map(str.encode))
def test_any_bytes_give_some_events(body: bytes) -> None:
    assert all(kind and "\r" not in data for kind, data in told(body))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"\n\n\n", []),
        (b"data: a\n\ndata: b\n\n", [("message", "a"), ("message", "b")]),
        (b"data: a\ndata: b\n\n", [("message", "a\nb")]),
        (b"data:a\n\ndata:  b \n\n", [("message", "a"), ("message", " b ")]),
        (b"data: a: b:c\n\n", [("message", "a: b:c")]),
        (b"data\n\n", [("message", "")]),
        (b"data\ndata\n\n", [("message", "\n")]),
        (b"event: error\ndata: {}\n\ndata: x\n\n", [("error", "{}"), ("message", "x")]),
        (b"event: a\nevent: b\ndata: x\n\n", [("b", "x")]),
        (b"event:\ndata: x\n\n", [("message", "x")]),
        (b"event: nothing\n\ndata: x\n\n", [("message", "x")]),
        (b": OPENROUTER PROCESSING\n\n:\ndata: x\n\n", [("message", "x")]),
        (b"id: 7\nretry: 10\nobfuscation: abc\ndata: x\nunknown\n\n", [("message", "x")]),
        (b" data: x\n\nDATA: y\n\n", []),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\r\ndata: d\n\rdata: e\r\r", [("message", c) for c in "abcde"]),
        (b"\r\n\n\r\rdata: a\n\r\n\r\n\rdata: b\r\n\r\n\n", [("message", "a"), ("message", "b")]),
        (b"\xef\xbb\xbf\n\r\ndata: a\r\ndata: b\rdata: c\n\r\n", [("message", "a\nb\nc")]),
        (b"\n\xef\xbb\xbfdata: x\n\n", []),
        ("data: a\u2028b\u0085c\x0bd\n\n".encode(), [("message", "a\u2028b\u0085c\x0bd")]),
        (b"\xef\xbb\xbfdata: x\n\n", [("message", "x")]),
        (b"data: \xff\xfe x\n\n", [("message", "\ufffd\ufffd x")]),
    ],
)
def test_a_stream_is_read_by_the_standards_rules(body: bytes, expected: list[tuple[str, str]]) -> None:
    assert told(body) == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\ndata: b"])
def test_a_last_event_without_its_empty_line_counts(end: bytes) -> None:
    assert told(b"data: a" + end)[0][1].startswith("a")


EVENT = [
    b"data: %d\n\n",
    b"data: %d\n\n\n",
    b"data: %d\ndata: a\n\n",
    b"event: error\ndata: %d\n\n",
    b"data: %d\r\n\r\n",
    b"data: %d \xff\n\n",
]


@pytest.mark.parametrize("event", EVENT)
def test_a_long_stream_has_the_events_of_its_parts(event: bytes) -> None:
    numbered = [kind % number for number, kind in enumerate([*EVENT, *[event] * 12_000, *EVENT])]
    assert told(b"".join(numbered)) == [one for written in numbered for one in told(written)]


def test_a_line_may_be_of_any_length() -> None:
    assert [len(data) for _, data in told(b"data: " + b"x" * 1_000_000 + b"\n\n")] == [1_000_000]


ENDED = [
    b"data: {}\n\ndata: [DONE]\n\n",
    b"data:[DONE]\r\n\r\n",
    b": comment\rdata: [DONE]\r\r",
    b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
    b'event: response.completed\r\ndata: {"type": "response.completed"}\r\n\r\n',
]
NOT_ENDED = [
    b"data: [DONE]\n",
    b"event: message_stop\n",
    b'data: {"text": "\\ndata: [DONE]\\n"}\n\n',
    b"data: [DONE]s\n\n",
    b": data: [DONE]\n\n",
    b"event: message_stopped\n\n",
    b"event: response.completed.not\n\n",
]


@pytest.mark.parametrize("body", ENDED)
def test_a_last_event_is_seen_however_it_is_cut_and_only_once_it_is_whole(body: bytes) -> None:
    for first in range(len(body)):
        for second in range(first, len(body)):
            watch = LastEventWatch()
            pieces = [body[:first], body[first:second]]
            came = [watch.has_come(piece) for piece in pieces if piece]
            # With CR LF line ends the last LF is not waited for: the empty line ends with its CR.
            assert not any(came) or body[:second].endswith(b"\r\n\r")
            assert any(came) or watch.has_come(body[second:])


@pytest.mark.parametrize("body", NOT_ENDED)
def test_what_only_looks_like_a_last_event_is_none(body: bytes) -> None:
    for cut in range(len(body)):
        watch = LastEventWatch()
        assert not watch.has_come(body[:cut])
        assert not watch.has_come(body[cut:])


@given(st.lists(st.sampled_from([b"event: ", b"data: ", b"\n", b"\n\n", b"a", b":", b"\ndata: "]), max_size=16))
@example([b"a", b"\ndata: ", b"a", b"\n\n", b"event: ", b"\ndata: "])
@example([b"a", b"\ndata: ", b"a", b"\n\n", b"event: ", b"a", b"\n", b"a"])
@settings(max_examples=500)
def test_events_of_the_usual_two_lines_come_out_as_any_others_do(parts: list[bytes]) -> None:
    for window in (b"event: " + b"".join(parts) + b"\n\n", b"data: " + b"".join(parts) + b"\n\n"):
        lone, slow = _lone_data(window), _any_events(window)
        quick = _named_data(window) or (Events(lone) if lone else None)
        assert quick is None or (quick.data, quick.types or ["message"] * len(quick.data)) == slow
