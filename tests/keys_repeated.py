"""Calls that repeat the keys that they carry, or have one for an id, and answers that repeat them: in every manner."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

from tests.known_secrets import (
    BOUND,
    KEY,
    OTHER_KEY,
    SECRETS,
    SHORT_KEY,
    Secrets,
    as_event,
    as_json,
    in_json,
    percent_encoded,
)
from tests.raw_client import request
from tests.upstream import chat_events, json_answer, sse_answer

__all__ = ["key_answers", "key_bodies", "key_feedback", "with_keys_as_ids"]


def _pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _key_streams(s: Secrets) -> dict[str, bytes]:
    """Streams in which the key that the call carries comes in pieces."""
    singly = _pieces(s("in a chat, a character an event"), 1)
    spelt = _pieces(percent_encoded(s("in a chat, percent-encoded and split")), 4)
    arguments = _pieces(as_json(to=s("in the arguments of a tool")).decode(), 5)
    tools = [
        as_json(choices=[{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}])
        for piece in arguments
    ]
    key = s("split between the start of a block and its deltas")
    block = [
        as_json(type="message_start", message={"id": "msg_2", "type": "message", "role": "assistant", "content": []}),
        as_json(type="content_block_start", index=0, content_block={"type": "text", "text": key[:7]}),
        as_json(type="content_block_delta", index=0, delta={"type": "text_delta", "text": key[7:]}),
    ]
    two = [_pieces(s(f"in choice {number} of two"), 3) for number in (0, 1)]
    choices = [
        as_json(choices=[{"index": number, "delta": {"content": piece}}])
        for pieces in zip(*two, strict=True)
        for number, piece in enumerate(pieces)
    ]
    responses = [
        as_json(
            type="response.output_text.delta", sequence_number=number, item_id="i", delta=piece, obfuscation=str(number)
        )
        for number, piece in enumerate(["It is ", *_pieces(s("in a response, with obfuscation"), 7)])
    ]
    lines = b"\n".join(as_json(message={"content": piece}) for piece in _pieces(s("in lines of JSON"), 5))
    texts = [b"data:%b\n\n" % piece.encode() for piece in _pieces(s("in events that are text"), 6)]
    cut = chat_events(*_pieces(s("in a stream that is cut"), 9))
    return {
        "a character an event": sse_answer(*chat_events(*["Hm. "] * 20, *singly)),
        "percent and split": sse_answer(*chat_events("See ", *spelt)),
        "arguments": sse_answer(*map(as_event, tools)),
        "messages": sse_answer(*map(as_event, block)),
        "two choices": sse_answer(*map(as_event, choices)),
        "responses": sse_answer(*map(as_event, responses)),
        "lines": _plain(lines, "application/x-ndjson"),
        "texts": sse_answer(*texts),
        "cut stream": sse_answer(*cut[:3])[: -len(b"0\r\n\r\n")],
    }


def _plain(body: bytes, content_type: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_PLACES_OF_STREAMS = {
    "a character an event": ["in a chat, a character an event"],
    "percent and split": ["in a chat, percent-encoded and split"],
    "arguments": ["in the arguments of a tool"],
    "messages": ["split between the start of a block and its deltas"],
    "two choices": ["in choice 0 of two", "in choice 1 of two"],
    "responses": ["in a response, with obfuscation"],
    "lines": ["in lines of JSON"],
    "texts": ["in events that are text"],
    "cut stream": ["in a stream that is cut"],
}


def key_answers(s: Secrets) -> dict[str, tuple[list[str], bytes]]:
    """Answers that repeat what their calls carry, by name: the header fields that carry it, and the answer."""

    def said(text: str, fields: str = "") -> bytes:
        body = b'{"error": {"message": "It is ' + text.encode() + b'"}}'
        return json_answer(body, status="401 Unauthorized", fields=fields.encode())

    def bearer(place: str) -> str:
        return f"Authorization: Bearer {s(place)}"

    basic = base64.b64encode(f"user:{s('a password of Basic')}".encode()).decode()
    signed = "Credential={}/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256, Signature={}"
    aws = "Authorization: AWS4-HMAC-SHA256 " + signed.format(s("AWS's key id"), s("AWS's signature"))
    digest = f'Authorization: Digest username="me", realm="us", nonce="{s("a nonce")}", response="{s("a digest")}"'
    config = as_json(provider="openai", api_key=s("in Portkey's config")).decode()
    path = quote(quote(s("in the path, doubly encoded")))
    found = {
        "escapes": ([bearer("in JSON's escapes")], said(in_json(s("in JSON's escapes")))),
        "escapes of JSON in JSON": (
            [bearer("in escapes twice")],
            said(in_json(s("in escapes twice")).replace("\\", "\\\\")),
        ),
        "percent": ([bearer("percent-encoded")], said("https://h/?a=" + percent_encoded(s("percent-encoded")))),
        "at the cut": (
            [bearer("at the cut")],
            json_answer(as_json(a="x" * (BOUND - 27), b=s("at the cut") + "y" * BOUND)),
        ),
        "UTF-16": (
            [bearer("in UTF-16")],
            _plain(s("in UTF-16").encode("utf-16-le"), "text/plain; charset=utf-16-le"),
        ),
        "cookie": ([f"Cookie: a=1; session={s('in a cookie')}; b"], said(s("in a cookie"))),
        "Set-Cookie": ([], said(s("a cookie that is set"), f"Set-Cookie: a={s('a cookie that is set')}; Path=/\r\n")),
        "proxy": ([f"Proxy-Authorization: Bearer {s('for a proxy')}"], said(s("for a proxy"))),
        "basic": ([f"Proxy-Authorization: Basic {basic}"], said(f"{s('a password of Basic')} {basic}")),
        "AWS": ([aws], said(" ".join(map(s, ("AWS's key id", "AWS's signature"))))),
        "digest": ([digest], said(f"{s('a nonce')} {s('a digest')}")),
        "virtual": ([f"x-portkey-virtual-key: {s('a virtual key')}"], said(s("a virtual key"))),
        "config": ([f"x-portkey-config: {config}"], said(s("in Portkey's config"))),
        "aws": ([f"x-portkey-aws-secret-access-key: {s('for AWS')}"], said(s("for AWS"))),
        "posthog": ([f"Helicone-Posthog-Key: {s('for Posthog')}"], said(s("for Posthog"))),
        "token": ([f"X-Auth-Token: {s('in a field that says so')}"], said(s("in a field that says so"))),
        "sensitive": (
            ["x-portkey-sensitive-headers: X-Mine", f"X-Mine: {s('in a field called sensitive')}"],
            said(s("in a field called sensitive")),
        ),
        "label": (
            [bearer("in a label that is cut"), f"Helicone-User-Id: {'x' * 1004}{s('in a label that is cut')}"],
            said("no"),
        ),
        "path": (
            [bearer("in the path, doubly encoded"), "Helicone-User-Id: " + path],
            said("no"),
        ),
    }
    for name, answer in _key_streams(s).items():
        found[name] = ([f"Authorization: Bearer {s(place)}" for place in _PLACES_OF_STREAMS[name]], answer)
    return {f"key {name}": told for name, told in found.items()}


def key_bodies(s: Secrets) -> dict[str, tuple[str, str, bytes]]:
    """Requests that repeat the keys that they carry: the key, the body's type, and the body."""
    form = '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n{}\r\n--x--\r\n'
    pairs, multipart = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
    once, twice = s("percent-encoded in a pair"), s("doubly percent-encoded in a pair")
    part, spelt, cut = s("in a part"), s("percent-encoded in a part"), s("in a part that is cut")
    place = s("in a question's escapes")
    return {
        "pair": (once, pairs, f"a={percent_encoded(once)}".encode()),
        "pair twice": (twice, pairs, f"a={percent_encoded(percent_encoded(twice))}&b=1".encode()),
        "pair at the cut": (s("cut in a pair"), pairs, f"a={'x' * (BOUND - 22)}{s('cut in a pair')}yyyy".encode()),
        "part": (part, multipart, form.format(f"it is {part}").encode()),
        "part spelt": (spelt, multipart, form.format(percent_encoded(spelt)).encode()),
        "part cut": (cut, multipart, form.format("x" * (BOUND - 21) + cut + "y" * BOUND).encode()),
        "escapes": (place, "application/json", b'{"a": "' + in_json(place).encode() + b'"}'),
    }


