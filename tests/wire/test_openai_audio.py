"""Transcripts and speech, whole and streamed, in the shapes that the official SDK's types give them."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from openai.types.audio import (
    Transcription,
    TranscriptionDiarized,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionTextSegmentEvent,
    TranscriptionVerbose,
)

from proxy.pricing import Pricer
from proxy.wire import Message, ResponseFacts, read_response, visible_answer, visible_body
from storage.records import Usage
from tests.wire.sdk_events import stream_of

PATH = "/v1/audio/transcriptions"
SPEECH = "/v1/audio/speech"
TOKENS = {
    "type": "tokens",
    "input_tokens": 14,
    "output_tokens": 45,
    "total_tokens": 59,
    "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
}
COUNTED = Usage(prompt_tokens=14, completion_tokens=45, total_tokens=59, prompt_audio_tokens=10)


def answered(body: dict[str, Any], path: str = PATH) -> ResponseFacts:
    return read_response(path, Message(orjson.dumps(body), "application/json"))


def streamed(*events: Any, path: str = PATH, end: bytes = b"") -> ResponseFacts:
    return read_response(path, Message(stream_of(*events) + end, "text/event-stream; charset=utf-8"))


def delta(text: str, **more: Any) -> TranscriptionTextDeltaEvent:
    return TranscriptionTextDeltaEvent(type="transcript.text.delta", delta=text, **more)


def done(text: str, **more: Any) -> TranscriptionTextDoneEvent:
    return TranscriptionTextDoneEvent.model_validate({"type": "transcript.text.done", "text": text, **more})


def segment(id: str, speaker: str, text: str) -> TranscriptionTextSegmentEvent:
    return TranscriptionTextSegmentEvent(
        type="transcript.text.segment", id=id, start=0.5, end=1.5, speaker=speaker, text=text
    )


@pytest.mark.parametrize("path", [PATH, "/v1/audio/translations", "/openai/v1/audio/transcriptions?x=y"])
def test_the_text_of_an_answer_is_its_transcript(path: str) -> None:
    facts = answered({"text": "Hello there.", "usage": TOKENS}, path)
    assert (facts.text, facts.usage, facts.is_stream) == ("Hello there.", COUNTED, False)


def test_seconds_that_are_billed_are_no_tokens() -> None:
    body = {"text": "Hi", "usage": {"type": "duration", "seconds": 9}, "duration": 8.47, "language": "english"}
    facts = answered(body)
    assert (facts.text, facts.usage, facts.body) == ("Hi", Usage(), body)
    assert TranscriptionVerbose.model_validate(facts.body).usage is not None


@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("text/plain; charset=utf-8", "Héllo there.\n"),
        ("text/plain", "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n"),
        ("text/vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n"),
        ("application/x-subrip", "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n"),
    ],
    ids=["text", "srt", "vtt", "subrip"],
)
def test_a_transcript_that_comes_as_text_is_that_text(content_type: str, text: str) -> None:
    message = Message(text.encode(), content_type)
    facts = read_response(PATH, message)
    assert facts == ResponseFacts(text=text)
    assert visible_answer(facts.body, message) == text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (PATH, Message(b"", "text/plain")),
        (PATH, Message(b"<html>Bad gateway</html>", "text/html")),
        (SPEECH, Message(b"Oh", "text/plain")),
        ("/v1/chat/completions", Message(b"Oh", "text/plain")),
    ],
)
def test_other_text_is_no_transcript(path: str, message: Message) -> None:
    assert read_response(path, message) == ResponseFacts()


def test_a_streamed_transcript_adds_up_to_the_unstreamed_answer() -> None:
    logprobs = [{"token": "Hel", "bytes": [72], "logprob": -0.1}, {"token": "lo", "logprob": -0.2}]
    facts = streamed(
        delta("Hel", logprobs=logprobs[:1]),
        delta("lo", logprobs=logprobs[1:]),
        done("Hello", logprobs=logprobs, usage=TOKENS, languages=[{"code": "en"}]),
        end=b"data: [DONE]\n\n",
    )
    assert facts.body == {"text": "Hello", "logprobs": logprobs, "usage": TOKENS, "languages": [{"code": "en"}]}
    assert (facts.text, facts.usage, facts.is_stream, facts.error) == ("Hello", COUNTED, True, None)
    assert Transcription.model_validate(facts.body).to_dict() == facts.body


def test_a_streamed_transcript_that_was_cut_has_what_came() -> None:
    told = [{"token": "Hel", "logprob": -0.1}]
    facts = streamed(delta("Hel", logprobs=told), delta("lo", segment_id="seg_1"), end=b"data: {")
    assert (facts.text, facts.usage, facts.body) == ("Hello", Usage(), {"text": "Hello", "logprobs": told})


def test_the_segments_of_a_diarized_transcript_are_in_the_answer() -> None:
    first, second = segment("seg_1", "A", "Hello."), segment("seg_2", "B", "Bye.")
    facts = streamed(
        delta("Hello.", segment_id="seg_1"), first, delta(" Bye."), second, done("Hello. Bye.", usage=TOKENS)
    )
    assert facts.text == "Hello. Bye."
    whole = TranscriptionDiarized.model_validate({"task": "transcribe", "duration": 3.0, **facts.body})
    assert [(part.speaker, part.text) for part in whole.segments] == [("A", "Hello."), ("B", "Bye.")]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "error": {"message": "too long"}},
        {"type": "error", "message": "too long"},
        {"error": "too long"},
    ],
)
@pytest.mark.parametrize("path", [PATH, SPEECH])
def test_an_error_in_a_stream_is_told(path: str, event: dict[str, Any]) -> None:
    assert streamed(delta("Hi"), event, path=path).error == "too long"


def test_what_a_transcript_cost_is_known_by_the_model_that_was_asked_for() -> None:
    facts = streamed(done("Hello", usage=TOKENS))
    cost = Pricer({}).cost(
        facts, ("gpt-4o-transcribe",), target_url=f"https://api.openai.com{PATH}", provider="openai", started=0
    )
    assert cost == pytest.approx((4 * 2.5 + 10 * 6 + 45 * 10) / 1e6)


MP3, PCM_SILENCE = b"\xff\xf3\x44\xc4" * 9, b"\0" * 64


@pytest.mark.parametrize(
    ("data", "content_type"),
    [(MP3, "audio/mpeg"), (PCM_SILENCE, "audio/pcm"), (b"{}", "audio/opus"), (b" [1]", "Image/PNG; x=y")],
)
def test_speech_is_not_read_and_is_shown_as_base64(data: bytes, content_type: str) -> None:
    message = Message(data, content_type)
    facts = read_response(SPEECH, message)
    assert facts == ResponseFacts()
    assert visible_answer(facts.body, message) == {"encoding": "base64", "data": base64.b64encode(data).decode()}
    assert visible_body(Message(b"", content_type)) is None


def speech(data: bytes) -> dict[str, Any]:
    return {"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()}


def test_streamed_speech_is_shown_as_its_bytes_with_the_usage_beside_them() -> None:
    counts = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}
    facts = streamed(speech(MP3[:5]), speech(MP3[5:]), {"type": "speech.audio.done", "usage": counts}, path=SPEECH)
    assert facts.body == {"encoding": "base64", "data": base64.b64encode(MP3).decode(), "usage": counts}
    assert facts.usage == Usage(prompt_tokens=14, completion_tokens=101, total_tokens=115)
    assert (facts.text, facts.is_stream) == (None, True)


@pytest.mark.parametrize("audio", [None, 5, "=", "é", ""])
def test_speech_that_is_no_base64_adds_nothing(audio: Any) -> None:
    facts = streamed(speech(b"ab"), {"type": "speech.audio.delta", "audio": audio}, path=SPEECH)
    assert facts.body == {"encoding": "base64", "data": "YWI="}


@pytest.mark.parametrize("path", [PATH, SPEECH])
@pytest.mark.parametrize(
    "events",
    [
        [{"type": ["transcript.text.delta"]}],
        [{"type": "transcript.text.delta", "delta": 5, "logprobs": 5}],
        [{"type": "transcript.text.done", "text": None, "usage": []}],
        [{"type": "speech.audio.done", "usage": 5}],
        [{"type": "more.to.come"}],
    ],
)
def test_events_of_any_shape_are_read(path: str, events: list[Any]) -> None:
    facts = streamed(*events, path=path)
    assert (facts.text, facts.usage, facts.is_stream) == (None, Usage(), True)
