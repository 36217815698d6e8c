"""The whole way, with processes and the published clients: calls, feedback, a filter, a dataset, a fine-tuning file."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, Final

import openai
import orjson
import pyarrow.json
import requests
from helicone_helpers import HeliconeManualLogger

from tests.conftest import Launcher, Process
from tests.export import as_openai_takes_it
from tests.test_cli import ROOT, environment
from tests.upstream import CHAT_BODY, Connection, Upstream, chat_answer

# "feedback = true and scores.accuracy > 90"
GOOD: Final = {
    "left": {"request_response_rmt": {"helicone-score-feedback": {"equals": True}}},
    "operator": "and",
    "right": {"scores": {"accuracy": {"gt": 90}}},
}
# Each call's rating, and its accuracy.
SAID: Final[dict[str, tuple[bool | None, int | None]]] = {
    "good": (True, 95),
    "dull": (True, 80),
    "wrong": (False, 99),
    "unrated": (None, 100),
    "unscored": (True, None),
    "logged": (True, 91),
}


async def test_well_rated_and_accurate_answers_become_a_fine_tuning_file(
    launch: Launcher, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script = answer_all
    kibitz = launch("--upstream", upstream.base_url, "--workers", "2")
    await asyncio.to_thread(use, kibitz)
    await asyncio.to_thread(judge, kibitz)
    assert await asyncio.to_thread(found, kibitz, GOOD) == ["logged", "good"]
    team = {"left": GOOD, "operator": "and", "right": {"properties": {"Team": {"equals": "good"}}}}
    assert await asyncio.to_thread(found, kibitz, team) == ["good"]

    dataset = await asyncio.to_thread(a_dataset, kibitz)
    by_dataset = await asyncio.to_thread(
        kibitz_export, tmp_path, f"--format chat --dataset {dataset} --output set.jsonl"
    )
    by_filter = await asyncio.to_thread(readme_export, tmp_path)
    lines = [orjson.loads(line) for line in (tmp_path / by_dataset).read_bytes().splitlines()]
    assert sorted(map(turns, lines)) == [("About good?", "Of good."), ("About logged?", "Of logged.")]
    assert {turns(orjson.loads(line)) for line in (tmp_path / by_filter).read_bytes().splitlines()} == {
        *map(turns, lines)
    }
    assert pyarrow.json.read_json(tmp_path / by_dataset).num_rows == 2
    assert await asyncio.to_thread(kibitz.stop) == 0


async def answer_all(connection: Connection) -> None:
    """Answers that say what was asked about."""
    while True:
        question = orjson.loads((await connection.read_request()).body)["messages"][0]["content"]
        name = question.removeprefix("About ").removesuffix("?")
        await connection.send(chat_answer(orjson.dumps(about(name))))


def about(name: str) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(CHAT_BODY)
    body["id"] = f"chatcmpl-{name}"
    body["choices"][0]["message"]["content"] = f"Of {name}."
    return body


def asked(name: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"About {name}?"}]}


def use(kibitz: Process) -> None:
    """Calls through the proxy by the SDK, and one that passed beside it and is told of by Helicone's helpers."""
    with openai.OpenAI(api_key="sk-of-the-provider", base_url=kibitz.base_url, max_retries=0) as client:
        for name in SAID.keys() - {"logged"}:
            fields = {"Helicone-Request-Id": name, "Helicone-Property-Team": name, "Helicone-User-Id": "ada"}
            answer = client.chat.completions.create(**asked(name), extra_headers=fields)
            assert answer.choices[0].message.content == f"Of {name}."
    # After the others: the newest comes first.
    logger = HeliconeManualLogger("sk-helicone", headers={}, logging_endpoint=kibitz.base_url.removesuffix("/v1"))
    fields = {"Helicone-Request-Id": "logged", "Helicone-Property-Team": "logged"}
    logger.log_request(asked("logged"), lambda recorder: recorder.append_results(about("logged")), fields)


def judge(kibitz: Process) -> None:
    for name, (rating, accuracy) in SAID.items():
        if rating is not None:
            post(kibitz, f"request/{name}/feedback", {"rating": rating})
        if accuracy is not None:
            post(kibitz, f"request/{name}/score", {"scores": {"accuracy": accuracy}})


def found(kibitz: Process, where: Any) -> list[str]:
    rows = post(kibitz, "request/query", {"filter": where, "sort": {"created_at": "desc"}})["data"]
    assert post(kibitz, "request/count/query", {"filter": where})["data"] == len(rows)
    return [row["request_id"] for row in rows]


def a_dataset(kibitz: Process) -> str:
    dataset: str = post(kibitz, "helicone-dataset", {"datasetName": "good", "filter": GOOD})["data"]["datasetId"]
    return dataset


def post(kibitz: Process, path: str, body: Any) -> Any:
    answer = requests.post(f"{kibitz.base_url}/{path}", json=body, timeout=10)
    assert answer.ok, answer.text
    return answer.json()


def readme_export(folder: Path) -> str:
    """The command of the README that exports by the same filter, as it stands there."""
    [command] = [
        block
        for block in re.findall(r"```sh\n(kibitz export .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        if "accuracy" in block
    ]
    return kibitz_export(folder, command.removeprefix("kibitz export "))


def kibitz_export(folder: Path, flags: str) -> str:
    """Run the command by a shell; the name of its file."""
    path = f"{sysconfig.get_path('scripts')}:/usr/bin:/bin"
    shell = ["sh", "-c", f"kibitz export {flags}"]
    done = subprocess.run(
        shell, cwd=folder, env=environment(PATH=path), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    [name] = re.findall(r"--output (\S+)", flags)
    return str(name)


def turns(line: dict[str, Any]) -> tuple[str, str]:
    """What was asked and answered in a line, which the SDK's types take."""
    question, answer = as_openai_takes_it(line)
    return question["content"], answer["content"]
