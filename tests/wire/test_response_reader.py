"""Frames folded into an answer: its marks, its tokens and how it ended, on stamps written by hand."""

from __future__ import annotations

import re
import time
from array import array

import orjson
import pytest

from loadbench.record.outcome import Outcome, TokenSource
from loadbench.wire import sse
from loadbench.wire.openai import Api, BadChunk, object_of
from loadbench.wire.response_reader import ResponseReader

DONE = b"data: [DONE]\n\n"
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'


def event(finish: str | None = None, usage: dict[str, int] | None = None, **delta: object) -> bytes:
    """One event whose delta has these fields."""
    body: dict[str, object] = {"model": "m", "choices": [{"delta": delta, "finish_reason": finish}]}
    if usage is not None:
        body["usage"] = usage
    return b"data: " + orjson.dumps(body) + b"\n\n"


def word(text: str = "a", **fields: object) -> bytes:
    """One event with visible text; the fields are its choice's."""
    return b"data: " + orjson.dumps({"choices": [{"delta": {"content": text}, **fields}]}) + b"\n\n"


def counted(output: int, **more: int) -> dict[str, int]:
    return {"prompt_tokens": 10, "completion_tokens": output, "total_tokens": 10 + output, **more}


def total(output: int, **more: object) -> bytes:
    """The event that has nothing but the usage."""
    return b"data: " + orjson.dumps({"choices": [], "usage": {**counted(output), **more}}) + b"\n\n"


STOP = event("stop")


def folded(*chunks: bytes, keep_text: bool = False) -> ResponseReader:
    """An answer whose reads came at 0, 10, 20 … ns and whose body ended 5 ns after the last."""
    answer = ResponseReader(Api.CHAT, keep_text=keep_text)
    for number, chunk in enumerate(chunks):
        answer.feed(10 * number, chunk)
    answer.close(10 * len(chunks) - 5)
    return answer


def whole(body: bytes) -> ResponseReader:
    answer = ResponseReader(Api.CHAT)
    answer.read_json(body, 70)
    return answer


# Marks.


def test_the_first_token_is_the_first_event_with_text() -> None:
    """A11, D3: role-only, empty and null deltas set no mark; usage and end come after the last (A3)."""
    answer = folded(ROLE, event(content=None), word(), word(), STOP, total(2), DONE)
    assert (answer.first_token_ns, answer.last_token_ns, answer.done_ns) == (20, 30, 60)
    assert answer.event_ns == array("q", [20, 30])


def test_a5_a_token_at_time_zero_is_a_token() -> None:
    """Zero is a moment like any other and not a missing mark."""
    answer = folded(word(), word(), STOP, DONE)
    assert (answer.first_token_ns, answer.first_visible_ns) == (0, 0)


def test_d4_reasoning_bears_tokens_and_is_not_visible() -> None:
    """Both names of the field, and tool calls, are tokens; the first visible one is the answer's own."""
    answer = folded(event(reasoning_content="r"), event(reasoning="r"), event(refusal="n"), word(), STOP)
    assert (answer.first_token_ns, answer.first_visible_ns, len(answer.event_ns)) == (0, 30, 4)


def test_an_answer_of_tool_calls_has_tokens_and_nothing_visible() -> None:
    """The arguments of a call are generated text, and its answer is no empty one."""
    calls = [event(tool_calls=[{"function": {"name": "f"}}]), event(tool_calls=[{"function": {"arguments": "{}"}}])]
    answer = folded(*calls, event("tool_calls"), DONE)
    assert (answer.first_token_ns, answer.first_visible_ns, answer.last_token_ns) == (0, None, 10)
    assert answer.outcome() == (Outcome.OK, "")


def test_events_of_one_read_share_its_stamp_and_the_read_is_counted_as_merged() -> None:
    """C9: reads that brought a token are counted, and those that brought several apart; others are not."""
    answer = folded(ROLE + word(), word() + word() + word(), b": ping\n\n", word(), STOP, DONE)
    assert answer.event_ns == array("q", [0, 10, 10, 10, 30])
    assert (answer.reads, answer.merged_reads) == (3, 1)


