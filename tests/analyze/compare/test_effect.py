"""Effects: what two sides tell, how it is mean_over_levels, and how many runs it takes."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from msgspec.structs import replace

from loadbench.analyze.compare.effect import (
    ASSUMED_DRIFT,
    POWER,
    BetweenRuns,
    Effect,
    WithinRun,
    holm,
    hommel,
    mean_over_levels,
    plan_repeats,
)
from loadbench.analyze.compare.figure_data import Design, figure_data
from tests.building import a_level


def runs(a, b, *, paired=False):
    """Two sides of plain numbers."""
    return BetweenRuns(np.asarray(a, float), np.asarray(b, float), paired)


def test_pairs_are_compared_by_their_differences():
    """What is common to a pair is nothing to the effect: mean 2, standard deviation 1, five pairs."""
    luck = np.array([0.0, 50.0, -20.0, 7.0, 3.0])
    effect = runs(luck, luck + np.array([1, 2, 3, 2 + math.sqrt(2), 2 - math.sqrt(2)]), paired=True).effect()
    assert effect is not None
    assert effect.value == pytest.approx(2)
    assert effect.below == pytest.approx(math.sqrt((1 + 0 + 1 + 2 + 2) / 4 / 5))
    low, high = effect.interval(0.95)
    assert (high - low) / 2 == pytest.approx(2.7764 * effect.below, rel=1e-4)


def test_counts_that_agree_by_chance_are_no_certainty():
    """Two pairs with 3 and 23 responses each have no spread, but a count of 3 has one: the interval is wide."""
    steady = [
        replace(level, throughput=replace(level.throughput, requests_per_s=rate))
        for rate in (0.6, 4.6)
        for level in [replace(a_level(), window_s=5.0)]
    ]
    data = figure_data([steady[0]] * 2, [steady[1]] * 2, "requests_per_s", Design(paired=True))
    assert data is not None
    effect = data.effect()
    assert effect is not None
    assert effect.below == pytest.approx(math.sqrt((1 / 3**2 + 1 / 23**2) / 6 / 2))
    low, high = effect.ratio_interval(0.95)
    assert low < 3
    assert high > 20
    # In long windows it is nothing beside the spread of runs.
    long = [replace(level, window_s=6000.0) for level in steady]
    assert figure_data([long[0]] * 2, [long[1]] * 2, "requests_per_s", Design(paired=True)).effect().below < 2e-4


@pytest.mark.parametrize(("b", "error", "freedom"), [([-1, -1, 0, 1, 1], 1.0, 8), ([-1, 1], math.sqrt(2.4 * 0.7), 5)])
def test_unpaired_sides_share_their_spread(b, error, freedom):
    """Squares of 4 and 16 of 5 and 5: the error is √(20 / 8 · 2 / 5); of 4 and 8 of 5 and 2: √(12 / 5 · 0.7)."""
    effect = runs(np.array([-1, -1, 0, 1, 1]) + 10, 2 * np.array(b) + 13).effect()
    assert effect is not None
    assert (effect.value, effect.below, effect.freedom) == (3.0, pytest.approx(error), freedom)


def test_one_session_is_compared_with_the_spread_of_the_others():
    """Of one machine: 5 sessions of a have variance 0.00025, and b's one session the same."""
    sessions = ((0, 1, 2, 3, 4), (5, 5))
    data = BetweenRuns(np.array([0.0, 0.01, 0.02, 0.03, 0.04]), np.array([0.9, 1.1]), paired=False, sessions=sessions)
    effect = data.effect()
    assert effect is not None
    assert (effect.value, effect.freedom, effect.assumed) == (pytest.approx(0.98), 4, False)
    assert effect.below == pytest.approx(math.sqrt(0.00025 * (1 + 1 / 5)))


def test_few_sessions_that_differ_by_more_than_is_assumed_show_it():
    """Student's t of 2 and 2 with variances of 2; of little ones the drift is assumed."""
    values = np.array([-1.0, 1.0])
    effect = BetweenRuns(values, values + 1, paired=False).effect()
    assert effect is not None
    assert (effect.below, effect.freedom, effect.assumed) == (pytest.approx(math.sqrt(2)), 2, False)
    little = BetweenRuns(values / 100, values / 100 + 1, paired=False).effect()
    assert little is not None
    assert (little.below, little.assumed) == (pytest.approx(math.log1p(ASSUMED_DRIFT)), True)


def test_one_session_a_side_has_the_assumed_drift():
    """And the spread of its runs on top: variances of 0.02 of 2 and 2 runs."""
    values = np.array([-0.1, 0.1])
    effect = BetweenRuns(values, values + 1, paired=False, sessions=((0, 0), (1, 1))).effect()
    assert effect is not None
    assert (effect.value, effect.assumed) == (pytest.approx(1.0), True)
    assert effect.below == pytest.approx(math.sqrt(2 * math.log1p(ASSUMED_DRIFT) ** 2 + 0.02))
    exact = BetweenRuns(np.zeros(1), np.ones(1), paired=False).effect()
    assert exact is not None
    assert exact.interval(0.95)[0] == pytest.approx(1 - 1.96 * math.sqrt(2) * math.log1p(ASSUMED_DRIFT), abs=1e-4)


