"""Arrivals: on absolute schedules, with the variance that they say."""

from __future__ import annotations

import math
import random
import statistics
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.arrivals import Arrivals, Spacing, parse_arrivals

S = 1_000_000_000


def _offsets(text: str, rate_per_s: float, count: int, seed: int = 1) -> list[int]:
    return list(islice(parse_arrivals(text).offsets_ns(rate_per_s, random.Random(seed)), count))


def _gaps(text: str, rate_per_s: float, count: int, seed: int = 1) -> list[float]:
    """Gaps in units of their mean, the first included."""
    return [(b - a) * rate_per_s / S for a, b in pairwise([0, *_offsets(text, rate_per_s, count, seed)])]


def test_b1_a_constant_schedule_never_drifts() -> None:
    """At 0.3/s the n-th arrival is at n/0.3 seconds to the nanosecond, after 9 hours as at the first."""
    offsets = _offsets("constant", 0.3, 10_001)
    assert offsets[:4] == [0, 3_333_333_333, 6_666_666_667, 10 * S]
    assert [offsets[n] for n in range(0, 10_001, 3)] == [10 * S * k for k in range(3334)]


@given(st.integers(1, 500), st.integers(1, 5000))
def test_a_constant_schedule_is_exact_for_every_rate(per_s: int, number: int) -> None:
    """Whole rates divide the second without rest: arrival n x rate is at n seconds."""
    offsets = _offsets("constant", per_s, per_s + 1)
    assert offsets[0] == 0
    assert offsets[per_s] == S
    assert abs(offsets[number % per_s] - number % per_s * S / per_s) <= 0.5


def _ks(gaps: list[float], distribution: object) -> float:
    """Largest distance between the gaps' distribution and the given one, in units of its 1 % critical value."""
    gaps = sorted(gaps)
    n = len(gaps)
    far = max(max((i + 1) / n - distribution(x), distribution(x) - i / n) for i, x in enumerate(gaps))  # type: ignore[operator]
    return far * math.sqrt(n) / 1.628


@pytest.mark.parametrize("rate_per_s", [0.05, 1, 300])
def test_b8_poisson_gaps_are_exponential(rate_per_s: float) -> None:
    """Kolmogorov-Smirnov at 1 %, at rates far below and above one per second; constant gaps would fail."""
    assert _ks(_gaps("poisson", rate_per_s, 4000), lambda x: 1 - math.exp(-x)) < 1
    assert _ks(_gaps("constant", rate_per_s, 4000)[1:], lambda x: 1 - math.exp(-x)) > 1


def test_b8_gamma_gaps_are_gamma() -> None:
    """CV 0.5 is shape 4: Kolmogorov-Smirnov at 1 % against Erlang-4, which exponential gaps fail."""

    def erlang4(x: float) -> float:
        return 1 - math.exp(-4 * x) * sum((4 * x) ** k / math.factorial(k) for k in range(4))

    assert _ks(_gaps("gamma:0.5", 2, 4000), erlang4) < 1
    assert _ks(_gaps("poisson", 2, 4000), erlang4) > 1


@pytest.mark.parametrize(("text", "cv"), [("poisson", 1.0), ("gamma:0.2", 0.2), ("gamma:1", 1.0), ("gamma:2", 2.0)])
def test_b8_cv_is_the_coefficient_of_variation_of_the_gaps(text: str, cv: float) -> None:
    """Variance over squared mean is CV^2, the mean is 1/rate: above 1 is burstier, not the other way round."""
    gaps = _gaps(text, 5, 40_000)
    assert statistics.fmean(gaps) == pytest.approx(1, abs=5 * cv / 200)
    assert statistics.pvariance(gaps) / statistics.fmean(gaps) ** 2 == pytest.approx(cv**2, rel=0.1)


def test_gamma_of_cv_1_is_poisson() -> None:
    """The same generator gives the very same arrivals."""
    assert _offsets("gamma:1", 3, 500) == _offsets("poisson", 3, 500)


def test_b8_schedules_are_not_stretched_to_the_rate() -> None:
    """The number of Poisson arrivals in a span varies from seed to seed as a Poisson number does: variance = mean."""
    counts = [sum(offset < 100 * S for offset in _offsets("poisson", 1, 200, seed)) for seed in range(200)]
    assert 70 < statistics.variance(counts) < 140


@pytest.mark.parametrize("text", ["poisson", "gamma:0.5", "gamma:3"])
def test_random_arrivals_begin_after_a_gap(text: str) -> None:
    """The first arrival is drawn like every other, so that a stationary stream begins, not a burst of levels at 0."""
    firsts = [_offsets(text, 1, 1, seed)[0] / S for seed in range(2000)]
    assert statistics.fmean(firsts) == pytest.approx(1, abs=0.25)


def test_random_arrivals_follow_their_gaps_for_a_day() -> None:
    """Rounding does not add up: 20,000 arrivals later the offset is the exact sum of the drawn gaps, to the ns."""
    rng = random.Random(9)
    total = math.fsum(rng.expovariate(1.0) for _ in range(20_000)) * S / 0.25
    assert abs(_offsets("poisson", 0.25, 20_000, seed=9)[-1] - total) <= 1


@pytest.mark.parametrize("text", ["constant", "poisson", "gamma:0.01", "gamma:100"])
def test_arrivals_never_go_back(text: str) -> None:
    """Offsets ascend from 0 on, however uneven."""
    offsets = _offsets(text, 1000, 2000)
    assert offsets == sorted(offsets)
    assert offsets[0] >= 0


@pytest.mark.parametrize("rate_per_s", [0, -1, math.inf, math.nan])
@pytest.mark.parametrize("text", ["constant", "poisson"])
def test_a_rate_is_above_zero(text: str, rate_per_s: float) -> None:
    """Other rates are refused at once, not at the first arrival."""
    with pytest.raises(ValueError, match="above 0"):
        parse_arrivals(text).offsets_ns(rate_per_s, random.Random(1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constant", Arrivals(Spacing.CONSTANT)),
        (" Poisson ", Arrivals(Spacing.POISSON)),
        ("gamma:2", Arrivals(Spacing.GAMMA, 2.0)),
        ("gamma: 0.25", Arrivals(Spacing.GAMMA, 0.25)),
    ],
)
def test_arrivals_are_read_and_written(text: str, expected: Arrivals) -> None:
    """The text is read, and written so that it reads the same."""
    assert parse_arrivals(text) == expected
    assert str(expected) == text.strip().lower().replace(" ", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("poison", "do you mean poisson"),
        ("", "known are"),
        ("weibull", "known are"),
        ("gamma", "coefficient of variation"),
        ("gamma:", "coefficient of variation"),
        ("gamma:x", "coefficient of variation"),
        ("gamma:0", "above 0"),
        ("gamma:-1", "above 0"),
        ("gamma:nan", "above 0"),
        ("gamma:101", "up to 100"),
        ("poisson:2", "write poisson, or gamma:CV"),
    ],
)
def test_other_arrivals_are_refused_with_the_reason(text: str, reason: str) -> None:
    """The message says what was meant, or what can be."""
    with pytest.raises(ValueError, match=reason):
        parse_arrivals(text)
