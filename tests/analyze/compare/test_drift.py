"""Trends over the repeats: seen where they are sure, told apart by whether both sides have them."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import permutations
from typing import TYPE_CHECKING

import msgspec
import pytest

from loadbench.analyze.compare.drift import drift, trend, trend_p
from loadbench.results.run import Verdict
from tests.building import a_level, a_run

if TYPE_CHECKING:
    from loadbench.results.run import Run

LEVEL = msgspec.structs.replace(a_level(), verdict=Verdict("VALID"))


def runs(*factors: float) -> list[Run]:
    """A run for each factor: so many times slower than the first in all it does."""
    return [a_run(_slowed(factor)) for factor in factors]


def _slowed(factor: float):
    metrics = {
        name: None if metric is None else msgspec.structs.replace(metric, p50=metric.p50 * factor)
        for name, metric in LEVEL.metrics.items()
    }
    throughput = msgspec.structs.replace(
        LEVEL.throughput, output_tokens_per_s=LEVEL.throughput.output_tokens_per_s / factor
    )
    return msgspec.structs.replace(LEVEL, metrics=metrics, throughput=throughput)


def codes(a: list[Run], b: list[Run]) -> Counter[str]:
    """How often each code is told."""
    return Counter(reason.code for reason in drift(a, b))


HEAT = [1.0, 1.03, 1.05, 1.08, 1.11, 1.15]


def test_common_drift_is_told_as_cancelled():
    """A machine that gets slower meets both sides: every figure says so, by how much, and that the order cancels it."""
    found = drift(runs(*HEAT), runs(*HEAT))
    assert [reason.code for reason in found] == ["common_drift"] * 3
    assert "time to first token rose by 15 % on both sides from the first of 6 repeats to the last" in found[0].message
    assert "fell by 13 %" in found[2].message
    assert "cancels" in found[0].advice


def test_drift_of_one_side_is_another_matter():
    """If B alone gets slower, the ratio is not one number."""
    found = drift(runs(*[1.0] * 6), runs(*HEAT))
    assert [reason.code for reason in found] == ["unequal_drift"] * 3
    assert "the ratio of B's time to first token to A's rose by 15 %" in found[0].message


def test_no_drift_is_told_where_there_is_none():
    """Not of equal runs, of a ratio however large, of a rise too small to matter, or of too few repeats."""
    assert drift(runs(*[1.0] * 6), runs(*[1.0] * 6)) == []
    assert drift(runs(*[1.0] * 6), runs(*[3.0] * 6)) == []
    small = [1 + 0.001 * n for n in range(6)]
    assert drift(runs(*small), runs(*small)) == []
    assert drift(runs(*HEAT[:4]), runs(*HEAT[:4])) == []
    assert drift([], []) == []


def test_levels_without_a_figure_do_not_hide_the_others():
    """A level that has no first token in one run is left out of that figure for all, and the rest is looked at."""
    bare = msgspec.structs.replace(LEVEL, metrics={})
    a = [msgspec.structs.replace(run, levels=[*run.levels, bare]) for run in runs(*HEAT)]
    assert codes(a, a) == {"common_drift": 3}


def test_what_cannot_be_believed_is_not_looked_at():
    """A level that is INVALID or was cut short in one run counts for no trend, in none of them."""
    for doubt in ({"verdict": Verdict("INVALID")}, {"interrupted": True}):
        a = runs(*HEAT)
        bad = [msgspec.structs.replace(level, **doubt) for level in a[2].levels]
        a[2] = msgspec.structs.replace(a[2], levels=bad)
        assert drift(a, runs(*HEAT)) == []


def test_probability_is_that_of_all_orders():
    """For 5 values: the share of the 120 orders whose S is as far from 0, counted."""
    scores = [
        sum((later > sooner) - (later < sooner) for place, sooner in enumerate(order) for later in order[place + 1 :])
        for order in permutations(range(5))
    ]
    for score in set(scores):
        share = sum(abs(one) >= abs(score) for one in scores) / len(scores)
        assert trend_p(5, score) == pytest.approx(min(1.0, share))


@pytest.mark.parametrize("n", [6, 12, 30])
def test_chance_seldom_makes_a_trend(n):
    """Of 600 series of independent values 5 have a trend; more than 15 would be one chance in 10,000."""
    draw = random.Random(n)
    seen = sum(trend([draw.gauss(0, 1) for _ in range(n)]) is not None for _ in range(600))
    assert seen <= 15


def test_false_alarms_of_a_whole_comparison_are_one_in_twenty():
    """Of 1,000 comparisons of 8 repeats, in each of which all figures change by chance alone, 50 may tell of any drift;
    more than 77 would be one chance in 10,000.
    """
    draw = random.Random(8)
    told = 0
    for _ in range(1000):
        a, b = ([by_chance(draw) for _ in range(8)] for _ in "ab")
        told += bool(drift(a, b))
    assert told <= 77


def by_chance(draw: random.Random) -> Run:
    """A run whose figures differ from the others' independently."""
    slow = _slowed(1.0)
    metrics = {
        name: None if metric is None else msgspec.structs.replace(metric, p50=metric.p50 * draw.lognormvariate(0, 0.1))
        for name, metric in slow.metrics.items()
    }
    pace = slow.throughput.output_tokens_per_s * draw.lognormvariate(0, 0.1)
    throughput = msgspec.structs.replace(slow.throughput, output_tokens_per_s=pace)
    return a_run(msgspec.structs.replace(slow, metrics=metrics, throughput=throughput))


def test_change_is_the_median_slope_over_all_repeats():
    """A steady rise by 2 % a repeat is found through one wild value."""
    logs = [0.02 * n for n in range(12)]
    logs[5] = 3.0
    assert trend(logs) == pytest.approx(0.22, abs=0.03)
    assert trend([-one for one in logs]) == pytest.approx(-0.22, abs=0.03)
    assert trend([math.log(2.0)] * 12) is None
