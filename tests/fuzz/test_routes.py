"""All routes under the requests that schemathesis makes of the description which the server itself serves.

It asks a Kibitz process over its socket for what the description allows and for what it doesn't, follows the links
from one route to the next, and looks at each answer: no 5xx, a described status, media type, header and body, a
rejection of what is not as described and of who has no key. What was answered is then compared with what is stored.

`TEST_FUZZ` raises the number of requests for each route and phase. The seed is fixed, so that a failure comes again;
`TEST_SEED` is another.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import requests

from proxy.config import ALL_SCOPES
from tests.conftest import Launcher, Process
from tests.described import answer_validators
from tests.logs import custom
from tests.test_keys import key

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
EXAMPLES: Final = int(os.environ.get("TEST_FUZZ", "10"))
SEED: Final = os.environ.get("TEST_SEED", "1")
# Only a fault makes it take so long.
PATIENCE: Final = 120 + 20 * EXAMPLES
SECRET: Final = "kbz_fuzz"
FIELDS: Final = {"Helicone-Auth": f"Bearer {SECRET}"}
# Schemathesis tries 0 by itself where any text will do; schemathesis.toml names the other.
KNOWN: Final = ("0", "r")
# Bytes at which the report cuts an answer, but for a character that they would cut in two.
CUT_AT: Final = 2**20 - 4
# What the server says of requests that are no HTTP, as some of these are, and of its end.
EXPECTED: Final = re.compile(
    r".* (WARNING proxy\.http: refused a request that is no HTTP: \w+|INFO proxy\.serve: stopping: .*)"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was made, and how it was answered; an answer that isn't JSON is its text."""

    method: str
    path: str
    status: int
    answer: Any
    fields: dict[str, str]


def start(launch: Launcher, directory: Path) -> Process:
    """A Kibitz process with one key for everything, that knows some calls."""
    lines = [f"{name} = {orjson.dumps(value).decode()}" for name, value in key(SECRET, "acme", ALL_SCOPES).items()]
    (directory / "kibitz.toml").write_text("\n".join(["[[keys]]", *lines]))
    process = launch("--config", "kibitz.toml")
    for known in KNOWN:
        fields = {**FIELDS, "Helicone-Request-Id": known, "Helicone-Session-Id": known}
        told = requests.post(f"{origin(process)}/custom/v1/log", json=custom(), headers=fields, timeout=10)
        assert told.status_code == 200
    return process


def a_dataset(process: Process) -> str:
    """The id of a dataset of the calls that are known."""
    asked = {"datasetName": "known", "requestIds": KNOWN}
    told = requests.post(f"{origin(process)}/v1/helicone-dataset", json=asked, headers=FIELDS, timeout=10)
    assert told.status_code == 200
    return str(told.json()["data"]["datasetId"])


def origin(process: Process) -> str:
    return f"http://127.0.0.1:{process.port}"


def fuzz(process: Process, directory: Path) -> tuple[int, str]:
    """Schemathesis' exit status, and what it says."""
    options = [
        *(
            "--checks",
            "all",
            "--exclude-checks",
            "positive_data_acceptance,allow_header_conformance",
            "--seed",
            SEED,
            "--max-examples",
            str(EXAMPLES),
            "--generation-database",
            "none",
        ),
        *("--request-timeout", "30", "--no-color", "--output-sanitize", "false"),
        *(
            "--report",
            "har",
            "--report-har-path",
            "report.har",
            "--header",
            f"Helicone-Auth: {FIELDS['Helicone-Auth']}",
        ),
    ]
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
            *("run", f"{origin(process)}/openapi.json", *options),
        ],
        cwd=directory,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"), "FUZZ_DATASET": a_dataset(process)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    return run.returncode, run.stdout


def asked(directory: Path) -> list[Asked]:
    """All that was asked, in order, as the report has it."""
    found = []
    for entry in orjson.loads((directory / "report.har").read_bytes())["log"]["entries"]:
        response = entry["response"]
        fields = {field["name"].lower(): field["value"] for field in response["headers"]}
        text = response["content"].get("text") or ""
        is_json = (
            fields.get("content-type") == "application/json" and 0 < len(text.encode("utf-8", "surrogatepass")) < CUT_AT
        )
        answer = orjson.loads(text) if is_json else text
        path = urlsplit(entry["request"]["url"]).path
        found.append(Asked(entry["request"]["method"], path, response["status"], answer, fields))
    return found