def test_an_event_arrives_with_its_last_byte() -> None:
    """An event cut over reads has the stamp of the read that completes it."""
    data = word()
    answer = folded(data[:20], data[20:-1], data[-1:], STOP)
    assert answer.event_ns == array("q", [20])
    assert answer.reads == 1


def test_what_comes_after_done_is_not_part_of_the_answer() -> None:
    """No mark lies after the end, in the same read or in a later one."""
    for chunks in ([word() + STOP + DONE + word() + b"data: {\n\n"], [word() + STOP, DONE, word(), b"data: {\n\n"]):
        answer = folded(*chunks)
        assert (len(answer.event_ns), answer.bad_frames, answer.outcome()[0]) == (1, 0, Outcome.OK)


def test_usage_and_errors_after_done_count():
    """Frames after the end have no marks and no text; the usage is taken, and an error fails the request."""
    late = folded(word(), STOP, DONE, total(7))
    assert (late.done_ns, late.output_tokens(), len(late.event_ns)) == (20, (7, TokenSource.USAGE), 1)
    for error in (b'data: {"error":"late"}\n\n', b"event: error\ndata: late\n\n"):
        assert folded(word(), STOP, DONE, error).outcome() == (Outcome.STREAM_ERROR, "late")
        assert folded(word() + STOP + DONE + error).outcome() == (Outcome.STREAM_ERROR, "late")


# How it ended.


@pytest.mark.parametrize(
    ("chunks", "outcome"),
    [
        ([word(), STOP, DONE], Outcome.OK),
        ([word(), STOP], Outcome.OK),  # no [DONE], as of transformers
        ([word(), DONE], Outcome.OK),  # no finish_reason, as of Foundry Local 0.8
        ([word(), event("stop", content="a")], Outcome.OK),  # both on the last token, as of vLLM
        ([word()], Outcome.TRUNCATED),
        ([word(), word()[:30]], Outcome.TRUNCATED),
        ([word(), b"data: [DO"], Outcome.TRUNCATED),
        ([], Outcome.TRUNCATED),
        ([b": ping\n\n"], Outcome.TRUNCATED),
        ([ROLE, STOP, DONE], Outcome.EMPTY),
        ([ROLE, STOP, total(5), DONE], Outcome.EMPTY),
        ([DONE], Outcome.EMPTY),
        ([word(), b'data: {"error":{"message":"out of memory"}}\n\n'], Outcome.STREAM_ERROR),
        ([word(), STOP, b'data: {"error":"late"}\n\n', DONE], Outcome.STREAM_ERROR),
        ([b"event: error\ndata: overloaded\n\n"], Outcome.STREAM_ERROR),
        ([word(), b'event: error\ndata: {"message":"cut off'], Outcome.STREAM_ERROR),
        ([word(), event("abort"), DONE], Outcome.STREAM_ERROR),
        ([word(), b"data: {broken\n\n", STOP, DONE], Outcome.PROTOCOL),
        ([word(), b"data: [1]\n\n", DONE[:9]], Outcome.PROTOCOL),
        ([b"<html>\n<body>\n"], Outcome.PROTOCOL),
        ([b"data: {broken\n\n", b'data: {"error":"x"}\n\n'], Outcome.STREAM_ERROR),
    ],
)
def test_every_end_has_its_outcome(chunks: list[bytes], outcome: Outcome) -> None:
    """E1, E2, E3: an error anywhere, no token and no end each fail; either of finish_reason and [DONE] is an end."""
    found, detail = folded(*chunks).outcome()
    assert found is outcome
    assert bool(detail) is (outcome is not Outcome.OK)


def test_d14_every_unparsable_frame_is_counted_and_the_first_is_shown() -> None:
    """A frame that cannot be read is never skipped in silence, and never ends the reading."""
    answer = folded(word(), b"data: {oops\n\n", word(), b"data: \n\n", STOP, DONE)
    assert (answer.bad_frames, answer.keep_alives) == (1, 1)
    assert len(answer.event_ns) == 2
    assert answer.outcome() == (Outcome.PROTOCOL, "a frame that is not JSON: '{oops'")


