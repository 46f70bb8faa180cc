"""Usage against events: hidden tokens and impossible counts are proven, and nothing is suspected without proof."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.record.usage_check import PLAUSIBLE, UsageCheck, UsageStats
from loadbench.wire.openai import Api
from loadbench.wire.response_reader import ResponseReader


def event(content: str = " word", **more: object) -> bytes:
    """A frame with this text; `ids` go into its choice."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    choice |= {"token_ids": more.pop("ids")} if "ids" in more else {}
    return b"data: " + orjson.dumps({"model": "m", "choices": [choice], **more}) + b"\n\n"


def reasoned(text: str) -> bytes:
    """A frame with reasoning."""
    return b"data: " + orjson.dumps({"model": "m", "choices": [{"delta": {"reasoning_content": text}}]}) + b"\n\n"


def answer(*frames: bytes, tokens: int, keep_text: bool = False, **more: object) -> ResponseReader:
    """A response of these frames and a usage."""
    reader = ResponseReader(Api.CHAT, keep_text=keep_text)
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, **more}
    for at_ns, frame in enumerate([*frames, b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\n"]):
        reader.feed(at_ns, frame)
    return reader


REASONING = {"completion_tokens_details": {"reasoning_tokens": 300}}


@pytest.mark.parametrize(
    ("reader", "hidden"),
    [
        # 25 events of one word cannot hold 400 tokens: their text has 125 bytes.
        (answer(*[event()] * 25, tokens=400), None),
        (answer(*[event("日本")] * 25, tokens=400), None),
        (answer(*[event()] * 25, *[reasoned("hm")] * 5, tokens=400), None),
        # By the server's own count of reasoning, which no event had.
        (answer(*[event()] * 25, tokens=325, **REASONING), 300),
        (answer(*[event()] * 25, tokens=325, reasoning_tokens=300), 300),
        # By ids: the events had 50 tokens, and no more.
        (answer(*[event(ids=[1, 2])] * 25, tokens=400), 350),
        # No proof: several tokens an event, marks, reasoning that was shown, and text that may be reasoning.
        (answer(*[event(" several words in one event")] * 25, tokens=150), 0),
        (answer(*[event()] * 25, tokens=125), 0),
        (answer(*[event()] * 2, tokens=12), 0),
        (answer(*[event(ids=[1])] * 25, tokens=27), 0),
        (answer(*[reasoned("a longer thought")] * 20, *[event()] * 25, tokens=325, **REASONING), 0),
        (answer(event("<think>"), *[event(" and so on, and on")] * 25, tokens=325, **REASONING), 0),
        (answer(*[event()] * 325, tokens=325, **REASONING), 0),
    ],
)
def test_hidden_tokens_are_those_that_no_text_can_hold(reader: ResponseReader, hidden: int | None) -> None:
    """Usage counts more tokens than the text has bytes, than its ids, or reasoning that nobody saw."""
    assert reader.check_usage(None).hidden == hidden


def test_a_call_has_tokens_that_are_not_text() -> None:
    """What a template writes around a call is not known, so nothing is proven by its length."""
    call = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}
    frame = b"data: " + orjson.dumps({"choices": [{"delta": call}]}) + b"\n\n"
    assert answer(frame, tokens=60).check_usage(None) == PLAUSIBLE


@given(
    st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=30),
    st.integers(1, 5),
    st.text(alphabet="abc ", min_size=1),
)
def test_the_length_of_text_is_known_though_it_is_only_counted(texts: list[str], together: int, first: str) -> None:
    """The same bytes by the shortcut as by the parser; never fewer than were sent, so that a proof is one."""
    frames = [event(first), *map(event, texts)]
    reads = [b"".join(frames[at : at + together]) for at in range(0, len(frames), together)]
    lengths = [answer(*reads, tokens=1, keep_text=keep).text_bytes for keep in (True, False)]
    assert lengths[0] == lengths[1] == sum(len(text.encode()) for text in [first, *texts])


@pytest.mark.parametrize(
    ("reader", "limit", "fault"),
    [
        (answer(*[event("w0 ")] * 4, tokens=400), 4, "400 output tokens in 4 events, of at most 4 that were requested"),
        (answer(*[event("w0 ")] * 4, tokens=400), None, ""),
        (answer(*[event("w0 ")] * 4, tokens=400), 400, ""),
        # A draft more, reasoning that the limit does not cover, and a limit that the server visibly ignored.
        (answer(*[event()] * 64, tokens=71), 64, ""),
        (answer(*[event("w")] * 4, tokens=12), 4, ""),
        (answer(*[event("w")] * 4, tokens=13), 4, "13 output tokens in 4 events, of at most 4 that were requested"),
        (answer(*[event()] * 25, tokens=325, **REASONING), 32, ""),
        (answer(*[event()] * 200, tokens=200), 64, ""),
        (answer(*[event(" several words in one event")] * 50, tokens=300), 64, ""),
        (answer(event(), tokens=-3), 64, "completion_tokens is -3"),
        # Counted anew with every frame.
        (answer(*[event()] * 200, tokens=1), 256, "1 output tokens for 1000 bytes of text"),
        (answer(*[event(ids=[1, 2])] * 25, tokens=3), 64, "3 tokens by usage, 50 by their ids"),
    ],
)
def test_usage_that_cannot_be_is_a_fault(reader: ResponseReader, limit: int | None, fault: str) -> None:
    """More than was requested, unless the text bears it out."""
    assert reader.check_usage(limit).fault == fault


def test_a_limit_that_is_visibly_ignored_is_no_fault_of_the_usage() -> None:
    """The count is right; the work is not what was planned."""
    assert answer(*[event()] * 200, tokens=200).check_usage(64) == UsageCheck(ignores_limit=True)


def test_other_doubts() -> None:
    """A total above its parts, fewer tokens than events, and names that nobody knows."""
    assert answer(*[event()] * 3, tokens=3, total_tokens=80).check_usage(9) == UsageCheck(has_surplus=True)
    assert answer(*[event()] * 3, tokens=1).check_usage(9) == UsageCheck(has_few=True)
    reader = ResponseReader(Api.CHAT)
    reader.feed(1, event() + b'data: {"choices":[],"usage":{"units\\u001b":3}}\n\n')
    assert reader.check_usage(9) == UsageCheck(unknown="units")


def test_a_whole_response_hides_nothing_before_its_end() -> None:
    """What was not streamed has one event, at its end: no first token came earlier."""
    reader = ResponseReader(Api.CHAT)
    body = {"choices": [{"message": {"content": "Hi"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 400}}
    reader.read_json(orjson.dumps(body), 1)
    assert reader.check_usage(512) == PLAUSIBLE


def test_stats_count_responses_and_keep_the_first_words() -> None:
    """Over a level, also where the checks came from another process and are equal, not the same."""
    stats = UsageStats()
    checks = [UsageCheck(), PLAUSIBLE, UsageCheck(hidden=None), UsageCheck(hidden=3, has_few=True)]
    for check in [
        *checks,
        UsageCheck(fault="a"),
        UsageCheck(fault="b", unknown="c", has_surplus=True, ignores_limit=True),
    ]:
        stats.add(check)
    assert stats == UsageStats(2, 1, 1, 1, faults=2, fault="a", not_understood=1, unknown="c")
