"""The Responses endpoint: its events, its ends, its account."""

from __future__ import annotations

from itertools import count

import orjson
import pytest

from loadbench.record.outcome import Outcome, TokenSource
from loadbench.wire.openai import Api
from loadbench.wire.response_reader import ResponseReader

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 14,
}


def event(kind: str, **fields: object) -> bytes:
    """One event as servers frame it."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def said(*events: bytes) -> ResponseReader:
    """The answer of these events, each a ns after the one before."""
    answer = ResponseReader(Api.RESPONSES, keep_text=True)
    for at_ns, one in enumerate(events, 1):
        answer.feed(at_ns, one)
    answer.close(len(events) + 1)
    return answer


BEGIN = (
    event("response.created", response={"status": "in_progress"}),
    event("response.output_item.added", item={"type": "message", "content": []}),
    event("response.content_part.added", part={"type": "output_text", "text": ""}),
)
COMPLETED = event("response.completed", response={"status": "completed", "model": "m", "usage": USAGE})


def test_only_deltas_bear_tokens() -> None:
    """What announces an answer and what repeats it is no token; reasoning is one, and is not visible."""
    answer = said(
        *BEGIN,
        event("response.reasoning_text.delta", delta="hm"),
        event("response.output_text.delta", delta="Hel"),
        event("response.output_text.delta", delta="lo"),
        event("response.output_text.done", text="Hello"),
        event("response.output_item.done", item={"content": [{"type": "output_text", "text": "Hello"}]}),
        COMPLETED,
    )
    assert (answer.first_token_ns, answer.first_visible_ns, answer.last_token_ns, answer.done_ns) == (4, 5, 6, 9)
    assert answer.text == "Hello"
    assert answer.outcome() == (Outcome.OK, "")
    assert (answer.input_tokens, answer.cached_tokens, answer.reasoning_tokens) == (9, 4, 2)
    assert answer.output_tokens() == (5, TokenSource.USAGE)
    assert (answer.model, answer.finish_reason) == ("m", "stop")


def test_an_answer_that_used_up_its_tokens_says_so() -> None:
    """`incomplete` with `max_output_tokens` is what the chat endpoint calls `length`: a success."""
    end = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "usage": USAGE}
    answer = said(event("response.output_text.delta", delta="x"), event("response.incomplete", response=end))
    assert answer.outcome() == (Outcome.OK, "")
    assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    "end",
    [
        event("response.failed", response={"status": "failed", "error": {"code": "e", "message": "no memory"}}),
        event("error", code="server_error", message="no memory", param=None, sequence_number=3),
        b'data: {"type":"error","message":"no memory"}\n\n',
        b'data: {"error":{"message":"no memory"}}\n\n',
    ],
    ids=["failed", "error-event", "error-type", "error-object"],
)
def test_a_failure_in_the_middle_is_a_failure(end: bytes) -> None:
    """E1: whatever form it has, with the server's own words."""
    answer = said(event("response.output_text.delta", delta="x"), end)
    assert answer.outcome() == (Outcome.STREAM_ERROR, "no memory")


def test_an_end_that_never_came_is_told() -> None:
    """E3: text without the last event is a truncated answer."""
    answer = said(*BEGIN, event("response.output_text.delta", delta="x"))
    assert answer.outcome()[0] is Outcome.TRUNCATED


def test_a_missing_event_is_told() -> None:
    """Events that are numbered are all there, or the answer is not believed."""
    number = count(1)
    kinds = ("response.created", "response.output_text.delta", "response.output_text.delta")
    events = [event(kind, delta="x", sequence_number=next(number)) for kind in kinds]
    assert said(*events, COMPLETED).outcome()[0] is Outcome.OK
    outcome, detail = said(events[0], events[2], COMPLETED).outcome()
    assert outcome is Outcome.PROTOCOL
    assert "event 3 right after event 1" in detail


def test_tool_calls_are_tokens() -> None:
    """Arguments of a call are generated, though nobody sees them."""
    answer = said(event("response.function_call_arguments.delta", delta='{"a":'), COMPLETED)
    assert (answer.first_token_ns, answer.first_visible_ns) == (1, None)


def test_an_answer_that_was_not_streamed_is_read() -> None:
    """A server that does not stream answers with the whole response."""
    answer = ResponseReader(Api.RESPONSES, keep_text=True)
    parts = [{"type": "output_text", "text": "Hel"}, {"type": "output_text", "text": "lo"}]
    whole = {"object": "response", "status": "completed", "output": [{"type": "message", "content": parts}]}
    answer.read_json(orjson.dumps({**whole, "model": "m", "usage": USAGE}), 7)
    assert (answer.text, answer.outcome()[0], answer.output_tokens()[0]) == ("Hello", Outcome.OK, 5)
