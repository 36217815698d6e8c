"""Calls of three APIs as chat messages that the OpenAI SDK's types take, and why a call is none."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.export.conversation import Conversation, Unusable
from proxy.export.conversations import conversation_of
from storage.records import Body, Call
from tests.export import (
    CHAT_PATH,
    MESSAGES_PATH,
    RESPONSES_PATH,
    a_chat,
    a_conversation,
    as_openai_takes_it,
    chat_reply,
)
from tests.upstream import chat_events

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "It is.", "parameters": SCHEMA}}
ASKS = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
IMAGE = "data:image/png;base64,iVBORw0KGgo="


def talk(call: Call) -> Conversation:
    found = conversation_of(call)
    as_openai_takes_it({"messages": [*found.messages, found.answer], **found.settings})
    return found


def test_a_chat_keeps_its_messages_its_tools_and_its_calls_of_tools() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}, _image_part()]},
        {"role": "assistant", "content": None, "tool_calls": [ASKS], "refusal": None, "audio": None},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
    ]
    asked = {"model": "m", "messages": messages, "tools": [TOOL], "parallel_tool_calls": False, "temperature": 1}
    found = talk(a_conversation("r", CHAT_PATH, asked, chat_reply({"content": None, "tool_calls": [ASKS]})))
    assert found.messages[:2] == messages[:2]
    assert found.messages[2] == {"role": "assistant", "content": None, "tool_calls": [ASKS]}
    assert found.answer == {"role": "assistant", "tool_calls": [ASKS]}
    assert found.settings == {"tools": [TOOL], "parallel_tool_calls": False}


def _image_part() -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": IMAGE}}


def test_a_stream_gives_the_conversation_of_the_same_call_unstreamed() -> None:
    events = b"".join(chat_events("Hel", "lo."))
    body = Body(events, len(events), content_type="text/event-stream")
    asked = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    found = talk(a_conversation("r", CHAT_PATH, asked, body))
    assert found.answer == {"role": "assistant", "content": "Hello."}


def test_a_refusal_is_an_answer() -> None:
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    found = talk(a_conversation("r", CHAT_PATH, asked, chat_reply({"content": None, "refusal": "No."})))
    assert found.answer == {"role": "assistant", "refusal": "No."}


def test_a_response_becomes_chat_messages() -> None:
    asked = {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "Weather?"},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Paris"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "Rain."},
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "And?"}, {"type": "input_image", "image_url": IMAGE}],
            },
        ],
        "tools": [{"type": "function", "name": "weather", "description": "It is.", "parameters": SCHEMA}],
        "parallel_tool_calls": True,
    }
    output = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Paris"}'},
    ]
    answered = {"object": "response", "status": "completed", "output": output}
    found = talk(a_conversation("r", RESPONSES_PATH, asked, answered))
    assert found.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [ASKS]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
        {"role": "user", "content": [{"type": "text", "text": "And?"}, _image_part()]},
    ]
    assert found.answer == {"role": "assistant", "content": "Wait.", "tool_calls": [ASKS]}
    assert found.settings == {"tools": [TOOL], "parallel_tool_calls": True}


def test_a_responses_plain_input_is_what_the_user_says_and_a_custom_tool_stays_one() -> None:
    grammar = {"type": "grammar", "syntax": "regex", "definition": "a+"}
    asked = {"input": "Hi", "tools": [{"type": "custom", "name": "a", "format": grammar}]}
    output = [{"type": "custom_tool_call", "call_id": "c", "name": "a", "input": "aa"}]
    found = talk(a_conversation("r", RESPONSES_PATH, asked, {"object": "response", "output": output}))
    assert found.messages == [{"role": "user", "content": "Hi"}]
    assert found.answer["tool_calls"] == [{"id": "c", "type": "custom", "custom": {"name": "a", "input": "aa"}}]
    in_chat = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}}
    assert found.settings == {"tools": [{"type": "custom", "custom": {"name": "a", "format": in_chat}}]}


ANTHROPIC_ASKED: dict[str, Any] = {
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "Rain."}]},
                {"type": "text", "text": "And?"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": IMAGE.partition(",")[2]},
                },
            ],
        },
    ],
    "tools": [{"name": "weather", "description": "It is.", "input_schema": SCHEMA}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
}


def test_anthropics_messages_become_chat_messages() -> None:
    content = [{"type": "text", "text": "Rain"}, {"type": "text", "text": " again."}]
    answered = {"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn"}
    found = talk(a_conversation("r", MESSAGES_PATH, ANTHROPIC_ASKED, answered))
    assert found.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [ASKS]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
        {"role": "user", "content": [{"type": "text", "text": "And?"}, _image_part()]},
    ]
    assert found.answer == {"role": "assistant", "content": "Rain again."}
    assert found.settings == {"tools": [TOOL], "parallel_tool_calls": False}


def test_what_a_client_puts_into_the_answers_mouth_begins_the_answer() -> None:
    asked = {"messages": [{"role": "user", "content": "JSON?"}, {"role": "assistant", "content": "{"}]}
    answered = {"type": "message", "content": [{"type": "text", "text": '"a": 1}'}], "stop_reason": "end_turn"}
    found = talk(a_conversation("r", MESSAGES_PATH, asked, answered))
    assert found.messages == [{"role": "user", "content": "JSON?"}]
    assert found.answer == {"role": "assistant", "content": '{"a": 1}'}


@pytest.mark.parametrize("given", [{}, {"content": []}, {"content": ""}], ids=str)
def test_what_a_tool_gave_is_a_text_though_it_gave_nothing(given: dict[str, Any]) -> None:
    use = {"type": "tool_use", "id": "c", "name": "tidy", "input": {}}
    asked = {
        "messages": [
            {"role": "user", "content": "Tidy up."},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", **given}]},
        ]
    }
    found = talk(a_conversation("r", MESSAGES_PATH, asked, {"type": "message", "content": [DONE]}))
    assert found.messages[2] == {"role": "tool", "tool_call_id": "c", "content": ""}


DONE = {"type": "text", "text": "Done."}
HI = {"messages": [{"role": "user", "content": "Hi"}]}
FINE = chat_reply({"content": "Fine."})
RESPONSE = {"object": "response", "status": "completed", "output": []}
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Fine."}]}
SAID_NOTHING = {**SAID, "content": [{"type": "output_text", "text": ""}]}
PART = Body(b'{"messages": [', 100, truncated=True, content_type="application/json")
UNUSABLE: list[tuple[str, Call]] = [
    ("failed", a_chat(status=500)),
    ("failed", a_chat(status=None)),
    ("failed", a_chat(error_kind="upstream_cut")),
    ("omitted", a_conversation("r", CHAT_PATH, Body(omitted=True, size=9), FINE)),
    ("omitted", a_conversation("r", CHAT_PATH, HI, Body(omitted=True, size=9))),
    ("truncated", a_conversation("r", CHAT_PATH, PART, FINE)),
    ("not a chat", a_conversation("r", "/v1/embeddings", {"input": "x"}, {"object": "list", "data": []})),
    ("not a chat", a_conversation("r", "/v1/completions", {"prompt": "x"}, {"choices": [{"text": "y"}]})),
    ("not a chat", a_conversation("r", CHAT_PATH, {"messages": []}, FINE)),
    ("not a chat", a_conversation("r", CHAT_PATH, {"messages": ["Hi"]}, FINE)),
    ("not a chat", a_conversation("r", CHAT_PATH, [], "Fine.")),
    ("cut short", a_conversation("r", CHAT_PATH, HI, chat_reply({"content": "Fi"}, "length"))),
    ("cut short", a_conversation("r", RESPONSES_PATH, {"input": "Hi"}, {**RESPONSE, "status": "incomplete"})),
    ("cut short", a_conversation("r", MESSAGES_PATH, HI, {"type": "message", "stop_reason": "max_tokens"})),
    ("no answer", a_conversation("r", CHAT_PATH, HI, chat_reply({"content": ""}))),
    ("no answer", a_conversation("r", RESPONSES_PATH, {"input": "Hi"}, RESPONSE)),
    ("no answer", a_conversation("r", MESSAGES_PATH, HI, {"type": "message", "content": []})),
    (
        "no answer",
        a_conversation("r", MESSAGES_PATH, HI, {"type": "message", "content": [{"type": "text", "text": ""}]}),
    ),
    ("no answer", a_conversation("r", RESPONSES_PATH, {"input": "Hi"}, RESPONSE | {"output": [SAID_NOTHING]})),
    ("cut short", a_conversation("r", MESSAGES_PATH, HI, {"type": "message", "stop_reason": "refusal"})),
    ("kept elsewhere", a_conversation("r", RESPONSES_PATH, {"input": "Hi", "previous_response_id": "x"}, RESPONSE)),
    (
        "inexpressible",
        a_conversation(
            "r", RESPONSES_PATH, {"input": "Hi", "tools": [{"type": "web_search"}]}, RESPONSE | {"output": [SAID]}
        ),
    ),
    (
        "inexpressible",
        a_conversation("r", RESPONSES_PATH, {"input": "Hi"}, RESPONSE | {"output": [{"type": "web_search_call"}]}),
    ),
    (
        "inexpressible",
        a_conversation(
            "r", MESSAGES_PATH, {"messages": [{"role": "user", "content": [{"type": "document"}]}]}, {"type": "message"}
        ),
    ),
]


@pytest.mark.parametrize(("reason", "call"), UNUSABLE)
def test_a_call_that_is_no_whole_conversation_says_why(reason: str, call: Call) -> None:
    with pytest.raises(Unusable) as caught:
        conversation_of(call)
    assert caught.value.reason == reason


def test_any_json_in_the_bodies_is_a_conversation_or_says_why() -> None:
    """No shape of what was logged may end an export."""
    odd = [
        None,
        1,
        "x",
        [],
        [1],
        {},
        {"type": "text"},
        {"content": 1},
        [{"content": [1]}],
        [{"type": "text", "text": 1}],
    ]
    kinds: list[dict[str, Any]] = [{"object": "response"}, {"type": "message"}, {"choices": []}]
    members = ("messages", "input", "content", "output", "choices", "tools", "system", "instructions", "tool_choice")
    for kind in kinds:
        for member in members:
            for value in odd:
                asked, answered = {**HI, member: value}, {**kind, member: value}
                try:
                    found = conversation_of(a_conversation("r", "/x", asked, answered))
                except Unusable:
                    continue
                orjson.dumps([*found.messages, found.answer])
