"""Ollama's own chat: a JSON object a line."""

from __future__ import annotations

from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.record.outcome import Outcome, TokenSource
from loadbench.wire import ollama
from loadbench.wire.openai import Api
from loadbench.wire.response_reader import ResponseReader
from loadbench.wire.sse import LARGEST_BLOCK, Event, OversizeEvent

END = {
    "done": True,
    "done_reason": "length",
    "total_duration": 4_883_583_458,
    "load_duration": 1_334_875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342_546_000,
    "eval_count": 3,
    "eval_duration": 4_535_599_000,
}


def line(**fields: object) -> bytes:
    """One object of an answer of the model `m`."""
    return orjson.dumps({"model": "m", "created_at": "2026-01-01T00:00:00Z", **fields}) + b"\n"


def delta(content: str, **more: str) -> bytes:
    """A piece of the answer."""
    return line(message={"role": "assistant", "content": content, **more}, done=False)


LAST = line(message={"role": "assistant", "content": ""}, **END)
ANSWER = (delta("Hé"), delta("l"), delta("lo\u2028"), LAST)


def said(*reads: bytes) -> ResponseReader:
    """The answer in these reads, each a ns after the one before."""
    answer = ResponseReader(Api.OLLAMA, keep_text=True)
    for at_ns, read in enumerate(reads, 1):
        answer.feed(at_ns, read)
    answer.close(len(reads) + 1)
    return answer


def test_an_answer_is_read_with_its_account() -> None:
    """Every piece is a token-bearing event, the last object the end with the counts."""
    answer = said(*ANSWER)
    assert answer.text == "Héllo\u2028"
    assert (answer.first_token_ns, answer.last_token_ns, answer.done_ns) == (1, 3, 4)
    assert answer.outcome() == (Outcome.OK, "")
    assert (answer.input_tokens, *answer.output_tokens()) == (26, 3, TokenSource.USAGE)
    assert (answer.model, answer.finish_reason) == ("m", "length")


@given(cuts=st.lists(st.integers(0, len(b"".join(ANSWER))), max_size=12))
def test_an_answer_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    """D11, D12: also inside a character, and at line ends."""
    raw = b"".join(ANSWER)
    edges = [0, *sorted(cuts), len(raw)]
    answer = said(*(raw[a:b] for a, b in pairwise(edges)))
    assert (answer.text, answer.outcome()[0], answer.output_tokens()[0]) == ("Héllo\u2028", Outcome.OK, 3)


def test_an_answer_in_one_object_was_not_streamed() -> None:
    """Text in the last object of several is a piece like any other."""
    last = line(message={"role": "assistant", "content": "lo"}, **END)
    for reads, is_whole in (((last,), True), ((delta("Hel"), last), False)):
        answer = said(*reads)
        assert (answer.is_whole, answer.outcome()[0], len(answer.event_ns)) == (is_whole, Outcome.OK, len(reads))


def test_thinking_comes_before_what_is_visible() -> None:
    """D4: it is the first token, and not the first visible one."""
    answer = said(delta("", thinking="hm"), delta("yes"), LAST)
    assert (answer.first_token_ns, answer.first_visible_ns) == (1, 2)


def test_a_failure_in_the_middle_is_a_failure() -> None:
    """E1: a line with an error, under a status of 200."""
    answer = said(delta("x"), b'{"error":"an error was encountered while running the model"}\n')
    assert answer.outcome() == (Outcome.STREAM_ERROR, "an error was encountered while running the model")


def test_an_end_that_never_came_is_told() -> None:
    """E3."""
    assert said(*ANSWER[:-1]).outcome()[0] is Outcome.TRUNCATED


def test_a_model_that_was_only_loaded_answered_nothing() -> None:
    """E2: `done_reason` "load" is no answer."""
    answer = said(line(message={"role": "assistant", "content": ""}, done=True, done_reason="load"))
    assert answer.outcome()[0] is Outcome.EMPTY


def test_a_last_line_without_its_line_feed_counts() -> None:
    """The stream's end ends the line as well."""
    assert said(delta("x"), LAST.rstrip(b"\n")).outcome()[0] is Outcome.OK


def test_a_line_that_is_no_object_is_a_fault() -> None:
    """D14."""
    outcome, detail = said(delta("x"), b"nonsense\n").outcome()
    assert outcome is Outcome.PROTOCOL
    assert "nonsense" in detail


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "no memory"}',
        b'{\n  "error": "no memory"\n}\n',
        b'{"model": "m", "done": false, "error": {"message": "no memory"}}\n',
        b'{"message": "no memory: failed to allocate"}\n',
    ],
)
def test_an_error_of_any_form_is_one(body):
    """In a line, on several lines, before and after text."""
    for chunks in ([body], [delta("x"), body], [delta("x"), LAST, body]):
        if body.count(b"\n") < 2 or len(chunks) == 1:
            outcome, detail = said(*chunks).outcome()
            assert outcome is Outcome.STREAM_ERROR
            assert "no memory" in detail


