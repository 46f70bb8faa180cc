"""What hits and misses are worth: never more than they are, never nothing, and by distance where nobody doubts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.stats.hits import HitSeries, effective_hits, fewest_hits, least_share
from loadbench.analyze.stats.intervals import share_interval
from loadbench.record.attainment import AllOver, KeptHits


def rows(over, values=1):
    """Requests with these values over the bound, in units of it."""
    over = np.asarray(over, np.float64)
    return np.column_stack((np.where(over < 1, values, 0), np.full(len(over), values), over))


@given(
    st.lists(st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0, 1.5, 40.0, float("inf")]), min_size=1, max_size=80),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
    st.sampled_from([None, 1, 2, 8, 32]),
    st.integers(1, 9),
)
def test_effective_hits_are_from_one_to_all(over, share, users, values):
    """Whatever the values: an effective n of 0 would count as perfect independence where it is read as false."""
    effective = effective_hits(rows(over, values), share, users=users)
    assert 1 <= effective <= len(over) * values
    assert 0 <= least_share(rows(over, values), users=users) < 1


def test_without_requests_there_is_nothing():
    """No request, no value."""
    assert effective_hits(rows([]), 0.95, users=4) == 0
    assert least_share(rows([]), users=4) == 0


def test_a_calm_stretch_still_shows_that_requests_depend_on_each_other():
    """All hit, near the bound, in slow swings: they are worth a fraction of as many that are independent."""
    swings = 0.7 + 0.2 * np.sin(np.arange(400) / 20)
    strewn = np.random.default_rng(1).permutation(swings)
    assert effective_hits(rows(swings), 0.95, users=None) < 20
    assert effective_hits(rows(strewn), 0.95, users=None) > 200


@pytest.mark.parametrize("over", [0.01, 50.0])
def test_far_from_the_bound_all_requests_count(over):
    """On either side, even if they hang together."""
    swings = over * (1 + 0.02 * np.sin(np.arange(400) / 20))
    assert effective_hits(rows(swings), 0.95, users=None) == 400


def test_a_closed_loop_of_few_rounds_does_not_count_all():
    """Three rounds of 32 users: how rounds differ is known from three values."""
    over = np.random.default_rng(2).uniform(0.5, 0.95, 96)
    assert effective_hits(rows(over), 0.95, users=32) < 25
    assert effective_hits(rows(over), 0.95, users=1) > 25


def test_distance_decides_where_counting_asks_for_more():
    """28 responses within half a percent, a fifth below the bound; of an open loop only far more than that."""
    over = np.random.default_rng(3).normal(0.8, 0.004, 28)
    assert least_share(rows(over), users=1) == pytest.approx(1 - 1 / 29)
    assert least_share(rows(over), users=None) == 0
    assert least_share(rows(over / 10), users=None) == 0  # too few for that
    assert least_share(rows(over / 30), users=None) == pytest.approx(1 - 1 / 29)
    spread = np.random.default_rng(3).uniform(0.3, 0.9, 28)
    assert least_share(rows(spread), users=1) == 0
    assert least_share(rows([*over[1:], 1.0]), users=1) == 0


def test_a_long_closed_loop_is_known_by_distance():
    """A hundred rounds of 70 users whose values drift slowly: 6,000 hits, worth some 40 independent ones, far from the
    bound. Twenty rounds of them, or an open loop, may be a calm stretch.

    Seen to fail: 6,597 of 6,597 requests with a third of the bound did not prove that 90 % are within it.
    """
    at = np.arange(7000)
    over = 0.3 + 0.1 * np.sin(at / 30) + np.random.default_rng(6).normal(0, 0.02, 7000)
    assert effective_hits(rows(over), 0.9, users=70) < 250
    assert least_share(rows(over), users=70) > 0.99
    assert least_share(rows(over[:1400]), users=70) == 0
    assert least_share(rows(over), users=None) == 0


def test_distance_says_no_more_than_the_fourth_moment_does():
    """Values as far from the bound as they are wide leave a share open that Markov's inequality bounds."""
    over = np.random.default_rng(4).uniform(0.85, 0.95, 500)
    found = least_share(rows(over), users=8)
    fourth = ((over - over.mean()) ** 4).mean() / (1 - over.mean()) ** 4
    assert found == pytest.approx(1 - 4 * fourth, abs=0.02)
    assert found < 1 - 4 * fourth
    assert 0.5 < found < 0.99


