from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.encoding import decode

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"".join(b"line %d of a text that packs well\n" % number for number in range(20_000))


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def brotli_compress(data: bytes) -> bytes:
    return brotli.compress(data, quality=3)  # type: ignore[no-any-return]


Encode = Callable[[bytes], bytes]
CODINGS: dict[str, tuple[str, Encode]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without its wrapper": ("deflate", raw_deflate),
    "br": ("br", brotli_compress),
    "zstd": ("zstd", zstd.compress),
}
every_coding = pytest.mark.parametrize(("name", "encode"), CODINGS.values(), ids=CODINGS)


@every_coding
@pytest.mark.parametrize("data", [b"a", b"{}", TEXT, bytes(range(256))])
def test_a_coding_is_undone(name: str, encode: Encode, data: bytes) -> None:
    assert decode(encode(data), name) == data
    assert decode(encode(data), f" {name.upper()} ") == data


@pytest.mark.parametrize("name", [None, "", "identity", "Identity", " , identity,"])
def test_what_is_not_encoded_stays_as_it_is(name: str | None) -> None:
    assert decode(b"\x1f\x8b", name) == b"\x1f\x8b"


def test_codings_are_undone_in_the_reverse_of_their_order() -> None:
    assert decode(brotli_compress(gzip.compress(TEXT)), "gzip, identity,br") == TEXT


def test_more_codings_than_anybody_means_are_not_undone() -> None:
    data = TEXT
    for times in range(1, 7):
        data = gzip.compress(data)
        assert decode(data, ", ".join(["gzip"] * times)) == (TEXT if times <= 5 else None)


@pytest.mark.parametrize("name", ["compress", "aes128gcm", "gzip, nonsense", "nonsense, gzip", "gzip;q=1"])
def test_an_unknown_coding_can_not_be_undone(name: str) -> None:
    assert decode(gzip.compress(TEXT), name) is None


@every_coding
def test_what_is_not_of_its_coding_can_not_be_undone(name: str, encode: Encode) -> None:
    assert decode(b"\xff\xff plainly something else", name) is None


@pytest.mark.parametrize(("name", "encode"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_a_body_may_be_of_several_members_one_an_event(name: str, encode: Encode) -> None:
    events = [b"data: %d\n\n" % number for number in range(50)]
    assert decode(b"".join(map(encode, events)), name) == b"".join(events)
    assert decode(encode(b"") + encode(b"a"), name) == b"a"


@every_coding
def test_a_body_that_was_cut_gives_what_its_beginning_holds(name: str, encode: Encode) -> None:
    encoded = encode(TEXT)
    for length in range(1, len(encoded), len(encoded) // 50):
        decoded = decode(encoded[:length], name)
        assert decoded is None or TEXT.startswith(decoded)
    half = decode(encoded[: len(encoded) * 3 // 4], name)
    assert half
    assert TEXT.startswith(half)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_padding_behind_a_body_does_not_hide_it(name: str) -> None:
    _, encode = CODINGS[name]
    assert decode(encode(TEXT) + bytes(100), name) == TEXT


@every_coding
def test_a_bomb_is_unpacked_up_to_a_bound_only(name: str, encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 1_000_000
    monkeypatch.setattr("proxy.wire.encoding._LARGEST_DECODED", bound)
    bomb = encode(bytes(8_000_000))
    for coding, data in ((name, bomb), (f"{name}, {name}", encode(bomb)), (name, bomb * 5)):
        decoded = decode(data, coding)
        assert decoded is None or len(decoded) <= 2 * bound


@given(st.binary(max_size=200), st.lists(st.sampled_from([*dict(CODINGS.values()), "identity", "?"]), max_size=3))
def test_any_bytes_of_any_codings_give_bytes_or_nothing(data: bytes, names: list[str]) -> None:
    for start in (b"", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x78\x9c", b"\x28\xb5\x2f\xfd", b"\x1b"):
        decoded = decode(start + data, ",".join(names))
        assert decoded is None or isinstance(decoded, bytes)


@pytest.mark.parametrize(("name", "encode"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_a_stream_of_one_frame_an_event_is_read_to_its_end(name: str, encode: Encode) -> None:
    assert decode(encode(b"data: {}\n\n") * 2000, name) == b"data: {}\n\n" * 2000


@pytest.mark.parametrize(("name", "encode"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_of_countless_frames_in_a_large_body_the_first_are_read(name: str, encode: Encode) -> None:
    """All of them would take time by the square: the rest is copied behind each."""
    frame = encode(b"x")
    decoded = decode(frame * (2**22 // len(frame)), name)
    assert decoded is not None
    assert 0 < len(decoded) < 1000
