"""Contract section 8: after a run with known secrets in every place, none is found anywhere that Kibitz writes to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from storage.sqlite.packing import unpack
from tests.conftest import Launcher, Process
from tests.keys_repeated import key_answers, key_bodies, key_feedback, with_keys_as_ids
from tests.known_secrets import CONFIGURED, KEY, OTHER_KEY, SECRETS, SHORT_KEY, Secrets, forms_of
from tests.raw_client import connect, request
from tests.secrets_everywhere import calls, configuration, feedback, malformed, serve
from tests.upstream import Upstream
from tests.websocket_bytes import TEXT, closing, frame, open_websocket, until_closed

BY_KEY = b"x-portkey-api-key: " + KEY.encode()
THEIRS = b"Authorization: Bearer " + SECRETS("in Authorization").encode()


async def test_no_secret_is_found_anywhere_after_a_run_with_one_in_every_place(
    upstream: Upstream, launch: Launcher, tmp_path: Path, workers: int
) -> None:
    process = await started(launch, upstream, tmp_path, workers)
    upstream.script = serve
    for message in malformed():
        await exchange(process.port, message)
    for message in calls().values():
        await exchange(process.port, message)
    echoed = {name: ids_of(await exchange(process.port, message)) for name, message in with_keys_as_ids().items()}
    for method, path, body in feedback():
        answer = await exchange(process.port, request(method, path, BY_KEY, THEIRS, body=orjson.dumps(body)))
        assert b" 200 " in answer[:20], (path, answer)
    await edit_a_dataset(process.port)
    await leave_in_a_stream(process.port)
    await talk_over_a_websocket(process.port)
    rows = await read_all(process.port, tmp_path)
    shown = b"".join([*rows.values(), *[await exchange(process.port, one) for one in exports()]])
    assert shown.count(b"application/x-ndjson") == 3
    output = await stopped(process)
    kept = {"files": files(tmp_path), "values": values(tmp_path), "answers": shown, "output": output}
    assert_that_it_ran(rows, kept, echoed)
    found = [
        (place, where)
        for place, secret in SECRETS.by_place.items()
        for where, data in kept.items()
        for form in forms_of(secret)
        if form in data
    ]
    assert found == []


async def test_no_key_is_found_where_nothing_else_is_to_be_redacted(
    upstream: Upstream, launch: Launcher, tmp_path: Path
) -> None:
    process = await started(launch, upstream, tmp_path, 1, rules=False)
    upstream.script = serve
    repeating = {name: message for name, message in calls().items() if name.startswith("key ")}
    for message in (calls()["auth"], *repeating.values(), *with_keys_as_ids().values()):
        await exchange(process.port, message)
    places = Secrets()
    address, query = places("in the address of a log"), places("in the query of a log")
    url = f"https://user:{address}@h/v1?key={query}"
    bearer = f"Bearer {places('in the header of a log')}"
    headers = {"Authorization": bearer, "x-api-key": places("in a further header of a log")}
    for method, path, body in key_feedback(places, "none", {"trace_id": "auth", "value": 1}, url, headers):
        answer = await exchange(process.port, request(method, path, BY_KEY, THEIRS, body=orjson.dumps(body)))
        assert b" 200 " in answer[:20] or "/session/none" in path, (path, answer)
    await edit_a_dataset(process.port)
    shown = await exchange(process.port, exports()[0])
    output = await stopped(process)
    rows = [orjson.loads(line) for line in shown.partition(b"\r\n\r\n")[2].splitlines()]
    assert {row["request_id"] for row in rows} >= repeating.keys()
    kept = {"files": files(tmp_path), "values": values(tmp_path), "answers": shown, "output": output}
    key_answers(places), key_bodies(places)
    found = [
        (place, where)
        for place in {*places.by_place, "carried, and an id", "a short key of Kibitz", "another key of Kibitz"}
        for where, data in kept.items()
        for form in forms_of(SECRETS.by_place.get(place) or places(place))
        if form in data
    ]
    assert found == []


@pytest.fixture(params=[1, 2])
def workers(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


async def started(
    launch: Launcher, upstream: Upstream, directory: Path, workers: int, *, rules: bool = True
) -> Process:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed_port = taken.getsockname()[1]
    file = directory / "settings.toml"
    file.write_text(configuration(upstream.base_url, closed_port, rules=rules))
    flags = ("--config", str(file), "--workers", str(workers))
    return await asyncio.to_thread(lambda: launch(*flags, KIBITZ_UPSTREAM__API_KEY=CONFIGURED))


async def exchange(port: int, message: bytes) -> bytes:
    """All that a server says to a message, up to the end of the connection."""
    async with connect(port) as connection:
        await connection.send(message.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        return await until_closed(connection)


async def leave_in_a_stream(port: int) -> None:
    """Leave once half of a secret has come."""
    lines = (BY_KEY, b"X-Answer: half", b"Helicone-Request-Id: left")
    async with connect(port) as connection:
        await connection.send(request("POST", "/v1/chat/completions", *lines, body=b'{"stream": true}'))
        await connection.read_head()


async def edit_a_dataset(port: int) -> None:
    """Put keys into a copy of a call."""

    async def post(path: str, body: Any) -> Any:
        message = request("POST", f"/v1/helicone-dataset{path}", BY_KEY, THEIRS, body=orjson.dumps(body), version="1.0")
        return orjson.loads((await exchange(port, message)).partition(b"\r\n\r\n")[2])

    dataset = (await post("", {"datasetName": "edited", "requestIds": ["auth"]}))["data"]["datasetId"]
    [row] = (await post(f"/{dataset}/query", {}))["data"]
    said = {SHORT_KEY: [OTHER_KEY, KEY, f"It is {SECRETS('in Authorization')}"]}
    edit = {"requestBody": said, "responseBody": {"choices": [said]}}
    assert (await post(f"/{dataset}/request/{row['id']}", edit))["error"] is None


def ids_of(answer: bytes) -> list[bytes]:
    """What an answer says of its call's id, its id again, and its trace's."""
    fields = dict(line.lower().partition(b": ")[::2] for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n"))
    return [fields[name] for name in (b"helicone-id", b"helicone-request-id", b"x-portkey-trace-id")]


async def talk_over_a_websocket(port: int) -> None:
    key = SECRETS("carried, and split over frames")
    said = orjson.dumps({"type": "session.update", "session": {"password": SECRETS("in a frame"), "note": key}})
    async with connect(port) as connection:
        bearer = b"Authorization: Bearer " + key.encode()
        answer = await open_websocket(connection, BY_KEY, bearer, b"Helicone-Request-Id: websocket")
        assert b" 101 " in answer.request_line
        await connection.send(frame(TEXT, said, masked=True) + closing(masked=True))
        await until_closed(connection)


@contextlib.contextmanager
def database(directory: Path) -> Any:
    with contextlib.closing(sqlite3.connect(directory / "kibitz.db")) as db:
        yield db


async def read_all(port: int, directory: Path) -> dict[str, bytes]:
    """Every row as the API shows it, by its id; what was said of them, and the metrics."""
    while True:  # the row of a client that has left comes when it comes
        with database(directory) as db:
            ids = [text for (text,) in db.execute("SELECT DISTINCT request_id FROM calls")]
        if "left" in ids and "websocket" in ids:
            break
        await asyncio.sleep(0.01)
    paths = {name: f"/v1/request/{quote(name, safe='')}?includeBody=true" for name in ids}
    paths |= {
        "metrics": "/metrics",
        "feedback": "/v1/feedback?trace_id=auth",
        "unmatched": "/v1/feedback?unmatched=true",
    }
    return {name: await exchange(port, request("GET", path, BY_KEY)) for name, path in paths.items()}


def exports() -> list[bytes]:
    """The log in each form; in HTTP/1.0, so that no chunk's end stands in a secret."""
    formats = ("rows", "chat", "preference", "csv")
    return [request("GET", f"/v1/export?format={name}", BY_KEY, version="1.0") for name in formats]


