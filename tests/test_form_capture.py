"""What is kept of an uploaded form, whatever the pieces in which it comes and whatever is wrong with it."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.form_capture import FormCapture, is_form
from proxy.wire import Message, read_request
from proxy.wire.facts import RequestFacts

BOUNDARY = b"-b"
TYPE = "multipart/form-data; boundary=-b"


class Loud(logging.Handler):
    """Turns a fault that is caught and logged into one that a test sees."""

    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage())


@pytest.fixture(autouse=True, scope="module")
def _no_fault_is_swallowed() -> Iterator[None]:
    handler = Loud()
    logging.getLogger("proxy.form_capture").addHandler(handler)
    yield
    logging.getLogger("proxy.form_capture").removeHandler(handler)


@dataclass(frozen=True)
class Part:
    """A part to send."""

    content: bytes
    disposition: bytes = b'form-data; name="f"'
    more: bytes = b""

    @property
    def sent(self) -> bytes:
        return b"--%b\r\nContent-Disposition: %b\r\n%b\r\n%b\r\n" % (
            BOUNDARY,
            self.disposition,
            self.more,
            self.content,
        )


def a_file(content: bytes, name: bytes = b"a.wav", more: bytes = b"Content-Type: audio/wav\r\n") -> Part:
    return Part(content, b'form-data; name="file"; filename="%b"' % name, more)


def shown_file(content: bytes, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    known = {"name": "file", "filename": "a.wav", "content_type": "audio/wav", "size": len(content), "sha256": digest}
    return known | more


def form(*parts: Part) -> bytes:
    return b"".join(part.sent for part in parts) + b"--%b--\r\n" % BOUNDARY


def capture(
    *pieces: bytes, content_type: str | bytes = TYPE, coding: str | None = None, limit: int = 10_000
) -> FormCapture:
    sent = content_type.encode() if isinstance(content_type, str) else content_type
    made = FormCapture(limit, sent, coding, omitted=False)
    for piece in pieces:
        made.feed(piece)
    return made


def kept(*pieces: bytes, **options: Any) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads(capture(*pieces, **options).data())
    return told


def parts_of(*parts: Part, **options: Any) -> list[dict[str, Any]]:
    [told] = kept(form(*parts), **options).values()
    assert isinstance(told, list)
    return told


def one_part(part: Part, **options: Any) -> dict[str, Any]:
    [told] = parts_of(part, **options)
    return told


def test_fields_have_values_and_files_sizes_and_digests_in_their_order() -> None:
    model, audio, prompt = Part(b"whisper-1", b'form-data; name="model"'), a_file(b"RIFF\0\xff"), Part("é".encode())
    assert parts_of(model, audio, prompt, audio) == [
        {"name": "model", "value": "whisper-1"},
        shown_file(b"RIFF\0\xff"),
        {"name": "f", "value": "é"},
        shown_file(b"RIFF\0\xff"),
    ]


# Contents made of what a delimiter is made of, but never a whole one.
contents = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"-b", b"\r\n--", b"x", b"\0\xff", b"\r\n"])).map(
    lambda pieces: b"".join(pieces).replace(b"--" + BOUNDARY, b"")
)
generated = st.lists(st.builds(Part, contents) | st.builds(a_file, contents | st.binary(max_size=300)), max_size=5)
safe = generated.map(lambda parts: [part for part in parts if b"--" + BOUNDARY not in part.content])
cuts = st.lists(st.integers(0, 1000), max_size=12)


def split(body: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({0, len(body), *(place for place in places if place < len(body))})
    return [body[start:end] for start, end in itertools.pairwise(ends)]


@given(safe, cuts)
def test_any_split_of_the_bytes_gives_the_parts_that_were_sent(parts: list[Part], places: list[int]) -> None:
    files = [(part.content, hashlib.sha256(part.content).hexdigest()) for part in parts if b"file" in part.disposition]
    told = kept(*split(form(*parts), places))
    assert "malformed" not in told
    assert [part["name"] for part in told["parts"]] == ["file" if b"file" in p.disposition else "f" for p in parts]
    assert [(p["size"], p["sha256"]) for p in told["parts"] if "size" in p] == [(len(c), d) for c, d in files]
    values = [part.content for part in parts if b"file" not in part.disposition]
    assert [part["value"] for part in told["parts"] if "value" in part] == [read(value) for value in values]


def read(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


@given(
    safe, st.lists(st.sampled_from([b"\r\n", b"--", b"-b", b"x", b"\0\xff"])), st.sampled_from([b" ", b"\t \t"]), cuts
)
def test_a_preamble_and_blanks_behind_the_delimiters_are_no_part(
    parts: list[Part], preamble: list[bytes], blanks: bytes, places: list[int]
) -> None:
    before = re.sub(b"-+b", b"", b"".join(preamble)) + b"\r\n"
    delimiter = b"--" + BOUNDARY
    body = form(*parts)
    padded = body.replace(delimiter + b"\r\n", delimiter + blanks + b"\r\n").replace(
        delimiter + b"--", b"%b--%b" % (delimiter, blanks)
    )
    assert kept(*split(before + padded + b"epilogue", places)) == kept(body)


@given(safe, st.integers(0, 1000), cuts)
def test_a_form_that_breaks_off_is_kept_alike_however_it_was_split(
    parts: list[Part], end: int, places: list[int]
) -> None:
    body = form(*parts)[:-4][:end]
    told = kept(b"\r\n" + body)
    assert told["malformed"] is True
    assert kept(*split(b"\r\n" + body, [place for place in places if place > 2])) == told


@given(safe, st.integers(0, 1000), st.binary(max_size=40), cuts, st.sampled_from([0, 1, 20, 10_000]))
def test_no_bytes_are_too_odd(parts: list[Part], where: int, noise: bytes, places: list[int], limit: int) -> None:
    body = form(*parts)
    body = body[:where] + noise + body[where:]
    made = capture(*split(body, places), limit=limit)
    assert made.size == len(body)
    told = orjson.loads(made.data()) if limit else {"parts": []}
    assert sum(len(read_back(part.get("value"))) for part in told["parts"]) <= limit


def read_back(value: str | None) -> bytes:
    """At most as many bytes as were kept."""
    return (value or "").encode("latin-1", "replace")


@pytest.mark.parametrize(
    ("sent", "name", "filename"),
    [
        (b'form-data; name="file"; filename="a b;c.wav"', "file", "a b;c.wav"),
        (b"form-data; filename=a.wav; name=file", "file", "a.wav"),
        (b'Form-Data;NAME="file";FileName="a.wav"', "file", "a.wav"),
        (b'form-data; name="fi\\"le"; filename="a\\\\b.wav"', 'fi"le', "a\\b.wav"),
        (b'form-data; name="file"; filename="C:\\dir\\a.wav"', "file", "C:\\dir\\a.wav"),
        (b'form-data; name="file"; filename="C:\\"', "file", "C:\\"),
        (b'form-data; name="file"; filename=""', "file", ""),
        ('form-data; name="file"; filename="é.wav"'.encode(), "file", "é.wav"),
        ('form-data; name="file"; filename="é.wav"'.encode("latin-1"), "file", "é.wav"),
        (b"form-data; name=\"file\"; filename*=UTF-8''%c3%a9%20.wav", "file", "é .wav"),
        (b'form-data; name="file"; filename="e.wav"; filename*=iso-8859-1\'en\'%E9.wav', "file", "é.wav"),
        (b"form-data; name*=utf-8''%c3%a9; filename*=a.wav", "é", "a.wav"),
        (b'form-data; name="file; filename="a.wav"', "file; filename=", None),
        (b'form-data; name="file', "file", None),
        (b'form-data; name="filename=x"', "filename=x", None),
        (b'form-data; filename="a.wav"', None, "a.wav"),
        (b"", None, None),
    ],
)
def test_a_file_is_what_has_a_file_name_and_it_is_read_as_it_is_sent(
    sent: bytes, name: str | None, filename: str | None
) -> None:
    told = one_part(Part(b"1", sent))
    assert (told["name"], told.get("filename"), "value" in told) == (name, filename, filename is None)


@pytest.mark.parametrize(
    ("content_type", "is_a_file"),
    [
        (b"audio/wav", True),
        (b"Image/PNG", True),
        (b"video/mp4", True),
        (b"text/plain; charset=utf-8", False),
        (b"application/json", False),
        (b"application/octet-stream", False),
    ],
)
def test_audio_and_images_are_files_without_a_name_too(content_type: bytes, is_a_file: bool) -> None:
    told = one_part(Part(b"{}", more=b"Content-Type: %b\r\n" % content_type))
    assert told == (
        shown_file(b"{}", name="f", filename=None, content_type=content_type.decode())
        if is_a_file
        else {"name": "f", "value": "{}"}
    )


@pytest.mark.parametrize(
    ("value", "limit", "told"),
    [
        (b"12345", 100, {"value": "12345"}),
        (b"x" * 200, 100, {"value": "x" * 81, "truncated": True}),
        (b"x" * 80 + "é".encode(), 100, {"value": "x" * 80, "truncated": True}),
        (b"x" * 79 + "é".encode(), 100, {"value": "x" * 79 + "é"}),
        (b"\xff" * 200, 100, {"value": "ÿ" * 81, "truncated": True}),
    ],
)
def test_a_value_has_the_room_that_the_limit_leaves(value: bytes, limit: int, told: dict[str, Any]) -> None:
    made = capture(form(Part(value)), limit=limit)
    assert orjson.loads(made.data()) == {"parts": [{"name": "f", **told}]}
    assert made.truncated is ("truncated" in told)


def test_a_short_value_is_kept_whole_before_and_behind_a_huge_one() -> None:
    prompt, model = Part(b"x" * 5000, b'form-data; name="prompt"'), Part(b"whisper-1", b'form-data; name="model"')
    for order in ([prompt, model], [model, prompt], [prompt, prompt, model, prompt]):
        made = capture(form(*order), limit=500)
        told = {part["name"]: part for part in orjson.loads(made.data())["parts"]}
        assert told["model"] == {"name": "model", "value": "whisper-1"}
        assert told["prompt"]["truncated"]
        assert 100 < len(told["prompt"]["value"]) < 500
        assert made.truncated
        assert made.kept <= 500 + 600 * len(order)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=8), st.integers(160, 1200), cuts)
def test_values_that_find_no_room_together_are_cut_to_one_length(
    lengths: list[int], limit: int, places: list[int]
) -> None:
    body = form(*[Part(b"x" * length) for length in lengths])
    told = kept(*split(body, places), limit=limit)
    whole, cut = ([part for part in told["parts"] if ("truncated" in part) is is_cut] for is_cut in (False, True))
    of_names = len(lengths) * len(b'form-data; name="f"')
    held = sum(len(part["value"]) for part in told["parts"])
    assert [len(part["value"]) for part in whole] == [
        length for length, part in zip(lengths, told["parts"], strict=True) if "truncated" not in part
    ]
    assert len({part["value"] for part in cut}) <= 1
    assert all(len(part["value"]) <= len(cut[0]["value"]) for part in whole if cut)
    assert held <= limit - of_names
    assert not cut or held > limit - of_names - len(lengths)


def test_a_part_whose_names_find_no_room_is_left_out_and_a_file_takes_none() -> None:
    made = capture(form(a_file(b"x" * 5000), Part(b"y" * 5000), a_file(b"")), limit=100)
    [audio, text] = orjson.loads(made.data())["parts"]
    assert (audio, text["name"]) == (shown_file(b"x" * 5000), "f")
    assert made.truncated
    assert made.size > 10_000
    assert 100 <= made.kept < 2000


def test_nothing_is_kept_where_nothing_may_be_and_of_an_empty_body() -> None:
    assert capture(form(Part(b"1")), limit=0).data() == b""
    assert capture().data() == b""


GOOD = {"name": "f", "value": "1"}
HALF = {"name": "f", "value": "1", "truncated": True}
FIRST = Part(b"1").sent
DELIMITER = b"--" + BOUNDARY


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (FIRST + DELIMITER, [HALF]),
        (FIRST + DELIMITER + b"\r\n", [GOOD]),
        (FIRST[:-3], [{**HALF, "value": ""}]),
        (b"preamble" + FIRST, []),
        (FIRST + DELIMITER + b"\r\nno colon\r\n\r\n" + FIRST, [GOOD]),
        (FIRST.replace(b"\r\n", b"\n"), []),
        (FIRST + Part(b"2", more=b"X-More: y\r\n" * 20).sent, [GOOD]),
        (FIRST + Part(b"2", more=b"X-More: %b\r\n" % (b"y" * 9000)).sent, [GOOD]),
        (b"\0" * 100, []),
        (b"{}", []),
    ],
    ids=[
        "end",
        "next",
        "cut",
        "delimiter-in-a-line",
        "header",
        "line-ends",
        "headers",
        "long-header",
        "binary",
        "json",
    ],
)
def test_a_malformed_form_keeps_what_was_understood_and_says_so(body: bytes, parts: list[Any]) -> None:
    assert kept(body) == {"parts": parts, "malformed": True}


def test_a_file_that_was_cut_has_the_size_and_digest_of_what_came() -> None:
    body = form(a_file(b"x" * 1000))
    cut = shown_file(b"x" * 600, truncated=True)
    assert kept(body[: body.index(b"xxx") + 600]) == {"parts": [cut], "malformed": True}


def test_the_number_of_parts_is_bounded() -> None:
    told = kept(form(*[Part(b"1")] * 1200), limit=10**6)
    assert (len(told["parts"]), told["malformed"]) == (1000, True)
    assert capture(form(*[Part(b"1")] * 1200), limit=10**6).truncated
    assert "malformed" not in kept(form(*[Part(b"1")] * 1000), limit=10**6)


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 999}"],
)
def test_a_form_without_a_boundary_that_can_be_is_malformed(content_type: str) -> None:
    assert kept(form(Part(b"1")), content_type=content_type) == {"parts": [], "malformed": True}


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="-b"',
        "Multipart/Form-Data; charset=utf-8; Boundary=-b",
        "multipart/form-data;boundary=-b ; x=y",
    ],
)
def test_a_boundary_is_found_however_it_is_spelt(content_type: str) -> None:
    assert is_form(content_type)
    assert parts_of(Part(b"1"), content_type=content_type) == [GOOD]


@pytest.mark.parametrize("boundary", ["-é".encode(), "-é".encode("latin-1"), "-Ã©".encode()])
def test_a_boundary_beyond_ascii_is_found_in_the_bytes_that_were_sent(boundary: bytes) -> None:
    body = form(Part(b"1")).replace(BOUNDARY, boundary)
    assert kept(body, content_type=b"multipart/form-data; boundary=" + boundary) == {"parts": [GOOD]}


@pytest.mark.parametrize("content_type", ["multipart/mixed; boundary=-b", "application/json", ""])
def test_other_bodies_are_no_forms(content_type: str) -> None:
    assert not is_form(content_type)


def test_an_encoded_form_is_not_read_and_says_why() -> None:
    assert kept(form(Part(b"1")), coding="gzip") == {"parts": [], "unreadable": "Content-Encoding: gzip"}
    assert capture(form(Part(b"1")), coding="gzip").kept == 0
    assert parts_of(Part(b"1"), coding="identity") == [GOOD]


def test_what_follows_the_end_is_no_part() -> None:
    assert kept(form(Part(b"1")) + form(Part(b"2"))) == {"parts": [GOOD]}


def test_a_broken_form_is_not_quoted_in_the_logs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        kept(Part(b"1").sent + b"--%b\r\nsecret \r\n" % BOUNDARY)
    assert caplog.records == []


def facts(*parts: Part) -> RequestFacts:
    made = capture(form(*parts), limit=500)
    return read_request("/v1/audio/transcriptions", Message(made.data(), made.content_type, made.content_encoding))


def field(name: bytes, value: bytes) -> Part:
    return Part(value, b'form-data; name="%b"' % name)


@pytest.mark.parametrize(("value", "streamed"), [(b"true", True), (b"True", True), (b"false", False), (b"", False)])
def test_model_user_and_stream_are_read_from_the_fields(value: bytes, streamed: bool) -> None:
    told = facts(a_file(b"x" * 9000), field(b"model", b"whisper-1"), field(b"user", b"ada"), field(b"stream", value))
    assert told == RequestFacts(model="whisper-1", user="ada", is_stream=streamed)


def test_the_first_of_two_fields_counts_and_a_file_or_half_a_value_is_none() -> None:
    assert facts(field(b"model", b"one"), field(b"model", b"two")).model == "one"
    assert facts(Part(b"x", b'form-data; name="model"; filename="model"')).model is None
    assert facts(field(b"model", b"m" * 900)).model is None
