"""The effective n of correlated series, and the ranks that follow from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.stats.effective_n import CorrelatedSeries, effective_n
from loadbench.analyze.stats.intervals import quantile_ranks
from loadbench.analyze.stats.student import quantile


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


@pytest.mark.parametrize("round_size", [1, 8])
@pytest.mark.parametrize(("rho", "fewest", "most"), [(0.0, 0.6, 0.9), (0.5, 0.15, 0.4), (0.9, 0.02, 0.08)])
def test_effective_n_of_a_first_order_series(rho, fewest, most, round_size):
    """Of the signs of a first-order series: ρ(k) = 2 asin(ρ^k) / π (Van Vleck), which sum to 1, 2.4 and 14 for 0, 0.5
    and 0.9. The estimate errs to the side of fewer, because few batches know their variance badly."""
    truth = 1 + 2 * sum(2 / math.pi * math.asin(rho**lag) for lag in range(1, 400))
    found = np.mean([effective_n(first_order(rho, 2000, seed) > 0, round_size=round_size) for seed in range(20)])
    assert fewest * 2000 < found < most * 2000
    assert found <= 1.02 * 2000 / truth


@given(st.integers(1, 5000), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_ranks_of_independent_values_are_the_known_ones(n, p):
    """Values of which nothing is known are independent."""
    assert CorrelatedSeries((), users=1).ranks(n, p) == quantile_ranks(n, p)


@given(
    st.lists(st.floats(0.001, 1000), min_size=1, max_size=300),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
    st.sampled_from([None, 1, 4, 32]),
)
def test_ranks_exist_and_hold_the_quantile(values, p, users):
    """Each end is a rank among the values, the lower one at or below that of the quantile and the upper one not."""
    n = len(values)
    low, high = CorrelatedSeries(values, users=users).ranks(n, p)
    assert low is None or 1 <= low <= math.ceil(n * p)
    assert high is None or math.ceil(n * p) <= high <= n


@pytest.mark.parametrize("users", [4, 8, 16, 32])
@pytest.mark.parametrize("rounds", [3, 4, 10])
def test_closed_loop_of_three_rounds_has_an_interval_of_its_median(users, rounds):
    """However alike the rounds are, or unlike: at most the range of the values."""
    rng = np.random.default_rng(users)
    for values in (
        rng.lognormal(0, 0.5, users * rounds),
        np.tile(np.linspace(1, 2, users), rounds),
        np.repeat(rng.lognormal(0, 0.5, rounds), users),
    ):
        assert None not in CorrelatedSeries(values, users=users).ranks(len(values), 0.5)


def test_open_loop_with_a_long_memory_has_no_interval():
    """A queue that grew and shrank twice while it was watched: the next level may be quite another one."""
    waits = np.abs(np.sin(np.linspace(0, 2 * math.pi, 600))) * 10 + 0.1
    for p in (0.5, 0.95):
        assert CorrelatedSeries(waits, users=None).ranks(600, p) == (None, None)


def test_few_alike_values_have_their_range():
    """Forty requests of an open loop that hang together, within a few percent of each other: the range is known."""
    values = 1 + 0.05 * np.sin(np.linspace(0, 2 * math.pi, 40))
    low, high = CorrelatedSeries(values, users=None).ranks(40, 0.5)
    assert (low, high) == (1, 40)


def test_a_series_that_alternates_is_worth_all_its_values():
    """Its pairs of autocorrelations are tiny and never negative: it has no long memory."""
    assert effective_n([True, False] * 50) == 100


@given(
    st.integers(0, 1000),
    st.sampled_from([(40, 10), (400, 7), (900, 300), (3000, 64)]),
    st.sampled_from([0.5, 0.9, 0.99]),
    st.booleans(),
)
def test_lockstep_is_what_places_within_a_period_explain(seed, size, cut, in_step):
    """As written down: the variance of the places' means in that of all values, whatever it takes to add them."""
    (n, users), rng = size, np.random.default_rng(seed)
    values = np.tile(rng.lognormal(size=users), n // users + 1)[:n] if in_step else rng.lognormal(size=n)
    hits = values <= np.quantile(np.sort(values), cut, method="inverted_cdf")
    wanted = 1.0
    for period in range(2, min(users, n // 4) + 1) if hits.var() else ():
        places = hits[: n // period * period].reshape(n // period, period).mean(axis=0)
        explained = places.var() / hits.var()
        wanted = max(wanted, n // period * explained if explained > 0.5 else 1.0)
    assert CorrelatedSeries(values, users=users)._lockstep(cut) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("users", "period"), [(10, 10), (11, 8), (16, 4)])
def test_users_in_lockstep_tell_little_of_a_high_quantile(users, period):
    """Each place in a period always fares the same, but for noise: twelve rounds tell hardly more than one."""
    rng = np.random.default_rng(users)
    places = np.tile(np.linspace(1, 3, period), 200)[: 12 * users]
    values = places + rng.normal(0, 0.01, len(places))
    lockstep = CorrelatedSeries(values, users=users)
    assert lockstep.ranks(len(values), 0.95)[1] is None
    assert lockstep.inefficiency(0.95) > 6
    assert CorrelatedSeries(rng.permutation(values), users=users).inefficiency(0.95) < 6


def test_few_batches_know_their_variance_badly():
    """Two rounds of 50 users with 24 and 26 hits in turn with misses: their means vary by a sixth of what independent
    requests do, times (t / 1.96)² with one degree of freedom."""
    rounds = np.tile([0.0, 1.0], 50)
    rounds[1], rounds[98] = 0.0, 1.0
    expected = 100 / (0.16 * (quantile(0.975, 1) / 1.96) ** 2)
    assert effective_n(rounds, round_size=50) == pytest.approx(expected)


def test_a_high_quantile_is_known_by_the_median_where_it_shows_too_little_itself():
    """Spells below and above the median, and a tenth strewn among them that is far above: of an open loop the p90 is
    known no better than the median, and of a closed one with enough values beyond by itself."""
    values = np.tile(np.repeat([0.0, 1.0], [50, 30]), 10)
    values[np.random.default_rng(1).permutation(800)[:80]] = 9.0
    opened, closed = (CorrelatedSeries(values, users=users) for users in (None, 4))
    assert closed.inefficiency(0.5) > 10
    assert closed.inefficiency(0.9) < 4
    assert opened.inefficiency(0.9) >= opened.inefficiency(0.5) > 10