def with_keys_as_ids() -> dict[str, bytes]:
    """Calls whose ids are keys, or hold one: they get others. By the property that names them."""
    s = SECRETS
    by_key = b"x-portkey-api-key: " + KEY.encode()
    theirs = s("carried, and an id")
    bearer = f"Authorization: Bearer {theirs}".encode()
    values = {
        "theirs": theirs,
        "theirs within": f"call {theirs}-1",
        "theirs spelt": percent_encoded(theirs),
        "own": KEY,
        "short": SHORT_KEY,
        "other": f"of {OTHER_KEY}",
    }
    fields = ["Helicone-Request-Id", "x-portkey-trace-id"]
    labels = ["Helicone-Session-Id", "Helicone-User-Id", "Helicone-Property-A", "Helicone-Prompt-Id"]
    labels += ["Helicone-Cache-Seed", "x-portkey-span-id", "Helicone-Session-Path", "Helicone-Model-Override"]
    return {
        f"{name} {value}": request(
            "POST",
            "/v1/chat/completions",
            *(by_key, bearer, f"Helicone-Property-Case: {name} {value}".encode()),
            *(f"{field}: {text}".encode() for field in ([name] if name in fields else labels)),
            body=b"{}",
        )
        for value, text in values.items()
        for name in (*fields, "labels")
    }