async def stopped(process: Process) -> bytes:
    process.process.terminate()
    output, errors = await asyncio.to_thread(process.process.communicate, timeout=30)
    assert process.process.returncode == 0
    return f"{process.first_line}{output}{errors}".encode()


def files(directory: Path) -> bytes:
    """Every byte of the database, its log and its index."""
    return b"\n".join(file.read_bytes() for file in sorted(directory.glob("kibitz.db*")))


def values(directory: Path) -> bytes:
    """Every value in the database, bodies unpacked."""
    found: list[bytes] = []
    with database(directory) as db:
        tables = [
            name
            for (name,) in db.execute(
                "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow')"
            )
        ]
        for table in tables:
            for row in db.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    data = value if isinstance(value, bytes) else str(value).encode()
                    found += (data, unpack(data, "zstd") or b"" if data.startswith(b"\x28\xb5\x2f\xfd") else b"")
    return b"\n".join(found)


def assert_that_it_ran(rows: dict[str, bytes], kept: dict[str, bytes], echoed: dict[str, list[bytes]]) -> None:
    """Every call left its row, with all that is no secret."""
    told = {"told", "portkey's", "left", "websocket", "told again"}
    shown = {name: orjson.loads(answer.partition(b"\r\n\r\n")[2]) for name, answer in rows.items() if name != "metrics"}
    unnamed = {name: shown[name]["data"] for name in shown.keys() - {"feedback", "unmatched"} - calls().keys() - told}
    by_case = {row["properties"].get("Case", "told"): name for name, row in unnamed.items()}
    assert by_case.keys() == with_keys_as_ids().keys() | {"told"}
    assert_that_ids_are_told(echoed, by_case, shown)
    assert_that_the_rest_is_kept(shown)
    assert shown["labels"]["data"]["request_user_id"] == "[redacted]"
    assert shown["labels"]["data"]["properties"]["Note"] == "so: [redacted]"
    assert shown["answer chat"]["data"]["response_text"] == "It is [redacted], sir"
    assert shown["answer chat"]["data"]["completion_tokens"] == 6
    assert shown["answer messages"]["data"]["response_text"] == "It is [redacted], sir"
    assert shown["answer gzip"]["data"]["response_text"] == 'It is [redacted], or "x".'
    assert (
        shown["answer echo"]["data"]["response_body"]["error"]["message"] == "Incorrect API key provided: [redacted]."
    )
    assert shown["answer unknown coding"]["data"]["response_body"] is None
    assert shown["body json"]["data"]["request_body"]["model"] == "m"
    assert shown["body own key"]["data"]["request_body"]["note"] == "[redacted] [redacted]"
    assert shown["closed"]["data"]["error"]["kind"] == "upstream_unreachable"
    assert shown["answer cut"]["data"]["error"]["kind"] == "upstream_cut"
    assert shown["auth"]["data"]["properties"]["note"] == "[redacted]"
    assert [frame["data"]["delta"] for frame in shown["websocket"]["data"]["response_body"]["frames"][:-1]] == [
        "It is ",
        "[redacted]",
        "",
        "!",
        "[redacted]",
        "",
    ]
    assert shown["feedback"]["total"] == 4
    assert b"refused a request that is no HTTP" in kept["output"]
    assert b"kibitz_calls_total" in rows["metrics"]


