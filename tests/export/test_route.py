"""`GET /v1/export` over a socket: what is selected, what the files hold, and how a stream ends. Contract section 7."""

from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import pytest

from storage.records import Body, Score
from tests.conftest import Running
from tests.described import check_answer
from tests.export import CHAT_PATH, a_chat, a_conversation, as_openai_takes_it, chat_reply
from tests.feedback import add_value, rate
from tests.raw_client import Eventually, connect, request
from tests.storage import NOW

OPEN = "default"
START = 1_700_000_000_000_000
SECOND = 1_000_000


@pytest.fixture
async def log(kibitz: Running) -> Running:
    """Calls c0 to c5, a second apart: c0 and c5 rated well, c1 badly, c2 not; c3 failed; c4 was tried twice."""
    store = kibitz.kibitz.storage
    common: dict[str, Any] = {"organisation": OPEN}
    calls = [
        a_chat("c0", "Capital?", "Paris.", user_id="ada", properties={"Release": "2"}, **common, started_at=START),
        a_chat("c1", "Capital?", "Lyon.", user_id="bob", session_id="s", **common, started_at=START + SECOND),
        a_chat("c2", "River?", "Seine.", response_model="gpt-4o", **common, started_at=START + 2 * SECOND),
        a_chat("c3", "River?", "", status=500, **common, started_at=START + 3 * SECOND),
        a_chat("c4", "Tower?", "Pisa.", **common, started_at=START + 4 * SECOND),
        a_chat("c4", "Tower?", "Eiffel.", **common, started_at=START + 5 * SECOND),
        a_chat("c5", "Capital?", "It is Paris.", **common, started_at=START + 6 * SECOND),
    ]
    await store.write_calls(calls)
    await store.write_calls([a_chat("other", organisation="other")])
    for request_id, rating in (("c0", True), ("c1", False), ("c5", True)):
        assert (await rate(kibitz, request_id, rating)).status == 200
    await store.merge_scores(OPEN, "c0", [Score("accuracy", 95)], **NOW)
    return kibitz


async def export(kibitz: Running, **query: str) -> tuple[int, str, bytes]:
    url = f"{kibitz.base_url}/export"
    async with kibitz.client.get(url, params=query) as response:
        content = await response.read()
        is_json = response.content_type == "application/json"
        body = orjson.loads(content) if is_json else content.decode("latin-1")
        check_answer(kibitz.kibitz.router, "GET", response.url.raw_path, response.status, response.content_type, body)
        return response.status, response.content_type, content


async def lines(kibitz: Running, **query: str) -> list[dict[str, Any]]:
    status, media_type, content = await export(kibitz, **query)
    assert (status, media_type) == (200, "application/x-ndjson"), content
    return [orjson.loads(line) for line in content.splitlines()]


async def test_rows_are_those_of_the_single_read_oldest_first(log: Running) -> None:
    rows = await lines(log)
    named = [(row["request_id"], row["attempt"]) for row in rows]
    assert named == [("c0", 1), ("c1", 1), ("c2", 1), ("c3", 1), ("c4", 1), ("c4", 2), ("c5", 1)]
    assert rows == [await log.row(request_id, attempt=attempt) for request_id, attempt in named]
    for format, number in (("rows", 7), ("chat", 5)):
        _, _, content = await export(log, format=format)
        assert pyarrow.json.read_json(io.BytesIO(content)).num_rows == number


SELECTIONS: list[tuple[dict[str, str], list[str]]] = [
    ({"rating": "true"}, ["c0", "c5"]),
    ({"rating": "false"}, ["c1"]),
    ({"rating": "none"}, ["c2", "c3", "c4", "c4"]),
    ({"user": "ada"}, ["c0"]),
    ({"session": "s"}, ["c1"]),
    ({"model": "gpt-4o"}, ["c2"]),
    ({"property.release": "2"}, ["c0"]),
    ({"property.release": "3"}, []),
    ({"since": "2023-11-14T22:13:25Z"}, ["c4", "c5"]),
    ({"since": "1700000000999", "until": "2023-11-14T22:13:23+00:00"}, ["c1", "c2"]),
    ({"filter": '{"response_status": {"equals": 500}}'}, []),
    ({"filter": "all", "user": "bob"}, ["c1"]),
    (
        {
            "filter": '{"left": {"feedback": {"rating": {"equals": true}}}, "operator": "and",'
            ' "right": {"scores": {"accuracy": {"gt": 90}}}}'
        },
        ["c0"],
    ),
]
SELECTIONS[10] = ({"filter": '{"response": {"status": {"equals": 500}}}'}, ["c3"])