def test_pairs_that_went_on_are_at_least_as_wide_as_the_first_ones():
    """4 first pairs with a spread of 1, then quiet ones: the error is that of 1, with 3 degrees of freedom; quiet first
    pairs, then noisy ones: as wide at 95 % as by all of them.
    """
    noisy, quiet = np.array([-1.0, 1.0, -1.0, 1.0]) * math.sqrt(3) / 2, np.zeros(12)
    for differences in (np.concatenate([noisy, quiet]), np.concatenate([quiet, noisy])):
        data = BetweenRuns(np.zeros(16), differences, paired=True, first=4)
        effect, plain = data.effect(), BetweenRuns(np.zeros(16), differences, paired=True).effect()
        assert effect is not None
        assert plain is not None
        assert effect.freedom == 3
        if differences is not None and differences[0]:
            assert effect.below == pytest.approx(1 / 4)
        else:
            assert effect.interval(0.95) == pytest.approx(
                Effect(plain.value, plain.below, plain.above, 15).interval(0.95)
            )


def test_a_run_without_a_value_takes_its_pair_along():
    """Of three pairs of which two lack a side, one is left, and one is not enough."""
    one = runs([1, math.nan, 3], [1, 2, math.nan], paired=True)
    assert [len(side) for side in one.usable()] == [1, 1]
    assert one.effect() is None
    assert [len(side) for side in runs([1, math.nan, 3], [1, 2, math.nan]).usable()] == [2, 2]


def test_equal_sides_differ_by_nothing_and_surely():
    """Two exact servers: the interval is a point, and the p is 1; of one that is slower it is 0."""
    same = runs([2, 2, 2], [2, 2, 2], paired=True).effect()
    slower = runs([2, 2, 2], [3, 3, 3]).effect()
    assert same is not None
    assert slower is not None
    assert (same.interval(0.95), same.p_value(), same.p_beyond(0.0)) == ((0.0, 0.0), 1.0, 0.5)
    assert (slower.interval(0.95), slower.p_value(), slower.p_beyond(0.5), slower.p_beyond(2.0)) == ((1, 1), 0, 0, 1)


def test_p_and_interval_say_the_same():
    """The interval touches 0 at the confidence that is 1 - p, to either side of skewed ones too."""
    for effect in (Effect(1.3, 0.5, 0.9, 7), Effect(-1.3, 0.5, 0.9, 7), Effect(0.2, 0.4, 0.1)):
        low, high = effect.interval(1 - effect.p_value())
        assert pytest.approx(0, abs=1e-9) == (low if effect.value > 0 else high)


def test_errors_of_both_sides_add_up_as_independent_ones():
    """Distances of 3 and 4 make 5: a's upper and b's lower go below, the others above."""
    effect = WithinRun(a=(9.0, 10.0, 13.0), b=(16.0, 20.0, 21.0)).effect()
    low, high = effect.interval(0.95)
    assert (low, high) == (pytest.approx(5.0, abs=1e-5), pytest.approx(10 + math.sqrt(2), abs=1e-5))


def test_a_side_without_a_lower_end_decides_nothing():
    """A throughput that may be 0 has no logarithm there: the ratio has no interval, and the p is 1."""
    effect = WithinRun(a=(0.0, 0.1, 0.2), b=(-math.inf, 2.0, 2.1)).effect()
    assert effect.ratio_interval(0.95) is None
    assert effect.p_value() == 1.0
    assert effect.p_beyond(0.0) == 0.5


def test_levels_are_averaged_run_by_run():
    """The luck of a run is in all its levels: it is not averaged away, as it would be were they independent."""
    luck = np.array([0.1, -0.1, 0.2, -0.2])
    one = BetweenRuns(np.zeros(4), luck, paired=True)
    both = mean_over_levels([one, one, one]).effect()
    assert both is not None
    assert both == one.effect()
    inside = mean_over_levels([WithinRun((-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0))] * 4).effect()
    assert inside is not None
    assert inside.interval(0.95)[1] == pytest.approx(math.sqrt(2) / 2, abs=1e-5)


def test_holm_adjusts_step_by_step():
    """The least times three, the next times two, never falling and never above 1."""
    assert holm([0.04, 0.01, 0.03]) == [0.06, 0.03, 0.06]
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_hommel_is_the_closure_of_simes():
    """Each factor times its p is the largest Simes p of all sets that it is in, for any p values."""
    rng = np.random.default_rng(4)
    for n in (1, 2, 3, 5, 7):
        for p in (rng.uniform(size=n), rng.uniform(size=n) ** 4, np.full(n, 0.03)):
            for place, factor in enumerate(hommel(list(p))):
                sets = (one for size in range(1, n + 1) for one in combinations(range(n), size) if place in one)
                simes = (min(len(one) * q / k for k, q in enumerate(sorted(p[list(one)]), 1)) for one in sets)
                assert factor * p[place] == pytest.approx(max(simes))
    assert hommel([]) == []


