"""The fakes write what the services wrote: held against the captures, but for what each answer has of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.foundry.fakes import DIALECTS, Core, Fake, Native, Request

DATA = Path(__file__).parents[1] / "data" / "foundry"


def captured(name: str) -> bytes:
    """The bytes of a capture."""
    return (DATA / f"{name}.http").read_bytes()


# The models that were in memory when the captures were made.
THERE = {Native: "think-generic-cpu:1", Core: "mid-random-generic-cpu:1"}


def written(dialect: type[Native | Core], path: str, **body: object) -> bytes:
    """All that a fake writes to somebody who closes afterwards, as the captures' client did."""
    name, model = next(name for name, cls in DIALECTS.items() if cls is dialect), THERE[dialect]
    fake = Fake(name, variants={model.removesuffix("-generic-cpu:1"): [model]}, loaded={model})
    request = Request("POST" if body else "GET", path, close=True, body=body)
    return b"".join(piece for piece in dialect(fake).answer(request) if piece is not None)


def shape(raw: bytes) -> tuple[list[bytes], bytes]:
    """(the head's lines, the body) without dates, times, ids, lengths and counts."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = [re.sub(rb"^(Date|Content-Length): .*", rb"\1", line) for line in head.split(b"\r\n")]
    body = re.sub(rb"^[0-9A-Fa-f]+(?=\r)", b"N", body, flags=re.MULTILINE)
    return lines, re.sub(rb'(?<=[:"])[\w.-]*\d[\w.:+-]*', b"N", body)


@pytest.mark.parametrize(
    ("dialect", "capture", "path"),
    [
        (Native, "loaded", "/models/loaded"),
        (Native, "models", "/v1/models"),
        (Native, "legacy404", "/openai/status"),
        (Core, "v124_loaded", "/models/loaded"),
        (Core, "v124_legacy404", "/openai/status"),
    ],
)
def test_small_answers_are_as_captured(dialect, capture, path):
    """Heads in their order and with their doubles, bodies with their keys in order."""
    assert shape(written(dialect, path)) == shape(captured(capture))


def test_errors_are_as_captured():
    """2.x says what is wrong; 1.x sends a head and nothing more."""
    ask = {"model": "nope", "messages": [{"content": "hi"}], "stream": True}
    assert shape(written(Native, "/v1/chat/completions", **ask)) == shape(captured("notfound"))
    assert shape(written(Core, "/v1/chat/completions", **ask)) == shape(captured("v124_notfound"))


def test_overflow_is_as_captured():
    """An error event in a 200 without [DONE], and a stream of nothing."""
    ask = {"messages": [{"content": "word " * 600}], "max_tokens": 30}
    native = written(Native, "/v1/chat/completions", model=THERE[Native], **ask)
    words = re.compile(rb"request requires.*tokens")
    assert words.sub(b"", shape(native)[1]) == words.sub(b"", shape(captured("stream_overflow"))[1])
    assert shape(native)[0] == shape(captured("stream_overflow"))[0]
    core = written(Core, "/v1/chat/completions", model=THERE[Core], **ask)
    assert shape(core) == shape(captured("v124_stream_overflow"))


@pytest.mark.parametrize(("dialect", "capture"), [(Native, "stream_usage"), (Core, "v124_stream_usage")])
def test_streams_are_as_captured(dialect, capture):
    """The head, the last event before the end and the end itself; and of the events the keys."""
    ask = {"messages": [{"content": "hi"}], "max_tokens": 4, "stream_options": {"include_usage": True}}
    ours = shape(written(dialect, "/v1/chat/completions", model=THERE[dialect], **ask))
    theirs = shape(captured(capture))
    assert ours[0] == theirs[0]
    assert ours[1].split(b"data: ")[-2:] == theirs[1].split(b"data: ")[-2:]
    assert keys(ours[1]) == keys(theirs[1]) - {b"reasoning_content"}


def keys(body: bytes) -> set[bytes]:
    """Every key that occurs in it."""
    return set(re.findall(rb'"(\w+)":', body))
