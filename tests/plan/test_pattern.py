"""Patterns: the rate follows them exactly, whatever the arrivals."""

from __future__ import annotations

import math
import random
from itertools import islice, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.pattern import Pattern, Patterned, Point, parse_pattern

S = 1_000_000_000
RAMP = parse_pattern("0s:0,100s:2")
PATTERNS = st.lists(st.tuples(st.integers(0, 20), st.floats(0, 5)), min_size=1, max_size=6).map(
    lambda steps: Pattern(
        (
            Point(0, 1.0),
            *(
                Point(sum(step for step, _ in steps[: index + 1]) * S, factor)
                for index, (_, factor) in enumerate(steps)
            ),
            Point((sum(step for step, _ in steps) + 1) * S, 0.5),
        )
    )
)


def offsets(pattern: Pattern, arrivals: str, *, rate: float, until_s: float, seed: int = 1, lead_s: int = 0):
    """Arrivals up to a moment."""
    made = Patterned(parse_arrivals(arrivals), pattern).offsets_ns(rate, random.Random(seed), lead_ns=lead_s * S)
    return list(takewhile(lambda at_ns: at_ns < until_s * S, made))


def test_constant_arrivals_come_where_the_integral_says():
    """On a ramp from 0 to 2 the n-th of 1/s comes at 10 sqrt(n) s, to the nanosecond; the next pass repeats it."""
    found = offsets(RAMP, "constant", rate=1, until_s=200)
    assert found[:100] == [round(10 * math.sqrt(number) * S) for number in range(100)]
    assert found[100:] == [100 * S + at_ns for at_ns in found[:100]]


@given(PATTERNS, st.floats(0.1, 5))
def test_arrivals_are_as_many_as_the_integral(pattern, rate):
    """In two passes there are as many constant arrivals as rate times twice the integral, to one; none goes back."""
    found = offsets(pattern, "constant", rate=rate, until_s=2 * pattern.length_ns / S)
    assert found == sorted(found)
    assert abs(len(found) - rate * 2 * pattern.mean * pattern.length_ns / S) <= 1.001


def test_poisson_arrivals_are_a_poisson_process_of_that_rate():
    """Through the integral their gaps are exponential, by Kolmogorov-Smirnov at 1 %; by the clock they are not."""
    found = offsets(RAMP, "poisson", rate=40, until_s=100)
    even = [(at_ns / S) ** 2 / 100 * 40 for at_ns in found]

    def far(moments):
        gaps = sorted((b - a) / (moments[-1] / len(moments)) for a, b in zip([0, *moments], moments, strict=False))
        count = len(gaps)
        apart = max(abs((i + 0.5) / count - (1 - math.exp(-gap))) + 0.5 / count for i, gap in enumerate(gaps))
        return apart * math.sqrt(count) / 1.628

    assert far(even) < 1 < far([at_ns / S for at_ns in found])


def test_b8_poisson_counts_vary_as_poisson_counts():
    """The number in a pass has the variance of its mean over 200 seeds: nothing was stretched to fit."""
    counts = [len(offsets(RAMP, "poisson", rate=1, until_s=100, seed=seed)) for seed in range(200)]
    mean = sum(counts) / 200
    assert mean == pytest.approx(100, abs=3)
    assert 70 < sum((count - mean) ** 2 for count in counts) / 199 < 140


