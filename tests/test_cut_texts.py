"""Metadata never fails a call (contract section 3): what is too long is cut, and the row says of what."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.exchange import Capture, Exchange
from proxy.headers import RequestFields, read_request_fields
from proxy.identity import identify
from proxy.pricing import Pricer
from proxy.row import build_call, derive_again
from proxy.text_limits import TextLimits
from storage.records import Call
from tests.conftest import Running, StartKibitz
from tests.test_reparse import reparse
from tests.upstream import CHAT_BODY, Upstream, chat_answer, chat_events, sse_answer

LABEL, TEXT, PROPERTIES = 256, 300, 3
LIMITS = {"max_label_characters": LABEL, "max_text_characters": TEXT, "max_properties": PROPERTIES}
PRICER = Pricer({})

# Header fields of labels, and what the row calls them.
LABELS = {
    "x-portkey-span-id": "span_id",
    "x-portkey-parent-span-id": "parent_span_id",
    "x-portkey-span-name": "span_name",
    "Helicone-Session-Id": "session_id",
    "Helicone-Session-Name": "session_name",
    "Helicone-Session-Path": "session_path",
    "Helicone-User-Id": "user_id",
    "Helicone-Prompt-Id": "prompt_id",
    "Helicone-Prompt-Version": "prompt_version",
    "Helicone-Model-Override": "model_override",
}
SHOWN = {"user_id": "request_user_id"}


async def chat(kibitz: Running, body: Any = None, **fields: Any) -> dict[str, Any]:
    """The row of a call with these header fields, which is answered as if it had none."""
    headers = {"Helicone-Request-Id": "long", **{name.replace("_", "-"): value for name, value in fields.items()}}
    url, content = f"{kibitz.base_url}/chat/completions", orjson.dumps(body or {"model": "gpt-4o-mini"})
    async with kibitz.client.post(url, data=io.BytesIO(content), headers=headers) as response:
        assert response.status == 200
        await response.read()
    return await kibitz.row("long")


@pytest.mark.parametrize("name", LABELS)
async def test_a_label_is_kept_up_to_its_limit_and_cut_beyond(start_kibitz: StartKibitz, name: str) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    column = LABELS[name]
    shown = SHOWN.get(column, column)
    whole, longer = "ü" * LABEL, "ü" * (LABEL + 1)
    row = await chat(kibitz, **{name: whole})
    assert (row[shown], row["cut"]) == (whole, None)
    row = await chat(kibitz, **{name: longer})
    assert (row[shown], row["cut"]) == (whole, [column])


@pytest.mark.parametrize(("name", "id"), [("Helicone-Request-Id", "request_id"), ("x-portkey-trace-id", "trace_id")])
async def test_an_id_that_is_too_long_is_as_not_sent_and_marked(kibitz: Running, name: str, id: str) -> None:
    for length, cut in ((256, None), (257, [id])):
        response = await kibitz.chat(**{name: "i" * length})
        row = await kibitz.row(response.headers["Helicone-Id"])
        assert (row[id] == "i" * length, row["cut"]) == (cut is None, cut)


async def test_a_user_in_metadata_is_held_to_the_limit_of_one_in_a_field(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    row = await chat(kibitz, x_portkey_metadata=orjson.dumps({"_user": "u" * (LABEL + 1)}).decode())
    assert (row["request_user_id"], row["cut"]) == ("u" * LABEL, ["user_id"])


async def test_properties_at_their_limits_are_kept_whole(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    row = await chat(kibitz, Helicone_Property_A="ü" * TEXT, baggage=f"b=1,{'n' * LABEL}=2")
    assert row["properties"] == {"A": "ü" * TEXT, "b": "1", "n" * LABEL: "2"}
    assert row["cut"] is None


async def test_a_propertys_value_that_is_too_long_is_cut(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    row = await chat(kibitz, Helicone_Property_A="ü" * (TEXT + 1), Helicone_Property_B="b")
    assert (row["properties"], row["cut"]) == ({"A": "ü" * TEXT, "B": "b"}, ["properties"])


async def test_a_property_whose_name_is_too_long_is_left_out(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    row = await chat(kibitz, **{"Helicone-Property-" + "n" * (LABEL + 1): "1", "Helicone-Property-B": "b"})
    assert (row["properties"], row["cut"]) == ({"B": "b"}, ["properties"])


async def test_of_too_many_properties_those_that_win_are_kept(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    metadata = orjson.dumps({"m": "1", "n": "2"}).decode()
    row = await chat(kibitz, baggage="b=1,M=0", x_portkey_metadata=metadata, Helicone_Property_P="p")
    assert row["cut"] == ["properties"]
    assert row["properties"] == {"P": "p", "m": "1", "n": "2"}


@pytest.mark.parametrize(
    ("member", "column", "kept"),
    [
        ("user", "user_id", True),
        ("model", "request_model", True),
    ],
)
async def test_what_a_request_says_of_itself_is_cut_in_columns_and_whole_in_its_body(
    start_kibitz: StartKibitz, upstream: Upstream, member: str, column: str, kept: bool
) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    shown = SHOWN.get(column, column)
    for text, cut in (("x" * LABEL, None), ("x" * (LABEL + 1), [column])):
        row = await chat(kibitz, {"model": "m", member: text})
        assert (row[shown], row["cut"]) == ("x" * LABEL, cut)
        assert row["request_body"][member] == text


def answer(**members: Any) -> dict[str, Any]:
    return {**orjson.loads(CHAT_BODY), **members}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("member", "column"), [("model", "response_model"), ("id", "provider_response_id")])
async def test_what_an_answer_says_of_itself_is_cut_and_of_an_id_nothing_is_kept(
    start_kibitz: StartKibitz, upstream: Upstream, member: str, column: str, streamed: bool
) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    for text, cut in (("x" * LABEL, None), ("x" * (LABEL + 1), [column])):
        if streamed:
            upstream.answer = sse_answer(*chat_events("Hello", **{member: text}))  # type: ignore[arg-type]
        else:
            upstream.answer = chat_answer(orjson.dumps(answer(**{member: text})))
        row = await chat(kibitz)
        kept = None if cut and member == "id" else "x" * LABEL
        assert (row[column], row["cut"]) == (kept, cut)
        assert row["response_body"][member] == text


async def test_finish_reasons_and_errors_of_an_answer_are_cut(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "r" * 1000}
    upstream.answer = chat_answer(orjson.dumps(answer(choices=[choice], error={"message": "e" * 1000})))
    row = await chat(kibitz)
    assert (row["finish_reason"], row["error"]["message"]) == ("r" * LABEL, "e" * TEXT)
    assert row["cut"] == ["error_message", "finish_reason"]


async def test_an_address_is_cut_and_a_content_type_too(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    fields = {"Helicone-Request-Id": "long", "Content-Type": "text/plain; a=" + "x" * LABEL}
    url = f"{kibitz.base_url}/files?q={'x' * 1000}"
    async with kibitz.client.post(url, data=b"x", headers=fields) as response:
        await response.read()
    row = await kibitz.row("long")
    assert (len(row["request_path"]), len(row["target_url"])) == (TEXT, TEXT)
    assert row["cut"] == ["content_type", "path", "target_url"]
    assert upstream.received[0].target.endswith(b"x" * 1000)


async def test_a_text_of_megabytes_becomes_no_column(kibitz: Running) -> None:
    row = await chat(kibitz, {"model": "m" * 2**20, "user": "u" * 2**20})
    assert (row["request_model"], row["request_user_id"]) == ("m" * 1024, "u" * 1024)
    assert row["cut"] == ["request_model", "user_id"]


async def test_logs_of_calls_that_went_another_way_are_held_to_the_same(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    metadata = {"Helicone-Request-Id": "told", "_user": "u" * 1000, "p": "v" * 1000, "spanName": "s" * 1000}
    log: dict[str, Any] = {
        "request": {"url": "https://x.test/" + "p" * 1000, "method": "M" * 1000, "provider": "p" * 1000, "body": {}},
        "response": {"status": 200, "body": "text", "headers": {"content-type": "t" * 1000}},
        "metadata": metadata,
    }
    async with kibitz.client.post(f"{kibitz.base_url}/logs", json=log) as response:
        assert response.status == 200, await response.text()
    row = await kibitz.row("told")
    assert row["request_user_id"] == "u" * LABEL
    assert row["span_name"] == "s" * LABEL
    assert row["properties"] == {"_user": "u" * TEXT, "p": "v" * TEXT}
    assert (len(row["target_url"]), len(row["request_method"]), len(row["provider"])) == (TEXT, LABEL, LABEL)
    marks = {"span_name", "user_id", "properties", "method", "target_url", "provider", "content_type"}
    assert set(row["cut"]) == marks


async def test_a_log_in_helicones_form_is_held_to_the_same(start_kibitz: StartKibitz) -> None:
    kibitz = await start_kibitz(limits=LIMITS)
    meta = {"Helicone-Request-Id": "told", "Helicone-User-Id": "u" * 1000, "Helicone-Property-P": "v" * 1000}
    log = {
        "providerRequest": {"url": "https://x.test", "json": {"model": "m" * 1000}, "meta": meta},
        "providerResponse": {"status": 200, "json": {"id": "i" * 1000}},
    }
    async with kibitz.client.post(f"{kibitz.url}/custom/v1/log", json=log) as response:
        assert response.status == 200, await response.text()
    row = await kibitz.row("told")
    assert (row["request_user_id"], row["request_model"]) == ("u" * LABEL, "m" * LABEL)
    assert (row["properties"], row["provider_response_id"]) == ({"P": "v" * TEXT}, None)
    assert set(row["cut"]) == {"user_id", "properties", "request_model", "provider_response_id"}


def a_call(request: dict[str, Any], response: dict[str, Any], limits: TextLimits, *, omitted: bool = False) -> Call:
    own = [(b"Helicone-Session-Name", b"s" * 300)]
    exchange = Exchange(
        organisation="",
        identity=identify(read_request_fields(own), limits),
        method="POST",
        path="/v1/chat/completions",
        target_url="",
        provider="",
        request=Capture(10**6, "application/json"),
        response=Capture(10**6, "application/json", omitted=omitted),
        limits=limits,
    )
    exchange.request.feed(orjson.dumps(request))
    exchange.response.feed(orjson.dumps(response))
    exchange.status = 200
    exchange.end()
    return build_call(exchange, PRICER)


LONG = ({"model": "m" * 300, "user": "u" * 300}, answer(model="a" * 300, id="i" * 300, error={"message": "e" * 500}))


@pytest.mark.parametrize("omitted", [False, True])
def test_deriving_again_gives_the_same_cut_texts_and_marks(omitted: bool) -> None:
    limits = TextLimits(LABEL, TEXT, PROPERTIES)
    call = a_call(*LONG, limits, omitted=omitted)
    assert call.cut is not None
    marks = {"session_name", "request_model", "response_model", "provider_response_id", "user_id"}
    assert set(call.cut.split(",")) == (marks if omitted else marks | {"error_message"})
    assert derive_again(call, PRICER, limits) == call


def test_deriving_again_under_wider_limits_gives_what_they_allow() -> None:
    narrow, wide = TextLimits(LABEL, TEXT, PROPERTIES), TextLimits(1000, 1000, PROPERTIES)
    derived = derive_again(a_call(*LONG, narrow), PRICER, wide)
    assert (derived.request_model, derived.provider_response_id) == ("m" * 300, "i" * 300)
    assert derived.cut == "session_name,user_id", "the labels of its header fields stay as they were stored"


def test_identities_without_anything_long_have_no_marks() -> None:
    assert identify(RequestFields()).cut == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("baggage", ",".join(f"k{number}=v" for number in range(200))),
        ("x-portkey-metadata", orjson.dumps({f"k{number}": "v" for number in range(200)} | {"_user": "ada"}).decode()),
    ],
)
async def test_of_very_many_pairs_the_first_are_kept_and_the_user_is_found(
    kibitz: Running, name: str, value: str
) -> None:
    row = await chat(kibitz, **{name: value})
    assert row["properties"] == {f"k{number}": "v" for number in range(128)}
    assert row["cut"] == ["properties"]
    assert row["request_user_id"] == ("ada" if "ada" in value else None)


async def test_reparse_holds_rows_to_the_limits_of_its_configuration(kibitz: Running, tmp_path: Path) -> None:
    assert (await chat(kibitz, {"model": "m" * 300}))["cut"] is None
    ended = await reparse(tmp_path, KIBITZ_LIMITS__MAX_LABEL_CHARACTERS="256")
    assert ended.stdout == "read 1 rows, changed 1\n"
    row = await kibitz.row("long")
    assert (row["request_model"], row["cut"]) == ("m" * 256, ["request_model"])
    ended = await reparse(tmp_path)
    assert ended.stdout == "read 1 rows, changed 1\n"
    row = await kibitz.row("long")
    assert (row["request_model"], row["cut"]) == ("m" * 300, None)
