"""Units: what people write is read exactly, and written so that it reads the same."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.core.units import NS_PER_S, format_duration, parse_duration, parse_rate


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("0s", 0),
        ("1ns", 1),
        ("5us", 5_000),
        ("5µs", 5_000),
        ("250ms", 250_000_000),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("2m", 120 * NS_PER_S),
        ("2min", 120 * NS_PER_S),
        ("1m30s", 90 * NS_PER_S),
        (" 1 H 30 m ", 5400 * NS_PER_S),
        ("24h", 86_400 * NS_PER_S),
        ("1d12h", 129_600 * NS_PER_S),
        ("2w", 14 * 86_400 * NS_PER_S),
    ],
)
def test_durations_are_read(text: str, ns: int) -> None:
    """Numbers with units, and sums of them; capitals and spaces do not matter."""
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10", "with its unit"),
        ("", "with its unit"),
        ("s", "with its unit"),
        ("-1s", "with its unit"),
        ("nan", "with its unit"),
        ("1e3s", "unknown unit 'e'"),
        ("1s2", "with its unit"),
        ("5 days", "unknown unit 'days'"),
        ("9000h", "longer than a year"),
        ("9" * 400 + "h", "longer than a year"),
    ],
)
def test_what_is_no_duration_is_refused(text: str, reason: str) -> None:
    """With what is wrong and how to write it."""
    with pytest.raises(ValueError, match=reason):
        parse_duration(text)


@given(st.integers(0, 10**16))
def test_every_duration_is_read_back_as_written(ns: int) -> None:
    """parse(format(ns)) is ns, to the nanosecond, for up to 115 days."""
    assert parse_duration(format_duration(ns)) == ns


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1500ns"),
        (250_000_000, "250ms"),
        (1_500_000_000, "1.5s"),
        (90 * NS_PER_S, "1m30s"),
        (120 * NS_PER_S, "2m"),
        (59 * NS_PER_S, "59s"),
    ],
)
def test_durations_are_written_for_people(ns: int, text: str) -> None:
    """In the unit that leaves the fewest digits."""
    assert format_duration(ns) == text


@pytest.mark.parametrize(
    ("text", "per_s"),
    [
        ("10", 10),
        ("0.5", 0.5),
        ("10/s", 10),
        ("30/min", 0.5),
        ("30 / m", 0.5),
        ("36/h", 0.01),
        ("1/ms", 1000),
        ("1e-05", 1e-5),
        ("6E+1/min", 1),
    ],
)
def test_rates_are_read(text: str, per_s: float) -> None:
    """Per second unless another time is named; below one per second as well."""
    assert math.isclose(parse_rate(text), per_s, rel_tol=1e-15)


@pytest.mark.parametrize(
    "text", ["", "0", "0/s", "-1", "ten", "10/day", "1/", "nan", "inf", "9" * 400, "1e", "e5", "1e999"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    """A rate is a number above 0 per known unit."""
    with pytest.raises(ValueError, match=r"rate|unit|above 0"):
        parse_rate(text)
