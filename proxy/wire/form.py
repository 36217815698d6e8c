"""A form that was uploaded, as `proxy.form_capture` keeps it: ``{"parts": [...]}``, fields and files in their order."""

from __future__ import annotations

from typing import Any, Final

from proxy.wire.facts import RequestFacts, as_objects, as_text

__all__ = ["FORM", "read_form"]

FORM: Final = "application/x-kibitz-form+json"


def read_form(body: dict[str, Any]) -> RequestFacts:
    """Facts of a request, from fields named as the members of a JSON body; of two of a name the first counts."""
    fields: dict[str, str] = {}
    for part in as_objects(body.get("parts")):
        name, value = as_text(part.get("name")), as_text(part.get("value"))
        if name and value and "truncated" not in part:
            fields.setdefault(name, value)
    return RequestFacts(
        model=fields.get("model"), user=fields.get("user"), is_stream=fields.get("stream", "").lower() == "true"
    )
