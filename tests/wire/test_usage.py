"""The server's own counts: under every name, in every place, and what is not to be believed."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.record.outcome import TokenSource
from loadbench.wire.openai import Api, read_chunk
from loadbench.wire.response_reader import ResponseReader
from loadbench.wire.usage import MOST_TOKENS, Usage, count, read_usage, usage_in


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # input, output, cached, reasoning, total
        ({"input_tokens": 20, "output_tokens": 3}, (20, 3, None, None, None)),
        ({"inputTokens": 20, "outputTokens": 3, "totalTokens": 23}, (20, 3, None, None, 23)),
        ({"prompt_eval_count": 20, "eval_count": 3, "eval_duration": 5}, (20, 3, None, None, None)),
        ({"prompt_tokens": "20", "completion_tokens": "3", "total_tokens": "23"}, (20, 3, None, None, 23)),
        ({"prompt_tokens": 20.0, "completion_tokens": 3.0, "cost": 0.5}, (20, 3, None, None, None)),
        ({"prompt_tokens": None, "completion_tokens": 3}, (None, 3, None, None, None)),
        ({"num_tokens": 3}, (None, 3, None, None, None)),
        ({"num_tokens": 23, "completion_tokens": 3}, (None, 3, None, None, None)),
        ({"completion_tokens": 0, "output_tokens": 3}, (None, 3, None, None, None)),
        # DeepSeek; Moonshot; vLLM with null; Anthropic and Bedrock, whose input is without the cache.
        (
            {"prompt_tokens": 70, "completion_tokens": 3, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 6},
            (70, 3, 64, None, None),
        ),
        ({"completion_tokens": 3, "prompt_cache_hit_tokens": 6, "prompt_cache_miss_tokens": 4}, (10, 3, 6, None, None)),
        ({"prompt_tokens": 20, "completion_tokens": 3, "cached_tokens": 16}, (20, 3, 16, None, None)),
        (
            {"prompt_tokens": 20, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}},
            (20, 3, None, None, None),
        ),
        (
            {"input_tokens": 8, "output_tokens": 3, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 12},
            (120, 3, 100, None, None),
        ),
        ({"input_tokens": 8, "cache_read_input_tokens": 0, "output_tokens": 3}, (8, 3, 0, None, None)),
        ({"inputTokens": 8, "outputTokens": 3, "cacheReadInputTokens": 100}, (108, 3, 100, None, None)),
        # LiteLLM's prompt has the cached tokens in it, and so does any input that the total shows to be whole.
        (
            {"prompt_tokens": 120, "completion_tokens": 3, "cache_read_input_tokens": 100, "total_tokens": 123},
            (120, 3, 100, None, 123),
        ),
        (
            {"input_tokens": 120, "output_tokens": 3, "cache_read_input_tokens": 100, "total_tokens": 123},
            (120, 3, 100, None, 123),
        ),
        (
            {"input_tokens": 100, "output_tokens": 0, "cache_read_input_tokens": 40, "total_tokens": 100},
            (100, 0, 40, None, 100),
        ),
        # The Responses API; SGLang, which has reasoning beside the others; LangChain.
        (
            {
                "input_tokens": 20,
                "output_tokens": 30,
                "input_tokens_details": {"cached_tokens": 16},
                "output_tokens_details": {"reasoning_tokens": 25},
            },
            (20, 30, 16, 25, None),
        ),
        ({"prompt_tokens": 20, "completion_tokens": 30, "reasoning_tokens": 25}, (20, 30, None, 25, None)),
        (
            {"input_tokens": 20, "output_tokens": 30, "output_token_details": {"reasoning": 25}},
            (20, 30, None, 25, None),
        ),
        # Cohere: an object for the tokens, and one for those that are billed.
        (
            {"tokens": {"input_tokens": 20, "output_tokens": 3}, "billed_units": {"input_tokens": 2}},
            (20, 3, None, None, None),
        ),
        # Gemini: thoughts are not part of the candidates.
        (
            {
                "promptTokenCount": 20,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 40,
                "cachedContentTokenCount": 16,
            },
            (20, 5, 16, 40, 65),
        ),
        ({"promptTokenCount": 21, "thoughtsTokenCount": 60, "totalTokenCount": 81}, (21, 0, None, 60, 81)),
        ({"promptTokenCount": 20, "candidatesTokenCount": 5, "thoughtsTokenCount": 0}, (20, 5, None, 0, 25)),
        ({"candidatesTokenCount": 5, "thoughtsTokenCount": 40}, (None, 5, None, 40, 45)),
    ],
)
def test_counts_are_found_under_their_synonyms(usage: dict[str, object], expected: tuple[int | None, ...]) -> None:
    """What a server leaves out is unknown, never 0; nothing of it is a fault."""
    found = read_usage(usage)
    assert found is not None
    assert (found[:5], found.fault, found.unknown) == (expected, None, None)


def test_more_reasoning_than_output_comes_on_top_without_a_total() -> None:
    """As of xAI. A little more may be the draft of speculative decoding, and a total says itself what it is."""
    for reasoning, more, generated in ((94, {}, 103), (12, {}, 9), (94, {"total_tokens": 29}, 9)):
        details = {"completion_tokens_details": {"reasoning_tokens": reasoning}}
        found = read_usage({"prompt_tokens": 20, "completion_tokens": 9, **details, **more})
        assert found is not None
        assert found.generated == generated


def test_thoughts_come_on_top_of_candidates() -> None:
    """All that Gemini generated, also while there is no candidate yet."""
    usage = read_usage({"promptTokenCount": 20, "candidatesTokenCount": 5, "thoughtsTokenCount": 40})
    assert usage is not None
    assert usage.generated == 45
    usage = read_usage({"promptTokenCount": 21, "thoughtsTokenCount": 60, "totalTokenCount": 81})
    assert usage is not None
    assert usage.generated == 60


COUNTS = {"prompt_tokens": 20, "completion_tokens": 3}


@pytest.mark.parametrize(
    "frame",
    [
        {"choices": [], "usage": COUNTS},
        {"choices": [{"delta": {}, "finish_reason": "stop", "usage": COUNTS}]},
        {"choices": [{"delta": {"content": "a"}, "usage": COUNTS}]},
        {"choices": [{"delta": {"usage": COUNTS}}]},
        {"choices": [{"delta": {}, "message": {"usage": COUNTS}}]},
        {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}], "x_acme": {"id": "r", "usage": COUNTS}},
        {"choices": [], "usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 3}},
        {"choices": [], "token_usage": COUNTS},
        {"choices": [], "usage": None, "response": {"usage": COUNTS}},
        {"choices": [], "prompt_eval_count": 20, "eval_count": 3},
        {"usage": {"input_tokens": 20, "output_tokens": 3}},
    ],
)
def test_usage_is_found_in_every_place(frame: dict[str, object]) -> None:
    """At the top, in a choice, in its message, or below a name of the server's own."""
    usage = read_chunk(orjson.dumps(frame)).usage
    assert usage is not None
    assert (usage.input, usage.output) == (20, 3)


