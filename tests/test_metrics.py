"""``/metrics``: what a Prometheus server would read of a running Kibitz. Contract sections 3, 5 and 8."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.metrics import Metrics, exposition
from tests.conftest import Running, StartKibitz
from tests.raw_client import Eventually, connect, request
from tests.upstream import Connection, Upstream, chat_events, json_answer, sse_answer

FOREVER = 60
OPERATOR, READER = "kbz_operator", "kbz_reader"
Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Figures:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    figures = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(figures) == len(samples), "a sample is there twice"
    return figures


async def scrape(kibitz: Running, **headers: str) -> Figures:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with kibitz.client.get(f"{kibitz.url}/metrics", headers=fields) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return read(await response.text())


def value(figures: Figures, name: str, **labels: str) -> float:
    """A figure; 0 where nothing was counted yet under these labels."""
    return figures.get((name, frozenset(labels.items())), 0)


@contextlib.contextmanager
def store_stalled(tmp_path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(tmp_path / "kibitz.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


async def test_calls_are_counted_by_how_they_ended(kibitz: Running, upstream: Upstream) -> None:
    await kibitz.chat()
    await kibitz.chat()
    upstream.answer = json_answer(b'{"error": {}}', status="429 Slow Down")
    await kibitz.chat()
    upstream.answer = b"SSH-2.0-OpenSSH\r\n"
    await kibitz.chat()
    figures = await scrape(kibitz)
    assert value(figures, "kibitz_calls_total", outcome="ok", status="2xx") == 2
    assert value(figures, "kibitz_calls_total", outcome="ok", status="4xx") == 1
    assert value(figures, "kibitz_calls_total", outcome="upstream_unreachable", status="5xx") == 1
    assert value(figures, "kibitz_rows_written_total") == 4
    assert 1 <= value(figures, "kibitz_row_groups_written_total") <= 4
    assert value(figures, "kibitz_rows_dropped_total") == value(figures, "kibitz_rows_waiting") == 0


async def test_a_call_counts_for_whoever_asks_on_its_connection_before_it_has_ended(kibitz: Running) -> None:
    async with connect(kibitz.port) as connection:
        for call in range(1, 6):
            await connection.send(request("POST", "/v1/chat/completions", body=b"{}") + request("GET", "/metrics"))
            await connection.read_request()
            figures = read((await connection.read_request()).body.decode())
            assert value(figures, "kibitz_rows_written_total") == call
            assert value(figures, "kibitz_calls_total", outcome="ok", status="2xx") == call
            assert value(figures, "kibitz_calls_in_flight") == 0


async def test_calls_that_went_nowhere_are_counted_by_why(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(limits={"max_request_body": 10})
    for path, fields in (("/nowhere/x", {}), ("/v1/x", {"Helicone-Target-URL": "http://10.0.0.1"}), ("/v1/x", {})):
        async with kibitz.client.post(kibitz.url + path, data=b"x" * 11, headers=fields) as response:
            assert response.status in (403, 404, 413)
    figures = await scrape(kibitz)
    for code in ("unknown_route", "target_not_allowed", "request_too_large"):
        assert value(figures, "kibitz_calls_refused_total", code=code) == 1
    assert (upstream.received, value(figures, "kibitz_rows_written_total")) == ([], 0)
    assert [name for name, _ in figures if name == "kibitz_calls_total"] == []
    assert value(figures, "kibitz_calls_in_flight") == 0


async def test_requests_that_are_no_http_are_counted_as_refused(kibitz: Running, upstream: Upstream) -> None:
    for data in (b"nonsense\r\n\r\n", request("CONNECT", "a.test:443"), request("GET", "/v1/a#b")):
        async with connect(kibitz.port) as client:
            await client.send(data)
            while await client.reader.read(2**16):
                pass
    figures = await scrape(kibitz)
    assert value(figures, "kibitz_calls_refused_total", code="invalid_http") == 2
    assert value(figures, "kibitz_calls_refused_total", code="method_not_allowed") == 1


async def test_calls_under_way_are_counted_until_they_have_ended(
    kibitz: Running, upstream: Upstream, eventually: Eventually
) -> None:
    async def begin(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(sse_answer(*chat_events("Hello")[:2])[:-5])
        await connection.closed_by_peer()

    async def under_way(number: int) -> None:
        assert value(await scrape(kibitz), "kibitz_calls_in_flight") == number

    upstream.script = begin
    async with connect(kibitz.port) as kept, connect(kibitz.port) as left:
        for client in (kept, left):
            await client.send(request("POST", "/v1/audio/speech"))
            await client.read_head()
        await under_way(2)
        left.close()
        await eventually(lambda: under_way(1))
    await eventually(lambda: under_way(0))


async def test_the_wait_for_commits_is_told_as_a_histogram(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(commit_wait=FOREVER)
    for _ in range(3):
        await kibitz.chat()
    figures = await scrape(kibitz)
    buckets = [
        (float(dict(labels)["le"]), count) for (name, labels), count in figures.items() if name.endswith("_bucket")
    ]
    counts = [count for _, count in sorted(buckets)]
    assert counts == sorted(counts)
    assert counts[-1] == value(figures, "kibitz_commit_wait_seconds_count") == 3
    assert value(figures, "kibitz_commit_wait_seconds_sum") > 0


async def test_a_store_that_stalls_shows_and_so_does_its_return(
    start_kibitz: StartKibitz, tmp_path: Path, eventually: Eventually
) -> None:
    kibitz = await start_kibitz(commit_wait=0.01)
    with store_stalled(tmp_path):
        for _ in range(3):
            await kibitz.chat()

        async def stalled() -> None:
            figures = await scrape(kibitz)
            assert value(figures, "kibitz_responses_late_total") == value(figures, "kibitz_rows_waiting") == 3
            assert value(figures, "kibitz_rows_waiting_bytes") > 3000
            assert value(figures, "kibitz_workers_stalled") == 1
            assert value(figures, "kibitz_workers_dropping") == value(figures, "kibitz_rows_written_total") == 0

        await eventually(stalled)

    async def written() -> None:
        figures = await scrape(kibitz)
        names = ("rows_written_total", "rows_waiting", "rows_waiting_bytes", "workers_stalled", "rows_dropped_total")
        assert [value(figures, f"kibitz_{name}") for name in names] == [3, 0, 0, 0, 0]

    await eventually(written)


async def test_rows_that_are_lost_are_counted(
    start_kibitz: StartKibitz, upstream: Upstream, tmp_path: Path, eventually: Eventually
) -> None:
    kibitz = await start_kibitz(commit_wait=0.01, max_waiting_bytes=2**20)
    upstream.answer = json_answer(b'"%b"' % (b"x" * 600_000))
    with store_stalled(tmp_path):
        for _ in range(3):
            await kibitz.chat()

        async def dropped() -> None:  # rows this large are built beside the loop
            figures = await scrape(kibitz)
            assert value(figures, "kibitz_rows_dropped_total") == 1
            assert value(figures, "kibitz_workers_dropping") == 1
            assert value(figures, "kibitz_calls_total", outcome="ok", status="2xx") == 3

        await eventually(dropped)


async def test_requests_to_routes_are_counted_under_the_route_and_never_under_an_id(kibitz: Running) -> None:
    await kibitz.chat(Helicone_Request_Id="rated")
    for id in ("rated", "chatcmpl-1", "unknown"):
        async with kibitz.client.post(f"{kibitz.base_url}/request/{id}/feedback/", json={"rating": True}) as response:
            await response.read()
    figures = await scrape(kibitz)
    route = {"method": "POST", "route": "/v1/request/{id}/feedback"}
    assert value(figures, "kibitz_route_requests_total", **route, status="2xx") == 2
    assert value(figures, "kibitz_route_requests_total", **route, status="4xx") == 1


async def test_calls_told_of_afterwards_count_as_rows_and_not_as_calls(kibitz: Running) -> None:
    log: dict[str, Any] = {"request": {"url": "http://x/v1/chat/completions", "body": {}}, "response": {"body": {}}}
    async with kibitz.client.post(f"{kibitz.base_url}/logs", json=[log, log]) as response:
        assert response.status == 200, await response.text()
    figures = await scrape(kibitz)
    assert value(figures, "kibitz_rows_written_total") == 2
    assert [name for name, _ in figures if name == "kibitz_calls_total"] == []


async def test_no_label_holds_what_a_client_or_an_upstream_chose(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = json_answer(b'{"model": "chosen-1"}', status="299 chosen-2")
    await kibitz.chat(Helicone_User_Id="chosen-3", Helicone_Request_Id="chosen-4", Authorization="Bearer chosen-5")
    for method, path in (("GET", "/v1/request/chosen-4"), ("CHOSEN", "/v1/feedback"), ("GET", "/chosen-6?chosen=7")):
        async with kibitz.client.request(method, kibitz.url + path) as response:
            await response.read()
    async with kibitz.client.get(f"{kibitz.url}/metrics") as response:
        text = (await response.text()).lower()
    assert "kibitz_calls_total{" in text
    assert "chosen" not in text


async def test_metrics_are_for_operators(start_kibitz: StartKibitz) -> None:
    def key(secret: str, *scopes: str) -> dict[str, Any]:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return {"name": secret, "organisation": "acme", "sha256": digest, "scopes": scopes}

    kibitz = await start_kibitz(keys=[key(OPERATOR, "admin"), key(READER, "proxy", "feedback", "read")])
    for fields, status, code in (
        ({}, 401, "invalid_api_key"),
        ({"Authorization": f"Bearer {READER}"}, 403, "insufficient_scope"),
    ):
        async with kibitz.client.get(f"{kibitz.url}/metrics", headers=fields) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (status, code)
    async with kibitz.client.post(f"{kibitz.base_url}/x") as response:
        assert response.status == 401
    figures = await scrape(kibitz, Authorization=f"Bearer {OPERATOR}")
    assert value(figures, "kibitz_calls_refused_total", code="invalid_api_key") == 1


def counted(calls: int, wait: float) -> dict[str, float]:
    metrics = Metrics()
    metrics.calls_begun = calls + 1
    metrics.calls["ok", "2xx"] = calls
    metrics.answered("GET", "/readyz", 200)
    metrics.waited(wait)
    snapshot: dict[str, float] = orjson.loads(orjson.dumps(metrics.snapshot()))
    return snapshot


@pytest.mark.parametrize("number", [1, 2, 5])
def test_what_several_processes_counted_adds_up(number: int) -> None:
    figures = read(exposition([counted(3, 0.003 * 10**n) for n in range(number)]).decode())
    assert value(figures, "kibitz_workers") == number
    assert value(figures, "kibitz_calls_total", outcome="ok", status="2xx") == 3 * number
    assert value(figures, "kibitz_calls_in_flight") == number
    assert value(figures, "kibitz_route_requests_total", method="GET", route="/readyz", status="2xx") == number
    assert value(figures, "kibitz_commit_wait_seconds_bucket", le="0.005") == 1
    assert value(figures, "kibitz_commit_wait_seconds_bucket", le="1.0") == min(number, 3)
    assert value(figures, "kibitz_commit_wait_seconds_count") == number


def test_a_counter_is_there_before_it_has_counted() -> None:
    figures = read(exposition([Metrics().snapshot()]).decode())
    assert figures["kibitz_rows_dropped_total", frozenset()] == 0
    assert figures["kibitz_commit_wait_seconds_count", frozenset()] == 0
