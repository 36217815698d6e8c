"""Images, whole and streamed, in the shapes that the official SDK's types give them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types import (
    ImageEditCompletedEvent,
    ImageEditPartialImageEvent,
    ImageGenCompletedEvent,
    ImageGenPartialImageEvent,
    ImagesResponse,
)

from proxy.pricing import Pricer
from proxy.wire import Message, ResponseFacts, read_response
from storage.records import Usage
from tests.wire.sdk_events import stream_of

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
COUNTS = {
    "input_tokens": 50,
    "output_tokens": 1056,
    "total_tokens": 1106,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
}
COUNTED = Usage(prompt_tokens=50, completion_tokens=1056, total_tokens=1106)
SETTINGS = {"background": "opaque", "output_format": "png", "quality": "low", "size": "1024x1024"}


def answered(body: dict[str, Any]) -> ResponseFacts:
    return read_response(GENERATIONS, Message(orjson.dumps(body), "application/json"))


def streamed(*events: Any, path: str = GENERATIONS, end: bytes = b"") -> ResponseFacts:
    return read_response(path, Message(stream_of(*events) + end, "text/event-stream"))


def partial(path: str, image: str, index: int = 0) -> Any:
    told = {"b64_json": image, "partial_image_index": index, "created_at": 1700000000, **SETTINGS}
    if path == EDITS:
        return ImageEditPartialImageEvent.model_validate({"type": "image_edit.partial_image", **told})
    return ImageGenPartialImageEvent.model_validate({"type": "image_generation.partial_image", **told})


def completed(path: str, image: str, usage: dict[str, Any] = COUNTS) -> Any:
    told = {"b64_json": image, "created_at": 1700000001, "usage": usage, **SETTINGS}
    if path == EDITS:
        return ImageEditCompletedEvent.model_validate({"type": "image_edit.completed", **told})
    return ImageGenCompletedEvent.model_validate({"type": "image_generation.completed", **told})


@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
def test_streamed_images_add_up_to_the_unstreamed_answer(path: str) -> None:
    facts = streamed(partial(path, "aa"), partial(path, "bb", 1), completed(path, "cc"), path=path)
    assert facts.body == {"created": 1700000001, "data": [{"b64_json": "cc"}], "usage": COUNTS, **SETTINGS}
    assert ImagesResponse.model_validate(facts.body).to_dict() == facts.body
    assert (facts.usage, facts.text, facts.is_stream) == (COUNTED, None, True)


def test_a_stream_that_was_cut_has_the_image_as_far_as_it_got() -> None:
    facts = streamed(partial(EDITS, "aa"), partial(EDITS, "bb", 1), end=b'data: {"type":', path=EDITS)
    assert facts.body["data"] == [{"b64_json": "bb", "partial_image_index": 1}]
    assert facts.usage == Usage()


def test_the_usage_of_several_images_is_summed() -> None:
    facts = streamed(completed(GENERATIONS, "aa"), partial(GENERATIONS, "b"), completed(GENERATIONS, "bb"))
    assert facts.body["data"] == [{"b64_json": "aa"}, {"b64_json": "bb"}]
    assert facts.usage == Usage(prompt_tokens=100, completion_tokens=2112, total_tokens=2212)
    assert facts.body["usage"]["input_tokens_details"] == {"text_tokens": 20, "image_tokens": 80}


def test_an_error_in_a_stream_is_told_beside_what_came_before() -> None:
    facts = streamed(partial(GENERATIONS, "aa"), {"type": "error", "error": {"message": "refused"}})
    assert (facts.error, facts.body["data"][0]["b64_json"]) == ("refused", "aa")


def cost(facts: ResponseFacts, model: str = "gpt-image-1.5") -> float | None:
    target = f"https://api.openai.com{GENERATIONS}"
    return Pricer({}).cost(facts, (model,), target_url=target, provider="openai", started=0)


def test_what_images_cost_depends_on_which_tokens_were_of_images() -> None:
    asked = 10 * 5 + 40 * 8
    told_apart = {**COUNTS, "output_tokens_details": {"image_tokens": 1000, "text_tokens": 56}}
    assert cost(answered({"data": [], "usage": told_apart})) == pytest.approx((asked + 1000 * 32 + 56 * 10) / 1e6)
    assert cost(answered({"data": [], "usage": COUNTS})) == pytest.approx((asked + 1056 * 32) / 1e6)
    assert cost(streamed(completed(EDITS, "aa"), path=EDITS)) == pytest.approx((asked + 1056 * 32) / 1e6)
    assert cost(answered({"data": [], "usage": COUNTS}), "gpt-image-2") == pytest.approx((asked + 1056 * 30) / 1e6)
    assert cost(answered({"data": [{"url": "https://images.test/1"}]})) is None


@pytest.mark.parametrize(
    "event",
    [
        {"type": ["image_edit.completed"]},
        {"type": "image_edit.completed", "usage": [1]},
        {"type": "image_generation.completed", "usage": {"input_tokens": {}}},
        {"type": "image_generation.partial_image"},
        {"type": "more.to.come"},
    ],
)
def test_events_of_any_shape_are_read(event: Any) -> None:
    facts = streamed(event, event)
    assert (facts.usage, facts.is_stream) == (Usage(), True)
