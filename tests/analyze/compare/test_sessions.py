"""Sessions: which saved runs belong together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from loadbench.analyze.compare.sessions import sessions
from tests.building import a_level, a_run

BEGIN = datetime(2026, 1, 1, 10, tzinfo=UTC)


def at(*minutes: float, host: str = "x", lasts_min: float = 1):
    """A run for each of these minutes."""
    level = msgspec.structs.replace(a_level(), window_ns=(0, round(lasts_min * 60e9)))
    return [
        msgspec.structs.replace(
            a_run(level),
            started_at=(BEGIN + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z"),
            environment={"host": host},
        )
        for minute in minutes
    ]


@pytest.mark.parametrize(
    ("a", "b", "numbers"),
    [
        (at(0, 2, 4), at(6, 8, 10), ([0, 0, 0], [1, 1, 1])),  # A A A B B B
        (at(0, 4), at(2, 6), ([0, 2], [1, 3])),  # A B A B
        (at(0, 2, 2000, 2002), at(1000, 1002), ([0, 0, 2, 2], [1, 1])),  # three days
        (at(2000, 0, 2), at(10000), ([1, 0, 0], [2])),  # in any order
        (at(0, 40, lasts_min=20), at(500), ([0, 0], [1])),  # a long run, then 20 minutes without one
        (at(0, 40), at(500), ([0, 1], [2])),  # a short run, then 39 minutes
        (at(0, 2), at(1, 3, host="y"), ([0, 0], [1, 1])),  # two machines at the same time
    ],
)
def test_a_session_ends_with_a_break_or_with_the_other_side(a, b, numbers):
    """Runs that follow each other are one, whatever their number."""
    assert sessions(a, b) == numbers


def test_runs_without_a_time_are_one_session():
    """Nothing says that they were not measured at once."""
    a = [msgspec.structs.replace(run, started_at="unknown") for run in at(0, 1000)]
    assert sessions(a, a) == ([0, 0], [1, 1])
