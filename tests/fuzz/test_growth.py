"""No input costs more than linear time: of each kind, what is four times as long takes about four times as long."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import orjson
import pytest

from loadbench.core.errors import LoadbenchError
from loadbench.results.requests import line
from loadbench.wire.openai import Api
from tests.building import a_sample
from tests.fuzz.readers import READERS, sample_of, saved_run

if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
_TEXT = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n"
_ERROR = b"HTTP/1.1 500 Oops\r\ncontent-type: text/html\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TOKEN = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
# An input is doubled until it takes this long, so that what does not depend on its length no longer counts.
_MEASURABLE_S = 0.01
_MOST_BYTES = 2_000_000
# Four times as long a list may take a little more than four times as long: memory, caches, other programs.
_TIMES, _MOST_RATIO = 4, 9
_MOST_ROUNDS = 12


def _response(data: bytes, *, piece: int = 4096, api: Api = Api.CHAT) -> None:
    asyncio.run(sample_of(api, data, piece))


def _reads(name: str, data: bytes) -> None:
    with suppress(LoadbenchError):
        READERS[name].read(data)


def _run(levels: int) -> bytes:
    document = orjson.loads(saved_run())
    first = document["levels"][0]
    for metric in first["metrics"].values():
        if metric is not None:
            metric["hdr"] = ""
    document["levels"] = [{**first, "load": {"kind": "closed", "users": users + 1}} for users in range(levels)]
    return orjson.dumps(document)


# What has a length, by what it is: (how it is read, an input of this many parts).
KINDS: dict[str, tuple[Callable[[bytes], None], Callable[[int], bytes]]] = {
    "tokens": (_response, lambda n: _HEAD + _TOKEN * n),
    "tokens in small reads": (partial(_response, piece=50), lambda n: _HEAD + _TOKEN * n),
    "a long line": (_response, lambda n: _HEAD + b"data: " + b"x" * 1000 * n),
    "a long line in small reads": (partial(_response, piece=64), lambda n: _HEAD + b"data: " + b"x" * n),
    "empty lines": (_response, lambda n: _HEAD + b"\n" * n),
    "carriage returns": (_response, lambda n: _HEAD + b"\r" * n),
    "comments": (_response, lambda n: _HEAD + b": ping\n\n" * n),
    "unknown lines": (_response, lambda n: _HEAD + b"what\n" * n),
    "lines of data": (_response, lambda n: _HEAD + b"data: x\n" * n),
    "frames without an empty line": (_response, lambda n: _HEAD + b'data: {"choices":[]}\n' * n),
    "events that are no JSON": (_response, lambda n: _HEAD + b"data: {x\n\n" * n),
    "a frame of many choices": (_response, lambda n: _HEAD + b'data: {"choices":[' + b"{}," * n + b"{}]}\n\n"),
    "a frame of many names": (
        _response,
        lambda n: _HEAD + b"data: " + orjson.dumps({"usage": {f"tokens_{k}": k for k in range(n)}}) + b"\n\n",
    ),
    "blanks before a body": (partial(_response, piece=64), lambda n: _TEXT + b" " * n),
    "a body that is no stream": (_response, lambda n: _TEXT + b"[0," * n),
    "an error page": (_response, lambda n: _ERROR + b"<html>" + b"<title " * n),
    "chunks of a byte": (_response, lambda n: _CHUNKED + b"1\r\n:\r\n" * n),
    "trailers": (_response, lambda n: _CHUNKED + b"0\r\n" + b"a: b\r\n" * n),
    "headers": (_response, lambda n: b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * n),
    "one header": (partial(_response, piece=64), lambda n: b"HTTP/1.1 200 OK\r\na: " + b"b" * n),
    "interim responses": (_response, lambda n: b"HTTP/1.1 100 Continue\r\n\r\n" * n),
    "lines of JSON": (
        partial(_response, api=Api.OLLAMA),
        lambda n: _TEXT + b'{"message":{"content":"x"},"done":false}\n' * n,
    ),
    "models": (
        partial(_reads, "models-list"),
        lambda n: orjson.dumps({"data": [{"id": f"model-{k}"} for k in range(n)]}),
    ),
    "versions of a model": (
        partial(_reads, "models-list"),
        lambda n: orjson.dumps({"data": [{"id": f"model:{k}"} for k in range(n)]}),
    ),
    "models without names": (partial(_reads, "models-list"), lambda n: b"[" + b"{}," * n + b"{}]"),
    "a long name of a model": (partial(_reads, "models-list"), lambda n: orjson.dumps({"data": [{"id": "m" * n}]})),
    "metrics": (partial(_reads, "metrics-page"), lambda n: b'a_total{b="c"} 1\n' * n),
    "buckets": (
        partial(_reads, "metrics-page"),
        lambda n: b"# TYPE h histogram\n" + b"".join(b'h_bucket{le="%d"} 1\n' % k for k in range(n)),
    ),
    "labels of a metric": (partial(_reads, "metrics-page"), lambda n: b"a_total{" + b'b="c",' * n),
    "an open label": (partial(_reads, "metrics-page"), lambda n: b'a_total{b="' + b"\\\\" * n),
    "blanks in a metric": (partial(_reads, "metrics-page"), lambda n: b'a_total{b="c"}' + b" " * n),
    "words of an error": (partial(_reads, "error-words"), lambda n: b"token limit temperature, " * n),
    "names in an error": (partial(_reads, "error-words"), lambda n: b"a," * n + b" are not supported"),
    "escapes of a program": (partial(_reads, "cli-output"), lambda n: b"\x1b]" * n),
    "a table of a program": (
        partial(_reads, "cli-output"),
        lambda n: b"Alias Device Task File Size License Model ID\n" + b"a b c 1 MB x y\n" * n,
    ),
    "a long line of a program": (partial(_reads, "cli-output"), lambda n: b"Alias " * n),
    "rows of prompts": (partial(_reads, "prompts-jsonl"), lambda n: b'{"prompt": "Hi"}\n' * n),
    "an array of prompts": (partial(_reads, "prompts-json"), lambda n: b'[\n"a"' + b',\n"a"' * n + b"]"),
    "a long prompt": (partial(_reads, "prompts-json"), lambda n: b'["' + b"a" * n + b'"]'),
    "columns of prompts": (
        partial(_reads, "prompts-json"),
        lambda n: orjson.dumps([{"prompt": "a", **{f"c{k}": 1 for k in range(n)}}]),
    ),
    "a table of prompts": (partial(_reads, "prompts-csv"), lambda n: b"prompt\n" + b"a\n" * n),
    "columns of a table": (partial(_reads, "prompts-csv"), lambda n: b"prompt" + b",a" * n + b"\n"),
    "lines of prompts": (partial(_reads, "prompts-txt"), lambda n: b"Hi\n" * n),
    "open brackets": (partial(_reads, "prompts-json"), lambda n: b"[" * n),
    "a trace": (
        partial(_reads, "trace-csv"),
        lambda n: b"TIMESTAMP,ContextTokens,GeneratedTokens\n" + b"2023-11-16 18:15:46.680590,374,44\n" * n,
    ),
    "a trace in lines": (
        partial(_reads, "trace-jsonl"),
        lambda n: b'{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n' * n,
    ),
    "hash ids": (
        partial(_reads, "trace-jsonl"),
        lambda n: b'{"timestamp":0,"input_length":600,"output_length":5,"hash_ids":[1' + b",1" * n + b"]}\n",
    ),
    "models of a file": (
        partial(_reads, "models-json"),
        lambda n: orjson.dumps({f"model-{k}": {"size_mb": k} for k in range(n)}),
    ),
    "models of a list": (partial(_reads, "models-json"), lambda n: orjson.dumps([f"model-{k}" for k in range(n)])),
    "keys of a scenario": (
        partial(_reads, "scenario-json"),
        lambda n: orjson.dumps({"target": {"extra_body": {f"key{k}": k for k in range(n)}}}),
    ),
    "personas": (
        partial(_reads, "scenario-toml"),
        lambda n: b"".join(b"[personas.p%d]\ninput_tokens = 5\n" % k for k in range(n)),
    ),
    "a rule of blanks": (
        partial(_reads, "scenario-json"),
        lambda n: orjson.dumps({"slo": {"objectives": "ttft_p95<" + " " * n + "<"}}),
    ),
    "digits of a gate": (
        partial(_reads, "scenario-json"),
        lambda n: orjson.dumps({"gate": {"fail_on": "ttft_p95<" + "1" * n}}),
    ),
    "a duration": (partial(_reads, "scenario-json"), lambda n: orjson.dumps({"load": {"duration": "1s" * n}})),
    "points of a pattern": (partial(_reads, "settings"), lambda n: b"0s:1" + b",1s:1" * n),
    "a URL": (partial(_reads, "settings"), lambda n: b"http://a/" + b"models/a:" * n),
    "levels of a result": (partial(_reads, "run-json"), _run),
    "lines of requests": (
        partial(_reads, "requests-jsonl"),
        lambda n: b"".join(line(a_sample(k), level=0, origin_ns=0) for k in range(n)),
    ),
}


def _took(read: Callable[[bytes], None], data: bytes) -> float:
    """CPU seconds of this thread: other programs have none of them."""
    began_s = time.thread_time()
    read(data)
    return time.thread_time() - began_s


@pytest.mark.parametrize("kind", KINDS)
def test_time_grows_no_faster_than_the_input(kind):
    """An input is made longer until reading it takes a measurable time; four times of that takes four times as long."""
    read, make = KINDS[kind]
    parts = 4
    read(make(parts))
    while len(data := make(parts)) * _TIMES < _MOST_BYTES and _took(read, data) < _MEASURABLE_S:
        parts *= 2
    longer = make(_TIMES * parts)
    if _took(read, longer) < _MEASURABLE_S:
        return  # megabytes in no time
    # Caches that others fill, and a core that others slow down, cost something in some of the times, and least in the
    # least.
    least_s = [float("inf"), float("inf")]
    for _ in range(_MOST_ROUNDS):
        least_s = [min(least, _took(read, one)) for least, one in zip(least_s, (data, longer), strict=True)]
        if least_s[1] < _MOST_RATIO * least_s[0]:
            return
    pytest.fail(f"{len(data)} bytes and {len(longer)}: {least_s} s")
