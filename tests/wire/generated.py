"""Strategies for streams that follow the protocols of the three APIs, whatever a model may say in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

__all__ = ["Framing", "ResponseStream", "chat_streams", "framings", "message_streams", "plain", "response_streams"]

Json = dict[str, Any]
Events = list[Json]

# What JSON and event streams have to carry whole: escapes, line ends of Python's alone, characters of four bytes.
TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\\n\r\u2028\x85\0{}😀ß'), max_size=6)
PIECES = st.lists(TEXT, max_size=4)
NAME = st.text("abc_", min_size=1, max_size=4)
INPUT = st.dictionaries(NAME, st.none() | st.booleans() | st.integers(-9, 9) | TEXT, max_size=3)
COUNT = st.integers(0, 10**9)


def merged(draw: st.DrawFn, queues: Sequence[list[Any]]) -> list[Any]:
    """The items of several queues in one order; those of each stay in theirs."""
    waiting = [list(queue) for queue in queues if queue]
    order: list[Any] = []
    while waiting:
        queue = draw(st.sampled_from(waiting)) if len(waiting) > 1 else waiting[0]
        order.append(queue.pop(0))
        waiting = [queue for queue in waiting if queue]
    return order


def cut(draw: st.DrawFn, text: str) -> list[str]:
    """A text in pieces, which may be empty."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@dataclass(frozen=True, slots=True)
class Framing:
    """How events are written: what ends lines, and what stands around them that is no event."""

    line_end: str = "\n"
    mark: str = ""
    noise: str = ""
    data: str = "data: "
    indent: int | None = None
    """Of the JSON, which then takes several lines."""
    last_blank: bool = True

    def write(self, events: Events, end: str = "") -> bytes:
        texts = [json.dumps(event, ensure_ascii=False, indent=self.indent) for event in events]
        names = [f"event: {event['type']}\n" if event.get("type") else "" for event in events]
        blocks = [
            f"{self.noise}{name}" + "".join(f"{self.data}{line}\n" for line in text.split("\n"))
            for name, text in zip(names, texts, strict=True)
        ]
        body = self.mark + "\n".join([*blocks, *([f"data: {end}\n"] if end else [])])
        return (body + ("\n" if self.last_blank else "")).replace("\n", self.line_end).encode()


plain = Framing()
framings = st.builds(
    Framing,
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from(["", "\ufeff"]),
    noise=st.sampled_from(["", ": PROCESSING\n\n", "id: 7\nretry: 10\n", "unknown\n:\n"]),
    data=st.sampled_from(["data: ", "data:"]),
    indent=st.sampled_from([None, 1]),
    last_blank=st.booleans(),
)