@pytest.mark.parametrize(("query", "wanted"), SELECTIONS)
async def test_parameters_select_calls(query: dict[str, str], wanted: list[str], log: Running) -> None:
    assert [row["request_id"] for row in await lines(log, **query)] == wanted


MISTAKES: list[tuple[dict[str, str], str]] = [
    ({"raitng": "true"}, "raitng"),
    ({"rating": "maybe"}, "rating"),
    ({"format": "xml"}, "format"),
    ({"filter": "{"}, "filter"),
    ({"filter": '{"colours": {"red": {"equals": 1}}}'}, "'colours'"),
    ({"since": "yesterday"}, "'yesterday'"),
    ({"format": "csv", "summary": "true"}, "summary"),
]


@pytest.mark.parametrize(("query", "said"), MISTAKES)
async def test_what_can_not_be_exported_is_400_and_named(query: dict[str, str], said: str, kibitz: Running) -> None:
    status, _, content = await export(kibitz, **query)
    answer = orjson.loads(content)
    assert status == 400
    assert answer["data"] is None
    assert said in answer["error"]


async def test_chat_lines_hold_the_last_attempt_with_its_answer_and_the_summary_says_why_others_are_not_there(
    log: Running,
) -> None:
    *talks, last = await lines(log, format="chat", summary="true")
    answers = [as_openai_takes_it(talk)[-1]["content"] for talk in talks]
    assert answers == ["Paris.", "Lyon.", "Seine.", "Eiffel.", "It is Paris."]
    assert last == {"summary": {"read": 6, "written": 5, "skipped": {"failed": 1}}}
    assert await lines(log, format="chat", rating="false") == [
        {"messages": [{"role": "user", "content": "Capital?"}, {"role": "assistant", "content": "Lyon."}]}
    ]


async def test_the_best_and_the_worst_answer_to_the_same_prompt_make_a_pair(log: Running) -> None:
    asked = {"messages": [{"content": [{"type": "text", "text": "Capital?"}], "role": "user"}], "model": "another"}
    replies = [chat_reply({"content": text}) for text in ("Nice.", "Rome.", "Paris.")]
    calls = [
        a_conversation(f"d{number}", CHAT_PATH, asked, reply, organisation=OPEN) for number, reply in enumerate(replies)
    ]
    await log.kibitz.storage.write_calls(calls)
    await add_value(log, "d0", -10)
    await add_value(log, "d1", 5)
    assert (await rate(log, "d1", False)).status == 200
    await add_value(log, "d2", 10)
    *pairs, last = await lines(log, format="preference", summary="true")
    found = set()
    for pair in pairs:
        good, bad = pair["preferred_output"], pair["non_preferred_output"]
        for output in (good, bad):
            as_openai_takes_it({**pair["input"], "messages": [*pair["input"]["messages"], *output]})
        found.add((good[0]["content"], bad[0]["content"]))
        assert list(pair) == ["input", "preferred_output", "non_preferred_output"]
    # Rated by 1 and by 10, "Paris." is the best; "Nice." is the worst. "Rome." has a mean of 2.5, and a bad rating.
    assert found == {("Paris.", "Nice."), ("It is Paris.", "Lyon.")}
    skipped = {"failed": 1, "unrated": 2, "without a counterpart": 1}
    assert last == {"summary": {"read": 9, "written": 2, "skipped": skipped}}


async def test_an_answer_that_was_rated_both_ways_alike_is_in_no_pair(log: Running) -> None:
    await log.kibitz.storage.write_calls([a_chat("d0", "Capital?", "Lyon.", organisation=OPEN)])
    assert (await rate(log, "d0", True)).status == 200
    [last] = await lines(log, format="preference", summary="true")
    assert last["summary"]["skipped"] == {
        "failed": 1,
        "unrated": 2,
        "rated both ways": 2,
        "without a counterpart": 2,
    }


