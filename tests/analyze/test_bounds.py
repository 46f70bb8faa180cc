"""Early stopping, requests that hang together, and moving blocks."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.analyze.stats.bounds import (
    block_length,
    bootstrap_interval,
    bound_holds,
    correlated_ranks,
    fewest_requests,
    inefficiency,
    most_over,
)
from loadbench.analyze.stats.intervals import quantile_ranks

OVER = (0, 1, 2, 3, 5, 10, 20, 50, 100)
# By confidence and quantile, how many requests it takes; MLPerf's LoadGen has the same 662 for one above the p99.
TABLE = {
    ("0.95", "0.5"): (5, 8, 11, 13, 18, 30, 53, 119, 226),
    ("0.95", "0.9"): (29, 46, 61, 76, 103, 167, 286, 627, 1172),
    ("0.95", "0.95"): (59, 93, 124, 153, 208, 336, 577, 1260, 2353),
    ("0.95", "0.99"): (299, 473, 628, 773, 1049, 1693, 2902, 6323, 11799),
    ("0.95", "0.999"): (2995, 4742, 6294, 7752, 10511, 16959, 29058, 63281, 118071),
    ("0.99", "0.5"): (7, 11, 14, 17, 22, 35, 59, 128, 237),
    ("0.99", "0.9"): (44, 64, 81, 97, 127, 197, 325, 681, 1246),
    ("0.99", "0.95"): (90, 130, 165, 198, 259, 398, 656, 1372, 2504),
    ("0.99", "0.99"): (459, 662, 838, 1001, 1307, 2010, 3304, 6898, 12571),
    ("0.99", "0.999"): (4603, 6636, 8403, 10042, 13105, 20140, 33097, 69058, 125826),
}


def chance(n: int, over: int, p: Fraction) -> Fraction:
    """P(Bin(n, 1 - p) <= over), exactly."""
    return sum((math.comb(n, k) * (1 - p) ** k * p ** (n - k) for k in range(over + 1)), Fraction(0))


@pytest.mark.parametrize(("kind", "expected"), TABLE.items(), ids=str)
def test_g6_the_fewest_requests_are_those_of_the_table(kind, expected):
    """With so many above the bound it takes so many requests, and one fewer is too few."""
    confidence, p = (float(text) for text in kind)
    assert tuple(fewest_requests(over, p, confidence=confidence) for over in OVER) == expected
    for over, n in zip(OVER, expected, strict=True):
        assert bound_holds(n, over, p, confidence=confidence)
        assert not bound_holds(n - 1, over, p, confidence=confidence)


@pytest.mark.parametrize(
    ("n", "over"), [(458, None), (459, 0), (1000, 2), (2000, 9), (5000, 33), (10_000, 77), (24_576, 209)]
)
def test_g6_a_p99_bears_fewer_than_one_in_a_hundred(n, over):
    """At 99 % confidence, of 1000 requests 2 may be above the bound, and not 10."""
    assert most_over(n, 0.99) == over


@given(
    st.integers(1, 60),
    st.integers(0, 60),
    st.sampled_from(["0.5", "0.9", "0.95", "0.99", "0.999", "0.25"]),
    st.sampled_from(["0.5", "0.9", "0.95", "0.99"]),
)
def test_g6_bound_is_exact(n, over, p, confidence):
    """Whatever n and however many above, the answer is that of whole-number arithmetic, equality included."""
    exact = chance(n, min(over, n), Fraction(p)) <= 1 - Fraction(confidence)
    assert bound_holds(n, over, float(p), confidence=float(confidence)) == exact


@settings(deadline=None)
@given(st.integers(1, 1_000_000), st.sampled_from([0.5, 0.9, 0.99, 0.999]), st.sampled_from([0.9, 0.99]))
def test_g6_search_is_monotone_up_to_a_million(n, p, confidence):
    """The most that n requests bear is borne, one more is not, and the fewest that bear it are no more than n."""
    over = most_over(n, p, confidence=confidence)
    if over is None:
        assert not bound_holds(n, 0, p, confidence=confidence)
        return
    assert bound_holds(n, over, p, confidence=confidence)
    assert not bound_holds(n, over + 1, p, confidence=confidence)
    fewest = fewest_requests(over, p, confidence=confidence)
    assert fewest <= n < fewest_requests(over + 1, p, confidence=confidence)
    assert not bound_holds(fewest - 1, over, p, confidence=confidence)


@pytest.mark.parametrize(("p", "confidence"), [(0.0, 0.9), (1.0, 0.9), (0.5, 0.0), (0.5, 1.0)])
def test_what_is_no_probability_is_refused(p, confidence):
    """A quantile or a confidence of 0 or 1 bounds nothing."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        bound_holds(10, 0, p, confidence=confidence)


def first_order(rho: float, n: int, seed: int) -> np.ndarray:
    """A series in which each value depends on the last alone."""
    noise = np.random.default_rng(seed).normal(size=n)
    series = np.empty(n)
    series[0] = noise[0] / math.sqrt(1 - rho**2)
    for position in range(1, n):
        series[position] = rho * series[position - 1] + noise[position]
    return series


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
    assert correlated_ranks(n, p, inefficiency=1.0) == quantile_ranks(n, p)


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


def test_bootstrap_is_the_same_for_a_seed():
    """The same seed gives the same interval, another one another."""
    series = first_order(0.5, 400, 1)
    assert bootstrap_interval(series, 0.9, seed=1) == bootstrap_interval(series, 0.9, seed=1)
    assert bootstrap_interval(series, 0.9, seed=1) != bootstrap_interval(series, 0.9, seed=2)
    assert bootstrap_interval(series[:9], 0.9, seed=1) is None


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_bootstrap_holds_the_median_of_a_series_with_memory(rho):
    """In 100 series of 400 the median, 0, is inside as often as 95 % less three standard errors; memory or not."""
    found = [bootstrap_interval(first_order(rho, 400, seed), 0.5, seed=seed) for seed in range(100)]
    assert sum(one is not None and one[0] <= 0 <= one[1] for one in found) >= 100 * (0.95 - 3 * 0.0218)


def test_blocks_are_as_long_as_memory_asks():
    """Single values where there is no memory, longer blocks the longer it is, and never beyond a third."""
    lengths = [np.median([block_length(first_order(rho, 1000, seed)) for seed in range(9)]) for rho in (0.0, 0.5, 0.9)]
    assert lengths[0] <= 3 < lengths[1] < lengths[2] <= 95
    assert block_length(np.arange(30.0)) <= 10
