"""Rank tests against every choice there is, counted one by one."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from loadbench.analyze.stats.ranks import mann_whitney, shift, signed_ranks, smallest_p


def midranks(values):
    """Ranks from 1; equal values share theirs."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def by_choices(a, b):
    """Two-sided p of Mann and Whitney, by all choices of which ranks are a's."""
    ranks = midranks([*a, *b])
    sums = [sum(chosen) for chosen in combinations(ranks, len(a))]
    seen = sum(ranks[: len(a)])
    tails = (sum(one <= seen for one in sums), sum(one >= seen for one in sums))
    return min(1.0, 2 * min(tails) / len(sums))


def by_signs(differences):
    """Two-sided p of the signed ranks, by all choices of signs."""
    found = [one for one in differences if one]
    ranks = midranks([abs(one) for one in found])
    sums = [
        sum(rank for rank, plus in zip(ranks, signs, strict=True) if plus)
        for signs in product((0, 1), repeat=len(found))
    ]
    seen = sum(rank for rank, one in zip(ranks, found, strict=True) if one > 0)
    tails = (sum(one <= seen for one in sums), sum(one >= seen for one in sums))
    return min(1.0, 2 * min(tails) / len(sums))


@pytest.mark.parametrize("seed", range(12))
def test_both_are_exact_also_with_ties(seed):
    """Small whole numbers, so that many are equal."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, rng.integers(1, 6)), rng.integers(1, 8, rng.integers(1, 6))
    assert mann_whitney(a, b) == pytest.approx(by_choices(a.tolist(), b.tolist()))
    differences = rng.integers(-4, 6, 7)
    assert signed_ranks(differences) == pytest.approx(by_signs(differences.tolist()))


def test_few_values_have_no_small_p():
    """2 against 2 .333, 3 .1, 4 .0286, 5 .0079; 5 pairs .0625, 6 pairs .0313: the least that is there is reached."""
    for n, least in {2: 1 / 3, 3: 0.1, 4: 1 / 35, 5: 1 / 126}.items():
        assert smallest_p(n, n, paired=False) == pytest.approx(least)
        assert mann_whitney(range(n), range(100, 100 + n)) == pytest.approx(least)
    for n, least in {1: 1.0, 5: 0.0625, 6: 0.03125}.items():
        assert smallest_p(n, n, paired=True) == least
        assert signed_ranks(range(1, n + 1)) == least


def test_equal_sides_have_a_p_of_one():
    """Nothing differs, nothing is found."""
    assert mann_whitney([3, 3, 3], [3, 3, 3]) == 1.0
    assert signed_ranks([0, 0, 0, 0, 0, 0]) == 1.0


@pytest.mark.parametrize("paired", [False, True])
def test_the_shifts_interval_is_what_the_test_does_not_reject(paired):
    """Just inside of either end the test sees nothing at 5 %, just outside it does."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, 8), rng.normal(1, 1, 8)
    middle, interval = shift(a, b, paired=paired, confidence=0.95)
    assert interval is not None
    assert interval[0] < middle < interval[1]

    def p(moved: float) -> float:
        return signed_ranks(b - moved - a) if paired else mann_whitney(a, b - moved)

    for end, inward in zip(interval, (1e-9, -1e-9), strict=True):
        assert p(end + inward) > 0.05
        assert p(end - inward) <= 0.05


def test_few_values_have_a_shift_but_no_interval():
    """3 against 3 cannot exclude anything at 95 %, nor can 5 pairs."""
    assert shift([1, 2, 3], [11, 12, 13], paired=False, confidence=0.95) == (10.0, None)
    assert shift([1, 2, 3, 4, 5], [2, 3, 4, 5, 6], paired=True, confidence=0.95) == (1.0, None)


def test_many_values_are_compared_by_the_normal_law(monkeypatch):
    """Beyond what is counted, p is that of counting to within a twentieth, and so is the interval of the shift."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 60, 45), rng.integers(2, 62, 45)
    p, (_, (low, high)) = mann_whitney(a, b), shift(a, b, paired=False, confidence=0.95)
    monkeypatch.setattr("loadbench.analyze.stats.ranks._COUNTED", 45)
    assert p == pytest.approx(mann_whitney(a, b), rel=0.05)
    _, (exactly_low, exactly_high) = shift(a, b, paired=False, confidence=0.95)
    assert (low, high) == (pytest.approx(exactly_low, abs=1), pytest.approx(exactly_high, abs=1))


@pytest.mark.parametrize("sizes", [(4, 6), (8, 8), (50, 45)])
def test_one_sided_p_values_are_halves_of_the_two_sided_ones(sizes):
    """The smaller one, doubled, is the two-sided p; b above a is a below b."""
    rng = np.random.default_rng(sizes[0])
    for _ in range(20):
        a, b = rng.normal(size=sizes[0]), rng.normal(0.3, 1, sizes[1])
        above, below = mann_whitney(a, b, b_above=True), mann_whitney(b, a, b_above=True)
        assert mann_whitney(a, b) == pytest.approx(min(1.0, 2 * min(above, below)))
        assert above + below >= 1
        up, down = signed_ranks(a[:4] - b[:4], above=True), signed_ranks(b[:4] - a[:4], above=True)
        assert signed_ranks(a[:4] - b[:4]) == pytest.approx(min(1.0, 2 * min(up, down)))
