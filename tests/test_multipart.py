"""Uploads of files, from published clients: passed on to the byte, logged by their fields and their files' digests."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
import pytest
import requests

from tests.conftest import Running, StartKibitz
from tests.raw_client import Eventually, ask, connect, request, stored_bytes
from tests.upstream import Connection, Upstream, json_answer, sse_answer
from tests.websocket_bytes import TEXT, closing, frame, open_websocket, speaking, until_closed

# Random, so that no packing hides it: what is stored of it can be seen.
AUDIO = random.Random(1).randbytes(5000)
NAME = {"Helicone-Request-Id": "upload"}
TRANSCRIPT: dict[str, Any] = {
    "text": "Hello there.",
    "usage": {
        "type": "tokens",
        "input_tokens": 14,
        "output_tokens": 4,
        "total_tokens": 18,
        "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
    },
}
TYPE = b"Content-Type: multipart/form-data; boundary=limit"
NAMED = b"Helicone-Request-Id: upload"


def shown(name: str, filename: str, content_type: str | None, content: bytes, **more: Any) -> dict[str, Any]:
    """A file as the log has it."""
    digest = hashlib.sha256(content).hexdigest()
    told = {"filename": filename, "content_type": content_type, "size": len(content), "sha256": digest}
    return {"name": name, **told, **more}


def fields(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in pairs]


def form(content: bytes, model: str = "whisper-1") -> bytes:
    """A form of a file and, behind it, a model."""
    return (
        b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
        b'%b\r\n--limit\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--limit--\r\n'
    ) % (content, model.encode())


def as_logged(content: bytes, model: str = "whisper-1") -> dict[str, Any]:
    return {"parts": [shown("file", "a.wav", "audio/wav", content), *fields(("model", model))]}


def client(kibitz: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=kibitz.base_url, api_key="sk-upstream", max_retries=0, default_headers=NAME)


def by_name(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(parts, key=lambda part: (part["name"], part.get("filename", "")))


async def test_the_sdk_s_transcription_is_logged_with_its_model_text_and_counts(
    kibitz: Running, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answer = json_answer(orjson.dumps(TRANSCRIPT))
    async with client(kibitz) as sdk:
        told = await sdk.audio.transcriptions.create(
            file=("a.wav", AUDIO, "audio/wav"), model="gpt-4o-transcribe", prompt="Zoë"
        )
    assert told.text == "Hello there."
    assert AUDIO in upstream.received[0].body
    row = await kibitz.row("upload")
    expected = [*fields(("model", "gpt-4o-transcribe"), ("prompt", "Zoë")), shown("file", "a.wav", "audio/wav", AUDIO)]
    assert by_name(row["request_body"].pop("parts")) == by_name(expected)
    assert row["request_body"] == {}
    assert (row["model"], row["response_text"], row["prompt_tokens"]) == ("gpt-4o-transcribe", "Hello there.", 14)
    assert (row["prompt_audio_tokens"], row["completion_tokens"], row["is_stream"]) == (10, 4, False)
    assert row["request_body_size"] == len(upstream.received[0].body)
    assert not row["request_body_truncated"]
    assert AUDIO[:64] not in stored_bytes(tmp_path)


async def test_the_sdk_s_streamed_transcription_is_logged_as_the_unstreamed_one(
    kibitz: Running, upstream: Upstream
) -> None:
    deltas = [{"type": "transcript.text.delta", "delta": text} for text in ("Hello", " there.")]
    events = [*deltas, {"type": "transcript.text.done", **TRANSCRIPT}]
    upstream.answer = sse_answer(*(b"data: %b\n\n" % orjson.dumps(event) for event in events))
    async with client(kibitz) as sdk:
        stream = await sdk.audio.transcriptions.create(
            file=("a.wav", AUDIO), model="gpt-4o-mini-transcribe", stream=True
        )
        kinds = [event.type async for event in stream]
    assert kinds == [event["type"] for event in events]
    row = await kibitz.row("upload")
    assert (row["model"], row["is_stream"]) == ("gpt-4o-mini-transcribe", True)
    assert (row["response_body"], row["response_text"], row["total_tokens"]) == (TRANSCRIPT, "Hello there.", 18)


async def test_a_stream_that_was_asked_for_in_a_form_is_one_though_nothing_came(
    kibitz: Running, upstream: Upstream
) -> None:
    upstream.answer = b"SSH-2.0-OpenSSH\r\n"
    async with client(kibitz) as sdk:
        with pytest.raises(openai.InternalServerError):
            await sdk.audio.transcriptions.create(file=("a.wav", AUDIO), model="gpt-4o-transcribe", stream=True)
    row = await kibitz.row("upload")
    assert (row["response_status"], row["is_stream"], row["model"]) == (502, True, "gpt-4o-transcribe")


async def test_the_sdk_s_uploaded_file_is_logged_by_its_digest(kibitz: Running, upstream: Upstream) -> None:
    stored = {
        "id": "file-1",
        "object": "file",
        "bytes": 9,
        "created_at": 1,
        "filename": "é.jsonl",
        "status": "uploaded",
    }
    upstream.answer = json_answer(orjson.dumps({**stored, "purpose": "fine-tune"}))
    lines = b'{"messages": []}\n' * 500
    async with client(kibitz) as sdk:
        assert (await sdk.files.create(file=("é.jsonl", io.BytesIO(lines)), purpose="fine-tune")).id == "file-1"
    row = await kibitz.row("upload")
    [purpose, file] = row["request_body"]["parts"]
    assert purpose == {"name": "purpose", "value": "fine-tune"}
    assert file == shown("file", "é.jsonl", file["content_type"], lines)
    assert row["response_body"]["id"] == "file-1"


async def test_the_sdk_s_edit_of_several_images_is_logged_with_each(kibitz: Running, upstream: Upstream) -> None:
    usage = {
        "input_tokens": 30,
        "output_tokens": 70,
        "total_tokens": 100,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 20},
    }
    upstream.answer = json_answer(orjson.dumps({"created": 1, "data": [{"b64_json": "aGk="}], "usage": usage}))
    images = [(f"{n}.png", b"\x89PNG%d" % n * 300, "image/png") for n in range(3)]
    async with client(kibitz) as sdk:
        await sdk.images.edit(image=images, prompt="Add a hat", model="gpt-image-1.5", user="ada")
    row = await kibitz.row("upload")
    expected = [
        *fields(("model", "gpt-image-1.5"), ("prompt", "Add a hat"), ("user", "ada")),
        *(shown("image[]", name, kind, content) for name, content, kind in images),
    ]
    assert by_name(row["request_body"]["parts"]) == by_name(expected)
    assert (row["model"], row["request_user_id"], row["total_tokens"]) == ("gpt-image-1.5", "ada", 100)


async def test_the_sdk_s_speech_is_shown_as_base64(kibitz: Running, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Type: audio/pcm\r\nContent-Length: 6\r\n\r\n" + bytes(6)
    async with client(kibitz) as sdk:
        spoken = await sdk.audio.speech.create(
            model="gpt-4o-mini-tts", voice="alloy", input="Hi", response_format="pcm"
        )
    assert spoken.content == bytes(6)
    row = await kibitz.row("upload")
    assert row["response_body"] == {"encoding": "base64", "data": "AAAAAAAA"}
    assert (row["model"], row["response_text"], row["request_body"]["input"]) == ("gpt-4o-mini-tts", None, "Hi")


async def by_requests(url: str) -> None:
    def post() -> None:
        files = {"file": ("é a.wav", AUDIO, "audio/wav")}
        requests.post(url, files=files, data={"model": "whisper-1", "language": "fr"}, headers=NAME, timeout=10)

    await asyncio.to_thread(post)


async def by_aiohttp(url: str) -> None:
    data = aiohttp.FormData(quote_fields=False)
    data.add_field("model", "whisper-1")
    data.add_field("language", "fr")
    data.add_field("file", io.BytesIO(AUDIO), filename="é a.wav", content_type="audio/wav")
    async with aiohttp.ClientSession() as session, session.post(url, data=data, headers=NAME) as response:
        await response.read()


@pytest.mark.parametrize("post", [by_requests, by_aiohttp])
async def test_other_clients_forms_are_read_too(
    kibitz: Running, upstream: Upstream, post: Callable[[str], Awaitable[None]]
) -> None:
    upstream.answer = json_answer(orjson.dumps(TRANSCRIPT))
    await post(f"{kibitz.base_url}/audio/transcriptions")
    row = await kibitz.row("upload")
    expected = [*fields(("model", "whisper-1"), ("language", "fr")), shown("file", "é a.wav", "audio/wav", AUDIO)]
    assert by_name(row["request_body"]["parts"]) == by_name(expected)
    assert (row["model"], row["response_text"]) == ("whisper-1", "Hello there.")


def upload(*lines: bytes, body: bytes) -> bytes:
    return request("POST", "/v1/audio/transcriptions", NAMED, TYPE, *lines, body=body)


@pytest.mark.parametrize("sizes", [(1,), (2, 3, 5, 7, 11), (64, 1), (4000,)], ids=str)
async def test_a_form_in_any_chunks_passes_as_it_is_and_is_read(
    kibitz: Running, upstream: Upstream, sizes: tuple[int, ...]
) -> None:
    body, chunks, at = form(AUDIO[:300]), list[bytes](), 0
    while at < len(body):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(body[at : at + size])
        at += size
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    head = request("POST", "/v1/audio/transcriptions", NAMED, TYPE, b"Transfer-Encoding: chunked")
    await ask(kibitz.port, head + framed)
    assert (upstream.received[0].body, upstream.received[0].values("content-type")) == (body, [TYPE[14:]])
    row = await kibitz.row("upload")
    assert (row["request_body"], row["request_body_size"]) == (as_logged(AUDIO[:300]), len(body))


async def test_of_a_large_file_the_digest_is_logged_and_not_a_byte(
    kibitz: Running, upstream: Upstream, tmp_path: Path
) -> None:
    content = random.Random(2).randbytes(33 * 2**20)
    body = form(content)
    await ask(kibitz.port, upload(body=body))
    assert upstream.received[0].body == body
    row = await kibitz.row("upload")
    assert row["request_body"] == as_logged(content)
    assert (row["request_model"], row["request_body_truncated"]) == ("whisper-1", False)
    stored = stored_bytes(tmp_path)
    assert len(stored) < 2**20
    assert [n for n in range(0, len(content), 2**20) if content[n : n + 32] in stored] == []


async def test_a_field_that_is_too_long_to_be_logged_is_marked(start_kibitz: StartKibitz, upstream: Upstream) -> None:
    kibitz = await start_kibitz(max_logged_body=200)
    body = form(AUDIO, model="m" * 1000)
    await ask(kibitz.port, upload(body=body))
    assert upstream.received[0].body == body
    row = await kibitz.row("upload")
    [file, model] = row["request_body"]["parts"]
    assert file == shown("file", "a.wav", "audio/wav", AUDIO)
    assert model == {"name": "model", "value": "m" * len(model["value"]), "truncated": True}
    assert row["request_body_truncated"]


CUT = form(b"x").removesuffix(b"\r\n--limit--\r\n")
CUT_AS_LOGGED = {"parts": [shown("file", "a.wav", "audio/wav", b"x"), *fields(("model", "whisper-1"))]}
CUT_AS_LOGGED["parts"][-1]["truncated"] = True


@pytest.mark.parametrize(
    ("lines", "body", "told"),
    [
        ((TYPE,), b"no form", {"parts": [], "malformed": True}),
        ((TYPE,), CUT, {**CUT_AS_LOGGED, "malformed": True}),
        ((b"Content-Type: multipart/form-data",), form(b"x"), {"parts": [], "malformed": True}),
        ((TYPE, b"Content-Encoding: br"), form(b"x"), {"parts": [], "unreadable": "Content-Encoding: br"}),
    ],
    ids=["other", "cut", "no-boundary", "encoded"],
)
async def test_a_form_that_can_t_be_read_passes_as_it_is_and_is_marked(
    kibitz: Running, upstream: Upstream, lines: tuple[bytes, ...], body: bytes, told: dict[str, Any]
) -> None:
    answer = await ask(kibitz.port, request("POST", "/v1/files", NAMED, *lines, body=body))
    assert answer.request_line == b"HTTP/1.1 200 OK"
    assert upstream.received[0].body == body
    row = await kibitz.row("upload")
    assert (row["request_body"], row["request_body_size"]) == (told, len(body))


async def test_a_client_that_leaves_midway_leaves_what_had_come(
    kibitz: Running, upstream: Upstream, eventually: Eventually
) -> None:
    arrived = asyncio.Event()
    whole = upload(body=form(AUDIO))
    half = whole[: whole.index(AUDIO) + 2000]

    async def read_half(connection: Connection) -> None:
        await connection.read_head()
        await connection.reader.readuntil(AUDIO[1900:1990])
        arrived.set()
        await connection.closed_by_peer()

    upstream.script = read_half
    async with connect(kibitz.port) as connection:
        await connection.send(half)
        await arrived.wait()
    row = await eventually(lambda: kibitz.row("upload"))
    assert row["error"]["kind"] == "client_cancelled"
    [file] = row["request_body"]["parts"]
    assert file == shown("file", "a.wav", "audio/wav", AUDIO[:2000], truncated=True)
    assert row["request_body"]["malformed"]


async def test_an_omitted_form_keeps_its_model_and_nothing_else(
    kibitz: Running, upstream: Upstream, tmp_path: Path
) -> None:
    body = form(AUDIO, model="QuietModel")
    await ask(kibitz.port, upload(b"Helicone-Omit-Request: true", body=body))
    assert upstream.received[0].body == body
    row = await kibitz.row("upload")
    assert (row["request_model"], row["request_body"], row["request_body_size"]) == ("QuietModel", None, len(body))
    stored = stored_bytes(tmp_path)
    assert b"QuietModel" in stored
    assert hashlib.sha256(AUDIO).hexdigest().encode() not in stored
    assert b"a.wav" not in stored


async def test_a_form_that_is_sent_again_is_logged_once(kibitz: Running, upstream: Upstream) -> None:
    """The pooled connection is closed by the upstream when the form comes."""

    async def answer_once(connection: Connection) -> None:
        is_first = upstream.connections == 1
        upstream.received.append(await connection.read_request())
        await connection.send(upstream.answer)
        if is_first:
            await connection.read_head()
        else:
            await connection.closed_by_peer()

    upstream.script = answer_once
    await ask(kibitz.port, request("GET", "/v1/models"))
    answer = await ask(kibitz.port, upload(body=form(AUDIO)))
    assert answer.request_line == b"HTTP/1.1 200 OK"
    assert (upstream.connections, upstream.received[-1].body) == (2, form(AUDIO))
    assert (await kibitz.row("upload"))["request_body"] == as_logged(AUDIO)


async def test_a_websocket_opened_with_a_form_s_content_type_is_logged_by_its_frames(
    kibitz: Running, upstream: Upstream, eventually: Eventually
) -> None:
    asked = frame(TEXT, b"Hello", masked=True)

    async def then(connection: Connection) -> None:
        await connection.reader.readexactly(len(asked))
        await connection.send(closing())
        await until_closed(connection)

    upstream.script = speaking(then, upstream)
    async with connect(kibitz.port) as opened:
        await open_websocket(opened, NAMED, TYPE)
        await opened.send(asked)
        assert await opened.reader.readexactly(len(closing())) == closing()
    row = await eventually(lambda: kibitz.row("upload"))
    assert [one["data"] for one in row["request_body"]["frames"]] == ["Hello"]
