"""Faults in the content of a response: its deltas, its usage, its end and its speed.

The bytes are correct, and so is the connection. See `tests.faults.frames` for what an entry is.
"""

from __future__ import annotations

from loadbench.record.outcome import Outcome, TokenSource
from tests.faults.frames import (
    DONE,
    GAP_S,
    LATE_S,
    FaultTable,
    Wire,
    choice,
    counts,
    finish,
    frame,
    plain_response,
    stop,
    usage_alone,
    word,
    words,
)

FAULTS = FaultTable()


# Deltas.


@FAULTS.ends(Outcome.OK)
async def plain(wire: Wire) -> None:
    """Nothing wrong: one token per event, then finish_reason, usage and [DONE]."""
    await plain_response(wire)


@FAULTS.ends(Outcome.OK)
async def role_first(wire: Wire) -> None:
    """A delta with a role alone comes at once. TTFB is its time, TTFT that of the first token, ten gaps later."""
    wire.open()
    await wire.send(choice(wire, {"role": "assistant"}))
    await wire.pause(9 * GAP_S)
    await words(wire, wire.max_tokens)
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def empty_first(wire: Wire) -> None:
    """The first delta has content "". TTFT is that of the first text, ten gaps later, exactly as with `null_first`."""
    wire.open()
    await wire.send(choice(wire, {"role": "assistant", "content": ""}))
    await wire.pause(9 * GAP_S)
    await words(wire, wire.max_tokens)
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def null_first(wire: Wire) -> None:
    """The first delta has content null. TTFT is that of the first text, ten gaps later."""
    wire.open()
    await wire.send(choice(wire, {"role": "assistant", "content": None, "reasoning_content": None}))
    await wire.pause(9 * GAP_S)
    await words(wire, wire.max_tokens)
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def empty_between(wire: Wire) -> None:
    """An empty delta follows every token. There are as many events as tokens, and no gap is shorter for it."""
    wire.open()
    for number in range(wire.max_tokens):
        await wire.pause(GAP_S / 2)
        await wire.send(word(wire, number))
        await wire.pause(GAP_S / 2)
        await wire.send(choice(wire, {"content": ""}))
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def reasoning_first(wire: Wire) -> None:
    """Before the text come as many tokens of `reasoning_content`. TTFT is that of the reasoning, TTFO is later."""
    await _reason(wire, "reasoning_content")


@FAULTS.ends(Outcome.OK)
async def reasoning_by_another_name(wire: Wire) -> None:
    """The same under the key `reasoning`, with the same figures."""
    await _reason(wire, "reasoning")


@FAULTS.ends(Outcome.OK)
async def reasoning_in_parts(wire: Wire) -> None:
    """The same in content parts whose text lies one list deeper, as of Mistral's Magistral, with the same figures."""
    wire.open()
    for number in range(wire.max_tokens):
        await wire.pause(GAP_S)
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": f"r{number} "}]}
        await wire.send(choice(wire, {"content": [thought]}))
    await words(wire, wire.max_tokens)
    await finish(wire, 2 * wire.max_tokens)