def expect_all_reached(document: Any, made: list[Asked]) -> None:
    """Every route did what it is for, and refused a body that it doesn't take; this one was asked for before."""
    for template, methods in document["paths"].items():
        pattern = re.compile(re.sub(r"{\w+}", "[^/]+", template) + "/?")
        for method, operation in methods.items():
            answers = {one.status for one in made if one.method == method.upper() and pattern.fullmatch(one.path)}
            if template != "/openapi.json":
                assert 200 in answers, (method, template, answers)
            if "requestBody" in operation:
                assert answers & {400, 422}, (method, template, answers)


def expect_readable(process: Process, made: list[Asked]) -> None:
    """Whatever was logged can be read, as it is described."""
    with requests.Session() as session:
        session.headers.update(FIELDS)
        document = session.get(f"{origin(process)}/openapi.json", timeout=10).json()
        described = answer_validators(document)["get_v1_request_id", 200, "application/json"]
        for request_id in (*KNOWN, *logged(made)):
            answer = session.get(f"{origin(process)}/v1/request/{request_id}?includeBody=true", timeout=10)
            assert answer.status_code == 200
            described.validate(answer.json())


def logged(made: list[Asked]) -> list[str]:
    """The ids of the calls that were told of."""
    done = [one for one in made if one.status == 200]
    return saved(done, "request_ids") + [one.fields["helicone-id"] for one in done if one.answer == "ok"]


def saved(answers: Iterable[Asked], name: str) -> list[str]:
    """The ids in answers, under a name."""
    return [one for each in answers if isinstance(each.answer, dict) for one in each.answer.get(name, ())]


def expect_stored(database: Path, made: list[Asked]) -> None:
    """What was answered with 200 is stored, whole, and nothing else is."""
    done = [one for one in made if one.status == 200]
    created = [one for one in done if one.method == "POST" and one.path.rstrip("/") == "/v1/feedback"]
    valued = set(saved(created, "feedback_ids"))
    deleted = set(saved((one for one in done if one.method == "DELETE"), "feedback_ids"))
    rated = [one for one in done if one.path.startswith(("/v1/request/", "/v1/session/")) and "/feedback" in one.path]
    rated += [one for one in created if "helicone_id" in one.answer]
    with closing(sqlite3.connect(database)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert store.execute("PRAGMA foreign_key_check").fetchall() == []
        values = [text for (text,) in store.execute("SELECT id FROM feedback WHERE kind = 'value'")]
        assert sorted(values) == sorted(valued - deleted)
        (ratings,) = store.execute("SELECT count(*) FROM feedback WHERE kind = 'rating'").fetchone()
        assert ratings == len(rated) - len(deleted - valued)
        calls = [text for (text,) in store.execute("SELECT request_id FROM calls")]
        assert sorted(calls) == sorted([*logged(made), *KNOWN])
        assert store.execute("SELECT count(*) FROM bodies").fetchone() == (len(calls),)


def test_no_request_that_the_description_allows_or_forbids_is_answered_otherwise(
    launch: Launcher, tmp_path: Path
) -> None:
    process = start(launch, tmp_path)
    status, said = fuzz(process, tmp_path)
    assert status == 0, said
    made = asked(tmp_path)
    expect_all_reached(requests.get(f"{origin(process)}/openapi.json", headers=FIELDS, timeout=10).json(), made)
    expect_readable(process, made)
    assert requests.get(f"{origin(process)}/readyz", timeout=10).status_code == 200
    assert process.stop() == 0
    _, errors = process.process.communicate(timeout=10)
    assert [line for line in errors.splitlines() if not EXPECTED.fullmatch(line)] == []
    expect_stored(tmp_path / "kibitz.db", made)
    reparse = [sys.executable, "-m", "proxy", "reparse", "--config", "kibitz.toml"]
    done = subprocess.run(reparse, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == 0, done.stderr
