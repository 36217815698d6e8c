"""WebSocket frames out of bytes: whatever the bytes, however they are split."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.frames import Frame, FrameReader, inflaters
from tests.websocket_bytes import BINARY, CLOSE, PING, PONG, TEXT, closing, frame

LARGEST = 1000
DEFLATED = 0x40
HELLO = "Grüß Gott".encode()


def deflate(*messages: bytes, takeover: bool = True) -> list[bytes]:
    """Messages as one sender of permessage-deflate compresses them."""
    packer = zlib.compressobj(wbits=-15)
    packed = []
    for message in messages:
        packed.append((packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff"))
        packer = packer if takeover else zlib.compressobj(wbits=-15)
    return packed


def read(data: bytes, *, extensions: bytes = b"", largest: int = LARGEST) -> list[Frame]:
    return FrameReader(largest, inflaters(extensions, largest)[1]).feed(data)


STREAM = b"".join(
    [
        frame(TEXT, HELLO),
        frame(TEXT, HELLO[:5], masked=True, final=False),
        frame(PING, b"are you there", masked=True),
        frame(0, HELLO[5:], masked=True),
        frame(PONG),
        frame(BINARY, bytes(300)),
        frame(TEXT, b"x" * (LARGEST + 1)),
        frame(TEXT, b"x" * LARGEST, masked=True),
        frame(3, b"of no kind that is known"),
        closing(4001, "bye"),
        frame(TEXT, b"too late"),
    ]
)
FRAMES = [
    Frame("text", len(HELLO), HELLO),
    Frame("ping", 13, b"are you there"),
    Frame("text", len(HELLO), HELLO),
    Frame("pong", 0, b""),
    Frame("binary", 300),
    Frame("text", LARGEST + 1),
    Frame("text", LARGEST, b"x" * LARGEST),
    Frame("close", 5, b"\x0f\xa1bye"),
    Frame("text", 8, b"too late"),
]


def test_messages_are_joined_and_unmasked_and_control_frames_stand_between_their_parts() -> None:
    assert read(STREAM) == FRAMES


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_frames(cuts: list[int]) -> None:
    reader = FrameReader(LARGEST)
    edges = [0, *sorted(cuts), len(STREAM)]
    frames = [found for start, end in pairwise(edges) for found in reader.feed(STREAM[start:end])]
    assert frames == FRAMES
    assert reader.closing_at == STREAM.index(closing(4001, "bye"))


@given(st.lists(st.binary()), st.sampled_from([b"", b"permessage-deflate", b"permessage-foo"]))
def test_no_bytes_make_it_raise(pieces: list[bytes], extensions: bytes) -> None:
    reader = FrameReader(LARGEST, inflaters(extensions, LARGEST)[0])
    for piece in pieces:
        assert all(len(found.payload or b"") <= LARGEST for found in reader.feed(piece))
    assert reader.position == sum(len(piece) for piece in pieces)


@pytest.mark.parametrize("length", [125, 126, 2**16 - 1, 2**16], ids=str)
def test_every_form_of_a_length_is_read(length: int) -> None:
    assert read(frame(TEXT, b"x" * length), largest=2**17) == [Frame("text", length, b"x" * length)]


def test_a_close_frame_tells_its_code_and_reason() -> None:
    [plain, bare] = read(closing(1011, "zu spät") + frame(CLOSE))
    assert (plain.code, plain.reason) == (1011, "zu spät")
    assert (bare.code, bare.reason) == (None, "")


@pytest.mark.parametrize("takeover", [True, False], ids=["context-kept", "context-reset"])
def test_compressed_messages_are_inflated_if_it_was_agreed_on(takeover: bool) -> None:
    parameters = b"" if takeover else b"; server_no_context_takeover; client_max_window_bits=15"
    packed = deflate(HELLO * 20, HELLO * 20, takeover=takeover)
    data = b"".join(frame(TEXT, message, reserved=DEFLATED) for message in packed)
    whole = Frame("text", len(HELLO) * 20, HELLO * 20)
    assert read(data + frame(TEXT, HELLO), extensions=b"permessage-deflate" + parameters) == [
        whole,
        whole,
        Frame("text", len(HELLO), HELLO),
    ]
    assert [found.payload for found in read(data)] == [None, None]


@pytest.mark.parametrize(
    ("parameters", "after"), [(b"", None), (b";server_no_context_takeover", HELLO)], ids=["kept", "reset"]
)
def test_a_message_that_grows_too_long_is_given_up_and_those_that_refer_to_it(
    parameters: bytes, after: bytes | None
) -> None:
    packed = deflate(bytes(2**20), HELLO, takeover=not parameters)
    data = b"".join(frame(TEXT, message, reserved=DEFLATED) for message in packed)
    # The first is too long when inflated, and with a smaller bound as it comes, too.
    for largest in (2**16, len(packed[0]) - 1):
        found = read(data, extensions=b"permessage-deflate" + parameters, largest=largest)
        assert [each.payload for each in found] == [None, after]


def test_a_message_that_is_not_what_it_says_is_counted() -> None:
    [found] = read(frame(TEXT, b"\xff\xff\xff", reserved=DEFLATED), extensions=b"permessage-deflate")
    assert found == Frame("text", 3)


def test_a_frame_of_any_length_holds_no_memory() -> None:
    reader = FrameReader(LARGEST)
    assert reader.feed(b"\x81\x7f" + (2**62).to_bytes(8, "big") + bytes(2**16)) == []
    assert reader.feed(bytes(2**20)) == []
    assert (reader._payload, reader._message and reader._message.data) == (None, None)
