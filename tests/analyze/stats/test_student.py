"""Student's t against the tables, and against itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadbench.analyze.stats.student import above, detectable_difference, quantile, two_sided

# Any table of it: (p, degrees of freedom, t).
TABLE = [
    (0.975, 1, 12.7062),
    (0.975, 5, 2.5706),
    (0.95, 5, 2.0150),
    (0.995, 10, 3.1693),
    (0.9, 10, 1.3722),
    (0.999, 30, 3.3852),
    (0.975, 120, 1.9799),
]


@pytest.mark.parametrize(("p", "freedom", "t"), TABLE)
def test_quantiles_are_those_of_the_table(p, freedom, t):
    """To the digits that tables have."""
    assert quantile(p, freedom) == pytest.approx(t, abs=5e-5)
    assert quantile(1 - p, freedom) == -quantile(p, freedom)


def test_with_one_degree_of_freedom_it_is_cauchys():
    """P(T > t) = 1/2 - arctan(t) / pi."""
    for t in (-30.0, -1.0, 0.0, 0.3, 2.0, 1e4):
        assert above(t, 1) == pytest.approx(0.5 - math.atan(t) / math.pi, rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 2.5, 7, 40, 3e4, 1e8, math.inf])
def test_quantile_and_probability_are_inverse(freedom):
    """Also between whole degrees of freedom, and far out; up to the rounding of the gamma function of thousands."""
    for p in (0.5001, 0.8, 0.975, 0.99999):
        assert 1 - above(quantile(p, freedom), freedom) == pytest.approx(p, abs=1e-9)


def test_many_degrees_of_freedom_are_a_normal():
    """The limit, from either side of where it is taken for one."""
    assert quantile(0.975, math.inf) == pytest.approx(1.959964, abs=1e-6)
    assert quantile(0.975, 9e5) == pytest.approx(quantile(0.975, 2e6), abs=1e-5)
    assert two_sided(math.inf, 3) == 0.0


def test_no_quantile_of_a_probability_that_is_none():
    """0, 1, and no freedom at all."""
    for p, freedom in ((0.0, 3), (1.0, 3), (0.5, 0)):
        with pytest.raises(ValueError, match="no quantile"):
            quantile(p, freedom)


@pytest.mark.parametrize(("tail", "freedom"), [(0.025, 5), (0.0125, 7), (0.00167, 5), (0.025, 10.5), (0.025, 200)])
@pytest.mark.parametrize("power", [0.8, 0.9])
def test_a_difference_is_found_as_often_as_is_asked(tail, freedom, power):
    """Of 100,000 draws of a non-central t, to within a hundredth."""
    rng = np.random.default_rng(0)
    noise, error = rng.normal(0, 1, 100_000), np.sqrt(rng.chisquare(freedom, 100_000) / freedom)
    found = (noise + detectable_difference(tail, power, freedom)) / error > quantile(1 - tail, freedom)
    assert found.mean() == pytest.approx(power, abs=0.01)