@st.composite
def chat_streams(draw: st.DrawFn) -> Events:
    """Chunks of a chat completion of one to three choices, interleaved."""
    number = draw(st.integers(1, 3))
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    padding: st.SearchStrategy[Json] = st.fixed_dictionaries({}, optional={"obfuscation": TEXT})

    def chunk(*choices: Json, **more: Any) -> Json:
        return {**base, "choices": list(choices), **draw(padding), **more}

    first = [chunk(chat_choice(index, {"role": "assistant", "content": ""})) for index in range(number)]
    middle = merged(draw, [[chat_choice(index, *part) for part in chat_deltas(draw)] for index in range(number)])
    reasons = [draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"])) for _ in range(number)]
    last = [chunk({**chat_choice(index, {}), "finish_reason": reason}) for index, reason in enumerate(reasons)]
    usage = {"prompt_tokens": draw(COUNT), "completion_tokens": draw(COUNT), "total_tokens": draw(COUNT)}
    end = draw(st.sampled_from([[], [chunk(usage=usage)]]))
    return [*first, *(chunk(choice) for choice in middle), *last, *end]


def chat_choice(index: int, delta: Json, logprobs: Json | None = None) -> Json:
    return {"index": index, "delta": delta, "finish_reason": None, "logprobs": logprobs}


def chat_deltas(draw: st.DrawFn) -> list[tuple[Json, Json | None]]:
    queues: list[list[tuple[Json, Json | None]]] = []
    for name in draw(st.lists(st.sampled_from(["content", "refusal", "reasoning_content"]), unique=True)):
        queues.append([({name: piece}, draw(token_logprobs(name, piece))) for piece in draw(PIECES)])
    queues.append([({"tool_calls": pieces}, None) for pieces in tool_call_pieces(draw)])
    if draw(st.booleans()):
        audio = [{"id": "audio_1"}, *({"data": piece, "transcript": piece} for piece in draw(PIECES))]
        queues.append([({"audio": part}, None) for part in [*audio, {"expires_at": draw(COUNT)}]])
    if draw(st.booleans()):
        function = [{"name": draw(NAME), "arguments": ""}, *({"arguments": piece} for piece in draw(PIECES))]
        queues.append([({"function_call": part}, None) for part in function])
    return merged(draw, queues)


def token_logprobs(name: str, piece: str) -> st.SearchStrategy[Json | None]:
    entry = {"token": piece, "logprob": -0.5, "bytes": None, "top_logprobs": []}
    both = {"content": [entry], "refusal": None} if name == "content" else {"content": None, "refusal": [entry]}
    return st.sampled_from([None, both]) if name != "reasoning_content" else st.none()


def tool_call_pieces(draw: st.DrawFn) -> list[list[Json]]:
    """Calls begin one after the other; the rest of each comes when it comes, and some pieces together."""
    heads, tails = [], []
    for index in range(draw(st.integers(0, 3))):
        member, text = draw(st.sampled_from([("function", "arguments"), ("custom", "input")]))
        tool = {"name": draw(NAME), text: ""}
        heads.append([{"index": index, "id": f"call_{index}", "type": member, member: tool}])
        tails.append([[{"index": index, member: {text: piece}}] for piece in draw(PIECES)])
    at_once = bool(heads) and draw(st.booleans())
    together = [[piece for head in heads for piece in head]] if at_once else heads
    return [*together, *merged(draw, tails)]


@dataclass(frozen=True, slots=True)
class ResponseStream:
    """The events of a response, whose last one carries it whole."""

    events: Events

    @property
    def whole(self) -> Json:
        response: Json = self.events[-1]["response"]
        return response


@st.composite
def response_streams(draw: st.DrawFn) -> ResponseStream:
    """Events of a response of up to four items, of every kind."""
    made = [draw(st.sampled_from(ITEMS))(draw, index) for index in range(draw(st.integers(0, 4)))]
    output = [item for item, _ in made]
    status = draw(st.sampled_from(["completed", "incomplete", "failed"]))
    base: Json = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m"}
    begun = {**base, "status": "in_progress", "output": [], "usage": None, "error": None}
    usage = {"input_tokens": draw(COUNT), "output_tokens": draw(COUNT), "total_tokens": draw(COUNT)}
    error = {"code": "server_error", "message": "overloaded"} if status == "failed" else None
    last = {**base, "status": status, "output": output, "usage": usage, "error": error}
    kinds = draw(st.sampled_from([["created"], ["created", "in_progress"], ["created", "queued", "in_progress"]]))
    events: Events = [{"type": f"response.{kind}", "response": begun} for kind in kinds]
    for index, (item, steps) in enumerate(made):
        bare = {**item, **{name: empty for name, empty in EMPTY.items() if name in item}, "status": "in_progress"}
        events.append({"type": "response.output_item.added", "output_index": index, "item": bare})
        events += [{"output_index": index, "item_id": item["id"], **step} for step in steps]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{status}", "response": last})
    return ResponseStream([{**event, "sequence_number": number} for number, event in enumerate(events)])


EMPTY: Json = {"content": [], "summary": [], "arguments": "", "input": "", "code": "", "result": None}
Made = tuple[Json, Events]


def text_steps(draw: st.DrawFn, stem: str, text: str, **where: Any) -> Events:
    """The deltas of a text, and the event that repeats it whole."""
    deltas = [{"type": f"response.{stem}.delta", "delta": piece, **where} for piece in cut(draw, text)]
    return [*deltas, {"type": f"response.{stem}.done", DONE[stem]: text, **where}]


DONE = {
    "output_text": "text",
    "refusal": "refusal",
    "reasoning_text": "text",
    "reasoning_summary_text": "text",
    "function_call_arguments": "arguments",
    "custom_tool_call_input": "input",
    "mcp_call_arguments": "arguments",
    "code_interpreter_call_code": "code",
}


def message_item(draw: st.DrawFn, index: int) -> Made:
    parts: Events = []
    steps: Events = []
    for place in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["output_text", "refusal"]))
        text, where = draw(TEXT), {"content_index": place}
        part: Json = {"type": kind, DONE[kind]: text}
        between: Events = []
        if kind == "output_text":
            part["annotations"] = [{"type": "url_citation", "url": url} for url in draw(PIECES)]
            between = [
                {"type": "response.output_text.annotation.added", "annotation_index": n, "annotation": one, **where}
                for n, one in enumerate(part["annotations"])
            ]
        bare = {**part, DONE[kind]: "", **({"annotations": []} if kind == "output_text" else {})}
        *deltas, done = text_steps(draw, kind, text, **where)
        steps.append({"type": "response.content_part.added", "part": bare, **where})
        steps += [*merged(draw, [deltas, between]), done]
        steps.append({"type": "response.content_part.done", "part": part, **where})
        parts.append(part)
    item = {"id": f"msg_{index}", "type": "message", "status": "completed", "role": "assistant", "content": parts}
    return item, steps


def reasoning_item(draw: st.DrawFn, index: int) -> Made:
    steps: Events = []
    lists: dict[str, Events] = {"summary": [], "content": []}
    for name, part_event, stem, kind in (
        ("summary", "reasoning_summary_part", "reasoning_summary_text", "summary_text"),
        ("content", "content_part", "reasoning_text", "reasoning_text"),
    ):
        for place in range(draw(st.integers(0, 2))):
            text, where = draw(TEXT), {f"{name}_index": place}
            steps.append({"type": f"response.{part_event}.added", "part": {"type": kind, "text": ""}, **where})
            steps += text_steps(draw, stem, text, **where)
            lists[name].append({"type": kind, "text": text})
            steps.append({"type": f"response.{part_event}.done", "part": lists[name][-1], **where})
    return {"id": f"rs_{index}", "type": "reasoning", "encrypted_content": draw(TEXT), **lists}, steps


