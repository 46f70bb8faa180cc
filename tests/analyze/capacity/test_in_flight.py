"""What requests say about other loads by how many others they met: against the theory of M/M/4//N and M/M/4."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadbench.analyze.capacity.border import FittedBorder, LoadPoint, likely_range
from loadbench.analyze.capacity.in_flight import InFlightStates, expected_border
from tests.coverage.servers import queue_miss, slot_miss

SLOTS, WORK_S, THINK_S, BOUND_S = 4, 2.0, 20.0, 1.0
LOADS = np.linspace(math.log(1), math.log(200), 600)


def seen(at: dict[float, int], *, by_rate: bool = False) -> InFlightStates:
    """The counts of so many requests at each load, as theory expects them."""
    total = InFlightStates(1)
    for load, requests in at.items():
        weights = [1.0]
        for n in range(1, 60 if by_rate else round(load) + 1):
            arriving = load if by_rate else (load - n + 1) / THINK_S
            weights.append(weights[-1] * arriving * WORK_S / min(n, SLOTS))
        present = np.array(weights) / sum(weights)
        arriving = np.array([load if by_rate else (load - n) / THINK_S for n in range(len(present))])
        seconds = requests / float((present * arriving).sum())
        one = InFlightStates(1)
        one.reach(len(present) - 1)
        one.seconds = present * seconds
        one.met = present * arriving * seconds
        one.ended = present * seconds * np.minimum(np.arange(len(present)), SLOTS) / WORK_S
        mean = BOUND_S * SLOTS / WORK_S
        waits = [
            sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(n - SLOTS + 1)) if n >= SLOTS else 0.0
            for n in range(len(present))
        ]
        one.missed[0] = one.met * waits
        total.add(one)
    return total


def test_users_who_think():
    """From 16 and 40 users follows where 5 % miss, and about how steeply that rises."""
    found = expected_border(seen({16: 4000, 40: 4000}), 0, 0.95, LOADS, think_s=THINK_S)
    misses = {
        users: slot_miss(users, slots=SLOTS, work_s=WORK_S, think_s=THINK_S, bound_s=BOUND_S) for users in (23, 24)
    }
    assert misses[23] <= 0.05 < misses[24]
    assert math.exp(found.log_m) == pytest.approx(23.5, rel=0.04)
    assert 3 < found.steepness < 7
    assert found.deviation < 0.15


def test_rates():
    """The same of an open loop."""
    loads = np.linspace(math.log(0.1), math.log(10), 600)
    found = expected_border(seen({0.7: 4000, 1.3: 4000}, by_rate=True), 0, 0.95, loads, think_s=None)
    rate = math.exp(found.log_m)
    assert queue_miss(rate, slots=SLOTS, work_s=WORK_S, bound_s=BOUND_S) == pytest.approx(0.05, abs=0.01)


def test_without_misses_nothing_is_expected():
    """A load that nobody waits at says nothing about where waiting begins."""
    assert expected_border(seen({4: 200}), 0, 0.95, LOADS, think_s=THINK_S) is None


def test_few_misses_and_few_responses_say_nothing():
    """Eight misses and forty responses are the least; the error shrinks with both."""
    states = seen({16: 4000, 40: 4000})
    missed, ended = float(states.missed.sum()), float(states.ended.sum())
    for misses, responses, is_known in (
        (7.9, ended, False),
        (8.1, ended, True),
        (missed, 39, False),
        (missed, 41, True),
    ):
        few = seen({16: 4000, 40: 4000})
        few.missed *= misses / missed
        few.ended *= responses / ended
        few.seconds *= responses / ended
        found = expected_border(few, 0, 0.999, LOADS, think_s=THINK_S)
        assert (found is not None) is is_known
    found = expected_border(states, 0, 0.95, LOADS, think_s=THINK_S)
    noise = 2 / ended + 8 / (found.steepness**2 * missed)
    assert found.deviation == pytest.approx(math.sqrt(0.13**2 + noise))


def test_no_border_is_expected_outside_the_loads_that_may_be_tried():
    """Where all of them are within the bound, or none is."""
    states = seen({16: 4000, 40: 4000})
    for loads in (np.linspace(0, math.log(15), 100), np.linspace(math.log(40), math.log(200), 100)):
        assert expected_border(states, 0, 0.95, loads, think_s=THINK_S) is None


def test_the_model_narrows_the_range_and_data_overrule_it():
    """It makes the range of few requests narrower; many that contradict it move the estimate to where they are."""
    states = seen({16: 400, 40: 400})

    def border(scale: float, *, expect: bool):
        points = [LoadPoint(16, 40 * scale, 0), LoadPoint(40, 12 * scale, 12 * scale)]
        model = (lambda loads: expected_border(states, 0, 0.95, loads, think_s=THINK_S)) if expect else None
        return likely_range([FittedBorder(points, 0.95, least=1, most=200, expect=model)], 0.95)

    wide, narrow = border(1, expect=False), border(1, expect=True)
    assert narrow[2] / narrow[0] < 0.8 * wide[2] / wide[0]
    points = [LoadPoint(60, 4000, 20), LoadPoint(90, 3000, 1000)]
    model = lambda loads: expected_border(states, 0, 0.95, loads, think_s=THINK_S)  # noqa: E731
    low, _, high = likely_range([FittedBorder(points, 0.95, least=1, most=200, expect=model)], 0.95)
    assert 60 < low <= high < 90


def test_the_highest_completion_rate_is_that_of_a_busy_server():
    """Four slots of 2 s complete 2 per second once all are busy, whatever the queue; few responses say nothing."""
    states = InFlightStates(1)
    states.reach(12)
    states.seconds[:13] = 20.0
    states.ended[:13] = [20 * min(n, 4) / 2 for n in range(13)]
    per_s, error = states.most_per_s()
    assert 1.85 < per_s <= 2.0  # three busy slots complete nearly as much
    assert 0.04 < error < 0.12
    states.ended[:] = 1
    assert states.most_per_s() is None


def test_the_highest_completion_rate_needs_forty_responses():
    """It is the rate of the least number in flight that is as good as the highest; its error that of its count."""
    states = InFlightStates(1)
    states.reach(3)
    states.seconds[:], states.ended[:] = [5.0, 40.0, 40.0, 20.0], [0.0, 40.0, 80.0, 40.0]
    per_s, error = states.most_per_s()
    assert per_s == pytest.approx(120 / 60)  # two or more in flight; three are as good
    assert error == pytest.approx(1 / math.sqrt(120))
    states.ended[:] = [0.0, 0.0, 0.0, 40.0]
    states.seconds[:] = [5.0, 10.0, 10.0, 20.0]
    assert states.most_per_s() == pytest.approx((2.0, 1 / math.sqrt(40)))
    states.ended[3] = 39
    assert states.most_per_s() is None


def test_counts_of_probes_are_added_number_by_number():
    """Whichever of them has seen more in flight."""
    few, many = InFlightStates(1), InFlightStates(1)
    for states, n in ((few, 2), (many, 4)):
        states.reach(n)
        states.met[:], states.missed[0, :], states.seconds[:], states.ended[:] = range(n + 1), n, 2.0, 3.0
    for first, second in ((few, many), (many, few)):
        both = InFlightStates(1)
        both.add(first)
        both.add(second)
        assert both.met.tolist() == [0, 2, 4, 3, 4]
        assert both.missed.tolist() == [[6, 6, 6, 4, 4]]
        assert (both.seconds.tolist(), both.ended.tolist()) == ([4, 4, 4, 2, 2], [6, 6, 6, 3, 3])


def test_the_border_is_the_first_load_at_which_too_many_miss():
    """Of the loads that may be tried, here whole numbers of users; theory says 23 are served."""
    found = expected_border(seen({16: 4000, 40: 4000}), 0, 0.95, np.log(np.arange(1, 100)), think_s=THINK_S)
    assert round(math.exp(found.log_m)) == 24
    assert found.log_m == pytest.approx(math.log(24))


def test_beyond_what_was_seen_requests_fare_as_in_the_last_state():
    """Of requests that meet seven others 86 % miss, and of those that meet more as many."""
    states = seen({8: 4e9})
    assert 0.85 < states.missed[0, 7] / states.met[7] < 0.86
    assert states.met[8] == 0
    assert expected_border(states, 0, 0.15, LOADS, think_s=THINK_S) is not None
    assert expected_border(states, 0, 0.1, LOADS, think_s=THINK_S) is None


def test_no_border_is_expected_where_nobody_was_served():
    """Nothing ended with one in flight, so nothing is known of how fast a single request is."""
    states = seen({16: 4000, 40: 4000})
    states.ended[1] = 0
    assert expected_border(states, 0, 0.95, LOADS, think_s=THINK_S) is None
