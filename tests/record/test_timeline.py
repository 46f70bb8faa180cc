"""How a level went in the course of time."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadbench.plan.load import Phase
from loadbench.record import stretches as stretches_module
from loadbench.record import timeline as course_module
from loadbench.record.slices import SLICE_NS
from loadbench.record.timeline import KEPT, TimelineBuilder
from tests.record.test_sample import make_sample

OPENS = 5 * SLICE_NS
MS = 1_000_000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-300, 1200), st.integers(0, 900)), max_size=40), st.randoms())
def test_requests_in_flight_are_those_of_each_slice(spans, order):
    """Told in any order, each slice has the time that requests were in flight in it, over its length."""
    timeline = TimelineBuilder(OPENS)
    told = [(begin, 1) for begin, _ in spans] + [(begin + length, -1) for begin, length in spans]
    order.shuffle(told)
    for at, change in told:
        timeline.change(OPENS + at * MS, change)
    found = timeline.close(OPENS + 1000 * MS).in_flight
    assert len(found) == 10
    for number, mean in enumerate(found):
        begins, ends = 100 * number, 100 * (number + 1)
        inside = sum(max(0, min(begin + length, ends) - max(begin, begins)) for begin, length in spans)
        assert abs(mean - inside / 100) < 1e-9


def test_first_tokens_count_where_their_request_was_due():
    """Sums and numbers of the response TTFT by slice of the due time; who had no token is not counted."""
    timeline = TimelineBuilder(OPENS)
    for due_ms, ttft_ms in ((0, 500), (99, 40), (100, 7), (250, None)):
        due_ns = OPENS + due_ms * MS
        stamps = [] if ttft_ms is None else [due_ns + ttft_ms * MS]
        timeline.add(make_sample(stamps, due_ns=due_ns, sent_ns=due_ns))
    went = timeline.close(OPENS + 3 * SLICE_NS)
    assert went.ttft_ns == (540 * MS, 7 * MS, 0)
    assert went.ttft_count == (2, 1, 0)


def test_many_are_counted_as_few():
    """What is gathered and counted in batches is counted whole."""
    timeline = TimelineBuilder(0)
    for number in range(20_000):
        timeline.change(number * SLICE_NS // 1000, 1)
        timeline.change(number * SLICE_NS // 1000 + SLICE_NS // 1000, -1)
    went = timeline.close(20 * SLICE_NS)
    assert all(abs(mean - 1) < 1e-6 for mean in went.in_flight)


def test_what_is_kept_is_in_the_order_of_due_times(monkeypatch):
    """The first so many that ended, each figure in the order in which they were due, and no more than that."""
    monkeypatch.setattr(course_module, "_MOST_KEPT", 3)
    timeline = TimelineBuilder(0)
    for due, ttft in ((30, 3), (10, 1), (20, 2), (40, 4)):
        due_ns = due * MS
        stamps = [due_ns + ttft * MS, due_ns + ttft * MS + 10 * MS]
        timeline.keep(make_sample(stamps, tokens=[1, 1], due_ns=due_ns, sent_ns=due_ns, phase=Phase.MEASURED))
    kept = timeline.close(SLICE_NS).kept
    assert tuple(kept) == KEPT
    assert kept["ttft_response"] == (1 * MS, 2 * MS, 3 * MS)
    assert kept["e2e_response"] == (11 * MS, 12 * MS, 13 * MS)
    assert kept["tpot"] == (10 * MS, 10 * MS, 10 * MS)


def test_nothing_has_no_course():
    """A window that never was has no slices, and one in which nothing happened has empty ones."""
    assert TimelineBuilder(OPENS).close(OPENS).in_flight == ()
    assert TimelineBuilder(OPENS).close(OPENS + 2 * SLICE_NS).in_flight == (0.0, 0.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.floats(0.7, 1.1), st.integers(0, 2**32))
def test_prefill_is_the_first_token_without_the_wait_for_a_place(servers, load, seed):
    """Of a queue with so many servers, in turn: each request's own prefill, however long it waited."""
    rng = random.Random(seed)
    timeline, at, free, true = TimelineBuilder(0), 0.0, [0.0] * servers, []
    for _ in range(300):
        at += rng.expovariate(load * servers)
        prefill, decode = rng.uniform(0.02, 0.05), rng.uniform(0.1, 1.9)
        free.sort()
        first = max(at, free[0]) + prefill
        free[0] = first + decode
        due_ns, first_ns, last_ns = (round(moment * 1e9) for moment in (at, first, free[0]))
        sample = make_sample([first_ns, last_ns], due_ns=due_ns, sent_ns=due_ns)
        true.append(round(prefill * 1e9))
        timeline.change(due_ns, 1)
        timeline.change(last_ns, -1)
        timeline.decode(sample)
        timeline.keep(sample)
    starts = timeline.close(round(at * 1e9)).starts
    own = [start.prefill_ns for start in starts]
    # First tokens that overtook another swap places with it, by less than a prefill.
    off = [abs(found - known) for found, known in zip(own, true, strict=True)]
    assert sum(one <= 2 for one in off) >= 0.9 * len(off)
    assert max(off) <= 50 * MS


