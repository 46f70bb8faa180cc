"""Each prompt apart: its own distribution, and what stands out of it."""

from __future__ import annotations

import pytest

from loadbench.analyze.level.by_prompt import PromptLatency, by_prompt
from tests.analyze.asked import a_failed_request, a_request


def test_prompts_and_levels_are_apart():
    """Two prompts at two levels are four distributions; warm-up and cool-down are in none."""
    requests = [
        a_request(n, level=level, prompt_index=prompt, e2e_s=1 + prompt + level, tokens=10 * (1 + prompt))
        for level in (0, 1)
        for prompt in (0, 1)
        for n in range(3)
    ]
    requests += [a_request(9, phase="warm_up", e2e_s=99), a_request(10, phase="cool_down", e2e_s=99)]
    found = by_prompt(requests)
    assert [(one.level, one.prompt, one.e2e.p50, one.output_tokens) for one in found] == [
        (0, 0, 1.0, (10, 10)),
        (0, 1, 2.0, (20, 20)),
        (1, 0, 2.0, (10, 10)),
        (1, 1, 3.0, (20, 20)),
    ]


def test_spread_is_exact():
    """Median, minimum and maximum of the values themselves: no histogram rounds them."""
    (one,) = by_prompt([a_request(n, e2e_s=e2e) for n, e2e in enumerate((1.234567891, 1.0, 3.0, 2.0))])
    assert one.e2e == PromptLatency(pytest.approx((1.234567891 + 2.0) / 2, abs=1e-9), 1.0, 3.0)


def test_failures_are_counted_and_have_no_latency():
    """Asked and answered are told apart; a prompt that was never answered has no figures, and is there."""
    requests = [a_request(0), a_failed_request(1), a_failed_request(2, prompt_index=1)]
    first, second = by_prompt(requests)
    assert (first.requests, first.ok) == (2, 1)
    assert (second.requests, second.ok, second.e2e, second.ttft, second.output_tokens) == (1, 0, None, None, None)


def test_outlier_is_of_its_own_prompt():
    """A long prompt's usual time is no outlier among a short one's, and a short one's slow answer is."""
    requests = [a_request(n, e2e_s=1 + n / 100) for n in range(11)]
    requests += [a_request(20 + n, prompt_index=1, e2e_s=30 + n / 10) for n in range(11)]
    assert [one.outliers for one in by_prompt(requests)] == [(), ()]
    first, second = by_prompt([*requests, a_request(50, e2e_s=5)])
    (out,) = first.outliers
    assert (out.figure, out.number, out.value) == ("E2E", 50, 5.0)
    assert out.score > 3.5
    assert second.outliers == ()


def test_prompt_that_is_slow_for_its_length_stands_out():
    """Medians are compared by time per output token, so that a long answer is no outlier for being long."""
    requests = [
        a_request(10 * prompt + n, prompt_index=prompt, e2e_s=length * (0.100 + prompt / 1000), tokens=length)
        for prompt, length in enumerate((10, 20, 400, 40, 50, 60))
        for n in range(3)
    ]
    assert all(one.outlier_score is None for one in by_prompt(requests))
    slow = [a_request(90 + n, prompt_index=6, e2e_s=5.0, tokens=10) for n in range(3)]
    assert [one.prompt for one in by_prompt([*requests, *slow]) if one.outlier_score] == [6]


def test_made_prompts_have_none_of_their_own():
    """A request that asked no given prompt is in no distribution."""
    assert by_prompt([a_request(0, prompt_index=None)]) == []