@FAULTS.ends(Outcome.OK)
async def whole_message_at_the_end(wire: Wire) -> None:
    """The last frame repeats the text as a message, as of MiniMax. It is no token, and adds no gap."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.pause(LATE_S)
    text = "".join(f"w{number} " for number in range(wire.max_tokens))
    last = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    await wire.send(frame({"object": "chat.completion", "model": wire.model, "choices": [last]}))
    await finish(wire)


async def _reason(wire: Wire, key: str) -> None:
    wire.open()
    for number in range(wire.max_tokens):
        await wire.pause(GAP_S)
        await wire.send(choice(wire, {key: f"r{number} "}))
    await words(wire, wire.max_tokens)
    await finish(wire, 2 * wire.max_tokens, reasoning=wire.max_tokens)


@FAULTS.ends(Outcome.OK)
async def hidden_reasoning(wire: Wire) -> None:
    """Fifty times as many tokens of reasoning are not sent. Usage counts them; the tokens of no event are known."""
    wire.open()
    await wire.pause(LATE_S)
    await words(wire, wire.max_tokens)
    await finish(wire, 51 * wire.max_tokens, reasoning=50 * wire.max_tokens)


@FAULTS.ends(Outcome.OK)
async def hidden_tokens_unreported(wire: Wire) -> None:
    """The same without a count of the reasoning. More tokens than the text has bytes: no time per token is claimed."""
    wire.open()
    await wire.pause(LATE_S)
    await words(wire, wire.max_tokens)
    await finish(wire, 51 * wire.max_tokens)


@FAULTS.ends(Outcome.OK)
async def several_by_ids(wire: Wire) -> None:
    """Three tokens per event, with their ids, as of speculative decoding. ITL is a third of the event gap."""
    wire.open()
    for number in range(wire.max_tokens):
        await wire.pause(GAP_S)
        await wire.send(word(wire, number, ids=[1, 2, 3]))
    await finish(wire, 3 * wire.max_tokens)


@FAULTS.ends(Outcome.OK)
async def several_by_usage(wire: Wire) -> None:
    """Three tokens per event, reported by a usage that grows from frame to frame. ITL is a third of the event gap."""
    wire.open()
    for number in range(wire.max_tokens):
        await wire.pause(GAP_S)
        await wire.send(word(wire, number, usage=counts(wire, 3 * number + 3)))
    await finish(wire, 3 * wire.max_tokens)


@FAULTS.ends(Outcome.OK)
async def several_unreported(wire: Wire) -> None:
    """Three tokens per event, of which only the sum is reported. There are event gaps, and no ITL is claimed."""
    wire.open()
    await words(wire, wire.max_tokens)
    await finish(wire, 3 * wire.max_tokens)


@FAULTS.ends(Outcome.OK)
async def no_choices(wire: Wire) -> None:
    """Frames with an empty list of choices, and with none, stand between the tokens. They change nothing."""
    wire.open()
    await wire.send(frame({"choices": [], "prompt_filter_results": []}), frame({"model": wire.model}))
    await words(wire, wire.max_tokens)
    await wire.send(frame({"choices": None}))
    await finish(wire)


# Usage.


@FAULTS.ends(Outcome.OK)
async def usage_on_every_frame(wire: Wire) -> None:
    """The usage so far is on every frame. The last one counts; they are not added up."""
    wire.open()
    for number in range(wire.max_tokens):
        await wire.pause(GAP_S)
        await wire.send(word(wire, number, usage=counts(wire, number + 1)))
    await wire.send(stop(wire, usage=counts(wire, wire.max_tokens)), DONE)
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def usage_on_the_last_token(wire: Wire) -> None:
    """Usage stands in the frame of the last token, and no frame is for it alone. It counts all the same."""
    wire.open()
    await words(wire, wire.max_tokens - 1)
    await wire.pause(GAP_S)
    await wire.send(word(wire, wire.max_tokens, finish="stop", usage=counts(wire, wire.max_tokens)), DONE)
    await wire.end()


@FAULTS.ends(Outcome.OK, source=TokenSource.EVENTS)
async def usage_missing(wire: Wire) -> None:
    """No usage. Tokens are the events that came, an assumption by name; never the number that was requested."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(stop(wire), DONE)
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def usage_late(wire: Wire) -> None:
    """Usage and [DONE] come a hundred gaps after the last token. E2E ends with that token, only stream_end later."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(stop(wire))
    await wire.pause(LATE_S)
    await wire.send(usage_alone(wire, wire.max_tokens), DONE)
    await wire.end()


@FAULTS.ends(Outcome.OK, source=TokenSource.EVENTS)
async def usage_of_zero(wire: Wire) -> None:
    """Usage says 0 though tokens came. So the events are counted instead."""
    wire.open()
    await words(wire, wire.max_tokens)
    await finish(wire, 0)


@FAULTS.ends(Outcome.OK)
async def usage_by_other_names(wire: Wire) -> None:
    """Usage has the names of the Responses API and stands below one of the server's own. It counts all the same."""
    wire.open()
    await words(wire, wire.max_tokens)
    named = {"input_tokens": wire.prompt_tokens, "output_tokens": str(wire.max_tokens)}
    await wire.send(stop(wire), frame({"choices": [], "x_acme": {"id": "r1", "usage": named}}), DONE)
    await wire.end()


@FAULTS.ends(Outcome.OK, source=TokenSource.EVENTS)
async def usage_negative(wire: Wire) -> None:
    """Usage is -1 tokens, which cannot be. The events are counted, and the level is not valid."""
    wire.open()
    await words(wire, wire.max_tokens)
    await finish(wire, -1)


@FAULTS.ends(Outcome.OK)
async def usage_too_high(wire: Wire) -> None:
    """Usage says ten times the ids of the tokens. It counts, but no event is given more tokens than it had."""
    wire.open()
    for number in range(wire.max_tokens):
        await wire.pause(GAP_S)
        await wire.send(word(wire, number, ids=[number]))
    await finish(wire, 10 * wire.max_tokens)


# Errors and ends.


@FAULTS.ends(Outcome.STREAM_ERROR)
async def error_in_stream(wire: Wire) -> None:
    """An error object after some tokens, in a 200, and then [DONE] as if nothing had happened. The request failed."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(frame({"error": {"message": "out of memory", "code": 500}}), DONE)
    await wire.end()


@FAULTS.ends(Outcome.STREAM_ERROR)
async def error_by_event(wire: Wire) -> None:
    """The same as an event of type error."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(b'event: error\ndata: {"message": "out of memory"}\n\n')
    await wire.end()


@FAULTS.ends(Outcome.STREAM_ERROR)
async def error_at_once(wire: Wire) -> None:
    """A 200 with nothing but an error."""
    wire.open()
    await wire.send(frame({"error": "no such adapter"}))
    await wire.end()


@FAULTS.ends(Outcome.STREAM_ERROR)
async def error_after_finish(wire: Wire) -> None:
    """A good response with finish_reason, and an error after it. The request failed."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(stop(wire), frame({"error": {"message": "post-processing failed"}}), DONE)
    await wire.end()


@FAULTS.ends(Outcome.STREAM_ERROR)
async def aborted(wire: Wire) -> None:
    """The server ends the response with finish_reason abort. The request failed."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(choice(wire, {}, finish="abort"), DONE)
    await wire.end()