def _entries(tokens: int) -> list[dict[str, object]]:
    """Log-probabilities of so many tokens, with 20 alternatives each."""
    one = {"token": ' "]a', "logprob": -12.3456789, "bytes": [32, 34, 93, 97]}
    return [{**one, "top_logprobs": [one] * 20}] * tokens


_LARGE: dict[str, dict[str, object]] = {
    "an image": {"delta": {"content": "a", "images": [{"url": "data:image/png;base64," + "A" * 7_000_000}]}},
    "log-probabilities": {"delta": {"content": "a" * 2000}, "logprobs": {"content": _entries(2000)}},
    "a million tokens of a prompt": {"delta": {"content": "a"}, "prompt_token_ids": list(range(10**6))},
    "those of a prompt": {
        "delta": {"content": "a"},
        "prompt_logprobs": [None, *({str(i): {"logprob": -1.5, "rank": i}} for i in range(100_000))],
    },
}


@pytest.mark.parametrize("name", _LARGE)
def test_a_large_event_is_read(name: str) -> None:
    """Images, log-probabilities, ids of the prompt: as one event, in reads of 256 KiB, and as a whole response."""
    choice = _LARGE[name]
    stream = word() + b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n" + STOP + DONE
    answer = folded(*(stream[at : at + 2**18] for at in range(0, len(stream), 2**18)))
    assert (answer.outcome(), len(answer.event_ns), answer.is_in_large_event) == ((Outcome.OK, ""), 2, False)
    message = {"message" if name == "delta" else name: value for name, value in choice.items()}
    complete = whole(orjson.dumps({"choices": [{**message, "finish_reason": "stop"}]}))
    assert complete.outcome() == (Outcome.OK, "")
    if name == "log-probabilities":
        assert complete.output_tokens() == (2000, TokenSource.IDS)


def test_the_log_probabilities_of_a_large_event_are_counted_as_those_of_a_small_one() -> None:
    """What is left out of a large one, its alternatives, has no part in any count."""
    counts = []
    for tokens in (10, 2000):
        choice = {"delta": {"content": "ab" * tokens}, "logprobs": {"content": _entries(tokens)}}
        answer = folded(word(logprobs={"content": _entries(1)}), word(**choice), STOP, DONE)
        counts.append((answer.output_tokens()[0] or 0) - 1)
    assert counts == [10, 2000]


@pytest.mark.parametrize(
    ("large", "words"),
    [
        (
            [[]] * 500_000,
            r"more than is read, 1\.4 MiB whose values may take more than 32 MiB of memory \(request less",
        ),
        (eval("[" * 140 + "]" * 140), "more than is read, nested more than 128 levels deep: '"),
    ],
)
def test_a_bound_that_is_met_is_named(large: object, words: str) -> None:
    """JSON beyond a bound is not said to be none, nor to be the error that it has somewhere in its text."""
    choices = {"choices": [{"delta": {"content": "error", "error": "x", "large": large}}]}
    event = b"data: " + orjson.dumps(choices) + b"\n\n"
    outcome, detail = folded(word(), event, STOP, DONE).outcome()
    assert (outcome, re.match(f"a frame that is {words}", detail) is not None) == (Outcome.PROTOCOL, True), detail
    outcome, detail = whole(orjson.dumps(choices)).outcome()
    assert (outcome, re.match(f"a response that is {words}", detail) is not None) == (Outcome.PROTOCOL, True), detail