def test_the_pass_begins_as_the_window_opens():
    """Ten seconds of warm-up have the rate of the first point; then comes what would have come without them."""
    step = parse_pattern("0s:2,50s:2,50s:1,100s:1")
    found = offsets(step, "constant", rate=1, until_s=110, lead_s=10)
    assert [at_ns for at_ns in found if at_ns < 10 * S] == [number * S // 2 for number in range(20)]
    assert len([at_ns for at_ns in found if 10 * S <= at_ns < 60 * S]) == 100
    assert len([at_ns for at_ns in found if at_ns >= 60 * S]) == 50


def test_before_a_pattern_that_begins_with_nothing_nothing_comes():
    """Its warm-up is empty, and the first arrival is the pass's own."""
    assert offsets(RAMP, "constant", rate=1, until_s=21, lead_s=10) == [10 * S, 20 * S]


def test_nothing_comes_while_the_rate_is_nothing():
    """Even arrivals wait for the end of a silence, and the one at a pass's end is the next pass's first."""
    silent = parse_pattern("0s:0,10s:0,10s:1,20s:1,20s:0,30s:0")
    assert offsets(silent, "constant", rate=1, until_s=60) == [
        (start + number) * S for start in (10, 40) for number in range(10)
    ]


def test_passes_without_an_arrival_take_no_time():
    """A thousand million passes lie before the second request of one in thirty years: they are not gone through."""
    made = Patterned(parse_arrivals("constant"), parse_pattern("0s:1,1s:1")).offsets_ns(1e-9, random.Random(1))
    assert list(islice(made, 3)) == [0, 10**18, 2 * 10**18]


def test_scaled_patterns_are_as_much_faster():
    """At 60 times the speed an hour takes a minute, and factors stay."""
    hour = parse_pattern("0s:1,30m:3,1h:1")
    assert [tuple(point) for point in hour.scaled(60).points] == [(0, 1), (30 * S, 3), (60 * S, 1)]


def test_a_day_has_the_rate_that_was_given_on_average():
    """Its mean factor is 1, at noon more comes than at night, and its length is a day."""
    day = parse_pattern("day")
    assert (day.mean, day.length_ns) == (pytest.approx(1), 24 * 3600 * S)
    assert min(point.factor for point in day.points) < 0.2
    assert day.highest > 2


@pytest.mark.parametrize("text", ["day", "0s:1,10s:2.5", "0s:0.1,6h:1.25,6h:0.0,24h:0.1"])
def test_patterns_are_written_as_they_are_read(text):
    """`str()` gives a text that reads to the same points."""
    assert parse_pattern(str(parse_pattern(text))) == parse_pattern(text)


def test_a_file_of_points_is_a_pattern(tmp_path):
    """A time and a factor a line; a head, comments and empty lines are passed over."""
    file = tmp_path / "course.csv"
    file.write_text("time,factor\n# quiet\n0s, 0.5\n\n1m,2\n")
    assert parse_pattern(str(file)) == parse_pattern("0s:0.5,1m:2")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0s:1", "two points"),
        ("1s:1,2s:1", "the first at 0"),
        ("0s:1,9s:1,5s:1", "no earlier"),
        ("0s:0,9s:0", "above 0"),
        ("0s:1,0s:2", "above 0"),
        ("0s:1,5:2", "its unit"),
        ("0s:1,5s:x", "no factor"),
        ("0s:1,5s:-1", "no factor"),
        ("0s:1,5s:nan", "no factor"),
        ("0s:0,5s:1e-320", "above 0"),
        ("nowhere", "write day, points"),
    ],
)
def test_other_patterns_are_refused_with_the_reason(text, reason):
    """The message says what is wrong, and for a file that is none what can be written."""
    with pytest.raises(ValueError, match=reason):
        parse_pattern(text)


def test_points_may_be_more_than_a_file_name_holds():
    """A day by quarters of an hour is no file, though nothing of that length could be one."""
    text = ",".join(f"{quarter * 15}m:{1 + quarter % 3}" for quarter in range(97))
    assert len(parse_pattern(text).points) == 97


def test_a_bad_line_of_a_file_is_named(tmp_path):
    """By its number."""
    file = tmp_path / "course.csv"
    file.write_text("0s,1\n1m;2\n")
    with pytest.raises(ValueError, match=r"course.csv, line 2: '1m;2' is not a point"):
        parse_pattern(str(file))


def test_very_long_patterns_stay_exact():
    """After a thousand passes of a day arrivals still come at their own nanosecond, to a millionth of a second."""
    hour = parse_pattern("0s:1,1h:1")
    made = Patterned(parse_arrivals("constant"), hour).offsets_ns(0.01, random.Random(1))
    for number, at_ns in enumerate(islice(made, 24_000)):
        assert abs(at_ns - number * 100 * S) < 1000