async def test_csv_and_parquet_hold_the_same_flat_rows(log: Running) -> None:
    _, csv_type, as_csv = await export(log, format="csv")
    _, parquet_type, as_parquet = await export(log, format="parquet")
    assert (csv_type, parquet_type) == ("text/csv", "application/vnd.apache.parquet")
    records = list(csv.DictReader(io.StringIO(as_csv.decode(), newline="")))
    table = pyarrow.parquet.read_table(io.BytesIO(as_parquet))
    rows = table.to_pylist()
    assert [record["request_id"] for record in records] == ["c0", "c1", "c2", "c3", "c4", "c4", "c5"]
    assert [row["request_id"] for row in rows] == [record["request_id"] for record in records]
    assert [record["rating"] for record in records] == ["true", "false", "", "", "", "", "true"]
    assert [row["rating"] for row in rows] == [True, False, None, None, None, None, True]
    assert orjson.loads(rows[0]["properties"]) == {"Release": "2"}
    assert orjson.loads(rows[0]["response_body"])["choices"][0]["message"]["content"] == "Paris."
    assert rows[1]["request_created_at"].isoformat() == "2023-11-14T22:13:21+00:00"
    read = pyarrow.csv.read_csv(io.BytesIO(as_csv))
    assert (read.num_rows, read.column_names) == (table.num_rows, table.column_names)
    for row, record in zip(rows, records, strict=True):
        told = {name: "" if value is None else value for name, value in row.items()}
        assert [told[name] for name in ("response_text", "response_status", "request_body")] == [
            record["response_text"],
            int(record["response_status"]),
            record["request_body"],
        ]


@pytest.mark.parametrize("format", ["rows", "chat", "preference", "csv", "parquet"])
async def test_an_empty_log_gives_an_empty_file(format: str, kibitz: Running) -> None:
    status, _, content = await export(kibitz, format=format)
    assert status == 200
    if format == "parquet":
        assert pyarrow.parquet.read_table(io.BytesIO(content)).num_rows == 0
    else:
        assert len(content.splitlines()) == (format == "csv")


async def test_head_and_an_old_version_of_http_are_answered_too(log: Running) -> None:
    whole = (await export(log))[2]
    async with connect(log.port) as connection:
        await connection.send(request("HEAD", "/v1/export") + request("GET", "/v1/export", version="1.0"))
        head, fields = await connection.read_head()
        assert head == b"HTTP/1.1 200 OK"
        assert (b"Content-Type", b"application/x-ndjson") in fields
        old, fields = await connection.read_head()
        assert old == b"HTTP/1.0 200 OK"
        assert not [name for name, _ in fields if name.lower() in (b"transfer-encoding", b"content-length")]
        assert await connection.reader.read(-1) == whole


async def many(kibitz: Running, number: int) -> None:
    text = orjson.dumps("x" * 20_000)
    calls = [
        a_chat(f"m{place}", organisation=OPEN, response=Body(text, len(text), content_type="application/json"))
        for place in range(number)
    ]
    await kibitz.kibitz.storage.write_calls(calls)


async def test_a_client_that_leaves_ends_the_work(
    kibitz: Running, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    await many(kibitz, 2000)  # far more than what sockets hold
    before = asyncio.all_tasks()
    async with connect(kibitz.port) as connection:
        await connection.send(request("GET", "/v1/export"))
        await connection.read_head()
        assert asyncio.all_tasks() - before

    async def ended() -> None:
        assert asyncio.all_tasks() - before == set()

    await eventually(ended)
    assert caplog.records == []


async def test_what_fails_on_the_way_cuts_the_connection(kibitz: Running, tmp_path: Path) -> None:
    await many(kibitz, 2000)
    async with kibitz.client.get(f"{kibitz.base_url}/export") as response:
        assert response.status == 200
        assert await response.content.read(1000)
        (tmp_path / "kibitz.db").rename(tmp_path / "gone.db")
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    (tmp_path / "gone.db").rename(tmp_path / "kibitz.db")


async def test_what_fails_before_the_first_byte_has_a_status(log: Running, tmp_path: Path) -> None:
    (tmp_path / "kibitz.db").rename(tmp_path / "gone.db")
    status, _, content = await export(log)
    (tmp_path / "gone.db").rename(tmp_path / "kibitz.db")
    assert status == 503
    assert orjson.loads(content)["data"] is None
