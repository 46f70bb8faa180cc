"""How many requests a bound on a quantile needs, by the early-stopping rule of MLPerf's LoadGen."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.analyze.stats.intervals import bound_holds, fewest_requests

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


def most_over(n: int, p: float, *, confidence: float) -> int | None:
    """How many of n requests may be above the bound so that it still holds; `None` where n is too small for any."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bound_holds(n, middle, p, confidence=confidence) else (low, middle)
    return None if low < 0 else low


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
    assert most_over(n, 0.99, confidence=0.99) == over


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
