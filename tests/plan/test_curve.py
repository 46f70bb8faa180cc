"""The loads without think time that come before a search."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.curve import MAX_STEPS, CurveStep, ThroughputCurve
from loadbench.plan.search import Budget

S = 1_000_000_000


def curve_of(server, *, most=200, missed=lambda _: True) -> list[int]:
    """The steps in their order, where `server` says the throughput of so many."""
    curve, order = ThroughputCurve(most), []
    while (users := curve.next()) is not None:
        order.append(users)
        curve.measured[users] = CurveStep(server(users), missed(users))
    return order


@pytest.mark.parametrize(
    ("slots", "steps"),
    [(1, [1, 2, 3]), (3, [1, 2, 4, 8, 12, 3, 6]), (4, [1, 2, 4, 8, 12, 3, 6]), (6, [1, 2, 4, 8, 16, 24, 6, 12])],
)
def test_steps_stand_around_the_bend(slots, steps):
    """Doubled until twice as many bring no more, then half as many again, then two between."""
    assert curve_of(lambda users: min(users, slots)) == steps


def test_it_goes_on_until_most_miss():
    """Where those who wait are still served in time, more users are tried than throughput needs."""
    assert curve_of(lambda users: min(users, 4), missed=lambda users: users > 20) == [1, 2, 4, 8, 16, 32, 48, 12, 24]


def test_a_step_without_time_ends_the_way_up():
    """Above a step that there is no time for none is tried; between those that were, one may be."""
    curve = ThroughputCurve(200, {1: CurveStep(1, False), 2: CurveStep(2, False)}, {4})
    assert curve.next() == 3
    curve.skipped.add(3)
    assert curve.next() is None
    assert ThroughputCurve(200, skipped={1}).next() is None


@given(st.integers(1, 300), st.floats(0.3, 1.0), st.integers(1, 400), st.integers(0, 400))
def test_it_ends_and_never_repeats(most, power, slots, misses_from):
    """Whatever the server: few steps, each once, none above the most users, the first a single user."""
    order = curve_of(lambda users: min(users, slots) ** power, most=most, missed=lambda users: users >= misses_from)
    assert order[0] == 1
    assert len(order) == len(set(order)) <= MAX_STEPS
    assert max(order) <= most


@given(st.integers(1, 10**13), st.integers(0, 10**13), st.integers(0, 10**11), st.integers(1, 10**11))
def test_steps_stay_within_a_quarter_of_the_budget(total_ns, spent_ns, warm_up_ns, response_ns):
    """A step that begins ends within the curve's quarter, and has time for a few answers of each user."""
    budget = Budget(total_ns)
    measure_ns = budget.curve_ns(spent_ns=spent_ns, warm_up_ns=warm_up_ns, response_ns=response_ns)
    if measure_ns is not None:
        assert spent_ns + warm_up_ns + measure_ns <= total_ns / 4
        assert measure_ns >= 3 * response_ns
