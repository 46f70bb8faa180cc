"""Distributions: read as people write them, drawn with the mean that they tell."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.core.units import parse_duration
from loadbench.plan.distribution import (
    Constant,
    Distribution,
    Exponential,
    LogNormal,
    Normal,
    Uniform,
    parse_distribution,
    parse_tokens,
)

S = 1_000_000_000


def _duration(text: str) -> Distribution:
    return parse_distribution(text, parse_value=parse_duration)


def _tokens(text: str) -> Distribution:
    return parse_distribution(text, parse_value=parse_tokens, least=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10s", Constant(10 * S)),
        ("0", Constant(0)),
        (" 1m30s ", Constant(90 * S)),
        ("constant:10s", Constant(10 * S)),
        ("uniform:5s,15s", Uniform(5 * S, 15 * S)),
        ("Uniform: 5s , 15s", Uniform(5 * S, 15 * S)),
        ("normal:10s,2s", Normal(10 * S, 2 * S)),
        ("lognormal:20s,0.5", LogNormal(20 * S, 0.5)),
        ("exponential:250ms", Exponential(S // 4)),
    ],
)
def test_durations_are_read_in_ns(text: str, expected: Distribution) -> None:
    """Every form of a think time, whatever its spaces and capitals, means the same as built by hand, in ns."""
    assert _duration(text) == expected
    assert _duration(str(_duration(text))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("128", Constant(128)),
        ("uniform:64,256", Uniform(64, 256)),
        ("normal:512,128", Normal(512, 128, 1)),
        ("lognormal:512,0.6", LogNormal(512, 0.6)),
        ("exponential:100", Exponential(100)),
    ],
)
def test_numbers_of_tokens_are_read_as_they_are(text: str, expected: Distribution) -> None:
    """The same forms with whole numbers; written out, whether parsed or built, they are the same text again."""
    assert _tokens(text) == expected
    assert str(_tokens(text)) == text == str(expected)


@given(st.integers(1, 9999), st.integers(0, 9999), st.sampled_from(["ns", "us", "ms", "s"]))
def test_the_text_of_a_distribution_parses_to_it(low: int, more: int, unit: str) -> None:
    """parse(str(d)) is d."""
    for text in (f"{low}{unit}", f"uniform:{low}{unit},{low + more}{unit}", f"exponential:{low}{unit}"):
        distribution = _duration(text)
        assert str(distribution) == text
        assert _duration(str(distribution)) == distribution


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a number of tokens"),
        ("-5", "is not a number of tokens"),
        ("nan", "is not a number of tokens"),
        ("1.5", "is not a number of tokens"),
        ("²", "is not a number of tokens"),
        ("0", "too few"),
        ("9" * 5000, "too many"),
        ("uniform:9,3", "lower bound is above"),
        ("uniform:9", "does not have the form uniform:LOW,HIGH"),
        ("uniform:1,2,3", "does not have the form"),
        ("uniform:,3", "does not have the form"),
        ("uniform:-1,3", "'-1' is not a number of tokens"),
        ("lognormal:512", "does not have the form lognormal:MEAN,SIGMA"),
        ("lognormal:512,x", "'x' is not a number"),
        ("lognormal:512,nan", "between 0 and 10"),
        ("lognormal:512,inf", "between 0 and 10"),
        ("lognormal:512,-1", "between 0 and 10"),
        ("exponential:0", "too few"),
        ("lognormals:5,1", "do you mean lognormal:MEAN,SIGMA?"),
        ("exp:5", "unknown kind 'exp'"),
        (":5", "unknown kind ''"),
    ],
)
def test_what_is_no_distribution_is_refused_with_the_reason(text: str, reason: str) -> None:
    """The message says what is wrong, and for a misspelt kind what was probably meant."""
    with pytest.raises(ValueError, match="(?s)" + reason.replace("?", r"\?")):
        _tokens(text)


@pytest.mark.parametrize("text", ["10", "uniform:5,15", "exponential:0", "normal:10s,2", "-1s", "lognormal:0s,1"])
def test_a_duration_without_unit_or_length_is_refused(text: str) -> None:
    """Durations keep their rules inside a distribution, and means are above 0."""
    with pytest.raises(ValueError, match=r"unit|above 0|not a duration"):
        _duration(text)


def test_a_normal_mean_below_the_least_is_refused() -> None:
    """A bound above the mean would make a draw wait for ever."""
    with pytest.raises(ValueError, match="least"):
        Normal(-1e9, 1, 0)


@pytest.mark.parametrize(
    "distribution",
    [
        Constant(512),
        Uniform(64, 256),
        Normal(512, 128, 1),
        Normal(100, 200, 1),  # cut off hard: the mean moves to 200 and more
        LogNormal(512, 0.6),
        Exponential(100),
    ],
    ids=str,
)
def test_the_mean_is_that_of_what_is_drawn(distribution: Distribution) -> None:
    """The mean of 20,000 draws lies within 4 standard errors of the mean that is told."""
    rng = random.Random(7)
    drawn = [distribution.sample(rng) for _ in range(20_000)]
    error = statistics.stdev(drawn) / len(drawn) ** 0.5
    assert abs(statistics.fmean(drawn) - distribution.mean) <= 4 * error


def test_a_truncated_normal_has_no_heap_at_its_bound() -> None:
    """What falls below the least is drawn again: nothing lies below it, and hardly anything upon it."""
    rng = random.Random(3)
    drawn = [Normal(10, 20, 1).sample(rng) for _ in range(5_000)]
    assert min(drawn) >= 1
    assert sum(value < 1.1 for value in drawn) < 50


def test_the_same_generator_draws_the_same_values() -> None:
    """Chance is the caller's: the same seed gives the same draws."""
    first, second = ([_tokens("lognormal:512,0.6").sample(random.Random(5)) for _ in range(3)] for _ in range(2))
    assert first == second
