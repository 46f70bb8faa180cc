"""The rule for outliers, on values whose scores are known."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loadbench.analyze.stats.outliers import modified_z, outliers

# Their median is 2.45 and their MAD 0.15.
EXAMPLE = [2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3]
# Residuals with median 0.06, MAD 0.30, so that -1.40 scores -3.28.
RESIDUALS = [-1.40, -0.44, -0.30, -0.24, -0.22, -0.13, -0.05, 0.06, 0.10, 0.18, 0.20, 0.39, 0.48, 0.63, 1.01]


def test_scores_are_those_of_the_formula():
    """0.6745 (x − median) / MAD, by hand."""
    scores = modified_z(EXAMPLE)
    assert scores[0] == pytest.approx(0.6745 * (2.1 - 2.45) / 0.15)
    assert [place for place, _ in outliers(EXAMPLE)] == [8, 9]


def test_one_far_value_among_ordinary_ones_is_named_with_its_score():
    """-1.40 is within the bound, by little; half as far again is not."""
    assert modified_z(RESIDUALS)[0] == pytest.approx(0.6745 * (-1.40 - 0.06) / 0.30)
    assert outliers(RESIDUALS) == []
    moved = [-2.16, *RESIDUALS[1:]]
    assert outliers(moved) == [(0, pytest.approx(0.6745 * (-2.16 - 0.06) / 0.30))]


def test_where_most_are_the_same_the_mean_deviation_stands_in():
    """The MAD is 0: (x − median) / (1.253314 · mean absolute deviation) is used."""
    values = [1.0] * 9 + [2.0]
    assert modified_z(values)[-1] == pytest.approx(1 / (1.253314 * 0.1))
    assert outliers(values) == [(9, pytest.approx(7.978846, rel=1e-5))]


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0, 1.0, 900.0], [3.0] * 20])
def test_too_few_or_equal_values_have_no_outlier(values):
    """Nothing is named that cannot be told."""
    assert outliers(values) == []


@given(st.lists(st.floats(0.001, 1000), min_size=5, max_size=40), st.floats(0.5, 8), st.floats(-100, 100))
def test_unit_and_origin_do_not_matter(values, scale, shift):
    """The same are outliers in milliseconds and in seconds, wherever they are counted from."""
    scores = modified_z(values)
    assume(all(abs(abs(score) - 3.5) > 1e-3 for score in scores))
    assume(len(set(values)) > 1 and max(values) - min(values) > 1e-3)
    moved = modified_z([scale * value + shift for value in values])
    assume(max(abs(score) for score in scores) < 1e6)
    assert moved == pytest.approx(scores, rel=1e-3, abs=1e-3)