def test_usage_is_looked_for_in_six_objects_within_each_other() -> None:
    """And no deeper: a server may send any."""
    frame: dict[str, object] = {"usage": COUNTS}
    for depth in range(8):
        assert (usage_in(frame) is not None) == (depth <= 6)
        frame = {"response": frame}


@pytest.mark.parametrize("frame", [{}, {"usage": {}}, {"usage": {"completion_tokens": None}}, {"x_acme": {"id": "r"}}])
def test_what_is_empty_is_no_usage(frame: dict[str, object]) -> None:
    """Nothing reported is nothing misunderstood."""
    assert usage_in(frame) is None


def test_a_usage_without_known_names_says_which_it_has() -> None:
    """So that the level can quote them."""
    usage = read_usage({"billed": {"units": 3}, "spent": 7})
    assert usage == Usage(unknown="billed, spent")
    many = read_usage({f"n{number}": 1 for number in range(20)})
    assert many is not None
    assert (many.unknown or "").endswith("n7, …")


@pytest.mark.parametrize(
    ("usage", "fault"),
    [
        ({"completion_tokens": -7}, "completion_tokens is -7"),
        ({"completion_tokens": -1}, "completion_tokens is -1"),
        ({"prompt_tokens": -5, "completion_tokens": 8, "total_tokens": 3}, "prompt_tokens is -5"),
        ({"prompt_tokens": 8, "completion_tokens": -5, "total_tokens": 3}, "completion_tokens is -5"),
        ({"completion_tokens": 5, "prompt_tokens": "-2"}, "prompt_tokens is -2"),
        ({"output_tokens": 2.5}, "output_tokens is 2.5"),
        ({"eval_count": 10**30}, "eval_count is 100000000000000000000000"),
        ({"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 25}, "the total is 25 tokens"),
        (
            {"prompt_tokens": 2, "completion_tokens": 9, "total_tokens": 11, "reasoning_tokens": 90},
            "the output is 9 tokens, the reasoning in it 90",
        ),
    ],
)
def test_counts_that_cannot_be_are_faults(usage: dict[str, object], fault: str) -> None:
    """Negative, broken and absurd counts, and sums that contradict each other."""
    for found in (read_usage(usage), usage_in({"usage": usage})):
        assert found is not None
        assert (found.fault or "").startswith(fault)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 0},
        {
            "prompt_tokens": 20,
            "completion_tokens": 64,
            "total_tokens": 84,
            "reasoning_tokens": 71,
        },  # SGLang, with drafts
        {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 63, "reasoning_tokens": 40},
        {
            "prompt_tokens": 20,
            "completion_tokens": 3,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 12,
            "total_tokens": 135,
        },
        {"completion_tokens": 3, "cost": -1.5, "completion_time": 1e30},
    ],
)
def test_what_servers_do_is_no_fault(usage: dict[str, object]) -> None:
    """A total that is not filled in, SGLang's drafts that count as reasoning, what comes on top, other fields."""
    found = read_usage(usage)
    assert found is not None
    assert (found.fault, found.surplus) == (None, None)


