"""The server's own times of a request: those of captures, and every way in which they are not to be believed."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from loadbench.record.timings import Timings
from loadbench.wire.openai import Api, read_chunk
from loadbench.wire.response_reader import ResponseReader
from loadbench.wire.timings import ollama_timings, timings_in

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
MS = 1_000_000
LLAMACPP = {"cache_n": 2, "prompt_n": 30, "prompt_ms": 4.778, "predicted_n": 24, "predicted_ms": 4.717}


def body(name: str) -> bytes:
    """The body of a captured answer."""
    return re.split(rb"\r?\n\r?\n", (CAPTURES / name).read_bytes(), maxsplit=1)[1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llamacpp-normal.txt", Timings(None, 4_778_000, 4_717_000, 30, 24, 0)),
        ("llamacpp-usage.txt", Timings(None, 517_000, 6_272_000, 1, 24, 29)),
        # One token: what it calls its time is 1 µs, of nothing.
        ("llamacpp-max1.txt", Timings(None, 579_000, None, 1, 1, 29)),
        ("vllm-usage.txt", None),
    ],
)
def test_timings_of_a_captured_answer(name, expected):
    """Whichever frame has them, the answer knows them; a server that tells none has none."""
    answer = ResponseReader(Api.CHAT)
    answer.feed(1, body(name))
    answer.close(2)
    assert answer.event_ns
    assert answer.timings == expected


def test_timings_make_no_event_of_a_frame():
    """A frame that holds them and no text bears no token; one with both bears its text."""
    chunk = read_chunk(orjson.dumps({"choices": [], "timings": LLAMACPP}))
    assert (chunk.text, chunk.timings) == ("", Timings(None, 4_778_000, 4_717_000, 30, 24, 2))
    both = read_chunk(orjson.dumps({"choices": [{"delta": {"content": "x"}}], "timings": LLAMACPP}))
    assert (both.text, both.timings) == ("x", chunk.timings)


def test_timings_in_every_frame_are_those_of_the_last():
    """As with `timings_per_token`: each frame's events are counted, and the last account stands."""
    frames = b"".join(
        b"data: "
        + orjson.dumps(
            {"choices": [{"delta": {"content": "x"}}], "timings": LLAMACPP | {"predicted_n": n, "predicted_ms": n}}
        )
        + b"\n\n"
        for n in range(1, 6)
    )
    answer = ResponseReader(Api.CHAT)
    answer.feed(1, frames)
    assert len(answer.event_ns) == 5
    assert answer.timings is not None
    assert (answer.timings.output_tokens, answer.timings.decode_ns) == (5, 5 * MS)


def test_vllm_tells_queue_prefill_and_decode():
    """Its first token counts from when the request was scheduled: queue and that make the whole way."""
    told = timings_in(
        {"metrics": {"queue_time_ms": 12.3, "time_to_first_token_ms": 85.2, "generation_time_ms": 1240.5}}
    )
    assert told == Timings(12_300_000, 85_200_000, 1_240_500_000)
    assert told.first_token_ns == 97_500_000


def test_ollama_tells_them_in_nanoseconds():
    """Beside its last object's counts."""
    told = ollama_timings({"prompt_eval_count": 26, "prompt_eval_duration": 130, "eval_count": 9, "eval_duration": 410})
    assert told == Timings(None, 130, 410, 26, 9, None)
    assert ollama_timings({"eval_count": 1, "eval_duration": 5}) is None


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"timings": None},
        {"timings": []},
        {"timings": {}},
        {"timings": {"prompt_ms": "4.7", "predicted_ms": None}},
        {"timings": {"prompt_ms": -1, "predicted_n": 5, "predicted_ms": float("nan")}},
        {"timings": {"prompt_ms": float("inf"), "predicted_n": True, "predicted_ms": 5}},
        {"timings": {"prompt_ms": 1e30}},
        {"timings": {"prompt_ms": 10**400}},
        {"timings": {"prompt_ms": True}},
        {"timings": {"predicted_n": 1, "predicted_ms": 0.001}},
        {"timings": {"predicted_ms": 5}},
        {"metrics": "many"},
        {"metrics": {"queue_time_ms": None}},
    ],
)
def test_what_is_no_time_is_left_out(document):
    """Of whatever else stands in their place there is nothing, and no error."""
    assert timings_in(document) is None


MONTH_MS = 30 * 24 * 3600 * 1000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt_ms": MONTH_MS}, Timings(prefill_ns=MONTH_MS * MS)),
        ({"prompt_ms": MONTH_MS + 1}, None),
        ({"prompt_ms": 0}, Timings(prefill_ns=0)),
        ({"prompt_ms": -0.001}, None),
        ({"prompt_ms": True}, None),
        ({"predicted_n": 2, "predicted_ms": 5}, Timings(decode_ns=5 * MS, output_tokens=2)),
        ({"predicted_n": 1, "predicted_ms": 5}, None),
        ({"predicted_ms": 5}, None),
    ],
)
def test_a_time_is_from_nothing_to_a_month(fields, expected):
    """And that of decoding needs two tokens."""
    assert timings_in({"timings": fields}) == expected
    names = {"prompt_ms": "prompt_eval_duration", "predicted_ms": "eval_duration", "predicted_n": "eval_count"}
    of_ollama = {names[name]: value if name == "predicted_n" else value * MS for name, value in fields.items()}
    if fields.get("prompt_ms") is not True:
        assert ollama_timings(of_ollama) == expected