def call_item(kind: str, stem: str) -> Callable[[st.DrawFn, int], Made]:
    def make(draw: st.DrawFn, index: int) -> Made:
        text = draw(TEXT)
        item = {"id": f"call_{index}", "type": kind, "status": "completed", "name": draw(NAME), DONE[stem]: text}
        return {**item, "call_id": f"c_{index}"}, text_steps(draw, stem, text)

    return make


def hosted_item(kind: str) -> Callable[[st.DrawFn, int], Made]:
    """A tool of OpenAI's own, which tells of its progress only."""

    def make(draw: st.DrawFn, index: int) -> Made:
        item = {"id": f"ht_{index}", "type": kind, "status": "completed", "result": draw(TEXT)}
        return item, [{"type": f"response.{kind}.{step}"} for step in ("in_progress", "completed")]

    return make


ITEMS = (
    message_item,
    reasoning_item,
    call_item("function_call", "function_call_arguments"),
    call_item("custom_tool_call", "custom_tool_call_input"),
    call_item("mcp_call", "mcp_call_arguments"),
    call_item("code_interpreter_call", "code_interpreter_call_code"),
    hosted_item("web_search_call"),
    hosted_item("image_generation_call"),
)


@st.composite
def message_streams(draw: st.DrawFn) -> Events:
    """Events of an Anthropic message."""
    start: Json = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
    }
    unknown = {"stop_reason": None, "stop_sequence": None}
    usage = {"input_tokens": draw(COUNT), "output_tokens": 1, "cache_read_input_tokens": draw(st.none() | COUNT)}
    events: Events = [{"type": "message_start", "message": {**start, **unknown, "usage": usage}}]
    for index in range(draw(st.integers(0, 4))):
        block, deltas = draw(st.sampled_from(BLOCKS))(draw)
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    reason = draw(st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"]))
    delta = {"stop_reason": reason, "stop_sequence": draw(st.none() | TEXT)}
    counts = {"output_tokens": draw(COUNT), **draw(st.dictionaries(st.sampled_from(LATE_COUNTS), st.none() | COUNT))}
    more: Json = draw(st.sampled_from([{}, {"context_management": {"applied_edits": []}}]))
    events += [{"type": "message_delta", "delta": delta, "usage": counts, **more}, {"type": "message_stop"}]
    pings = draw(st.sets(st.integers(1, len(events) - 1), max_size=3))
    return [one for n, event in enumerate(events) for one in ([{"type": "ping"}] if n in pings else []) + [event]]


LATE_COUNTS = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]


def text_block(draw: st.DrawFn) -> tuple[Json, Events]:
    texts = [{"type": "text_delta", "text": piece} for piece in draw(PIECES)]
    cited = [{"type": "char_location", "cited_text": text, "document_index": 0} for text in draw(PIECES)]
    citations = [{"type": "citations_delta", "citation": citation} for citation in cited]
    return {"type": "text", "text": "", "citations": [] if cited else None}, merged(draw, [texts, citations])


def thinking_block(draw: st.DrawFn) -> tuple[Json, Events]:
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in draw(PIECES)]
    signature = {"type": "signature_delta", "signature": draw(TEXT)}
    return {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signature]


def tool_block(kind: str) -> Callable[[st.DrawFn], tuple[Json, Events]]:
    def make(draw: st.DrawFn) -> tuple[Json, Events]:
        pieces = cut(draw, json.dumps(draw(INPUT), ensure_ascii=draw(st.booleans())))
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces]]
        return {"type": kind, "id": "toolu_1", "name": draw(NAME), "input": {}}, draw(st.sampled_from([[], deltas]))

    return make


def whole_block(kind: str, **members: Any) -> Callable[[st.DrawFn], tuple[Json, Events]]:
    """A block that comes whole with its beginning."""
    return lambda draw: ({"type": kind, **members}, [])


def compaction_block(draw: st.DrawFn) -> tuple[Json, Events]:
    delta = {"type": "compaction_delta", "content": draw(TEXT), "encrypted_content": draw(TEXT)}
    return {"type": "compaction", "content": None}, [delta]


FOUND = {
    "type": "web_search_result",
    "url": "https://a.test",
    "title": "A",
    "encrypted_content": "Eo8",
    "page_age": None,
}
BLOCKS = (
    text_block,
    thinking_block,
    tool_block("tool_use"),
    tool_block("server_tool_use"),
    tool_block("mcp_tool_use"),
    whole_block("redacted_thinking", data="EmwKAhgB"),
    whole_block("web_search_tool_result", tool_use_id="srvtoolu_1", content=[FOUND]),
    whole_block("mcp_tool_result", tool_use_id="mcptoolu_1", is_error=False, content=[{"type": "text", "text": "3"}]),
    compaction_block,
)
