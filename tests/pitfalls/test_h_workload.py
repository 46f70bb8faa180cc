"""H: what is asked, and how long the answers are. Each test has what the wrong way gives beside ours."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from loadbench.plan.distribution import Constant, parse_distribution
from loadbench.plan.prompts import Prompt, TextPrompts, WordPrompts
from loadbench.plan.settings import settings
from tests.building import S, a_level, a_sample

LEVELS = ("m/0", "m/1", "m/2")


def shared_words(one: str, other: str) -> int:
    """How many words they have in common at their beginning, which is what a prefix cache keeps."""
    same = [a == b for a, b in zip(one.split(), other.split(), strict=False)]
    return [*same, False].index(False)


def texts(level: str, seed: int) -> TextPrompts:
    """One given prompt."""
    return TextPrompts((Prompt("Tell me about the sea."),), seed=seed, level=level)


def words(level: str, seed: int) -> WordPrompts:
    """Dealt words."""
    return WordPrompts(Constant(64), seed=seed, level=level)


@pytest.mark.parametrize("source", [texts, words])
def test_h1_no_prompt_begins_as_another_did(source):
    """Over three levels of 200 requests, and two seeds, no two prompts share their first six words; a cache keeps 16.

    Seen to fail when the seed alone makes the prompts: level by level the same 200 are asked, and the cache answers.
    """
    asked = [
        source(level, seed).next(number, None).text for level in LEVELS for seed in (0, 1) for number in range(200)
    ]
    assert max(shared_words(one, other) for one, other in pairwise(sorted(asked))) < 6
    by_seed_alone = [source("", 0).next(number, None).text for _ in LEVELS for number in range(200)]
    assert len(set(by_seed_alone)) == 200 < len(by_seed_alone) < len(set(asked)) == 1200


def test_h1_what_came_from_the_cache_is_counted_and_told():
    """Prompts that came in part from the server's cache are counted, and more than 1 % of them make a level invalid."""

    def level(cached: int):
        return a_level([a_sample(n, due_ns=n * S // 4, cached_tokens=32 * (n < cached)) for n in range(400)])

    assert level(5).tokens.cached_requests == 5
    assert "cached_prompts" in {reason.code for reason in level(5).verdict.reasons}
    assert "cached_prompts" not in {reason.code for reason in level(4).verdict.reasons}


def test_h2_prompt_lengths_are_the_servers():
    """Where the server counts 3 % more tokens than were asked for, its count is what stands there, and it is told.

    Seen to fail when the length that was asked for is taken for the length that was read.
    """

    def level(told: int):
        return a_level([a_sample(n, due_ns=n * S, target_input_tokens=1000, input_tokens=told) for n in range(100)])

    assert level(1030).tokens.input == 103_000
    assert "prompt_length" in {caveat.code for caveat in level(1030).caveats}
    assert "prompt_length" not in {caveat.code for caveat in level(1019).caveats}
    assert level(1030).verdict.status == "VALID"


def test_h3_a_range_is_written_with_its_ends():
    """Lengths between 80 and 120 are asked for as such, and reach both; no setting is a ratio of another.

    Seen to fail when the same "ratio of 0.2" is 80 to 120 in one tool, and 20 to 100 in another.
    """
    distribution = parse_distribution("uniform:80,120", parse_value=float)
    rng = random.Random(1)
    drawn = [round(distribution.sample(rng)) for _ in range(5000)]
    assert (min(drawn), max(drawn)) == (80, 120)
    assert distribution.mean == 100
    assert not [setting.name for setting in settings() if "ratio" in setting.name.split("_")]
    around, down_to = (100 * (1 - 0.2), 100 * (1 + 0.2)), (100 * 0.2, 100)
    assert around != down_to


def test_h4_answers_that_ended_early_are_told():
    """Two levels of one scenario, one whose answers end by themselves: reasons and tokens tell that the work differs.

    Seen to fail when E2E alone is set side by side: the other one is "twice as fast".
    """
    whole = a_level(
        [
            a_sample(n, due_ns=n * S, output_tokens=21, gaps_ns=40_000_000, finish_reason="length", max_tokens=21)
            for n in range(50)
        ]
    )
    early = a_level([a_sample(n, due_ns=n * S, output_tokens=11, finish_reason="stop") for n in range(50)])
    assert early.metrics["e2e_s"].p50 < 0.7 * whole.metrics["e2e_s"].p50
    assert (whole.finish_reasons, early.finish_reasons) == ({"length": 50}, {"stop": 50})
    assert (whole.tokens.output, early.tokens.output) == (1050, 550)
