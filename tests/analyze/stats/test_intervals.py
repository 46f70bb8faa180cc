"""Order-statistic intervals: exact ranks, and coverage that is what it says."""

from __future__ import annotations

import math
import random
import statistics
from fractions import Fraction
from math import comb

import pytest

from loadbench.analyze.stats.intervals import binomial_cdf, mean_interval, quantile_ranks, share_interval


def exact_ranks(n: int, p: Fraction, tail: Fraction) -> tuple[int | None, int | None]:
    """The ranks by exact arithmetic: the definition, summed term by term."""
    cumulative = Fraction(0)
    low = high = None
    for k in range(n + 1):
        below = cumulative  # P(Bin < k)
        cumulative += comb(n, k) * p**k * (1 - p) ** (n - k)
        if below <= tail:
            low = k
        if high is None and cumulative >= 1 - tail:
            high = k + 1
    return low or None, high if high <= n else None


@pytest.mark.parametrize("p", [Fraction(1, 2), Fraction(9, 10), Fraction(95, 100), Fraction(99, 100)])
@pytest.mark.parametrize("n", [1, 5, 6, 35, 36, 37, 71, 72, 100, 367, 368, 400, 500])
def test_ranks_are_those_of_exact_arithmetic(n, p):
    """Floating point finds the same ranks as fractions do."""
    assert quantile_ranks(n, float(p)) == exact_ranks(n, p, Fraction(25, 1000))


@pytest.mark.parametrize(("p", "least"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.999, 3688)])
def test_interval_begins_at_the_known_sample_size(p, least):
    """Below the known least sample size a 95 % interval is open above, and from it on it is closed."""
    assert quantile_ranks(least - 1, p)[1] is None
    assert None not in quantile_ranks(least, p)


@pytest.mark.parametrize(
    ("n", "ranks"), [(500, (490, 500)), (2000, (1971, 1989)), (5000, (4936, 4964)), (10_000, (9880, 9920))]
)
def test_published_ranks_of_p99(n, ranks):
    """The ranks of p99 agree with the published table to within one, where it rounds outwards."""
    low, high = quantile_ranks(n, 0.99)
    assert abs(low - ranks[0]) <= 1
    assert abs(high - ranks[1]) <= 1


def test_large_samples_are_quick_and_sane():
    """A hundred million values need no hundred million terms."""
    low, high = quantile_ranks(100_000_000, 0.5)
    assert 50_000_000 - 10_000 < low < 50_000_000 < high < 50_000_000 + 10_000


def test_coverage_is_at_least_what_is_stated():
    """Of many samples of a known law, at least 95 % of the intervals hold its true quantile."""
    rng = random.Random(1)
    n, p, trials = 100, 0.9, 2000
    low, high = quantile_ranks(n, p)
    held = 0
    for _ in range(trials):
        values = sorted(rng.random() for _ in range(n))
        held += values[low - 1] <= p <= values[high - 1]
    # Three standard errors of the count below 95 %.
    assert held / trials >= 0.95 - 3 * (0.95 * 0.05 / trials) ** 0.5


