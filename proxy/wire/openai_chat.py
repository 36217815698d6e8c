"""Chat Completions: https://platform.openai.com/docs/api-reference/chat, and what others make of it.

A stream's chunks are put together into the answer that the same call gives unstreamed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from proxy.wire.facts import RequestFacts, ResponseFacts, as_count, as_text
from storage.records import Usage

__all__ = ["assemble", "read_answer", "read_request", "read_usage"]

# Members of chunks of which the last one that says something stands; of others it is the first.
_LAST_COUNTS: Final = frozenset({"usage", "x_groq", "error"})
# Parts of a delta that say what something is, and don't go on from chunk to chunk.
_SET_ONCE: Final = frozenset({"role", "id", "type", "index", "format"})


def read_request(body: dict[str, Any]) -> RequestFacts:
    """Facts of a request."""
    return RequestFacts(
        model=as_text(body.get("model")),
        user=as_text(body.get("user")),
        is_stream=body.get("stream") is True,
    )


def read_answer(body: dict[str, Any], *, is_stream: bool) -> ResponseFacts:
    """Facts of an unstreamed answer, or of a stream's assembled one."""
    choice = _first_choice(body.get("choices"))
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    calls = message.get("tool_calls")
    error = body.get("error")
    return ResponseFacts(
        id=as_text(body.get("id")),
        model=as_text(body.get("model")),
        finish_reason=as_text(choice.get("finish_reason")),
        usage=read_usage(_usage_of(body)),
        text=_text(message.get("content")),
        tool_calls=calls if isinstance(calls, list) and calls else None,
        is_stream=is_stream,
        error_kind="upstream_error_event" if is_stream and error else None,
        error_message=_error_message(error) if is_stream and error else None,
        body=body,
    )


def _first_choice(choices: Any) -> dict[str, Any]:
    candidates = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    return min(candidates, key=_choice_index, default={})


def _choice_index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _text(content: Any) -> str | None:
    """Content is text or a list of parts, and the parts of type ``text`` are what a person reads."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str)) or None
    return None


def _error_message(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return as_text(message) or "the stream carried an error"


def _usage_of(body: dict[str, Any]) -> Any:
    groq = body.get("x_groq")
    return body.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)


def read_usage(usage: Any) -> Usage:
    """Token counts under the names that providers of this format use."""
    if not isinstance(usage, dict):
        return Usage()
    asked = _details(usage, "prompt_tokens_details", "input_tokens_details")
    answered = _details(usage, "completion_tokens_details", "output_tokens_details")
    return Usage(
        prompt_tokens=_count(usage, "prompt_tokens", "input_tokens"),
        completion_tokens=_count(usage, "completion_tokens", "output_tokens"),
        total_tokens=_count(usage, "total_tokens"),
        cache_read_tokens=_first(
            _count(asked, "cached_tokens"),
            _count(usage, "prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens"),
        ),
        cache_write_tokens=_count(asked, "cache_write_tokens"),
        prompt_audio_tokens=_count(asked, "audio_tokens"),
        completion_audio_tokens=_count(answered, "audio_tokens"),
        reasoning_tokens=_first(_count(answered, "reasoning_tokens"), _count(usage, "reasoning_tokens")),
    )


def _details(usage: dict[str, Any], *names: str) -> dict[str, Any]:
    return next((usage[name] for name in names if isinstance(usage.get(name), dict)), {})


def _count(counts: dict[str, Any], *names: str) -> int | None:
    return _first(*(as_count(counts.get(name)) for name in names))


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def assemble(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The answer that a stream's chunks add up to: choices by ``index``, in the unstreamed shape."""
    answer: dict[str, Any] = {"object": "chat.completion"}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for name, value in chunk.items():
            if name == "choices":
                _add_choices(choices, value)
            elif name != "object":
                _add_member(answer, name, value)
    answer["choices"] = [_finished(choices[index]) for index in sorted(choices)]
    return answer


def _add_member(answer: dict[str, Any], name: str, value: Any) -> None:
    """The first id and model that say something, but the last usage: several providers repeat it as it grows."""
    if name not in answer or (value and (name in _LAST_COUNTS or not answer[name])):
        answer[name] = value


def _add_choices(choices: dict[int, dict[str, Any]], new: Any) -> None:
    for part in new if isinstance(new, list) else ():
        if not isinstance(part, dict):
            continue
        index = _choice_index(part)
        choice = choices.setdefault(index, {"index": index, "message": {}})
        for name, value in part.items():
            if name in ("delta", "message"):
                _add_delta(choice["message"], value)
            elif name == "logprobs":
                choice["logprobs"] = _add_logprobs(choice.get("logprobs"), value)
            elif name != "index" and (value is not None or name not in choice):
                choice[name] = value


def _add_logprobs(known: Any, new: Any) -> Any:
    if not isinstance(known, dict) or not isinstance(new, dict):
        return known if new is None else new
    for name, value in new.items():
        both_lists = isinstance(known.get(name), list) and isinstance(value, list)
        if value is not None:
            known[name] = known[name] + value if both_lists else value
    return known


def _add_delta(message: dict[str, Any], delta: Any) -> None:
    if not isinstance(delta, dict):
        return
    for name, value in delta.items():
        if name == "tool_calls":
            _add_tool_calls(message.setdefault("tool_calls", []), value)
        else:
            message[name] = _grown(name, message.get(name), value)


def _grown(name: str, known: Any, new: Any) -> Any:
    """A member of a delta added to what came of it before."""
    if new is None:
        return known
    if known is None or (name in _SET_ONCE and not known):
        return new
    if name in _SET_ONCE:
        return known
    if isinstance(known, str) and isinstance(new, str):
        return known + new
    if isinstance(known, list) and isinstance(new, list):
        return known + new
    if isinstance(known, list) and isinstance(new, str):  # first parts, then text, within one stream
        return [*known, {"type": "text", "text": new}] if new else known
    if isinstance(known, dict) and isinstance(new, dict):
        return {**known, **{key: _grown(key, known.get(key), value) for key, value in new.items()}}
    return new


def _add_tool_calls(calls: list[dict[str, Any]], new: Any) -> None:
    for part in new if isinstance(new, list) else ():
        if isinstance(part, dict):
            call = _tool_call(calls, part)
            for name, value in part.items():
                if name == "function" and isinstance(value, dict):
                    call["function"] = _add_function(call.get("function"), value)
                elif name != "index":
                    call[name] = _grown(name, call.get(name), value)


def _tool_call(calls: list[dict[str, Any]], part: dict[str, Any]) -> dict[str, Any]:
    """The call that a delta goes on with: by index, else by id, else the last one."""
    index = part.get("index")
    for call in calls:
        if index is not None and call.get("index") == index:
            return call
        if index is None and part.get("id") and call.get("id") == part["id"]:
            return call
    if index is None and not part.get("id") and calls:
        return calls[-1]
    call = {"index": index if index is not None else len(calls)}
    calls.append(call)
    return call


def _add_function(known: Any, new: dict[str, Any]) -> dict[str, Any]:
    function = dict(known) if isinstance(known, dict) else {}
    for name, value in new.items():
        if name == "name" and function.get("name"):
            continue  # some send the whole name with every delta
        function[name] = _grown(name, function.get(name), value)
    return function


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    """The choice in its unstreamed shape: tool calls in order, without the index that streams need."""
    message = choice["message"]
    calls = message.get("tool_calls")
    if calls:
        ordered = sorted(calls, key=_choice_index)
        message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in ordered]
    elif calls is not None:
        del message["tool_calls"]
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
    return choice
