"""The effective n of correlated series, and the ranks that follow from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.stats.effective_n import correlated_ranks, effective_n, inefficiency
from loadbench.analyze.stats.intervals import quantile_ranks


def first_order(rho: float, n: int, seed: int) -> np.ndarray:
    """A series in which each value depends on the last alone."""
    noise = np.random.default_rng(seed).normal(size=n)
    series = np.empty(n)
    series[0] = noise[0] / math.sqrt(1 - rho**2)
    for position in range(1, n):
        series[position] = rho * series[position - 1] + noise[position]
    return series


@given(st.lists(st.booleans(), min_size=1, max_size=400), st.integers(1, 64))
def test_effective_n_lies_between_one_and_all(hits, round_size):
    """No series is worth less than one value or more than its length, and a constant one is not worth less for it."""
    assert 1 <= effective_n(hits, round_size=round_size) <= len(hits)
    assert effective_n([True] * len(hits), round_size=round_size) == len(hits)


def test_rounds_that_repeat_vary_less_than_independent_requests():
    """Eight users of whom four are always slow: the share of the hits is known as well as if all were independent."""
    hits = [True, True, False, True, False, False, True, False] * 100
    assert effective_n(hits, round_size=8) == 800


def test_batches_of_rounds_see_what_lags_do_not():
    """A level that changes slowly: a fifth of its rounds are slow, one after another."""
    rng = np.random.default_rng(1)
    hits = np.concatenate([rng.random(400) < 0.9, rng.random(100) < 0.1])
    assert effective_n(hits, round_size=4) < 20


@pytest.mark.parametrize(("rho", "expected"), [(0.5, 3.0), (0.8, 9.0), (0.9, 19.0)])
def test_inefficiency_of_a_first_order_series(rho, expected):
    """It is (1 + ρ) / (1 - ρ): within a fifth on average, and not below it."""
    found = np.mean([inefficiency(first_order(rho, 5000, seed)) for seed in range(20)])
    assert 0.97 * expected < found < 1.2 * expected


def test_independent_values_are_worth_as_many():
    """An inefficiency of 1 for nine tenths of the series without memory, and hardly more for the others."""
    found = [inefficiency(np.random.default_rng(seed).exponential(size=500)) for seed in range(100)]
    assert sum(one == 1.0 for one in found) >= 90
    assert max(found) < 2


@pytest.mark.parametrize("values", [[], [1.0] * 9, [5.0] * 400, [0.0] * 400, [1e15] * 400, [1.0, 2.0] * 200])
def test_series_that_show_no_memory(values):
    """Too short, constant, or alternating: no value is counted for less than one."""
    assert inefficiency(values) == 1.0


@given(st.integers(1, 5000), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_ranks_of_independent_values_are_the_known_ones(n, p):
    """With an inefficiency of 1 nothing changes."""
    ranks = quantile_ranks(n, p)
    assert correlated_ranks(n, p, inefficiency=1.0) == (None if None in ranks else ranks)


@given(st.integers(1, 5000), st.sampled_from([0.5, 0.9, 0.99]), st.floats(1, 50), st.floats(1, 50))
def test_the_more_requests_hang_together_the_wider_the_interval(n, p, one, other):
    """A larger inefficiency has an interval that is as wide in probability at least, or none; ranks exist in n."""
    little, much = sorted((one, other))
    narrow, wide = (correlated_ranks(n, p, inefficiency=how) for how in (little, much))
    if wide is None:
        return
    assert narrow is not None
    assert 1 <= wide[0] < wide[1] <= n
    # The coarser steps of fewer effective values may move a bound by one of them.
    assert wide[0] <= narrow[0] + much
    assert wide[1] >= narrow[1] - much


def test_few_that_hang_together_have_no_interval():
    """Sixty requests worth six would do for a median if these were independent; what they are worth is not known."""
    assert correlated_ranks(60, 0.5, inefficiency=10.0) is None
    assert correlated_ranks(6, 0.5, inefficiency=1.0) == (1, 6)
