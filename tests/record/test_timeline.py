"""How a level went in the course of time."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.plan.load import Phase
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


def test_a_longer_level_keeps_no_more(monkeypatch):
    """Once enough requests are kept, nothing is kept of later ones, and what was kept is as if they were not there."""
    kept = {}
    for count in (100, 140, 3000):
        monkeypatch.setattr(course_module, "_MOST_KEPT", 100)
        timeline = TimelineBuilder(0)
        # Three in flight at a time; each is given a place as the one before it has its last token.
        for number in range(count):
            due_ns = number * 100 * MS
            sample = make_sample([due_ns + 210 * MS, due_ns + 300 * MS], due_ns=due_ns, sent_ns=due_ns)
            timeline.change(due_ns, 1)
            if number >= 3:
                timeline.change(due_ns, -1)
            timeline.decode(sample)
            timeline.keep(sample)
        kept[count] = timeline.close(100 * count * MS).starts, [each.count for each in timeline._changes.values()]
    assert len(kept[3000][0]) == 100
    assert str(kept[3000]) == str(kept[140])  # one NaN is not another
    assert str([start[:4] for start in kept[3000][0]]) == str([start[:4] for start in kept[100][0]])
