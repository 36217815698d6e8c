"""A run's JSON as the table that README shows: ``python -m tests.benchmarks.markdown build/bench.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["table"]

_Summary = Mapping[str, Any]

_SHAPES: Final = {"json": "JSON", "json-ids": "JSON with ids", "sse": "stream", "sse-burst": "all events at once"}
_CONTESTANTS: Final = {
    "bare": "bare pass-through",
    "strict": "**Kibitz, strict**",
    "relaxed": "Kibitz, relaxed",
    "nginx": "nginx",
}


def _median(kind: str, name: str, form: str) -> Callable[[_Summary], str]:
    def show(one: _Summary) -> str:
        spread = one[kind].get(name)
        return format(spread["median"], form) if spread else ""

    return show


_COLUMNS: Final[Mapping[str, Callable[[_Summary], str]]] = {
    "requests/s": _median("figures", "requests_per_second", ",.0f"),
    "of bare": _median("to_bare", "requests_per_second", ".2f"),
    "p50 ms": _median("figures", "latency_p50_ms", ".2f"),
    "over bare": _median("over_bare", "latency_p50_ms", "+.2f"),
    "p99 ms": _median("figures", "latency_p99_ms", ".2f"),
    "of bare's": _median("to_bare", "latency_p99_ms", ".2f"),
    "first byte over bare": _median("over_bare", "first_token_p50_ms", "+.2f"),
    "last event over bare": _median("over_bare", "last_event_p50_ms", "+.2f"),
    "CPU µs a request": _median("figures", "cpu_us_per_request", ",.0f"),
    "MB": _median("figures", "resident_mb", ",.0f"),
}


def table(run: Mapping[str, Any]) -> str:
    """What was measured of those that README speaks of, each in its line."""
    lines = [["", *_COLUMNS], ["---", *("---:" for _ in _COLUMNS)]]
    for one in run["summaries"]:
        if one["contestant"] in _CONTESTANTS:
            what = f"{_SHAPES[one['shape']]}, {one['connections']} at once: {_CONTESTANTS[one['contestant']]}"
            lines.append([what, *(show(one) for show in _COLUMNS.values())])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m {__spec__.name} PATH-OF-JSON")
    sys.stdout.write(table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
