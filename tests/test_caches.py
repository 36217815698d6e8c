"""What is remembered of requests stays small, whoever sends them."""

from __future__ import annotations

from proxy.headers import _kept_request_role, read_request_fields
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


def test_a_long_name_has_the_role_of_a_short_one() -> None:
    name = b"Helicone-Property-" + b"n" * 1000
    fields = read_request_fields([(name, b"v")])
    assert (fields.own, fields.forward) == ({name.lower(): [(name, b"v")]}, [])
