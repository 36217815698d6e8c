"""What is remembered of requests stays small, whoever sends them."""

from __future__ import annotations

import pytest

from proxy.dialects import Failed
from proxy.field_names import _kept_request_role
from proxy.headers import read_request_fields
from proxy.origins import OriginGuard
from proxy.upstreams import _split_and_keep
from tests.conftest import Running
from tests.raw_client import connect, request


async def test_long_targets_and_names_of_fields_are_not_remembered(kibitz: Running) -> None:
    long = b"X-" + b"n" * 1000
    async with connect(kibitz.port) as client:
        for number in range(3):
            await client.send(request("GET", f"/nowhere/{number}" + "x" * 1000, long + b"%d: 1" % number))
            await client.read_request()
    before = _kept_request_role.cache_info().currsize, _split_and_keep.cache_info().currsize
    async with connect(kibitz.port) as client:
        for number in range(10):
            await client.send(request("GET", f"/nowhere/more/{number}" + "x" * 1000, long + b"m%d: 1" % number))
            await client.read_request()
    assert (_kept_request_role.cache_info().currsize, _split_and_keep.cache_info().currsize) == before


def test_long_names_of_a_server_are_not_remembered_and_are_judged_like_short_ones() -> None:
    guard = OriginGuard([], lambda _: False, any_host=True)
    for host in (b"a" * 300, b"a." * 200 + b"localhost", b"kibitz.example"):
        guard.check("GET", "/", read_request_fields([(b"Host", host)]), is_ours=False)
    with pytest.raises(Failed, match="answers only to"):
        guard.check("GET", "/", read_request_fields([(b"Host", b"!" * 300)]), is_ours=False)
    assert guard._kept_names_us.cache_info().currsize == 1


def test_a_long_name_has_the_role_of_a_short_one() -> None:
    name = b"Helicone-Property-" + b"n" * 1000
    fields = read_request_fields([(name, b"v")])
    assert (fields.own, fields.forward) == ({name.lower(): [(name, b"v")]}, [])