def assert_that_ids_are_told(echoed: dict[str, list[bytes]], by_case: dict[str, str], shown: dict[str, Any]) -> None:
    """What a call's answer says of its ids is what its row says; and what could not be an id is named."""
    for case, told in echoed.items():
        row = shown[by_case[case]]["data"]
        assert [one.decode() for one in told] == [row["request_id"], row["request_id"], row["trace_id"]], case
        astray = {"Helicone-Request-Id": "request_id", "x-portkey-trace-id": "trace_id"}.get(case.split()[0])
        assert row["cut"] == ([astray] if astray else None), case


def assert_that_the_rest_is_kept(shown: dict[str, Any]) -> None:
    """Beside the keys that calls carried, all is there."""

    def response(name: str) -> Any:
        return shown[name]["data"]["response_body"]

    assert shown["key a character an event"]["data"]["response_text"].endswith("Hm. [redacted]")
    assert shown["key percent and split"]["data"]["response_text"] == "See [redacted]"
    for name in ("cookie", "Set-Cookie", "proxy", "virtual", "config", "aws", "posthog", "token", "sensitive"):
        assert response(f"key {name}")["error"]["message"] == "It is [redacted]", name
    assert response("key escapes")["error"]["message"] == "It is [redacted]"
    assert response("key percent")["error"]["message"] == "It is https://h/?a=[redacted]"
    assert response("key messages") is None
    assert response("key at the cut").endswith('xxx","b":"[redacted]"')
    assert shown["key body pair"]["data"]["request_body"] == "a=[redacted]"
    assert shown["key body part"]["data"]["request_body"]["parts"] == [{"name": "a", "value": "it is [redacted]"}]
    assert shown["told again"]["data"]["request_body"] == {"a": "[redacted] [redacted]"}
