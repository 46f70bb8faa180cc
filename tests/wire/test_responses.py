"""The Responses endpoint: its events, its ends, its account."""

from __future__ import annotations

from itertools import count

import orjson
import pytest

from loadbench.record.outcome import Outcome, TokenSource
from loadbench.wire import responses
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


@pytest.mark.parametrize(
    ("kind", "delta", "visible"),
    [
        ("response.output_text.delta", {"text": "Hi"}, True),
        ("response.output_text.delta", [{"type": "text", "text": "Hi"}], True),
        ("response.audio.transcript.delta", "Hi", True),
        ("response.output_audio_transcript.delta", "Hi", True),
        ("response.content_part.delta", {"type": "output_text", "text": "Hi"}, True),
        ("response.reasoning.delta", {"content": "Hi"}, False),
        ("response.reasoning_summary.delta", {"type": "summary_text", "text": "Hi"}, False),
        ("response.thinking_text.delta", "Hi", False),
        ("response.audio.delta", "UklGRg==", False),
        ("response.custom_tool_call_input.delta", "Hi", False),
        ("response.mcp_call_arguments.delta", {"delta": "Hi"}, False),
        ("response.code_interpreter_call_code.delta", "Hi", False),
        ("response.refusal.delta", "Hi", False),
    ],
)
def test_every_delta_bears_tokens(kind: str, delta: object, visible: bool) -> None:
    """Of any type, as text or as an object; what is empty bears none."""
    answer = said(*BEGIN, event(kind, delta=""), event(kind, delta=delta), COMPLETED)
    assert (answer.first_token_ns, answer.first_visible_ns) == (5, 5 if visible else None)
    assert answer.outcome() == (Outcome.OK, "")
    assert answer.text == ("Hi" if visible else "")


MESSAGE = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}
THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "hm"}],
    "encrypted_content": "x",
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_9", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("events", "stamps", "text"),
    [
        # Only what is done, item by item; each text once, however often it is repeated.
        (
            [
                event("response.output_item.done", output_index=0, item=THOUGHT),
                event("response.output_text.done", output_index=1, item_id="msg_1", text="Hello"),
                event("response.content_part.done", output_index=1, item_id="msg_1", part=MESSAGE["content"][0]),
                event("response.output_item.done", output_index=1, item=MESSAGE),
                event("response.function_call_arguments.done", output_index=2, item_id="fc_1", arguments="{}"),
                event("response.output_item.done", output_index=2, item=CALL),
                event("response.output_item.done", output_index=3, item={**CALL, "id": "fc_2"}),
                event("response.completed", response={"output": [THOUGHT, MESSAGE, CALL, CALL], "usage": USAGE}),
            ],
            [1, 2, 5, 7],
            "Hello",
        ),
        # Ids without an index, and no names at all.
        (
            [
                event("response.output_text.delta", item_id="msg_1", delta="Hello"),
                event("response.output_item.done", item=MESSAGE),
                event("response.output_text.done", text="Hello"),
            ],
            [1],
            "Hello",
        ),
        (
            [
                event("response.output_text.delta", delta="Hello"),
                event("response.output_text.done", output_index=0, item_id="msg_1", text="Hello"),
                event("response.reasoning_text.done", text="hm"),
                event("response.output_item.done", item=CALL),
            ],
            [1, 3, 4],
            "Hello",
        ),
        # A first delta without text is not the text.
        (
            [
                event("response.output_text.delta", output_index=0, delta=""),
                event("response.output_text.delta", output_index=0, delta="Hello"),
                event("response.output_text.done", output_index=0, text="Hello"),
            ],
            [2],
            "Hello",
        ),
        # Nothing but the last event.
        ([event("response.completed", response={"output": [THOUGHT, MESSAGE], "usage": USAGE})], [1], "Hello"),
        # What a tool returned was not generated.
        (
            [
                event("response.output_text.delta", output_index=1, delta="Hello"),
                event(
                    "response.output_item.done",
                    output_index=0,
                    item={"type": "mcp_list_tools", "id": "m", "tools": [{"name": "f", "description": "d"}]},
                ),
            ],
            [1],
            "Hello",
        ),
    ],
)
def test_text_without_deltas_is_found_once(events: list[bytes], stamps: list[int], text: str) -> None:
    """Where no delta came, the events that a text is done have it; where one came, they repeat it."""
    answer = said(*events)
    assert (list(answer.event_ns), answer.text) == (stamps, text)


def test_a_whole_response_has_all_its_items() -> None:
    """Reasoning by its summary, and a call by its name."""
    answer = ResponseReader(Api.RESPONSES, keep_text=True)
    answer.read_json(orjson.dumps({"status": "completed", "output": [THOUGHT, MESSAGE, CALL], "usage": USAGE}), 7)
    assert (answer.text, answer.text_bytes, list(answer.event_ns)) == ("Hello", 7, [7])
    only = ResponseReader(Api.RESPONSES)
    only.read_json(orjson.dumps({"status": "completed", "output": [CALL], "usage": USAGE}), 7)
    assert (only.outcome()[0], only.first_visible_ns) == (Outcome.OK, None)


def test_a_response_without_text_has_no_strange_events() -> None:
    """None of them has choices, as the chat endpoint's have."""
    answer = said(*BEGIN, COMPLETED)
    assert answer.outcome() == (
        Outcome.EMPTY,
        "no token with text of the 5 that usage counts, and finish_reason 'stop'",
    )


@pytest.mark.parametrize("numbers", [range(100), [None] * 100])
def test_the_next_pieces_of_a_text_are_not_parsed(numbers: list[int | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the first ones, whether events are numbered or not."""
    parsed, read = [], responses.EventReader.__call__
    monkeypatch.setattr(responses.EventReader, "__call__", lambda self, data: parsed.append(data) or read(self, data))
    answer = ResponseReader(Api.RESPONSES)
    usual = {"item_id": "i", "output_index": 0, "content_index": 0, "delta": "a", "logprobs": []}
    for number in numbers:
        fields = usual if number is None else {**usual, "sequence_number": number}
        answer.feed(len(answer.event_ns), event("response.output_text.delta", **fields))
    assert list(answer.event_ns) == list(range(100))
    assert len(parsed) <= 10