def test_prefill_is_ttft_where_no_request_waits():
    """One at a time, and all at once."""
    for apart_ms in (1000, 0):
        timeline = TimelineBuilder(0)
        for number in range(5):
            due_ns = number * apart_ms * MS
            sample = make_sample([due_ns + 30 * MS, due_ns + 600 * MS], due_ns=due_ns, sent_ns=due_ns)
            timeline.change(due_ns, 1)
            timeline.change(due_ns + 600 * MS, -1)
            timeline.decode(sample)
            timeline.keep(sample)
        assert [start.prefill_ns for start in timeline.close(10 * SLICE_NS).starts] == [30 * MS] * 5


def queue(seed, *, requests, servers=3, load=0.9):
    """(due, first, last) in ns of a queue in order of due times, with half a second of warm-up."""
    rng, at, free, told = random.Random(seed), -0.5, [-1.0] * servers, []
    for _ in range(requests):
        at += rng.expovariate(load * servers)
        free.sort()
        first = max(at, free[0]) + rng.uniform(0.02, 0.05)
        free[0] = first + rng.uniform(0.1, 1.9)
        told.append(tuple(round(moment * 1e9) for moment in (at, first, free[0])))
    return told


def told_in_order(requests):
    """The timeline of these requests, whose last second is not over when the window opens."""
    timeline = TimelineBuilder(1 << 60)
    moments = [(due, 1, None) for due, _, _ in requests]
    moments += [(last, -1, (due, first, last)) for due, first, last in requests]
    for at_ns, change, request in sorted(moments, key=lambda moment: moment[:2]):
        if at_ns >= 0 and timeline._in_flight.opens_ns:
            timeline.opens(0)
        timeline.change(at_ns, change)
        if request is not None:
            due_ns, *stamps = request
            sample = make_sample(stamps, due_ns=due_ns, sent_ns=due_ns)
            timeline.decode(sample)
            if due_ns >= 0:
                timeline.keep(sample)
    return timeline.close(requests[-1][0])


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.integers(850, 2500), st.sampled_from([0.5, 0.8]))
@example(192, 1573, 0.5)
def test_what_is_kept_of_a_long_level_is_as_of_a_short_one(seed, count, load):
    """Of stretches all over it. What its requests met is exact, and so is their prefill, where it is known."""
    requests = queue(seed, requests=count, load=load)
    with pytest.MonkeyPatch.context() as patch:
        whole = told_in_order(requests)
        patch.setattr(course_module, "_MOST_KEPT", 800)
        patch.setattr(course_module, "_MOST_CHANGES", 3200)
        patch.setattr(stretches_module, "_GATHERED", 16)
        part = told_in_order(requests)
    assert part.succeeded == whole.succeeded == len(whole.starts) == sum(due >= 0 for due, _, _ in requests)
    assert 200 <= len(part.starts) <= 800
    # In the same order; two of so many requests may have the same TTFT.
    places, exact, unknown = [], 0, 0
    rest = enumerate(whole.starts)
    for start in part.starts:
        place, same = next((place, one) for place, one in rest if one.ttft_ns == start.ttft_ns)
        assert start.in_flight == same.in_flight
        places.append(place / whole.succeeded)
        exact += str(start.prefill_ns) == str(same.prefill_ns)
        unknown += math.isnan(start.prefill_ns)
    # A few have another one, where the stretches show another number of places.
    assert exact + unknown >= 0.9 * len(part.starts)
    assert exact >= 0.5 * len(part.starts)
    assert max(b - a for a, b in pairwise([0, *places, 1])) < 0.1