@pytest.mark.parametrize(
    "unit", [b'"prompt_logprobs":["\\"', b'"top_logprobs":["', b'"bytes":[1,2', b'"bytes":  [[{},']
)
def test_a_large_event_takes_linear_time(unit: bytes) -> None:
    """Whatever is left open in it. Seen to fail before: minutes for 1 MB of the first."""
    took = []
    for size in (0, 2**18, 2**22) * 2:
        data = b'{"x":[' + b"[],{}," * 200_000 + unit * (size // len(unit))
        began = time.process_time()
        with pytest.raises(BadChunk, match="more than is read"):
            object_of(data)
        took.append(time.process_time() - began)
    before, small, large = (min(took[place::3]) for place in range(3))
    # Sixteen times as long: 256 times as much if it were not linear.
    assert large - before < 64 * max(small - before, before / 8)


def test_the_error_is_the_servers_own_words() -> None:
    """The first error counts, cleaned of what a terminal would obey."""
    answer = folded(b'data: {"error":{"message":"out of\\u001b memory"}}\n\ndata: {"error":"second"}\n\n')
    assert answer.error == "out of memory"
    assert answer.outcome() == (Outcome.STREAM_ERROR, "out of memory")


def test_an_oversize_event_is_a_protocol_error_and_what_came_before_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks that were made stay; nothing more is read, and nothing is raised."""
    monkeypatch.setattr(sse, "LARGEST_BLOCK", 100)
    answer = folded(word(), word() + b"x" * 101, STOP, DONE)
    assert answer.event_ns == array("q", [0, 10])
    assert answer.done_ns is None
    assert answer.outcome()[0] is Outcome.PROTOCOL
    assert answer.broken == answer.outcome()[1]
    assert folded(word(), b"data: {broken\n\n", word()).broken == ""


def test_a_forgotten_last_line_end_is_forgiven_and_told() -> None:
    """The last event counts without its empty line, at the read that brought it and not at the body's end."""
    answer = folded(word(), STOP, DONE.rstrip())
    assert (answer.done_ns, answer.unfinished, answer.outcome()[0]) == (20, True, Outcome.OK)
    assert folded(word(), STOP, DONE).unfinished is False


def test_a_last_token_without_its_line_end_belongs_to_its_read() -> None:
    """Its read is counted once: as one with a token, or as one of several tokens."""
    alone = folded(word(), word().rstrip())
    assert (alone.event_ns, alone.reads, alone.merged_reads) == (array("q", [0, 10]), 2, 0)
    merged = folded(word(), word() + word().rstrip())
    assert (merged.event_ns, merged.reads, merged.merged_reads) == (array("q", [0, 10, 10]), 2, 1)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("tail", [b"", b"\n"])
def test_events_without_an_empty_line_between_them_are_named(end: bytes, tail: bytes) -> None:
    """All frames come as one event: the detail says what is missing, and quotes the beginning."""
    stream = b"".join(frame.removesuffix(b"\n") for frame in (word(), word(), STOP, total(2), DONE)) + tail
    outcome, detail = folded(stream.replace(b"\n", end)).outcome()
    assert outcome is Outcome.PROTOCOL
    assert detail.startswith("no empty line between events, each of which must end with one: 5 came as one, '{")


def test_an_error_among_events_without_an_empty_line_has_its_words() -> None:
    """The server's own words say more than the format."""
    stream = word()[:-1] + b'data: {"error":{"message":"no memory"}}\n' + DONE
    assert folded(stream).outcome() == (Outcome.STREAM_ERROR, "no memory")


@pytest.mark.parametrize(
    ("unread", "words"),
    [
        (b"data: hello\n\n", "a frame that is not JSON: 'hello'"),
        (b"data: [1,2]\n\n", "a frame that is a JSON list instead of a JSON object: '[1,2]'"),
        (b'data: {"sources":["a"]}\n\n', """a frame that is no part of a response: '{"sources":["a"]}'"""),
        (b"some: thing\n\n", "bytes outside of any event: 'some: thing\\n'"),
        (b"data: \x1b[1mhi\x00\n\n", "a frame that is not JSON: '\\x1b[1mhi\\x00'"),
        (b"data: %b\n\n" % (b"x" * 400), f"a frame that is not JSON: '{'x' * 300}…'"),
    ],
)
def test_what_is_not_understood_is_quoted(unread: bytes, words: str) -> None:
    """With text and a good end it is counted; without, it is why the request failed. It is quoted all the same."""
    good = folded(word(), unread, STOP, DONE)
    assert (good.outcome(), good.bad_frames) == ((Outcome.OK, words), 1)
    assert folded(word(), unread, unread, STOP, DONE).outcome()[1].endswith(" (and 1 more)")
    for cut in (folded(word(), unread), folded(unread, STOP, DONE), folded(unread)):
        outcome, detail = cut.outcome()
        assert outcome is Outcome.PROTOCOL
        assert detail.startswith(words)


def test_an_object_outside_of_any_event_is_no_response_where_events_had_text() -> None:
    """It is quoted like other words, though the events had no model."""
    answer = folded(word(), b'{"sources":["a"]}\n', STOP.replace(b'"model":"m",', b""), DONE)
    assert answer.outcome() == (Outcome.OK, """bytes outside of any event: '{"sources":["a"]}\\n'""")


@pytest.mark.parametrize(
    "frame",
    [
        b'data: {"choices":[{"delta":{"content":"b"}}]}',  # under a second `data: `
        b'[{"choices":[{"delta":{"content":"b"}}]}]',
        b'"{\\"choices\\":[{\\"delta\\":{\\"content\\":\\"b\\"}}]}"',
        b'{"choices":[{"delta":{"role":"assistant"data: {"choices":[]}',
    ],
)
def test_a_frame_that_may_have_had_text_is_missing_from_the_response(frame: bytes) -> None:
    """An object that cannot be read where it stands, whatever is around it: no good end makes up for its text."""
    for unread in (b"data: " + frame + b"\n\n", b" data: " + frame + b"\n\n", frame.removeprefix(b"data: ") + b"\n"):
        outcome, detail = folded(word(), unread, STOP, DONE).outcome()
        assert outcome is Outcome.PROTOCOL
        assert "choices" in detail


@pytest.mark.parametrize("also", [{}, {"choices": []}, {"choices": None}, {"object": "chat.completion.chunk"}])
def test_a_message_beside_the_names_of_a_response_is_read(also: dict[str, object]) -> None:
    """A frame with a model and no choices may say what broke; other words are quoted, those of a success pass."""

    def frame(message: str) -> bytes:
        return b"data: " + orjson.dumps({"model": "m", "created": 1, "message": message, **also}) + b"\n\n"

    assert folded(word(), frame("upstream failed"), STOP, DONE).outcome() == (Outcome.STREAM_ERROR, "upstream failed")
    odd = folded(word(), frame("something odd"), STOP, DONE)
    assert (odd.outcome()[0], odd.bad_frames) == (Outcome.OK, 1)
    assert folded(word(), frame("success"), STOP, DONE).outcome() == (Outcome.OK, "")


def test_a_response_without_a_token_quotes_a_frame_without_choices() -> None:
    """Its text may be under a name of another API, beside a usage that is understood."""
    other = b'data: {"result":"Hello","usage":{"prompt_tokens":5,"completion_tokens":1}}\n\n'
    for chunks, outcome in (([other], Outcome.TRUNCATED), ([other, STOP, DONE], Outcome.EMPTY)):
        found, detail = folded(*chunks).outcome()
        assert found is outcome
        assert '{"result":"Hello"' in detail
    # A frame for the usage alone is nothing strange.
    assert folded(ROLE, STOP, total(5), DONE).outcome()[1] == (
        "no token with text of the 5 that usage counts, and finish_reason 'stop'"
    )
    assert folded(word(), other).outcome() == (
        Outcome.TRUNCATED,
        "ended after 1 events, without finish_reason and [DONE]",
    )


def test_the_whole_message_at_the_end_repeats_the_deltas() -> None:
    """MiniMax and Perplexity send it. It is no token of its own; where all text is in messages it is the text."""
    deltas = [word("a"), word("b")]
    message = {"message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}
    last = b"data: " + orjson.dumps({"object": "chat.completion", "choices": [message], "usage": counted(2)}) + b"\n\n"
    for keep_text in (False, True):
        answer = folded(*deltas, last, keep_text=keep_text)
        assert (answer.outcome()[0], list(answer.event_ns)) == (Outcome.OK, [0, 10])
        assert (answer.output_tokens()[0], answer.finish_reason) == (2, "stop")
        assert answer.text == ("ab" if keep_text else None)
    parts = [b'data: {"choices":[{"message":{"content":"%c"}}]}\n\n' % letter for letter in b"abc"]
    assert list(folded(*parts, STOP).event_ns) == [0, 10, 20]


@pytest.mark.parametrize("reason", ["stop", "max_tokens", "STOP", "content_filter"])
def test_any_good_end_will_do(reason: str) -> None:
    """Text that a policy cut is a response; the reason is kept in the server's word."""
    answer = folded(word(), event(reason))
    assert (answer.outcome(), answer.finish_reason) == ((Outcome.OK, ""), reason)


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [("network_error", Outcome.STREAM_ERROR), ("moonrise", Outcome.PROTOCOL), ("null", Outcome.TRUNCATED)],
)
def test_no_other_end_will_do(reason: str, outcome: Outcome) -> None:
    """A word of failure and an unknown word are quoted, even with [DONE] after them; "null" says nothing."""
    found, detail = folded(word(), event(reason), total(1), *[DONE] * (reason != "null")).outcome()
    assert found is outcome
    assert (repr(reason) in detail) is (reason != "null")


def test_one_choice_of_several_that_fails_is_a_failure() -> None:
    """Whichever of them comes last, in one frame or in several."""
    for reasons in (("stop", "abort"), ("abort", "stop")):
        choices = [{"index": n, "delta": {}, "finish_reason": reason} for n, reason in enumerate(reasons)]
        together = b"data: " + orjson.dumps({"choices": choices}) + b"\n\n"
        assert folded(word(), together, DONE).outcome()[0] is Outcome.STREAM_ERROR
        assert folded(word(), *map(event, reasons), DONE).outcome()[0] is Outcome.STREAM_ERROR


def test_a_whole_response_in_an_event_stream_is_read_as_one() -> None:
    """In one line or in many, with [DONE] after it or without, whatever its Content-Type said."""
    body = {"model": "m", "choices": [{"message": {"content": "abc"}, "finish_reason": "stop"}], "usage": counted(8)}
    for text in (orjson.dumps(body), orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n\n" + DONE):
        answer = folded(text[:30], text[30:])
        assert (answer.outcome(), answer.is_whole, answer.bad_frames) == ((Outcome.OK, ""), True, 0)
        assert (answer.output_tokens(), list(answer.event_ns)) == ((8, TokenSource.USAGE), [15])


# Tokens.


@pytest.mark.parametrize(
    ("chunks", "tokens", "source", "by_event"),
    [
        # The server's usage first, on a frame of its own, on the finish, or on every frame.
        ([word(), word(), STOP, total(2), DONE], 2, TokenSource.USAGE, [1, 1]),
        ([word(), word(), STOP, total(7), DONE], 7, TokenSource.USAGE, None),
        ([word(), event("stop", counted(3)), DONE], 3, TokenSource.USAGE, None),
        ([event(usage=counted(n), content="a") for n in (1, 3, 4)], 4, TokenSource.USAGE, [1, 2, 1]),
        # Cumulative, with steps between that brought no text, and an end token after the last event.
        (
            [event(usage=counted(n), content=text) for n, text in [(1, ""), (2, "a"), (3, ""), (4, "b"), (5, "")]],
            5,
            TokenSource.USAGE,
            [2, 3],
        ),
        # No running count: it stands still, goes back, or is missing on one frame.
        ([*(event(usage=counted(0), content="a") for _ in range(3)), total(9)], 9, TokenSource.USAGE, None),
        ([event(usage=counted(n), content="a") for n in (3, 1, 8)], 8, TokenSource.USAGE, None),
        ([event(usage=counted(2), content="a"), word(), total(5)], 5, TokenSource.USAGE, None),
        # A zero takes nothing back and is no count beside tokens; null is nothing.
        ([word(), word(), total(2), total(0)], 2, TokenSource.USAGE, [1, 1]),
        ([word(), word(), total(0)], 2, TokenSource.EVENTS, None),
        ([ROLE, STOP, total(0)], 0, TokenSource.USAGE, None),
        ([word(), b'data: {"choices":[],"usage":null}\n\n'], 1, TokenSource.EVENTS, None),
        # Ids and logprobs, where every event with text has them; half a character belongs to the next event.
        ([word(token_ids=[1, 2]), word(token_ids=[3])], 3, TokenSource.IDS, [2, 1]),
        ([word(logprobs={"content": [{}]}), word(logprobs={"content": [{}, {}]})], 3, TokenSource.IDS, [1, 2]),
        ([word(token_ids=[1]), word("", token_ids=[2]), word(token_ids=[3])], 3, TokenSource.IDS, [1, 2]),
        ([word(token_ids=[1]), word(token_ids=[2]), word("", token_ids=[3]), total(3)], 3, TokenSource.USAGE, [1, 2]),
        ([word(token_ids=[1, 2]), word()], 2, TokenSource.EVENTS, None),
        # An account that does not add up to the usage is not believed.
        ([word(token_ids=[1]), word(token_ids=[2]), total(9)], 9, TokenSource.USAGE, None),
        # Hidden reasoning: far more tokens than events.
        ([word(), word(), STOP, total(500), DONE], 500, TokenSource.USAGE, None),
        ([word(), word()], 2, TokenSource.EVENTS, None),
        ([ROLE, DONE], None, TokenSource.UNKNOWN, None),
    ],
)
def test_where_the_number_of_tokens_comes_from(
    chunks: list[bytes], tokens: int | None, source: TokenSource, by_event: list[int] | None
) -> None:
    """D1, D8, D10: usage, then ids, then events, and the source is told; tokens per event are exact or not known."""
    answer = folded(*chunks)
    assert answer.output_tokens() == (tokens, source)
    account = answer.tokens_by_event()
    assert (None if account is None else list(account)) == by_event
    assert account is None or (sum(account) == tokens and len(account) == len(answer.event_ns))


def test_d6_reasoning_is_added_only_where_it_came_on_top() -> None:
    """The total tells whether the output has the reasoning in it."""
    details = {"completion_tokens_details": {"reasoning_tokens": 20}}
    inside = folded(word(), STOP, total(30, **details))
    beside = folded(word(), STOP, total(30, total_tokens=60, **details))
    assert (inside.output_tokens()[0], beside.output_tokens()[0]) == (30, 50)
    assert (inside.reasoning_tokens, beside.reasoning_tokens) == (20, 20)


def test_usage_is_kept_field_by_field() -> None:
    """A later frame that tells less takes nothing away."""
    answer = folded(word(), total(1, prompt_tokens_details={"cached_tokens": 4}), STOP, total(2))
    assert (answer.input_tokens, answer.cached_tokens, answer.output_tokens()[0]) == (10, 4, 2)
    assert folded(word(), STOP).input_tokens is None


# What else is known.


def test_text_is_kept_only_if_asked_for() -> None:
    """The visible text alone, whole: characters cut in two by reads or by surrogate halves come out as one."""
    snow = word("☃")
    halves = [word("HALF").replace(b"HALF", half) for half in (b"\\ud83d", b"\\ude00")]
    chunks = [event(reasoning="r"), snow[:-9], snow[-9:], *halves, STOP]
    assert folded(*chunks, keep_text=True).text == "☃😀"
    assert folded(*chunks).text is None


def test_model_and_finish_reason_are_the_servers_words() -> None:
    """The first name and the last reason; neither can carry what a terminal would obey."""
    answer = folded(b'data: {"model":"m\\u001b1","choices":[]}\n\n', word(), event("len\x07gth"), DONE)
    assert (answer.model, answer.finish_reason) == ("m1", "length")
    assert folded(word(), DONE).finish_reason is None


# Answers that are no stream.


def test_a_json_answer_is_one_event_of_all_its_tokens() -> None:
    """A server that ignores `stream` answered, at the moment its body was complete."""
    body = {"model": "m", "choices": [{"message": {"content": "abc"}, "finish_reason": "stop"}], "usage": counted(8)}
    answer = whole(orjson.dumps(body))
    assert answer.outcome() == (Outcome.OK, "")
    assert answer.output_tokens() == (8, TokenSource.USAGE)
    assert (list(answer.event_ns), list(answer.tokens_by_event() or [])) == ([70], [8])
    assert (answer.first_token_ns, answer.first_visible_ns, answer.last_token_ns) == (70, 70, 70)
    assert (answer.reads, answer.merged_reads, answer.finish_reason, answer.model) == (1, 0, "stop", "m")


def test_d8_a_json_answer_without_usage_has_no_number_of_tokens() -> None:
    """One event is not one token where the event is the whole answer."""
    answer = whole(b'{"choices":[{"message":{"content":"abc"}}]}')
    assert answer.outcome() == (Outcome.OK, "")
    assert answer.output_tokens() == (None, TokenSource.UNKNOWN)
    assert answer.tokens_by_event() is None


@pytest.mark.parametrize(
    ("body", "outcome", "detail"),
    [
        (b'{"error":{"message":"busy"}}', Outcome.STREAM_ERROR, "busy"),
        (b'{"detail":"gone"}', Outcome.STREAM_ERROR, "gone"),
        (b'{"choices":[{"message":{"content":""}}],"usage":{"completion_tokens":5}}', Outcome.EMPTY, "no token"),
        (b'{"object":"list","data":[]}', Outcome.PROTOCOL, "JSON that is no response of /chat/completions"),
        (b"", Outcome.PROTOCOL, "an empty body instead of an event stream"),
        (b"<html><title>Login</title>", Outcome.PROTOCOL, "an HTML page (Login) instead of an event stream"),
        (b"Hello", Outcome.PROTOCOL, "text (Hello) instead of an event stream"),
        (b"[]", Outcome.PROTOCOL, "text ([]) instead of an event stream"),
    ],
)
def test_what_is_no_answer_is_named(body: bytes, outcome: Outcome, detail: str) -> None:
    """A 200 that is an error, a page or anything else fails, and says what came."""
    found, words = whole(body).outcome()
    assert found is outcome
    assert words.startswith(detail)


@pytest.mark.parametrize("event", [b": ping", b"data: ", b"event: x", b'data: {"a":1}', b"data: {"], ids=repr)
@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_read_of_many_events_of_no_use_is_read_in_one_go(event: bytes, before: int, end: bytes) -> None:
    """Nearly a thousand keep-alives, empty or strange events in one read, as it begins and after text.

    Seen to fail: each was cut off by a call within the last, up to the recursion limit.
    """
    reader = ResponseReader(Api.CHAT)
    text = b'data: {"choices":[{"index":0,"delta":{"content":"a%d"}}]}\n\n'
    for number in range(before):
        reader.feed(number, text % number)
    reader.feed(before, (event + end) * 990)
    reader.feed(before + 1, text % before)
    reader.close(before + 2)
    assert len(reader.event_ns) == before + 1


@pytest.mark.parametrize(("frames", "reads"), [(1000, True), (1001, False)])
def test_a_thousand_frames_that_are_not_understood_are_passed_over(frames: int, reads: bool) -> None:
    """And as many more for each with text; a stream with more is none, and is not read any further."""
    answer = ResponseReader(Api.CHAT)
    answer.feed(0, b"data: {nope\n\n" * frames + word())
    assert (len(answer.event_ns), answer.broken == "", answer.bad_frames) == (int(reads), reads, frames)
    answer = ResponseReader(Api.CHAT)
    answer.feed(0, word() + b"data: {nope\n\n" * (frames + 1000) + word())
    assert (len(answer.event_ns), answer.broken == "") == (1 + reads, reads)


def test_an_error_among_events_of_text_is_no_text() -> None:
    """Whatever its data look like: such as those of events that differ too much for a shortcut."""

    def varied(number: int) -> bytes:
        choice = {"delta": {"content": "a" * number}, "logprobs": {"content": [{"token": "a", "bytes": [97]}]}}
        return b"data: " + orjson.dumps({"t": 10**number, "choices": [choice], "p": "x" * number}) + b"\n\n"

    answer = ResponseReader(Api.CHAT)
    for number in range(1, 9):
        answer.feed(number, varied(number))
    answer.feed(9, b"event: error\n" + varied(9))
    answer.close(10)
    assert answer.outcome()[0] is Outcome.STREAM_ERROR


def test_a_sign_of_life_after_the_end_is_one() -> None:
    """As one before it is."""
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    assert folded(ping, word(), STOP, DONE).keep_alives == 1
    assert folded(word(), STOP, DONE, ping).keep_alives == 1
    assert folded(ping, word(), STOP, DONE, ping).keep_alives == 2


def test_an_event_may_have_no_token_of_its_own() -> None:
    """By the ids that come with each: half a letter, or a space that belongs to the next one."""
    events = [word(text, token_ids=ids) for text, ids in (("a", [1]), ("b", []), ("c", [2, 3]))]
    assert folded(*events, STOP, DONE).tokens_by_event() == array("q", [1, 0, 2])