def key_feedback(
    s: Secrets, session: str, value: dict[str, Any], url: str, headers: dict[str, str]
) -> list[tuple[str, str, dict[str, Any] | list[Any]]]:
    """What is said of calls with keys in it, and calls that are told of with what they carried."""
    told = [s(place) for place in ("in the header of a log", "in a further header of a log", "in the query of a log")]
    told += [s(place) for place in ("in the address of a log", "in the cookie of a log", "in the metadata, as a field")]
    repeating = {
        "request": {"url": url, "headers": {**headers, "Cookie": f"a={told[4]}"}, "body": {"a": " ".join(told)}},
        "response": {"headers": headers, "status": 200, "body": {"text": " and ".join(told)}},
        "metadata": {"Helicone-Request-Id": "repeating", "note": told[0], "Authorization": f"Bearer {told[5]}"},
    }
    unnamed = {"authorization": told[5], "Helicone-Request-Id": told[1]}
    misplaced = {**repeating, "trace_id": told[0], "metadata": unnamed}
    further = {"authorization": f"Bearer {s('in the meta of a custom log')}", "Helicone-Request-Id": "told again"}
    both = f"{s('in the meta of a custom log')} {s('in the header of a custom log')}"
    meta_told = {
        "providerRequest": {"url": url, "json": {"a": both}, "meta": further},
        "providerResponse": {
            "status": 200,
            "headers": {"x-api-key": s("in the header of a custom log")},
            "json": {"b": both},
        },
    }
    twice = percent_encoded(percent_encoded(OTHER_KEY))
    keys = f"{SHORT_KEY}, {OTHER_KEY} and {twice} of {s('in Authorization')}"
    unlike = {"rating": True, "comment": keys, "metadata": {SHORT_KEY: keys, "b": [OTHER_KEY]}}
    return [
        ("POST", "/v1/request/auth/feedback", unlike),
        ("POST", f"/v1/session/{session}/feedback", unlike),
        ("POST", f"/v1/session/{session}/tag", {"tag": keys}),
        ("PUT", "/v1/request/auth/property", {"key": "spelt", "value": twice}),
        ("POST", "/v1/feedback", {**value, "metadata": unlike["metadata"]}),
        ("POST", "/v1/request/auth/score", {"scores": {OTHER_KEY: 1, SHORT_KEY: 2}}),
        ("PUT", "/v1/request/auth/property", {"key": SHORT_KEY, "value": keys}),
        ("POST", "/v1/helicone-dataset", {"datasetName": keys, "requestIds": ["auth"], "meta": unlike["metadata"]}),
        ("POST", "/v1/logs", [repeating, misplaced]),
        ("POST", "/custom/v1/log", meta_told),
    ]
