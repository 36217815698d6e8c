"""Durations and sizes as they are written on a command line."""

from __future__ import annotations

import pytest

from proxy.quantities import read_duration, read_size


def test_a_duration_is_a_number_with_a_unit() -> None:
    read = {text: read_duration(text) for text in ("30s", "5m", "1.5h", "90d", "2w", " 7 d ")}
    assert read == {"30s": 30, "5m": 300, "1.5h": 5400, "90d": 7_776_000, "2w": 1_209_600, " 7 d ": 604_800}


def test_a_size_is_bytes_or_has_a_unit_of_thousands_or_of_1024() -> None:
    read = {text: read_size(text) for text in ("512", "10GB", "1.5KiB", "2mb", "1TiB", "3 B")}
    assert read == {"512": 512, "10GB": 10**10, "1.5KiB": 1536, "2mb": 2 * 10**6, "1TiB": 2**40, "3 B": 3}


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1y", "1e9d", "nan", "90 days", "1D2"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        read_duration(text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "10G", "1e9", "inf", "10 gigabytes"])
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        read_size(text)
