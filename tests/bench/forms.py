"""What reading an event costs, by what it carries beside its text: `python -m tests.bench events`.

A response is read by `ResponseReader.feed`, one event per read or sixteen, beside `orjson.loads` of the same frames, in
turns of a fraction of a millisecond each, so that what else the machine does falls on all alike. The first events,
from which the reader learns the form of the others, count too.
"""

from __future__ import annotations

import gc
import random
import statistics
from itertools import pairwise
from time import perf_counter_ns
from typing import Any, NamedTuple

import orjson

from loadbench.wire.openai import Api
from loadbench.wire.response_reader import Learned, ResponseReader

# Events of a response, and how often it is read in each round.
_EVENTS, _TURNS = 256, 31

WORDS = (" the", " of", " quick", " brown", "ness", " over", ".", " lazy", " answer", ",")


def _chunk(number: int, text: str, **more: Any) -> dict[str, Any]:
    delta = more.pop("delta", {"content": text})
    choice = {"index": 0, "delta": delta, **more.pop("choice", {}), "finish_reason": None}
    return {
        "id": "chatcmpl-7c1f0b6d2a",
        "object": "chat.completion.chunk",
        "created": more.pop("created", 1_700_000_000),
        "model": "some-model",
        "choices": [choice],
        **more,
    }


def _plain(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text)


def _numbered(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, seq=n)


def _created(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, created=1_700_000_000 + n)


def _padded(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, obfuscation="".join(random.Random(n).choices("abcdefghijkABCDEFGH0123456789", k=n * 7 % 16)))


def _ids(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, choice={"logprobs": None, "token_ids": [1000 + n]})


def _escapes(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text + '\n\t"' + "é"[n % 2 :])


def _reasoning(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, delta={"content": None, "reasoning_content": text}, seq=n)


def _usage(n: int, text: str) -> dict[str, Any]:
    usage = {"prompt_tokens": 30, "completion_tokens": n + 1, "total_tokens": 31 + n}
    return _chunk(n, text, usage=usage)


def _logprobs(n: int, text: str) -> dict[str, Any]:
    entry = {"token": text, "logprob": -0.125 * (n % 50), "bytes": list(text.encode()), "top_logprobs": []}
    return _chunk(n, text, choice={"logprobs": {"content": [entry], "refusal": None}})


def _calls(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, delta={"tool_calls": [{"index": 0, "function": {"arguments": f'{text}"'}}]})


def _two_choices(n: int, text: str) -> dict[str, Any]:
    frame = _chunk(n, text)
    frame["choices"].append({"index": 1, "delta": {"content": text}, "finish_reason": None})
    return frame


def _timings(n: int, text: str) -> dict[str, Any]:
    return _chunk(
        n, text, timings={"prompt_n": 5, "prompt_ms": 1.5, "predicted_n": n + 1, "predicted_ms": 3.25 * n + 1}
    )


FORMS = {
    "plain": _plain,
    "numbered (seq)": _numbered,
    "numbered (created)": _created,
    "padded (obfuscation)": _padded,
    "token ids": _ids,
    "escapes in the text": _escapes,
    "reasoning": _reasoning,
    "running usage": _usage,
    "log-probabilities": _logprobs,
    "tool calls": _calls,
}
# What fewer servers send; of the second, each event has lines before its data.
RARER = {"two choices": _two_choices, "event: and id: lines": _numbered, "timings in each": _timings}
_LABELS = {"event: and id: lines": b"event: message\nid: %d\n"}


def frames(form: str, events: int) -> list[bytes]:
    """So many frames of this form, as JSON."""
    make = (FORMS | RARER)[form]
    return [orjson.dumps(make(number, WORDS[number % len(WORDS)])) for number in range(events)]


class Cost(NamedTuple):
    """Of one event, in ns: medians of the turns; and the medians of their ratios to `orjson.loads`."""

    loads: float
    single: float
    bulk: float
    parsed: float
    single_ratio: float
    bulk_ratio: float


def cost(form: str, turns: int) -> Cost:
    """What an event of this form costs."""
    data = frames(form, _EVENTS)
    labels = _LABELS.get(form, b"")
    events = [(labels and labels % n) + b"data: " + frame + b"\n\n" for n, frame in enumerate(data)]
    reads = [b"".join(events[at : at + 16]) for at in range(0, _EVENTS, 16)]

    def loads() -> None:
        for frame in data:
            orjson.loads(frame)

    def feed(chunks: list[bytes], *, parse_all: bool = False) -> None:
        reader = ResponseReader(Api.CHAT, keep_text=parse_all, learned=learned)
        for at_ns, chunk in enumerate(chunks):
            reader.feed(at_ns, chunk)

    learned = Learned()  # of the responses before, as in a client
    ways = (loads, lambda: feed(events), lambda: feed(reads), lambda: feed(events, parse_all=True))
    rows: list[list[float]] = []
    gc.disable()
    for _ in range(turns):
        stamps = [perf_counter_ns()]
        for way in ways:
            way()
            stamps.append(perf_counter_ns())
        rows.append([(later - earlier) / _EVENTS for earlier, later in pairwise(stamps)])
    gc.enable()
    ratios = [statistics.median(row[way] / row[0] for row in rows) for way in (1, 2)]
    return Cost(*map(statistics.median, zip(*rows, strict=True)), *ratios)


def table(rounds: int) -> list[str]:
    """The lines that show the cost of every form."""
    head = f"  {'':<22}{'orjson.loads':>12}  {'one per read':>17}  {'sixteen per read':>17}  {'all parsed':>11}"
    lines = [head]
    costs = {form: cost(form, rounds * _TURNS) for form in FORMS | RARER}
    for form, one in costs.items():
        lines.append(
            f"  {form:<22}{one.loads:9.0f} ns  {one.single:7.0f} ns {one.single_ratio:5.2f} x"
            f"  {one.bulk:7.0f} ns {one.bulk_ratio:5.2f} x  {one.parsed:8.0f} ns"
        )
    for what, forms in {"the dearest of the usual forms": FORMS, "the dearest of the rarer ones": RARER}.items():
        most = max(max(costs[form].single_ratio, costs[form].bulk_ratio) for form in forms)
        lines.append(f"  {what} / orjson.loads: {most:.2f}, bar 3: {'held' if most <= 3 else 'NOT held'}")
    return lines
