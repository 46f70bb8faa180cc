"""Phases: each request in the phase that its due time says, and the load's end where it should be."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.arrivals import Arrivals, Spacing
from loadbench.plan.load import Closed, LevelDuration, Open, Phase, Phases

TIMES = st.integers(0, 10**12)


@given(TIMES, TIMES, st.integers(1, 10**12), TIMES, TIMES)
def test_by_duration_phases_are_half_open_intervals(
    begin: int, warm_up: int, duration: int, cool_down: int, due: int
) -> None:
    """[begin, opens) warms up, [opens, closes) is measured, [closes, end) cools down, and then the load is over."""
    phases = Phases(LevelDuration(duration_ns=duration, warm_up_ns=warm_up, cool_down_ns=cool_down), begin)
    opens, closes = begin + warm_up, begin + warm_up + duration
    assert (phases.opens_ns, phases.closes_ns, phases.load_ends_ns) == (opens, closes, closes + cool_down)
    for at in (due, opens - 1, opens, closes - 1, closes, closes + cool_down - 1, closes + cool_down):
        expected = (
            Phase.WARM_UP
            if at < opens
            else Phase.MEASURED
            if at < closes
            else Phase.COOL_DOWN
            if at < closes + cool_down
            else None
        )
        assert phases.admit(at) is expected


@given(st.integers(1, 50), st.lists(st.integers(0, 2000), min_size=80, max_size=120).map(sorted))
def test_by_number_exactly_so_many_are_measured(requests: int, dues: list[int]) -> None:
    """Of those that become due after the warm-up the first N are measured; the next one closes the window."""
    phases = Phases(LevelDuration(requests=requests, warm_up_ns=100), 0)
    assert phases.closes_ns is phases.load_ends_ns is None
    admitted = [phases.admit(due) for due in dues]
    after = [due for due in dues if due >= 100]
    assert admitted.count(Phase.WARM_UP) == len(dues) - len(after)
    assert admitted.count(Phase.MEASURED) == min(requests, len(after))
    assert phases.remaining == max(0, requests - len(after))
    assert phases.closes_ns == (after[requests] if len(after) > requests else None)
    assert phases.load_ends_ns == phases.closes_ns


def test_closing_early_ends_the_measurement() -> None:
    """What becomes due afterwards is not measured any more, by duration as by number."""
    by_time = Phases(LevelDuration(duration_ns=1000, cool_down_ns=50), 0)
    by_time.close(400)
    assert (by_time.closes_ns, by_time.load_ends_ns) == (400, 450)
    assert [by_time.admit(at) for at in (399, 400, 449, 450)] == [Phase.MEASURED, *[Phase.COOL_DOWN] * 2, None]
    by_number = Phases(LevelDuration(requests=9), 0)
    by_number.close(400)
    assert (by_number.admit(500), by_number.remaining, by_number.closes_ns) == (None, 0, 400)


def test_a_closed_window_stays_closed() -> None:
    """Closing again, or later, changes nothing: the first end stands."""
    phases = Phases(LevelDuration(requests=1), 0)
    assert phases.admit(5) is Phase.MEASURED
    phases.close(20)
    phases.close(30)
    assert phases.admit(40) is None
    assert phases.closes_ns == 20


def test_a_window_closed_during_the_warm_up_is_empty_not_negative() -> None:
    """It opens and closes at the same moment."""
    phases = Phases(LevelDuration(duration_ns=1000, warm_up_ns=100), 0)
    phases.close(40)
    assert phases.opens_ns == phases.closes_ns == 100


@pytest.mark.parametrize(("duration", "requests"), [(None, None), (5, 5)])
def test_an_extent_is_one_of_two(duration: int | None, requests: int | None) -> None:
    """A duration or a number of requests, not both and not neither."""
    with pytest.raises(ValueError, match="and not both"):
        LevelDuration(duration_ns=duration, requests=requests)


def test_labels_are_short_and_exact() -> None:
    """A load's name in a tag: no spaces, no needless digits."""
    arrivals = Arrivals(Spacing.POISSON)
    assert [Closed(8).label, Open(0.5, arrivals).label, Open(20.0, arrivals).label] == [
        "users=8",
        "rate=0.5",
        "rate=20",
    ]
    assert next(Open(4.0, Arrivals(Spacing.CONSTANT)).arrivals.offsets_ns(4.0, random.Random(1))) == 0
