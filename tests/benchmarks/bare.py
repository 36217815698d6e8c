"""What Kibitz is measured against: a pass-through of aiohttp's own parts, as anybody would write it, with no log.

``python -m tests.benchmarks.bare PORT UPSTREAM``. It drops the hop-by-hop fields (RFC 9110 section 7.6.1), decodes
nothing and streams the answer. It does none of what else Kibitz promises: fields pass as aiohttp rewrites them.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host")
)
_UPSTREAM = web.AppKey("upstream", str)
_SESSION = web.AppKey("session", ClientSession)


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP)


async def _forward(request: web.Request) -> web.StreamResponse:
    url = URL(request.app[_UPSTREAM] + request.raw_path, encoded=True)
    body = await request.read() if request.can_read_body else None
    async with request.app[_SESSION].request(
        request.method, url, headers=_end_to_end(request.headers), data=body, allow_redirects=False
    ) as answer:
        headers = _end_to_end(answer.headers)
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


async def _session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(
        auto_decompress=False,
        connector=TCPConnector(limit=0),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None, sock_connect=10),
    ) as session:
        app[_SESSION] = session
        yield


def _application(upstream: str) -> web.Application:
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app[_UPSTREAM] = upstream
    app.cleanup_ctx.append(_session)
    app.router.add_route("*", "/{path:.*}", _forward)
    return app


if __name__ == "__main__":
    web.run_app(
        _application(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        backlog=1024,
        loop=uvloop.new_event_loop(),
    )