def test_a_total_above_its_parts_is_known() -> None:
    """As where a gateway drops Gemini's thoughts."""
    found = read_usage({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623})
    assert found is not None
    assert (found.surplus, found.fault) == (405, None)


@given(st.integers(0, MOST_TOKENS))
def test_a_count_is_the_same_as_a_number_and_as_text(number: int) -> None:
    """Strings and whole floats are counts."""
    assert count(number) == count(str(number)) == number
    assert count(float(number)) == int(float(number))


@pytest.mark.parametrize("value", [True, None, "", "x", "1e3", "٣", "-1", -1, 0.5, float("nan"), MOST_TOKENS + 1, []])
def test_what_is_no_count_is_none(value: object) -> None:
    """Nothing is guessed."""
    assert count(value) is None


def test_the_other_endpoints_read_the_same_names() -> None:
    """Responses with chat's names, Ollama with an object of usage: whatever a proxy makes of it."""
    answer = ResponseReader(Api.RESPONSES)
    answer.feed(1, b'data: {"type":"response.output_text.delta","delta":"Hi"}\n\n')
    answer.feed(2, b'data: {"type":"response.completed","response":{"usage":%s}}\n\n' % orjson.dumps(COUNTS))
    assert (answer.input_tokens, answer.output_tokens()) == (20, (3, TokenSource.USAGE))
    answer = ResponseReader(Api.RESPONSES)
    answer.feed(1, b'data: {"type":"response.output_text.delta","delta":"Hi"}\n\n')
    answer.feed(2, b'data: {"type":"response.completed","response":{},"usage":%s}\n\n' % orjson.dumps(COUNTS))
    assert (answer.input_tokens, answer.output_tokens()) == (20, (3, TokenSource.USAGE))
    answer = ResponseReader(Api.OLLAMA)
    answer.feed(1, b'{"message":{"content":"Hi"},"done":false}\n')
    answer.feed(2, b'{"message":{"content":""},"done":true,"usage":%s}\n' % orjson.dumps(COUNTS))
    assert (answer.input_tokens, answer.output_tokens()) == (20, (3, TokenSource.USAGE))
