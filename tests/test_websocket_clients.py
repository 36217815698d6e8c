"""WebSockets with real peers on both ends: aiohttp's, and the Realtime client of OpenAI's SDK."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import openai
import pytest
from aiohttp import WSMsgType, web

from tests.conftest import Running, StartKibitz

NAME = {"Helicone-Request-Id": "socket"}
Handler = Callable[[web.WebSocketResponse], Awaitable[None]]
StartBehind = Callable[[Handler], Awaitable[Running]]


@pytest.fixture
async def start_behind(start_kibitz: StartKibitz) -> AsyncIterator[StartBehind]:
    """Starts a WebSocket server of aiohttp's that does as told, and a Kibitz in front of it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler) -> Running:
            async def handle(request: web.Request) -> web.WebSocketResponse:
                socket = web.WebSocketResponse(max_msg_size=0, protocols=("realtime",))
                await socket.prepare(request)
                await handler(socket)
                return socket

            app = web.Application()
            app.router.add_get("/v1/realtime", handle)
            runner = web.AppRunner(app, shutdown_timeout=1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return await start_kibitz(upstream={"base_url": f"http://127.0.0.1:{runner.addresses[0][1]}/v1"})

        yield start


async def echo(socket: web.WebSocketResponse) -> None:
    """Says everything back, until told to end with a code of its own."""
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.data == "end":
            await socket.close(code=4001, message=b"as you wish")
        else:
            await socket.send_str(message.data)


@contextlib.asynccontextmanager
async def opened(kibitz: Running, *, compress: int = 0) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    url = f"{kibitz.base_url}/realtime"
    async with kibitz.client.ws_connect(
        url, headers=NAME, compress=compress, max_msg_size=0, autoping=False, protocols=("realtime",)
    ) as socket:
        yield socket


@pytest.mark.parametrize("compress", [0, 15], ids=["plain", "compressed"])
async def test_text_binary_pings_and_large_messages_are_echoed(start_behind: StartBehind, compress: int) -> None:
    kibitz = await start_behind(echo)
    large = "Grüße 🐦 " * (2**20 // 12)
    async with opened(kibitz, compress=compress) as socket:
        assert (socket.compress, socket.protocol) == (compress, "realtime")
        await socket.send_str("Hello")
        assert await socket.receive_str() == "Hello"
        await socket.send_bytes(bytes(70_000))
        assert await socket.receive_bytes() == bytes(70_000)
        await socket.ping(b"there?")
        assert tuple(await socket.receive())[:2] == (WSMsgType.PONG, b"there?")
        await socket.send_str(large)
        assert await socket.receive_str() == large
        await socket.send_str("Hello")
        assert await socket.receive_str() == "Hello"
        await socket.close()
        row = await kibitz.row("socket")  # at once: the close was the last that the client had to see
    for body in (row["request_body"], row["response_body"]):
        assert [frame.get("data") for frame in body["frames"] if frame["type"] == "text"] == ["Hello", large, "Hello"]
        assert [frame["size"] for frame in body["frames"] if frame["type"] == "binary"] == [70_000]
    assert row["request_body"]["frames"][-1]["code"] == row["response_body"]["frames"][-1]["code"] == 1000
    assert (row["error"], row["response_status"]) == (None, 101)


async def test_a_close_of_the_servers_reaches_the_client_with_its_code_and_reason(start_behind: StartBehind) -> None:
    kibitz = await start_behind(echo)
    async with opened(kibitz) as socket:
        await socket.send_str("end")
        message = await socket.receive()
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4001, "as you wish")
        row = await kibitz.row("socket")
    *_, last = row["response_body"]["frames"]
    assert (last["type"], last["code"], last["reason"]) == ("close", 4001, "as you wish")


async def test_a_close_of_the_clients_reaches_the_server_with_its_code_and_reason(start_behind: StartBehind) -> None:
    seen: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def listen(socket: web.WebSocketResponse) -> None:
        message = await socket.receive()
        seen.put_nowait((message.data, message.extra))

    kibitz = await start_behind(listen)
    async with opened(kibitz) as socket:
        await socket.close(code=4002, message=b"enough")
    assert await seen.get() == (4002, "enough")
    row = await kibitz.row("socket")
    assert (row["request_body"]["frames"][-1]["code"], row["error"]) == (4002, None)


async def test_many_websockets_at_once_are_kept_apart(start_behind: StartBehind) -> None:
    kibitz = await start_behind(echo)

    async def converse(name: str) -> None:
        headers = {"Helicone-Request-Id": name}
        async with kibitz.client.ws_connect(f"{kibitz.base_url}/realtime", headers=headers) as socket:
            for turn in range(20):
                await socket.send_str(f"{name} {turn}")
                assert await socket.receive_str() == f"{name} {turn}"

    names = [f"socket-{number}" for number in range(20)]
    await asyncio.gather(*(converse(name) for name in names))
    for name in names:
        frames = (await kibitz.row(name))["response_body"]["frames"]
        assert [frame["data"] for frame in frames[:-1]] == [f"{name} {turn}" for turn in range(20)]


def response_done(id: str, text: str) -> dict[str, object]:
    part = {"type": "output_text", "text": text}
    usage = {
        "total_tokens": 12,
        "input_tokens": 8,
        "output_tokens": 4,
        "input_token_details": {"cached_tokens": 2, "audio_tokens": 3, "text_tokens": 5},
        "output_token_details": {"audio_tokens": 1, "text_tokens": 3},
    }
    output = [{"id": "item_1", "type": "message", "role": "assistant", "content": [part]}]
    response = {"id": id, "object": "realtime.response", "status": "completed", "output": output, "usage": usage}
    return {"type": "response.done", "event_id": f"event_{id}", "response": response}


async def realtime(socket: web.WebSocketResponse) -> None:
    """As much of a Realtime server as a conversation needs."""
    session = {"type": "realtime", "object": "realtime.session", "id": "sess_1", "model": "gpt-realtime-2025-08-28"}
    await socket.send_json({"type": "session.created", "event_id": "event_0", "session": session})
    answers = iter([("resp_1", "Hello there."), ("resp_2", "Good bye.")])
    async for message in socket:
        if message.json()["type"] == "response.create":
            id, text = next(answers)
            for delta in text.split(" "):
                await socket.send_json({"type": "response.output_text.delta", "response_id": id, "delta": delta})
            await socket.send_json(response_done(id, text))


async def test_the_realtime_client_of_openais_sdk_talks_through_kibitz(start_behind: StartBehind) -> None:
    kibitz = await start_behind(realtime)
    client = openai.AsyncOpenAI(base_url=kibitz.base_url, api_key="sk-test", default_headers=NAME)
    heard: list[str] = []
    async with client, client.realtime.connect(model="gpt-realtime", extra_headers=NAME) as connection:
        assert (await connection.recv()).type == "session.created"
        await connection.input_audio_buffer.append(audio="QUJD" * 1000)
        for _ in range(2):
            await connection.response.create()
            async for event in connection:
                if event.type == "response.output_text.delta":
                    heard.append(event.delta)
                elif event.type == "response.done":
                    break
    assert heard == ["Hello", "there.", "Good", "bye."]
    row = await kibitz.row("socket")
    assert (row["request_model"], row["model"]) == ("gpt-realtime", "gpt-realtime-2025-08-28")
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (16, 8, 24)
    assert (row["prompt_cache_read_tokens"], row["prompt_audio_tokens"], row["completion_audio_tokens"]) == (4, 6, 2)
    assert (row["provider_response_id"], row["finish_reason"]) == ("resp_2", "completed")
    assert row["response_text"] == "Hello there.\nGood bye."
    assert (row["is_stream"], row["error"]) == (True, None)
    append, *_ = row["request_body"]["frames"]
    assert append["data"] == {"type": "input_audio_buffer.append", "audio": {"size": 3000}}
    assert (await kibitz.row("resp_2"))["request_id"] == "socket"
