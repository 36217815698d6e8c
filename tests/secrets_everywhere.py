"""Known secrets, in every place where a client or an upstream can put one, and the calls that carry them there."""

from __future__ import annotations

import hashlib
import sys
from typing import Any
from urllib.parse import quote

import brotli
import orjson

from tests.keys_repeated import key_answers, key_bodies, key_feedback
from tests.known_secrets import (
    BOUND,
    KEY,
    OF_FILE,
    OTHER_KEY,
    SECRETS,
    SHORT_KEY,
    Secrets,
    as_event,
    as_json,
    packed,
)
from tests.raw_client import request
from tests.upstream import CHAT_BODY, Connection, chat_answer, chat_events, json_answer, sse_answer
from tests.websocket_bytes import closing, event, switching

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["calls", "configuration", "feedback", "malformed", "serve"]


_RULES = """
[redact]
fields = ["password", "SSN"]
patterns = ['pat-[0-9a-f]{24}', '(?i)never-in-a-text']
"""


def configuration(upstream: str, closed_port: int, *, rules: bool) -> str:
    return f"""
max_logged_body = {BOUND}
[upstream]
base_url = "{upstream}"
[upstreams.closed]
base_url = "http://127.0.0.1:{closed_port}/v1"
api_key = "{OF_FILE}"
{_RULES if rules else ""}
[[keys]]
name = "all"
organisation = "acme"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
scopes = ["proxy", "feedback", "read", "admin"]
[[keys]]
name = "short"
organisation = "acme"
sha256 = "{hashlib.sha256(SHORT_KEY.encode()).hexdigest()}"
[[keys]]
name = "other"
organisation = "acme"
sha256 = "{hashlib.sha256(OTHER_KEY.encode()).hexdigest()}"
"""


def _split(text: str) -> list[str]:
    return ["It is ", text[:3], text[3:9], text[9:20], text[20:], ", sir"]


