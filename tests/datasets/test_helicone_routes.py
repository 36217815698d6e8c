"""`/v1/helicone-dataset...`: calls copied, edited, removed and exported. contracts/helicone.md section 4.6."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from yarl import URL

from tests.conftest import Running, StartKibitz
from tests.export import as_openai_takes_it
from tests.feedback import SAVED, Reply, ask, rate
from tests.upstream import Upstream, chat_answer

BASE = "/helicone-dataset"
RATED_WELL = {"feedback": {"rating": {"equals": True}}}


@pytest.fixture
async def log(kibitz: Running, upstream: Upstream) -> Running:
    """Calls c0 to c3, of which c0 and c2 are rated well; c1 was tried twice."""
    upstream.answer = chat_answer()
    for number in (0, 1, 1, 2, 3):
        response = await kibitz.chat(Helicone_Request_Id=f"c{number}", Helicone_Property_Release=str(number))
        assert response.status == 200
    for request_id in ("c0", "c2"):
        assert (await rate(kibitz, request_id)).status == 200
    return kibitz


async def post(kibitz: Running, path: str, body: Any = None) -> Reply:
    return await ask(kibitz, "POST", BASE + path, {} if body is None else body)


async def make(kibitz: Running, **body: Any) -> str:
    answer = await post(kibitz, "", {"datasetName": "good", **body})
    assert (answer.status, answer.body["error"]) == (200, None), answer
    return str(answer.body["data"]["datasetId"])


async def rows(kibitz: Running, dataset: str, **page: int) -> list[dict[str, Any]]:
    answer = await post(kibitz, f"/{dataset}/query", page)
    assert answer.status == 200
    found: list[dict[str, Any]] = answer.body["data"]
    return found


async def requests_of(kibitz: Running, dataset: str, **page: int) -> list[str]:
    return [row["origin_request_id"] for row in await rows(kibitz, dataset, **page)]


async def exported(kibitz: Running, query: str) -> list[Any]:
    async with kibitz.client.get(URL(f"{kibitz.base_url}/export?{query}", encoded=True)) as response:
        assert response.status == 200
        return [orjson.loads(line) for line in (await response.read()).splitlines()]


async def test_a_dataset_is_made_of_ids_in_their_order_and_of_response_ids(log: Running) -> None:
    dataset = await make(log, requestIds=["c2", "c0", "c2"], meta={"made": "by hand"})
    assert await requests_of(log, dataset) == ["c2", "c0"]
    assert await requests_of(log, dataset, offset=1, limit=5) == ["c0"]
    assert (await post(log, f"/{dataset}/count")).body == {"data": 2, "error": None}
    [listed] = (await post(log, "/query")).body["data"]
    assert (listed["id"], listed["name"], listed["requests_count"]) == (dataset, "good", 2)
    assert (listed["meta"], listed["dataset_type"]) == ({"made": "by hand"}, "helicone")
    assert (await post(log, "/query", {"datasetIds": []})).body["data"] == []
    by_response = await make(log, requestIds=["chatcmpl-1"])
    assert len(await requests_of(log, by_response)) == 1


async def test_a_dataset_is_made_of_a_filter_with_the_last_attempts(log: Running) -> None:
    assert await requests_of(log, await make(log, filter=RATED_WELL)) == ["c0", "c2"]
    everything = await make(log, filter="all")
    assert await requests_of(log, everything) == ["c0", "c1", "c2", "c3"]
    [_, twice, *_] = await exported(log, f"dataset={everything}")
    assert (twice["request_id"], twice["attempt"]) == ("c1", 2)


async def test_rows_show_the_bodies_as_the_log_does(log: Running) -> None:
    [row] = await rows(log, await make(log, requestIds=["c0"]))
    logged = await log.row("c0")
    assert (row["request_body"], row["response_body"]) == (logged["request_body"], logged["response_body"])
    assert row["signed_url"] is None


async def test_calls_are_added_and_taken_out_again(log: Running) -> None:
    dataset = await make(log, requestIds=["c0"])
    change = {"addRequests": ["c1", "c0"], "removeRequests": []}
    assert (await post(log, f"/{dataset}/mutate", change)).body == SAVED
    assert await requests_of(log, dataset) == ["c0", "c1"]
    [first, _] = await rows(log, dataset)
    assert (await post(log, f"/{dataset}/mutate", {"removeRequests": [first["id"]]})).body == SAVED
    assert (await post(log, f"/{dataset}/mutate", {"filter": RATED_WELL, "removeRequests": ["c1"]})).body == SAVED
    assert await requests_of(log, dataset) == ["c0", "c2"]


async def test_an_edit_reaches_the_export_and_not_the_log_and_later_feedback_does_not_reach_the_copy(
    log: Running,
) -> None:
    dataset = await make(log, requestIds=["c0", "c3"])
    logged = await log.row("c0")
    better = {**logged["response_body"]}
    better["choices"] = [{"index": 0, "message": {"role": "assistant", "content": "Better."}, "finish_reason": "stop"}]
    edit = await post(log, f"/{dataset}/request/c0", {"responseBody": better})
    assert (edit.status, edit.body) == (200, SAVED)
    assert await log.row("c0") == logged
    assert (await rate(log, "c0", False)).status == 200
    talks = await exported(log, f"format=chat&dataset={dataset}")
    assert [as_openai_takes_it(talk)[-1]["content"] for talk in talks] == ["Better.", "Hello there."]
    copies = await exported(log, f"dataset={dataset}")
    assert [copy["feedback"]["rating"] for copy in copies] == [True, None]
    assert copies[0]["properties"] == {"Release": "0"}


async def test_a_deleted_dataset_is_gone_and_its_calls_are_not(log: Running) -> None:
    dataset = await make(log, requestIds=["c0"])
    assert (await post(log, f"/{dataset}/delete")).body == SAVED
    for path, body in (
        ("delete", {}),
        ("count", {}),
        ("query", {}),
        ("mutate", {"addRequests": ["c0"]}),
        ("request/c0", {"requestBody": 1}),
    ):
        answer = await post(log, f"/{dataset}/{path}", body)
        assert (answer.status, answer.body["data"]) == (404, None), path
    async with log.client.get(f"{log.base_url}/export", params={"dataset": dataset}) as response:
        assert response.status == 404
    assert (await log.row("c0"))["request_id"] == "c0"


MISTAKES: list[tuple[Any, int, str]] = [
    ({"requestIds": ["c0"]}, 400, "datasetName"),
    ({"datasetName": ""}, 400, "datasetName"),
    ({"datasetName": "d", "requestIds": "c0"}, 400, "requestIds"),
    ({"datasetName": "d", "requestIds": ["c0"] * 1001}, 400, "requestIds"),
    ({"datasetName": "d", "filter": {"colours": {"red": {"equals": 1}}}}, 400, "'colours'"),
    ({"datasetName": "d", "requestIds": ["c0", "nobody's"]}, 404, "nobody's"),
]


@pytest.mark.parametrize(("body", "status", "said"), MISTAKES, ids=[said for _, _, said in MISTAKES])
async def test_a_dataset_that_can_not_be_made_is_not_there(body: Any, status: int, said: str, log: Running) -> None:
    answer = await post(log, "", body)
    assert answer.status == status
    assert said in answer.body["error"]
    assert (await post(log, "/query")).body["data"] == []


async def test_a_dataset_is_exported_whole(log: Running) -> None:
    dataset = await make(log, requestIds=["c0"])
    async with log.client.get(f"{log.base_url}/export", params={"dataset": dataset, "rating": "true"}) as response:
        assert response.status == 400


async def test_what_the_settings_redact_is_redacted_in_edits_and_names(
    start_kibitz: StartKibitz, upstream: Upstream
) -> None:
    upstream.answer = chat_answer()
    kibitz = await start_kibitz(redact={"fields": ["password"], "patterns": ["sk-[a-z]+"]})
    assert (await kibitz.chat(Helicone_Request_Id="c0")).status == 200
    dataset = await make(kibitz, requestIds=["c0"], datasetName="of sk-secret", meta={"password": "x"})
    edit = {"requestBody": {"password": "y", "text": "sk-other"}}
    assert (await post(kibitz, f"/{dataset}/request/c0", edit)).status == 200
    shown = orjson.dumps([await rows(kibitz, dataset), (await post(kibitz, "/query")).body])
    assert b"sk-" not in shown
    assert b'"x"' not in shown
    assert b'"y"' not in shown


async def test_from_the_first_rating_to_a_fine_tuning_file(log: Running) -> None:
    """Calls with properties, feedback, a filter, a dataset, lines that OpenAI's types take."""
    for request_id, accuracy in (("c0", 95), ("c2", 80), ("c3", 99)):
        assert (
            await ask(log, "POST", f"/request/{request_id}/score", {"scores": {"accuracy": accuracy}})
        ).status == 200
    accurate = {"request_response_rmt": {"scores": {"accuracy": {"gt": 90}}}}
    tree = {"left": RATED_WELL, "operator": "and", "right": accurate}
    dataset = await make(log, filter=tree)
    assert await requests_of(log, dataset) == ["c0"]
    [talk] = await exported(log, f"format=chat&dataset={dataset}")
    assert as_openai_takes_it(talk) == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello there."},
    ]
