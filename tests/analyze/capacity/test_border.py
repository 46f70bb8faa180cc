"""Where the border is likely to be, and where a proof is worth its time."""

from __future__ import annotations

import math

import pytest

from loadbench.analyze.capacity.border import FittedBorder, LoadPoint, likely_range


def a_border(*points: LoadPoint, p0: float = 0.95) -> FittedBorder:
    return FittedBorder(points, p0, least=1, most=200)


def median(border: FittedBorder) -> float:
    return likely_range([border], 0.95)[1]


def test_it_lies_between_what_passes_and_what_fails():
    """A hundred hits at 16 and as many misses at 32 leave it between."""
    border = a_border(LoadPoint(16, 100, 0), LoadPoint(32, 0, 100))
    assert 16 < median(border) < 32
    assert border.share(10) > 0.98
    assert border.share(60) < 0.1


def test_much_data_find_it():
    """Shares of a logistic curve with its border at 24, a thousand requests each, lead there within 3 %."""
    points = []
    for amount in (12, 18, 22, 26, 32):
        share = 1 / (1 + math.exp(-(math.log(19) - 5 * math.log(amount / 24))))
        points.append(LoadPoint(amount, 1000 * share, 1000 * (1 - share)))
    assert median(a_border(*points)) == pytest.approx(24, rel=0.03)


def test_the_lowest_of_several_borders_counts():
    """Two objectives, one that falls off at 20 and one at 60: the capacity is where the first one is, and more data
    make the range narrower."""
    few, many = (
        [a_border(LoadPoint(m / 1.4, n, 0), LoadPoint(m * 1.4, n * 0.6, n * 0.4)) for m in (20, 60)] for n in (40, 400)
    )
    low, middle, high = likely_range(few, 0.95)
    assert low < middle < high
    assert 15 < middle < 26
    narrow = likely_range(many, 0.95)
    assert narrow[2] / narrow[0] < high / low


def test_requests_near_the_border_tell_most_about_it():
    """Far below it all hit, and far above all miss, whatever it is exactly."""
    border = a_border(LoadPoint(16, 100, 1), LoadPoint(32, 60, 40))
    told = [border.information(load) for load in (4, 24, 150)]
    assert told[1] > 3 * max(told[0], told[2])
    assert min(told) >= 0


def test_a_server_sustains_no_more_than_it_completes():
    """Hits at 10 and misses at 20 leave the border anywhere between; with 12 completed per second it is below, within
    the error of this rate."""
    points = [LoadPoint(10, 12, 0), LoadPoint(20, 5, 20)]
    free = likely_range([FittedBorder(points, 0.9, least=1, most=200)], 0.95)
    low, middle, high = likely_range([FittedBorder(points, 0.9, least=1, most=200, limit=(12, 0.05))], 0.95)
    assert free[2] > 14
    assert low < middle < 12.2
    assert high < 12 * 1.1