def _streams(s: Secrets) -> dict[str, bytes]:
    """What the upstream streams, by name."""
    arguments = as_json(to="x", password=s("in split arguments")).decode()
    tool_calls = [
        [{"index": 0, "function": {"arguments": piece}}]
        for piece in (arguments[:12], arguments[12:27], arguments[27:35], arguments[35:])
    ]
    tools = [as_json(choices=[{"index": 0, "delta": {"tool_calls": call}}]) for call in tool_calls]
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 1}}
    messages = [
        as_json(type="message_start", message=message),
        as_json(type="content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(
            as_json(type="content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
            for piece in _split(s.pattern("split over the deltas of a message"))
        ),
    ]
    responses = [
        as_json(type="response.output_text.delta", item_id="i", output_index=0, content_index=0, delta=piece)
        for piece in _split(s.pattern("split over the deltas of a response"))
    ]
    behind = [*chat_events("Hello"), b": %b\n\n" % s.pattern("behind the last event").encode()]
    return {
        "chat": sse_answer(*chat_events(*_split(s.pattern("split over the deltas of a chat")))),
        "tools": sse_answer(*map(as_event, tools)),
        "messages": sse_answer(*map(as_event, messages)),
        "responses": sse_answer(*map(as_event, responses)),
        "behind": sse_answer(*behind),
        "half": sse_answer(*chat_events(*_split(s.pattern("half of it before the cut"))))[:-700],
    }


def _answers(s: Secrets) -> dict[str, bytes]:
    """What the upstream says, by name."""

    def echo(start: str, place: str) -> bytes:
        return as_json(error={"message": f"Incorrect API key provided: {start}{s(place)}.", "code": "invalid_api_key"})

    def told(place: str) -> bytes:
        return CHAT_BODY.replace(b"Hello there.", f"It is {s.pattern(place)}, or ".encode() + b'\\"x\\".')

    def coded(coding: str, data: bytes) -> bytes:
        return json_answer(data, fields=b"Content-Encoding: %b\r\n" % coding.encode())

    long = "x" * (BOUND - 60) + s.pattern("cut at the bound of the log") + "y" * BOUND
    return _streams(s) | {
        "echo": json_answer(
            echo("", "in Authorization"), status="401 Unauthorized", fields=b"WWW-Authenticate: Bearer\r\n"
        ),
        "echo packed": coded("gzip", packed(echo("", "in Authorization"))),
        "echo of the query": json_answer(echo("key=", "in ?key= and the answer"), status="400 Bad Request"),
        "echo configured": json_answer(echo("sk-", "configured in the environment"), status="401 Unauthorized"),
        "field": json_answer(as_json(choices=[], Password={"deep": [s("in a field of an answer")]}, SSN=1.10)),
        "pattern": chat_answer(told("in an answer"), fields=f"Set-Cookie: a={s('in Set-Cookie')}\r\n".encode()),
        "gzip": coded("gzip", packed(told("in a packed answer"))),
        "br": coded("br", brotli.compress(told("in a brotli answer"))),
        "zstd": coded("zstd", zstd.compress(told("in a zstd answer"))),
        "unknown coding": coded("rot13", told("in an answer that can't be decoded")),
        "long": json_answer(as_json(text=long)),
        "cut": chat_answer(told("in an answer that is cut"))[:-40],
        "plain": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 28\r\n\r\n%b"
        % s.pattern("in plain text").encode(),
        "no HTTP": f"HTTP/1.1 200 OK\r\nSet-Cookie : {s('in what is no HTTP')}\r\n\r\n".encode(),
    }


async def serve(connection: Connection) -> None:
    """The upstream: gives the answer that a request asks for."""
    answers = _answers(SECRETS) | {name: answer for name, (_, answer) in key_answers(SECRETS).items()}
    while True:
        received = await connection.read_request()
        if b"/realtime" in received.target:
            await _converse(connection)
            return
        [name] = received.values("X-Answer") or [b""]
        await connection.send(answers.get(name.decode(), chat_answer()))
        if name in (b"cut", b"half", b"no HTTP", b"key cut stream"):
            connection.close()
            return


async def _converse(connection: Connection) -> None:
    """A WebSocket, in whose frames secrets come in two."""
    text, key = SECRETS.pattern("split over frames"), SECRETS("carried, and split over frames")
    await connection.send(switching())
    for piece in ("It is ", text[:9], text[9:], "!", key[:11], key[11:]):
        await connection.send(event("response.text.delta", item_id="i", content_index=0, delta=piece))
    await connection.send(closing())
    await connection.reader.read(2**16)


def _secret_fields(s: Secrets) -> list[bytes]:
    """Every header field that carries one, by either contract."""
    fields = {
        "Authorization": "Bearer {}",
        "Proxy-Authorization": "Basic {}",
        "x-api-key": "{}",
        "api-key": "{}",
        "x-goog-api-key": "{}",
        "Cookie": "session={}",
        "Helicone-Jwt": "{}",
        "Helicone-Org-Id": "{}",
        "Helicone-Fallbacks": '[{{"headers": {{"Authorization": "{}"}}}}]',
        "Helicone-Webhook-Enabled": "{}",
        "Helicone-Posthog-Key": "{}",
        "Helicone-Lytix-Key": "{}",
        "Helicone-Manual-Access-Key": "{}",
        "Helicone-Gateway-Body-Mapping": "{}",
        "Helicone-RateLimit-Policy": "{}",
        "x-portkey-virtual-key": "{}",
        "x-portkey-config": '{{"api_key": "{}"}}',
        "x-portkey-forward-headers": "{}",
        "x-portkey-aws-secret-access-key": "{}",
        "x-portkey-azure-entra-client-secret": "{}",
        "x-portkey-vertex-service-account-json": "{}",
        "x-portkey-cache-namespace": "{}",
        "X-Anything-Else": "{}",
    }
    return [f"{name}: {form.format(s(f'in {name}'))}".encode() for name, form in fields.items()]


def _query(s: Secrets) -> str:
    escaped = "".join(f"%{ord(character):02x}" for character in s("in ?key=, escaped"))
    inner = quote(f"https://user:{s('in an address in a query')}@host/?a=1", safe="")
    return (
        f"?a=1&key={s('in ?key=')}&Api%5Fkey={s('in ?api_key=')}&k%65y={escaped}&x=1;token={s('behind ;')}"
        f"&X-Amz-Signature={s('in a signature')}&to={inner}&password={s('in ?password=')}&q={s.pattern('in a query')}"
    )


def _labels(s: Secrets) -> list[bytes]:
    texts = {
        "Helicone-User-Id": s.pattern("in a user's id"),
        "Helicone-Session-Id": "session " + s.pattern("in a session's id"),
        "Helicone-Session-Name": s.pattern("in a session's name"),
        "Helicone-Session-Path": "/a/" + s.pattern("in a session's path"),
        "Helicone-Prompt-Id": s.pattern("in a prompt's id"),
        "Helicone-Model-Override": s.pattern("in a model's name"),
        "Helicone-Property-Password": s("in a property of a secret name"),
        "Helicone-Property-Note": "so: " + s.pattern("in a property"),
        "Helicone-Property-Key": s("in Authorization"),
        "x-portkey-metadata": as_json(inner={"SSN": s("in metadata")}, note=s.pattern("in metadata's text")).decode(),
        "x-portkey-span-id": s.pattern("in a span's id"),
        "x-portkey-span-name": s.pattern("in a span's name"),
        "baggage": f"a={s.pattern('in baggage')}",
    }
    return [f"{name}: {text}".encode() for name, text in texts.items()]


def _sensitive(s: Secrets) -> dict[str, list[bytes]]:
    """Fields that the request itself calls sensitive, in both forms."""
    return {
        "python": [
            b"x-portkey-sensitive-headers: ['Helicone-User-Id', 'helicone-property-email']",
            f"Helicone-User-Id: {s('in a sensitive user')}".encode(),
            f"Helicone-Property-Email: {s('in a sensitive property')}".encode(),
        ],
        "commas": [
            b"X-Portkey-Sensitive-Headers: BAGGAGE, x-portkey-metadata,x-portkey-span-name",
            f"baggage: a={s('in sensitive baggage')}".encode(),
            f'x-portkey-metadata: {{"_user": "{s("in sensitive metadata")}"}}'.encode(),
            f"x-portkey-span-name: {s('in a sensitive span')}".encode(),
        ],
    }


def _bodies(s: Secrets) -> dict[str, tuple[bytes, bytes]]:
    """What a client sends, with its type and the like."""
    escaped = "".join(f"\\u00{ord(character):02x}" for character in s.pattern("escaped in a question"))
    arguments = as_json(password=s("in arguments"), n=1).decode()
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    form = (
        f'--x\r\nContent-Disposition: form-data; name="password"\r\n\r\n{s("in a field of a form")}\r\n'
        f'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nsay {s.pattern("in a form")}\r\n--x--\r\n'
    )
    in_json = b"Content-Type: application/json"
    return {
        "json": (
            in_json,
            as_json(model="m", user=s.pattern("in the body's user"), messages=[message], PASSWORD=[s("in a field")]),
        ),
        "escaped": (in_json, b'{"n": 1.10, "a": "' + escaped.encode() + b'"}'),
        "own key": (in_json, as_json(model="m", note=f"{KEY} {s('in Authorization')}")),
        "packed": (in_json + b"\r\nContent-Encoding: gzip", packed(as_json(password=s("in a packed question")))),
        "no json": (
            in_json,
            f'{{"password": "{s("in what is no JSON")}", nonsense {s.pattern("in nonsense")}'.encode(),
        ),
        "form": (b"Content-Type: multipart/form-data; boundary=x", form.encode()),
        "pairs": (
            b"Content-Type: application/x-www-form-urlencoded",
            f"password={s('in a pair')}&a={quote(s.pattern('in a pair of no name'))}".encode(),
        ),
        "long": (in_json, as_json(a="x" * (BOUND - 40), b=s.pattern("cut in a question"), c="y" * BOUND)),
        "text": (b"Content-Type: text/plain; charset=utf-16-le", s.pattern("in another charset").encode("utf-16-le")),
        "wide": (b"Content-Type: text/plain", s.pattern("in a charset that is not named").encode("utf-16")),
        "their key": (in_json, as_json(note=f"take kbz_{s('a key of Kibitz that somebody else has') * 2}")),
        "deep": (in_json, as_json(a=orjson.dumps({"b": as_json(password=s("in JSON in JSON")).decode()}).decode())),
        "prose": (
            in_json,
            as_json(a=f"so: {as_json(password=s('in JSON in prose')).decode()}, and {{'ssn': '{s('in Python')}'}}"),
        ),
    }


def calls() -> dict[str, bytes]:
    """Calls that leave a row each, by their request ids."""
    s = SECRETS
    by_key = b"x-portkey-api-key: " + KEY.encode()
    chat = "/v1/chat/completions"
    path = f"/v1/models;key={s('in the parameters of a path')}/{quote(s.pattern('in a path'))}"
    paths = {"messages": "/v1/messages", "responses": "/v1/responses"}
    theirs = b"Authorization: Bearer " + s("in Authorization").encode()
    nowhere = as_json(password=s("to nowhere"))
    found = {
        "fields": request("POST", chat + _query(s), by_key, *_secret_fields(s), body=b"{}"),
        "labels": request("POST", path, by_key, theirs, *_labels(s), body=b"{}"),
        "auth": request("POST", chat, b"Helicone-Auth: Bearer " + KEY.encode(), body=b"{}"),
        "joined": request("POST", chat, f"Authorization: Bearer {s('joined')}, Bearer {KEY}".encode(), body=b"{}"),
        "closed": request("POST", "/closed/x" + _query(s), by_key, *_secret_fields(s), body=nowhere),
    }
    for name in _answers(s):
        bearer = [] if name == "echo configured" else [theirs]
        lines = [by_key, *bearer, b"X-Answer: " + name.encode()]
        target = paths.get(name, chat) + (f"?key={s('in ?key= and the answer')}" if "query" in name else "")
        found[f"answer {name}"] = request("POST", target, *lines, body=b'{"stream": true}')
    for name, (fields, _) in key_answers(s).items():
        lines = [by_key, b"X-Answer: " + name.encode(), *(field.encode() for field in fields)]
        target = f"/v1/chat/{quote(quote(s('in the path, doubly encoded')))}" if name == "key path" else chat
        found[name] = request("POST", paths.get(name.removeprefix("key "), target), *lines, body=b'{"stream": true}')
    for name, (key, kind, body) in key_bodies(s).items():
        lines = [by_key, f"Authorization: Bearer {key}".encode(), f"Content-Type: {kind}".encode()]
        found[f"key body {name}"] = request("POST", chat, *lines, body=body)
    for name, lines in _sensitive(s).items():
        found[f"sensitive {name}"] = request("POST", chat, by_key, *lines, body=b"{}")
    for name, (line, body) in _bodies(s).items():
        found[f"body {name}"] = request("POST", chat, by_key, theirs, line, body=body)
    return {name: _named(message, name) for name, message in found.items()}


def _named(message: bytes, request_id: str) -> bytes:
    head, _, rest = message.partition(b"\r\n")
    return head + b"\r\nHelicone-Request-Id: " + request_id.encode() + b"\r\n" + rest


def feedback() -> list[tuple[str, str, Any]]:
    """What is said of calls, and calls that are told of."""
    s = SECRETS
    session = quote("session " + s.pattern("in a session's id"), safe="")
    meta = {"Helicone-Request-Id": "told", "Helicone-Auth": f"Bearer {s('in a log, Helicone-Auth')}"}
    headers = {"Authorization": f"Bearer {s('in the header of a log')}", "x-api-key": s("in a further header of a log")}
    host, query = f"user:{s('in the address of a log')}@api.openai.com", f"key={s('in the query of a log')}"
    url = f"https://{host}/v1/chat/completions?{query}"
    log = {
        "request": {"url": url, "headers": headers, "body": {"password": s("in the body of a log")}},
        "response": {"headers": headers, "status": 200, "body": {"text": s.pattern("in the answer of a log")}},
        "metadata": {
            "Helicone-Request-Id": "portkey's",
            "SSN": s("in the metadata of a log"),
            "note": f"{KEY} {s('in Authorization')}",
        },
    }
    custom = {
        "providerRequest": {"url": url, "json": {"a": s.pattern("in a custom log")}, "meta": meta},
        "providerResponse": {"status": 200, "json": {"password": s("in the answer of a custom log")}},
    }
    rating = {
        "rating": True,
        "comment": f"{s.pattern('in a comment')} {KEY}",
        "metadata": {"password": s("in a rating's metadata")},
    }
    value = {"trace_id": "auth", "value": 5, "metadata": {"SSN": s("in a value's metadata")}}
    return [
        ("POST", "/v1/request/auth/feedback", rating),
        ("POST", f"/v1/session/{session}/feedback", rating),
        ("POST", f"/v1/session/{session}/tag", {"tag": s.pattern("in a session's tag")}),
        ("POST", "/v1/request/auth/score", {"scores": {s.pattern("in a score's name"): 1}}),
        ("PUT", "/v1/request/auth/property", {"key": "Password", "value": s("in a changed property")}),
        ("PUT", "/v1/request/auth/property", {"key": "note", "value": s.pattern("in the text of a property")}),
        ("POST", "/v1/feedback", value),
        ("POST", "/v1/feedback", [value, {**value, "metadata": f'{{"a": "{s.pattern("in metadata as text")}"}}'}]),
        ("POST", "/v1/logs", log),
        ("POST", "/custom/v1/log", custom),
        *key_feedback(s, session, value, url, headers),
    ]


def malformed() -> list[bytes]:
    """Requests that are refused, each for another reason."""
    s = SECRETS
    by_key = b"x-portkey-api-key: " + KEY.encode()
    wrong = f"Authorization: Bearer {s('a wrong key')}".encode()
    target = f"Helicone-Target-URL: https://user:{s('in a target')}@10.0.0.1/?key={s('in the query of a target')}"
    return [
        request("POST", "/v1/chat/completions", wrong, body=as_json(password=s("refused for its key"))),
        request("POST", "/v1/logs", wrong, body=as_json(password=s("a log refused for its key"))),
        request("POST", "/v1/chat/completions" + _query(s), by_key, target.encode(), body=b"{}"),
        request("GET", f"/nowhere/{s('in a path that leads nowhere')}?key={s('in its query')}", by_key),
        request("PATCH", "/v1/feedback", by_key, f"Cookie: {s('in a cookie that is refused')}".encode()),
        request("POST", "/v1/feedback", by_key, body=f'{{"password": {s("in a broken body")}'.encode()),
        request("POST", "/v1/feedback", by_key, body=as_json(trace_id="t", value=s("instead of a value"))),
        request("POST", "/v1/request/auth/score", by_key, body=as_json(scores={"a": s("instead of a score")})),
        request("POST", "/v1/logs", by_key, body=as_json(request=s("instead of a request"), response=1)),
        request("GET", f"/v1/request/{s('an unknown id')}", by_key),
        request("GET", "/v1/models", f"Authorization: Bearer {s('beside a control')}\x01".encode(), by_key),
        request("GET", "/v1/models", f"no field at all {s('in no field')}".encode(), by_key),
        request("GET", "/v1/models", f"Cookie: {s('in a field too long')}".encode() + b"x" * 70_000, by_key),
        f"NONSENSE {s('in no request')}\r\n\r\n".encode(),
        request("POST", "/v1/x", by_key, b"Transfer-Encoding: chunked") + f"zz\r\n{s('in a bad chunk')}\r\n".encode(),
    ]
