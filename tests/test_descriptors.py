from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from proxy.descriptors import affordable

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def open_files(most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_more_connections_are_allowed_than_there_are_descriptors_for(caplog: pytest.LogCaptureFixture) -> None:
    with open_files(1256):
        assert affordable(500) == 500
        assert caplog.text == ""
        assert affordable(501) == 500
        assert "limits.max_connections is 501" in caplog.text


def test_however_few_descriptors_there_are_one_connection_is_allowed() -> None:
    with open_files(200):
        assert affordable(4096) == 1
