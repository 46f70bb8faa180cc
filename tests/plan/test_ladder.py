"""The loads without think time that come before a search."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.ladder import MOST_RUNGS, CurveStep, Ladder
from loadbench.plan.search import Budget

S = 1_000_000_000


def climbed(server, *, most=200, missed=lambda _: True) -> list[int]:
    """The rungs in their order, where `server` says the throughput of so many."""
    ladder, order = Ladder(most), []
    while (users := ladder.next()) is not None:
        order.append(users)
        ladder.seen[users] = CurveStep(server(users), missed(users))
    return order


@pytest.mark.parametrize(
    ("slots", "rungs"),
    [
        (1, [1, 2, 3]),
        (3, [1, 2, 4, 8, 12, 3, 6]),
        (4, [1, 2, 4, 8, 12, 3, 6]),
        (6, [1, 2, 4, 8, 16, 24, 6, 12]),
    ],
)
def test_rungs_stand_around_the_bend(slots, rungs):
    """Doubled until twice as many bring no more, then half as many again, then two between."""
    assert climbed(lambda users: min(users, slots)) == rungs


def test_it_goes_on_until_most_miss():
    """Where those who wait are still served in time, more users are tried than throughput needs."""
    assert climbed(lambda users: min(users, 4), missed=lambda users: users > 20) == [1, 2, 4, 8, 16, 32, 48, 12, 24]


def test_a_rung_without_time_ends_the_way_up():
    """Above a rung that there is no time for none is tried; between those that were, one may be."""
    ladder = Ladder(200, {1: CurveStep(1, False), 2: CurveStep(2, False)}, {4})
    assert ladder.next() == 3
    ladder.left_out.add(3)
    assert ladder.next() is None
    assert Ladder(200, left_out={1}).next() is None


@given(st.integers(1, 300), st.floats(0.3, 1.0), st.integers(1, 400), st.integers(0, 400))
def test_it_ends_and_never_repeats(most, power, slots, misses_from):
    """Whatever the server: few rungs, each once, none above the most users, the first a single user."""
    order = climbed(lambda users: min(users, slots) ** power, most=most, missed=lambda users: users >= misses_from)
    assert order[0] == 1
    assert len(order) == len(set(order)) <= MOST_RUNGS
    assert max(order) <= most


@given(st.integers(1, 10**13), st.integers(0, 10**13), st.integers(0, 10**11), st.integers(1, 10**11))
def test_rungs_stay_within_a_quarter_of_the_budget(total_ns, gone_ns, warm_up_ns, answer_ns):
    """A rung that begins ends within the ladder's quarter, and has time for a few answers of each user."""
    budget = Budget(total_ns)
    measure_ns = budget.curve_ns(gone_ns=gone_ns, warm_up_ns=warm_up_ns, answer_ns=answer_ns)
    if measure_ns is not None:
        assert gone_ns + warm_up_ns + measure_ns <= total_ns / 4
        assert measure_ns >= 3 * answer_ns