def test_detectable_is_seen_as_often_as_it_says():
    """Of changes as large as that, by four normal runs a side, four in five are found."""
    rng = np.random.default_rng(3)
    detectable = Effect(0.0, 1 / math.sqrt(2), 1 / math.sqrt(2), 6).detectable(0.95)
    found = 0
    for _ in range(2000):
        effect = runs(rng.normal(0, 1, 4), rng.normal(detectable, 1, 4)).effect()
        assert effect is not None
        found += effect.p_value() <= 0.05
    assert abs(found / 2000 - POWER) < 3 * math.sqrt(POWER * (1 - POWER) / 2000)


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("cv", "bound", "checks"), [(0.02, 0.05, 1), (0.05, 0.0, 4)])
def test_as_many_runs_as_planned_find_the_change(paired, cv, bound, checks):
    """A change of 10 % is told from the bound in nine of ten comparisons at least."""
    n = plan_repeats(cv, 0.1, bound=bound, checks=checks, paired=paired)
    rng = np.random.default_rng(11)
    alpha, times, found = 0.05 / checks, 2000, 0
    for _ in range(times):
        effect = runs(rng.normal(0, cv, n), rng.normal(math.log(1.1), cv, n), paired=paired).effect()
        assert effect is not None
        found += effect.p_beyond(math.log1p(bound)) <= alpha / 2
    assert found / times >= 0.9 - 3 * math.sqrt(0.09 / times)


def test_plans_never_have_fewer_runs_than_the_rank_test_needs():
    """Six pairs, or four a side, however clear the change; what is noisier takes more; a plan has an end."""
    assert plan_repeats(0.0001, 0.5, paired=True) == 6
    assert plan_repeats(0.0001, 0.5, paired=False) == 4
    counts = [plan_repeats(cv, 0.1) for cv in (0.01, 0.05, 0.1, 0.5)]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    with pytest.raises(ValueError, match="cannot be separated"):
        plan_repeats(0.02, 0.05, bound=0.1)
    with pytest.raises(ValueError, match="more than"):
        plan_repeats(10.0, 0.001)


def test_a_plan_is_the_smallest_that_is_enough():
    """Every number of pairs is the answer to some spread; a larger chance of error needs fewer."""
    needed = [plan_repeats(cv / 1000, 0.1) for cv in range(20, 120)]
    assert set(needed) >= set(range(6, 20))
    assert plan_repeats(0.0001, 0.5, alpha=0.6, paired=True) == 2


def test_each_side_has_its_mean_with_its_error():
    """Of one run the interval that it brings, 1.96 errors apart; of several the spread of its sessions, or runs."""
    one = WithinRun(a=(9.0, 10.0, 13.0), b=(16.0, 20.0, 21.0), freedom=7)
    errors = [(found.value, found.below, found.above, found.freedom) for found in (one.side_mean(0), one.side_mean(1))]
    assert errors[0] == pytest.approx((10.0, 1 / 1.96, 3 / 1.96, 7), rel=1e-4)
    assert errors[1] == pytest.approx((20.0, 4 / 1.96, 1 / 1.96, 7), rel=1e-4)
    several = runs([1.0, 3.0, 5.0], [7.0])
    found = several.side_mean(0)
    assert (found.value, found.below, found.freedom) == (3.0, pytest.approx(2 / math.sqrt(3)), 2)
    assert several.side_mean(1) is None
    # One session of two runs has the spread of these.
    found = BetweenRuns(np.array([1.0, 3.0]), np.array([7.0]), False, sessions=([0, 0], [1])).side_mean(0)
    assert (found.value, found.below, found.freedom) == (2.0, pytest.approx(1.0), 1)


def test_the_exact_p_needs_a_value_on_each_side():
    """That of the rank test: of three and three runs that do not overlap two orders of twenty are as clear."""
    assert runs([1, 2, 3], [4, 5, 6]).p_exact() == pytest.approx(2 / 20)
    assert runs([1, 2, 3], [math.nan] * 3).p_exact() is None


def test_levels_of_one_run_keep_the_distances_of_their_ends():
    """Half of each level: lower ends add up among themselves, and so do upper ones."""
    one, other = WithinRun((7.0, 10.0, 11.0), (0.0, 0.0, 0.0)), WithinRun((16.0, 20.0, 40.0), (0.0, 0.0, 0.0))
    mean = mean_over_levels([one, other])
    assert mean.a == pytest.approx((15 - math.hypot(1.5, 2.0), 15.0, 15 + math.hypot(0.5, 10.0)))
