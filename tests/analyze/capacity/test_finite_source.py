"""Users who think, against ways of working it out that share nothing with ours."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.analyze.capacity.finite_source import (
    between,
    in_flight,
    met_on_arrival,
    rates_through,
    response_s,
    throughput,
)

RATES = st.lists(st.floats(0.01, 1000), min_size=1, max_size=12).map(lambda rates: np.array([rates]))
THINK = st.floats(0.001, 1000)


def one(users: int) -> np.ndarray:
    """A row with so many users."""
    return np.array([users])


def by_balance(users: int, rates: np.ndarray, think_s: float) -> np.ndarray:
    """p of 0 … users in flight from the flows between states alone, by elimination.

    The way of Grassmann, Taksar and Heyman: for any Markov chain, and without a subtraction, so that it is exact.
    """
    flows = np.zeros((users + 1, users + 1))
    for n in range(users):
        flows[n, n + 1] = (users - n) / think_s
        flows[n + 1, n] = rates[min(n + 1, len(rates)) - 1]
    for last in range(users, 0, -1):
        flows[:last, last] /= flows[last, :last].sum()
        flows[:last, :last] += np.outer(flows[:last, last], flows[last, :last])
    p = np.zeros(users + 1)
    p[0] = 1.0
    for n in range(1, users + 1):
        p[n] = p[:n] @ flows[:n, n]
    return p / p.sum()


@pytest.mark.parametrize("users", [1, 3, 4, 5, 12, 40])
@pytest.mark.parametrize("think_s", [0.5, 3.0, 20.0])
def test_states_are_those_of_the_flows_between_them(users, think_s):
    """The product form is what the balance of a Markov chain comes to, inside what was measured and beyond."""
    rates = np.array([[1.0, 1.8, 2.2, 2.1]])
    state, truth = in_flight(one(users), rates, think_s), by_balance(users, rates[0], think_s)
    known = min(users, 4) + 1
    assert state.within[0, :known] * (1 - state.beyond[0]) == pytest.approx(truth[:known], abs=1e-9)
    assert state.beyond[0] == pytest.approx(truth[known:].sum(), abs=1e-9)
    flows = sum(truth[n] * rates[0, min(n, 4) - 1] for n in range(1, users + 1))
    assert throughput(one(users), rates, think_s)[0] == pytest.approx(flows, rel=1e-9)


@pytest.mark.parametrize("users", [2, 6, 25, 90])
def test_slots_with_thinkers_are_the_repair_model(users):
    """With μ(n) = min(n, c)·μ the states are those of M/M/c//N as the books have it, by binomials and factorials."""
    slots, mu, think_s = 3, 0.7, 8.0
    ratio = 1 / (think_s * mu)
    weights = [
        math.comb(users, n)
        * ratio**n
        * (1 if n <= slots else math.factorial(n) / math.factorial(slots) / slots ** (n - slots))
        for n in range(users + 1)
    ]
    rates = mu * np.minimum(np.arange(1, users + 1), slots)[None]
    truth = np.array(weights) / sum(weights)
    assert in_flight(one(users), rates, think_s).within[0] == pytest.approx(truth, rel=1e-9)


def test_an_endless_server_keeps_nobody_waiting():
    """With μ(n) = n·μ everybody is served by himself: the states are binomial, and R is 1/μ."""
    users, mu, think_s = 30, 2.0, 1.5
    rates = mu * np.arange(1.0, users + 1)[None]
    p = 1 / (1 + mu * think_s)
    truth = [math.comb(users, n) * p**n * (1 - p) ** (users - n) for n in range(users + 1)]
    assert in_flight(one(users), rates, think_s).within[0] == pytest.approx(truth, rel=1e-9)
    per_s = throughput(one(users), rates, think_s)
    assert response_s(one(users), per_s, think_s)[0] == pytest.approx(1 / mu)


@given(RATES, THINK, st.integers(1, 40))
@settings(deadline=None)
def test_who_asks_meets_the_others_alone(rates, think_s, users):
    """On arrival the states are those of one user fewer (the arrival theorem)."""
    met, others = met_on_arrival(one(users), rates, think_s), by_balance(users - 1, rates[0], think_s)
    inside = min(users, rates.shape[1])
    assert met.within[0, :inside] * (1 - met.beyond[0]) == pytest.approx(others[:inside], rel=1e-6, abs=1e-12)


@given(RATES, THINK, st.integers(1, 200))
def test_throughput_keeps_within_its_bounds(rates, think_s, users):
    """X is above none of what the server can do, and of what the users can ask for: N/(Z + the shortest answer)."""
    per_s = throughput(one(users), rates, think_s)[0]
    assert 0 < per_s <= min(rates.max(), users / think_s) * (1 + 1e-9)


@given(RATES, THINK, st.integers(1, 60))
def test_more_users_are_met_by_more(rates, think_s, users):
    """Whatever the server does, with one user more nobody meets fewer: P(≤ n) falls for every n."""
    few, more = (
        np.cumsum(met.within[0]) * (1 - met.beyond[0])
        for met in (met_on_arrival(one(n), rates, think_s) for n in (users, users + 1))
    )
    assert (more <= few + 1e-9).all()


@given(RATES, THINK, st.integers(0, 60))
def test_what_lies_beyond_changes_nothing_before_it(rates, think_s, users):
    """Given no more than M in flight, the states are the same whatever the server does with more."""
    slower = np.concatenate([rates, rates[:, -1:] / 10], axis=1)
    known = in_flight(one(users), rates, think_s).within[0]
    other = in_flight(one(users), slower, think_s).within[0, : len(known)]
    assert known == pytest.approx(other / other.sum(), rel=1e-6)


@given(RATES, THINK)
def test_a_multitude_is_worked_out_as_well(rates, think_s):
    """Of millions of users all are beyond what was measured, and nothing overflows."""
    met = met_on_arrival(one(5_000_000), rates, think_s)
    assert np.isfinite(met.within).all()
    assert met.within.sum() == pytest.approx(1)
    assert 0 <= met.beyond[0] <= 1


def test_without_thinking_all_are_in_flight():
    """At Z = 0 each meets all the others; of more than was measured nothing but that is known."""
    rates = np.array([[1.0, 2.0, 2.5]] * 2)
    met = met_on_arrival(np.array([2, 7]), rates, 0.0)
    assert met.within.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert met.beyond.tolist() == [0, 1]
    assert throughput(np.array([2, 7]), rates, 0.0).tolist() == [2.0, 2.5]


def test_short_pauses_lead_to_none():
    """As Z goes to 0 the states become those of Z = 0."""
    rates = np.array([[1.0, 2.0, 2.5]])
    assert throughput(one(3), rates, 1e-9)[0] == pytest.approx(throughput(one(3), rates, 0.0)[0])


def test_between_levels_lie_straight_lines():
    """Throughput is on a line from nothing through the levels; other figures are the first level's below it."""
    assert rates_through((2, 4), np.array([[2.0, 3.0]])).tolist() == [[1.0, 2.0, 2.5, 3.0]]
    assert between((2, 4)).tolist() == [[1, 0], [1, 0], [0.5, 0.5], [0, 1]]