def test_users_in_lockstep_are_the_sample_and_not_their_requests():
    """Of ten users one always misses: who would be slow in another level is known of ten users, not of 120 requests."""
    over = np.tile([0.8] * 9 + [1.2], 12) + np.random.default_rng(5).normal(0, 0.01, 120)
    assert effective_hits(rows(over), 0.95, users=10) < 15
    strewn = np.random.default_rng(5).permutation(over)
    assert effective_hits(rows(strewn), 0.95, users=10) > 40


def in_turn(mean, deviation, n):
    """Values of this mean and standard deviation, one above and one below in turn: as little correlated as can be."""
    return mean + deviation * np.tile([-1.0, 1.0], n // 2)


def in_halves(mean, deviation, n):
    """The same values, first all below and then all above: as correlated as can be."""
    return np.sort(in_turn(mean, deviation, n))


@pytest.mark.parametrize(
    ("over", "users", "is_known"),
    [
        (in_turn(0.5, 0.0495, 20), 4, True),  # a coefficient of variation of a tenth
        (in_turn(0.5, 0.0505, 20), 4, False),
        (in_turn(0.5, 0.2, 120), 4, True),  # thirty rounds
        (in_turn(0.5, 0.2, 118), 4, False),
        (in_halves(0.5, 0.2, 800), 4, False),  # that are worth thirty requests
        (in_turn(0.5, 0.0, 20), None, False),  # an open loop may be calm for a while
        (in_turn(0.1, 0.0, 250), None, True),  # but hardly a tenth of what it is allowed
        (in_turn(0.1001, 0.0, 250), None, False),
        (in_turn(0.0333, 0.0, 248), None, True),  # and of a short one a thirtieth
        (in_turn(0.0334, 0.0, 248), None, False),
    ],
)
def test_distance_counts_where_the_sample_cannot_be_a_calm_stretch(over, users, is_known):
    """Each rule at its bound."""
    assert (least_share(rows(over), users=users) > 0) is is_known


def test_the_share_beyond_is_four_times_markovs_with_the_means_own_error():
    """And one of n + 1 at least, as the next value exceeds all in so many."""
    assert least_share(rows(in_turn(0.05, 0.0, 300)), users=None) == pytest.approx(1 - 1 / 301)
    distance = 0.3 - 1.96 * 0.06 / np.sqrt(1000)
    assert least_share(rows(in_turn(0.7, 0.06, 1000)), users=1) == pytest.approx(1 - 4 * 0.06**4 / distance**4)


@pytest.mark.parametrize(
    ("deviation", "n", "users", "is_far"),
    [
        (0.0495, 200, 4, True),  # ten deviations
        (0.0505, 200, 4, False),
        (0.012, 200, None, True),  # thirty of a short open loop, and the mean's own error
        (0.018, 200, None, False),
        (0.035, 400, None, True),  # ten, and this error
        (0.0495, 400, None, False),
    ],
)
def test_how_far_from_the_bound_is_far(deviation, n, users, is_far):
    """Values in two halves are worth few of them, unless nobody doubts on which side of the bound they are."""
    for mean in (0.5, 1.5):
        effective = effective_hits(rows(in_halves(mean, deviation, n)), 0.5, users=users)
        assert effective == n if is_far else effective < n / 4


def test_requests_of_an_open_loop_count_by_half_or_by_a_quarter():
    """Correlated ones by half, and fewer than 250 by a quarter, whether they look correlated or not."""
    independent, correlated = (np.random.default_rng(8).uniform(0.5, 1.5, 400) for _ in range(2))
    correlated = np.convolve(correlated, np.ones(8) / 8, "same")
    for over, n, factor in ((independent, 250, 1), (independent, 249, 4), (correlated, 400, 2), (correlated, 249, 4)):
        closed, opened = (effective_hits(rows(over[:n]), 0.5, users=users) for users in (1, None))
        assert closed / opened == pytest.approx(factor)


def test_three_of_four_places_are_three_of_four_requests():
    """Of four users three always hit: four places with one hit missing are worth three independent requests."""
    over = np.tile([0.5, 0.5, 0.5, 1.5], 50)
    assert effective_hits(rows(over), 0.5, users=4) == pytest.approx(3.0)


def test_requests_with_many_values_count_by_how_they_vary():
    """Alike, each of them counts as one; by chance alone, each of its values."""
    alike = np.column_stack((np.full(400, 8.0), np.full(400, 10.0), np.full(400, 0.99)))
    assert effective_hits(alike, 0.5, users=1) == 400
    hits = np.random.default_rng(9).binomial(10, 0.8, 400).astype(float)
    vary = np.column_stack((hits, np.full(400, 10.0), np.full(400, 0.99)))
    assert effective_hits(vary, 0.5, users=1) == pytest.approx(4000, rel=0.2)


def test_an_interval_counts_independent_values():
    """Hits are rounded down for its low end and up for its high end; it is that of Clopper and Pearson."""
    series = HitSeries(KeptHits(rows(np.tile([0.5, 0.5, 0.5, 1.5], 50))), 4)
    assert series.effective(200, 0.5) == 3
    assert series.interval(150, 200, 0.5) == (share_interval(2, 3)[0], share_interval(3, 3)[1])
    # So are values that were not kept; without any, all count.
    assert series.effective(400, 0.5) == 6
    assert HitSeries(KeptHits(rows([])), 4).effective(70, 0.5) == 70
    steady = HitSeries(KeptHits(rows(in_turn(0.5, 0.01, 28))), 4)
    assert steady.interval(28, 28, 0.95)[0] < 0.9
    assert steady.interval(28, 28, 0.95, by_distance=True) == (pytest.approx(28 / 29), 1.0)
    assert steady.interval(27, 28, 0.95, by_distance=True) == steady.interval(27, 28, 0.95)


@pytest.mark.parametrize(
    ("share", "by_count", "by_distance"), [(0.5, 6, 1), (0.9, 36, 9), (0.95, 72, 19), (0.99, 368, 99)]
)
def test_how_many_hits_would_decide(share, by_count, by_distance):
    """One fewer would not; where the distance counts, as many as leave one in n + 1 for the next."""
    assert fewest_hits(share) == by_count
    assert share_interval(by_count, by_count)[0] > share >= share_interval(by_count - 1, by_count - 1)[0]
    assert HitSeries(KeptHits(rows(in_turn(0.5, 0.2, 8))), 4).needed(share) == by_count
    assert HitSeries(KeptHits(rows(in_turn(0.5, 0.01, 8))), 4).needed(share) == by_distance


def in_batches(over, values=1, *, size=15, known=16_000, users=1):
    """The series of a level of which the first so many requests are known one by one."""
    of_all = rows(over, values)
    batches = of_all[:, :2].reshape(-1, size, 2).sum(axis=1).T
    all_over = AllOver(
        len(over),
        *(float(one) for one in (over.mean(), over.std(), ((over - over.mean()) ** 4).mean())),
        float(over.max()),
    )
    all_over = all_over if over.max() < math.inf else None
    return HitSeries(KeptHits(of_all[:known], batches, size, all_over), users)


@pytest.mark.parametrize("values", [1, 100])
def test_misses_that_come_together_late_count_as_those_that_do_so_early(values):
    """In a level of which not all requests are known one by one: by batches of all of them, however many values a
    request has."""
    rng = np.random.default_rng(2)
    strewn, together = rng.random(60_000) < 0.01, np.zeros(60_000, np.bool_)
    for at in rng.integers(20_000, 59_900, 10):
        together[at : at + 60] = True

    def effective(misses, users):
        return in_batches(np.where(misses, 2.0, 0.5), values, users=users).effective(60_000 * values, 0.99) / 60_000

    assert effective(strewn, 1) > 0.6
    assert effective(together, 1) < 1 / 40
    assert effective(together, None) < 1 / 80


def test_a_long_level_whose_requests_hit_in_turn_is_as_even_as_they_are():
    """Every batch has as many hits: they do not vary at all. So it is with hits only."""
    for over in (np.tile([0.5, 1.5], 30_000), np.full(60_000, 0.5)):
        assert in_batches(over, size=16, known=16_384).effective(60_000, 0.9) == 60_000


def test_distance_tells_of_a_level_of_very_many_requests_what_it_tells_of_fewer():
    """By the moments of all; unless a later one is beyond the bound, or far from the others."""
    rng = np.random.default_rng(5)
    even = np.tile(rng.normal(0.5, 0.01, 60), 1000)
    assert in_batches(even, users=60).interval(60_000, 60_000, 0.99, by_distance=True)[0] > 0.999
    assert in_batches(even, users=60).needed(0.999) == 999
    for late in (1.2, 0.999):
        later = np.append(even[:-600], np.full(600, late))
        assert least_share(rows(later[:16_000]), users=60) > 0.999
        series = in_batches(later, users=60)
        assert least_share(series.kept.rows, users=60, over=series.kept.over) < 0.99