def test_nonsense_is_refused():
    """p and confidence lie between 0 and 1."""
    for p, confidence in ((0, 0.95), (1, 0.95), (0.5, 0), (0.5, 1)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            quantile_ranks(10, p, confidence)


def test_batch_means_cover_the_mean_of_a_correlated_series():
    """Of many autocorrelated series (AR(1), 0.8) at least nine in ten intervals hold the true mean.

    Twenty batches of fifty are close to independent, and not quite: somewhat less than 95 % is what theory gives. An
    interval for independent values would hold it in about half the cases.
    """
    rng = random.Random(3)
    held = naive = 0
    trials = 300
    for _ in range(trials):
        values, x = [], 0.0
        for _ in range(1000):
            x = 0.8 * x + rng.gauss(0, 1)
            values.append(10 + x)
        low, high = mean_interval(values)
        held += low <= 10 <= high
        spread = 1.96 * statistics.stdev(values) / len(values) ** 0.5
        naive += abs(statistics.fmean(values) - 10) <= spread
    assert held / trials >= 0.9
    assert naive / trials < 0.75


def test_interval_of_a_constant_is_that_constant():
    """Nothing varies, nothing is in doubt; and of fewer than five values nothing is said."""
    assert mean_interval([3.0] * 40) == (3.0, 3.0)
    assert mean_interval([3.0] * 4) is None


@pytest.mark.parametrize(("values", "t"), [(5, 2.776), (6, 2.571), (10, 2.262), (15, 2.145), (20, 2.093)])
def test_few_values_are_batches_of_their_own(values, t):
    """Then it is the interval of independent values, by the published quantiles of Student's t."""
    series = [float(value * value % 7) for value in range(values)]
    low, high = mean_interval(series)
    reach = t * statistics.stdev(series) / values**0.5
    assert (low + high) / 2 == pytest.approx(statistics.fmean(series))
    assert (high - low) / 2 == pytest.approx(reach, rel=5e-4)
    assert mean_interval(series[:4]) is None


def test_more_values_are_twenty_batches():
    """Of lengths that differ by one at most, each with its length as its weight."""
    series = [float(value * value % 7) for value in range(50)]
    parts = [series[begin : begin + 3] for begin in range(0, 30, 3)] + [series[at : at + 2] for at in range(30, 50, 2)]
    mean = statistics.fmean(series)
    between = sum(len(part) * (statistics.fmean(part) - mean) ** 2 for part in parts)
    low, high = mean_interval(series)
    assert (high - low) / 2 == pytest.approx(2.093 * (between / 19 / 50) ** 0.5, rel=5e-4)


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (40, 0.05), (400, 0.95), (5000, 0.999), (100_000, 0.5)])
def test_the_distribution_is_the_binomial_one(n, p):
    """The sum of its terms, each from the one before; what is left out at either end is negligible."""
    first, cumulative = binomial_cdf(n, p)
    last = first + len(cumulative) - 1
    mean, deviation = n * p, (n * p * (1 - p)) ** 0.5
    assert 0 <= first <= max(0, mean - 10 * deviation)
    assert n >= last >= min(n, mean + 10 * deviation)
    assert cumulative[-1] == pytest.approx(1, abs=1e-12)
    at = round(mean)
    exact = math.exp(
        math.lgamma(n + 1)
        - math.lgamma(at + 1)
        - math.lgamma(n - at + 1)
        + at * math.log(p)
        + (n - at) * math.log1p(-p)
    )
    below = cumulative[at - first - 1] if at > first else 0.0
    assert cumulative[at - first] - below == pytest.approx(exact, rel=1e-6)
    assert last - first <= 30 * deviation + 100


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 20), (3, 20), (19, 20), (190, 200), (200, 200)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_bounds_of_a_share_are_those_at_which_the_hits_are_as_rare_as_stated(hits, n, confidence):
    """By the sum of the binomial terms; without a miss, or without a hit, one end is that of all shares."""

    def at_most(k: int, p: float) -> float:
        return math.fsum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))

    low, high = share_interval(hits, n, confidence)
    assert (low == 0, high == 1) == (hits == 0, hits == n)
    if hits:
        assert 1 - at_most(hits - 1, low) == pytest.approx((1 - confidence) / 2, rel=1e-6)
    if hits < n:
        assert at_most(hits, high) == pytest.approx((1 - confidence) / 2, rel=1e-6)


@pytest.mark.parametrize("what", [(-1, 10, 0.95), (11, 10, 0.95), (0, 0, 0.95), (5, 10, 0.0), (5, 10, 1.0)])
def test_what_is_no_share_is_refused(what):
    """More hits than requests, none at all, or no confidence."""
    with pytest.raises(ValueError, match="no share"):
        share_interval(*what)