@FAULTS.ends(Outcome.STREAM_ERROR)
async def error_by_field(wire: Wire) -> None:
    """The same as a field `error` of the event stream, as of llama.cpp, and then [DONE]."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(b'error: {"code": 500, "message": "out of memory"}\n\n', DONE)
    await wire.end()


@FAULTS.ends(Outcome.STREAM_ERROR)
async def error_by_code(wire: Wire) -> None:
    """The same as a code and a message, as of DashScope. Good frames before it have the code 0."""
    wire.open()
    await wire.send(frame({"code": 0, "message": "success", "choices": []}))
    await words(wire, wire.max_tokens)
    await wire.send(frame({"code": "InternalError", "message": "out of memory", "request_id": "1"}), DONE)
    await wire.end()


@FAULTS.ends(Outcome.STREAM_ERROR)
async def error_after_done(wire: Wire) -> None:
    """A good response with its [DONE], and an error after it. The request failed."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(stop(wire), DONE, frame({"error": {"message": "post-processing failed"}}))
    await wire.end()


@FAULTS.ends(Outcome.STREAM_ERROR)
async def bad_finish(wire: Wire) -> None:
    """The finish_reason says that it failed, as of Zhipu and DeepSeek; usage and [DONE] follow as if it had not."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(choice(wire, {}, finish="network_error"), usage_alone(wire, wire.max_tokens), DONE)
    await wire.end()


@FAULTS.ends(Outcome.PROTOCOL)
async def unknown_finish(wire: Wire) -> None:
    """The finish_reason is a word that nobody knows. It is not taken for a good end."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(choice(wire, {}, finish="moonrise"), usage_alone(wire, wire.max_tokens), DONE)
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def null_as_text(wire: Wire) -> None:
    """Every frame has the finish_reason "null" as text, which says nothing; the last has a good one."""
    wire.open()
    for number in range(wire.max_tokens):
        await wire.pause(GAP_S)
        await wire.send(word(wire, number, finish="null"))
    await finish(wire)


@FAULTS.ends(Outcome.TRUNCATED)
async def null_as_text_cut(wire: Wire) -> None:
    """The same, cut before the last frame."""
    wire.open()
    for number in range(wire.max_tokens):
        await wire.send(word(wire, number, finish="null"))
    await wire.end()


@FAULTS.ends(Outcome.EMPTY)
async def empty(wire: Wire) -> None:
    """A role, a finish_reason, a usage of 0, and not one token. No success, and no TTFT."""
    wire.open()
    await wire.send(choice(wire, {"role": "assistant", "content": ""}))
    await finish(wire, 0)


@FAULTS.ends(Outcome.TRUNCATED)
async def nothing(wire: Wire) -> None:
    """A 200 with an event stream that ends at once."""
    wire.open()
    await wire.end()


@FAULTS.ends(Outcome.TRUNCATED)
async def no_finish(wire: Wire) -> None:
    """All tokens, and a clean end of the body without finish_reason and [DONE]. It was cut short all the same."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def finish_alone(wire: Wire) -> None:
    """A finish_reason and a usage, no [DONE]. The response is complete."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(stop(wire), usage_alone(wire, wire.max_tokens))
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def done_alone(wire: Wire) -> None:
    """A [DONE] and a usage, no finish_reason. The response is complete."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(usage_alone(wire, wire.max_tokens), DONE)
    await wire.end()


# Speed.


@FAULTS.ends(Outcome.OK)
async def at_once(wire: Wire) -> None:
    """Head and first token in one write, without any delay. TTFT is short, and is not taken for missing."""
    await wire.raw(wire.head() + wire.chunk(word(wire, 0)))
    await words(wire, wire.max_tokens - 1, start=1)
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def one_token(wire: Wire) -> None:
    """A response of one token. It has TTFT and E2E, which are equal; gap, ITL and TPOT do not exist."""
    wire.open()
    await words(wire, 1)
    await finish(wire, 1)


@FAULTS.ends(Outcome.OK)
async def slowing(wire: Wire) -> None:
    """Every gap is a tenth longer than the one before, as with a growing context. The longest gap is the last."""
    wire.open()
    for number in range(wire.max_tokens):
        await words(wire, 1, gap_s=GAP_S * 1.1**number, start=number)
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def two_speeds(wire: Wire) -> None:
    """Gaps alternate between short and ten times as long. Both are seen; the mean is neither."""
    wire.open()
    for number in range(wire.max_tokens):
        await words(wire, 1, gap_s=GAP_S * (10 if number % 2 else 1), start=number)
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def preempted(wire: Wire) -> None:
    """The response pauses for a hundred gaps in its middle. One gap is that long, the others are not longer for it."""
    wire.open()
    half = wire.max_tokens // 2
    await words(wire, half)
    await wire.pause(LATE_S)
    await words(wire, wire.max_tokens - half, start=half)
    await finish(wire)