def test_done_reasons_are_judged():
    """A word of failure fails it."""
    for reason, outcome in ((b"error", Outcome.STREAM_ERROR), (b"moonrise", Outcome.PROTOCOL), (b"stop", Outcome.OK)):
        assert said(delta("x"), LAST.replace(b'"length"', b'"%b"' % reason)).outcome()[0] is outcome


def test_a_line_without_end_has_one() -> None:
    """C2: no line takes all memory, and what came before it stays."""
    lines = ollama.LineStream()
    with pytest.raises(OversizeEvent) as raised:
        lines.feed(delta("x") + b"y" * (LARGEST_BLOCK + 1))
    assert len(raised.value.events) == 1


def test_tool_calls_are_tokens() -> None:
    """Names and arguments of a call are generated, though nobody sees them."""
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    answer = said(line(message={"role": "assistant", "content": "", "tool_calls": [call]}, done=False), LAST)
    assert (answer.first_token_ns, answer.first_visible_ns) == (1, None)


@pytest.mark.parametrize(
    ("fields", "visible", "text"),
    [
        ({"message": {"role": "assistant", "content": "", "reasoning": "hm"}}, False, ""),
        ({"message": {"content": [{"type": "text", "text": "Hi"}]}}, True, "Hi"),
        ({"message": {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}}, False, ""),
        ({"thinking": "hm", "response": ""}, False, ""),
        ({"response": "Hi"}, True, "Hi"),
    ],
)
def test_text_is_found_as_on_the_other_endpoints(fields: dict[str, object], visible: bool, text: str) -> None:
    """Under any name, in parts, and outside of a message as `/api/generate` has it."""
    answer = said(line(**fields, done=False), LAST)
    assert (list(answer.event_ns), answer.first_visible_ns, answer.text) == ([1], 1 if visible else None, text)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"response": "Hi", **END}, Outcome.OK),
        ({"message": {"role": "assistant", "content": "Hi"}, **END}, Outcome.OK),
        ({"models": []}, Outcome.PROTOCOL),
        ({"message": None}, Outcome.PROTOCOL),
    ],
)
def test_a_whole_body_is_a_response_if_it_has_text_at_all(body: dict[str, object], outcome: Outcome) -> None:
    """Inside of a message or outside."""
    answer = ResponseReader(Api.OLLAMA)
    answer.read_json(orjson.dumps(body), 7)
    assert answer.outcome()[0] is outcome


def test_an_answer_on_several_lines_is_one() -> None:
    """As of a proxy that writes its JSON for people."""
    whole = {"model": "m", "message": {"role": "assistant", "content": "Hi"}, **END}
    answer = said(orjson.dumps(whole, option=orjson.OPT_INDENT_2) + b"\n")
    assert (answer.outcome(), answer.is_whole, answer.text) == ((Outcome.OK, ""), True, "Hi")


def test_times_are_those_of_the_last_object() -> None:
    """Whatever others have."""
    answer = said(delta("x").replace(b"{", b'{"prompt_eval_duration":5,', 1))
    assert answer.timings is None
    answer = said(*ANSWER)
    assert answer.timings is not None
    assert (answer.timings.prefill_ns, answer.timings.output_tokens) == (342_546_000, 3)


@pytest.mark.parametrize(
    ("start", "is_stream"),
    [(b"", None), (b"\xef\xbb", None), (b"\n ", None), (b"\xef\xbb\xbf {", True), (b"\n{", True), (b"<", False)],
)
def test_objects_in_lines_are_recognised_by_the_first_bytes(start: bytes, is_stream: bool | None) -> None:
    """After a mark and empty lines."""
    assert ollama.LineStream.recognises(start) is is_stream


def test_the_end_of_a_body_hands_out_its_last_line_once() -> None:
    """If it has one."""
    lines = ollama.LineStream()
    assert lines.feed(b"{}\n{") == [Event(b"{}")]
    assert [lines.close(), lines.close()] == [Event(b"{"), None]


def test_what_is_about_a_response_is_no_text() -> None:
    """Reasons, times and the tokens of the context bear no token."""
    answer = said(delta("x"), line(response="", context=[1, 2, 3], **END))
    assert (list(answer.event_ns), answer.outcome()[0]) == ([1], Outcome.OK)
    assert (answer.input_tokens, answer.output_tokens()[0]) == (26, 3)
