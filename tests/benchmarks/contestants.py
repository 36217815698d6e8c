"""Who takes part, and how each is started in front of the upstream.

``direct`` is no proxy at all: what is left of the upstream's and the load's own time, and what both can do at most.
The peers come with ``--peers``, the folder that `make bench-peers` fills.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["CONTESTANTS", "DIRECT", "PEERS", "Launch", "Place", "Unavailable"]

DIRECT: Final = "direct"


class Unavailable(Exception):
    """A contestant that isn't installed; the text is for the report."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contestant is to stand: its port, the upstream's, a folder of its own, and the folder of the peers."""

    port: int
    upstream: int
    folder: Path
    peers: Path | None

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream}"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start it. ``fields`` go into each request's head; ``guaranteed`` rows stand when the answer is out."""

    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[str] = ()
    database: Path | None = None
    guaranteed: bool = False
    starts_within: float = 20.0  # seconds


def _bare(place: Place) -> Launch:
    return Launch((sys.executable, "-m", "tests.benchmarks.bare", str(place.port), place.upstream_url))


def _kibitz(place: Place, durability: str) -> Launch:
    database = place.folder / "kibitz.db"
    addresses = ("--port", str(place.port), "--upstream", f"{place.upstream_url}/v1")
    return Launch(
        (sys.executable, "-m", "proxy", "serve", *addresses, "--database", database),
        environment={"KIBITZ_DURABILITY": durability},
        database=database,
        guaranteed=durability == "strict",
    )


_NGINX: Final = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
USERevents { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream upstream {
        server 127.0.0.1:UPSTREAM;
        keepalive 1024;
        keepalive_requests 100000000;
    }
    server {
        listen 127.0.0.1:PORT backlog=1024;
        location / {
            proxy_pass http://upstream;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }
    }
}
"""


def _nginx(place: Place) -> Launch:
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise Unavailable("nginx is not installed")
    # Started by root, its worker would be somebody who can't reach this folder.
    values = {"USER": "user root;\n" if os.getuid() == 0 else "", "UPSTREAM": place.upstream, "PORT": place.port}
    text = _NGINX
    for name, value in values.items():
        text = text.replace(name, str(value))
    config = place.folder / "nginx.conf"
    config.write_text(text, encoding="utf-8")
    return Launch((binary, "-e", "stderr", "-p", place.folder, "-c", config))


# LiteLLM asks for a key of its own otherwise, even on loopback.
_UNSET_KEY: Final = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"


def _litellm(place: Place) -> Launch:
    binary = _peer(place, "bin/litellm")
    target = {"model": "openai/gpt-4o-mini", "api_base": f"{place.upstream_url}/v1", "api_key": "sk-benchmark"}
    config = place.folder / "litellm.yaml"
    models = [{"model_name": "gpt-4o-mini", "litellm_params": target}]
    config.write_text(json.dumps({"model_list": models}), encoding="utf-8")  # JSON is YAML
    return Launch(
        (binary, "--config", config, "--host", "127.0.0.1", "--port", str(place.port), "--telemetry", "False"),
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            _UNSET_KEY: "true",
        },
        starts_within=120,
    )


def _portkey(place: Place) -> Launch:
    script = _peer(place, "gateway/node_modules/@portkey-ai/gateway/build/start-server.js")
    node = shutil.which("node")
    if node is None:
        raise Unavailable("node is not installed")
    return Launch(
        (node, script, f"--port={place.port}", "--headless"),
        environment={"NODE_ENV": "production"},
        fields=("x-portkey-provider: openai", f"x-portkey-custom-host: {place.upstream_url}/v1"),
        starts_within=60,
    )


def _peer(place: Place, path: str) -> Path:
    if place.peers is None or not (place.peers / path).exists():
        raise Unavailable("it is not installed; make bench-peers does that")
    return (place.peers / path).absolute()


CONTESTANTS: Final[Mapping[str, Callable[[Place], Launch]]] = {
    "bare": _bare,
    "strict": lambda place: _kibitz(place, "strict"),
    "relaxed": lambda place: _kibitz(place, "relaxed"),
    "nginx": _nginx,
    "litellm": _litellm,
    "portkey": _portkey,
}
PEERS: Final = ("litellm", "portkey")