def start(timeline, due_ms, first_ms, last_ms, *, keep=True, **more):
    """A request that was sent as it was due, with its first and last token then."""
    sample = make_sample([first_ms * MS, last_ms * MS], due_ns=due_ms * MS, sent_ns=due_ms * MS, **more)
    timeline.change(due_ms * MS, 1)
    timeline.change(last_ms * MS, -1)
    if keep:
        timeline.keep(sample)
    timeline.decode(sample)


def test_a_request_meets_those_that_are_in_flight_as_it_is_sent():
    """Not one that ends or begins at that moment; one that ends later counts although it is told after those kept."""
    timeline = TimelineBuilder(0)
    start(timeline, 100, 130, 200)
    start(timeline, 110, 140, 300)
    start(timeline, 200, 230, 250)
    start(timeline, 0, 50, 200)
    start(timeline, 0, 60, 500)
    assert [one.in_flight for one in timeline.close(SLICE_NS).starts] == [0, 0, 2, 3, 2]


def test_a_request_that_was_not_sent_met_nothing_that_is_known():
    """Such as one that no process reported; its figures are kept all the same."""
    timeline = TimelineBuilder(0)
    start(timeline, 100, 130, 200)
    timeline.keep(make_sample([150 * MS, 160 * MS], due_ns=120 * MS, sent_ns=None))
    timeline.keep(make_sample([], due_ns=130 * MS, sent_ns=130 * MS))
    start(timeline, 150, 180, 190)
    went = timeline.close(SLICE_NS)
    assert [(one.ttft_ns, one.in_flight) for one in went.starts] == [(30 * MS, 0), (30 * MS, 1)]
    assert went.kept["ttft_response"] == (30 * MS, 30 * MS, 30 * MS)


def test_where_all_come_at_once_nothing_is_known(monkeypatch):
    """More requests than there is room for, in one moment: no stretch of time has fewer."""
    monkeypatch.setattr(course_module, "_MOST_CHANGES", 10)
    monkeypatch.setattr(stretches_module, "_GATHERED", 4)
    for count in (10, 12):
        timeline = TimelineBuilder(0)
        for _ in range(count):
            start(timeline, 100, 130, 200)
        went = timeline.close(SLICE_NS)
        assert (len(went.starts), went.succeeded) == (10 if count == 10 else 0, count)


def test_a_request_waits_for_a_response_that_is_told_later():
    """One place: the long response has it first."""
    timeline = TimelineBuilder(0)
    start(timeline, 100, 530, 700)
    start(timeline, 110, 735, 900)
    start(timeline, 0, 40, 500)
    assert [one.prefill_ns for one in timeline.close(30 * SLICE_NS).starts] == [40 * MS, 30 * MS, 35 * MS]


def test_a_server_has_the_places_that_are_taken_for_a_five_hundredth_of_its_busy_time():
    """Two responses that overlap for a moment make no second place; how long the server was idle is no matter."""
    ms = []
    for overlap_us in (0, 1500, 3000):
        timeline, ends_us = TimelineBuilder(0), 500_000
        for number in range(10):
            first_us = ends_us - overlap_us if number == 5 else ends_us + 30_000 + 4_000_000 * (number == 9)
            ends_us = first_us + 100_000
            due_ns = (first_us - 130_000) * 1000
            sample = make_sample([first_us * 1000, ends_us * 1000], due_ns=due_ns, sent_ns=due_ns)
            timeline.decode(sample)
            timeline.keep(sample)
        ms.append([one.prefill_ns / MS for one in timeline.close(ends_us * 1000).starts])
    # None where it began before the place was free, or as it was.
    own = pytest.approx([130, 30, 30, 30, 30, math.nan, 30, 30, 30, 130], nan_ok=True)
    assert ms == [own, own, [130, 130, 130, 130, 130, 127, 127, 130, 130, 130]]


def test_responses_of_one_token_take_places_in_turn():
    """Though none takes its place for any time."""
    timeline = TimelineBuilder(0)
    for due_ms in (0, 10, 20):
        start(timeline, due_ms, due_ms + 30, due_ms + 30)
    assert [one.prefill_ns / MS for one in timeline.close(SLICE_NS).starts] == [30, 10, 10]


def test_the_context_is_what_the_server_reports():
    """In tokens of all responses that are being generated; 0 without a report."""
    timeline = TimelineBuilder(0)
    for tokens in (None, 300, 50):
        start(timeline, 0, 0, 100, input_tokens=tokens)
    went = timeline.close(2 * SLICE_NS)
    assert (went.decoding, went.context) == ((3.0, 0.0), (350.0, 0.0))
