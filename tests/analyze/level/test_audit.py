"""The self-audit: the books of every level close, and a fault in them is found."""

from __future__ import annotations

import random
from array import array
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.analyze.level.audit import audit
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, LevelDuration, Open, Phase, Phases
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import Production, Recorder
from tests.analyze.queues import recorded
from tests.building import MS, S, a_failure, a_level, a_recording, a_sample, calm
from tests.engine.scripted import Act, run_scripted

OPEN = Open(1.0, parse_arrivals("poisson"))


def found(recording, load=OPEN) -> dict:
    """The audit, by name."""
    return {one.name: one for one in audit(recording, load)}


def failed(recording, load=OPEN) -> list[str]:
    """The names of what does not hold."""
    return [one.name for one in audit(recording, load) if not one.ok]


def test_quiet_level_closes_exactly():
    """One request at a time, all inside: every identity is there and holds without an allowance."""
    recording = a_recording([a_sample(n, due_ns=(n + 1) * S) for n in range(50)])
    audits = found(recording, Closed(1))
    assert list(audits) == ["little", "tokens", "slices", "gaps", "tpot", "peak"]
    assert all(one.ok for one in audits.values())
    assert audits["little"].measured == pytest.approx(50 * 0.3 / 100)
    assert (audits["little"].within, audits["slices"].within) == (0, 0)
    assert audits["tokens"].measured == audits["tokens"].expected == 550
    assert audits["gaps"].measured == 50 * 0.2
    assert audits["tpot"].expected == pytest.approx(0.02)


LOADS = {"closed": Closed(7), "open": Open(9.0, parse_arrivals("poisson"))}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("extent", [{"duration_ns": 20 * S, "cool_down_ns": 2 * S}, {"requests": 150}], ids=str)
def test_levels_of_the_engine_close(load, extent):
    """By duration and by number, closed and open, with failures, stalls, slow connections and cut answers."""
    rng = random.Random(5)
    acts = [
        Act(first_ns=rng.randrange(S), gap_ns=rng.randrange(50 * MS), tokens=rng.randrange(1, 9)) for _ in range(99)
    ]
    acts += [Act(status=500), Act(breaks=Outcome.RESET, tokens=3), Act(connect_ns=S), Act(tokens=5, stalls_after=2)]
    rng.shuffle(acts)
    ran = run_scripted(load, lambda n: acts[n % len(acts)], workers=9, warm_up_ns=3 * S, drain_ns=S, **extent)
    assert failed(ran.recording, load) == []
    assert ran.recording.production.output_tokens > 100
    assert a_level(recording=ran.recording, load=load).audit == audit(ran.recording, load)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 12), st.floats(0, 4), st.floats(0.001, 4)), max_size=25))
def test_books_close_whatever_the_requests(requests):
    """Before the window, in it, across its bounds, beyond it: the two sides agree within what crosses a bound."""
    recording = recorded(requests, window_s=10, warm_up_s=5)
    assert failed(recording) == []


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 300)), min_size=1, max_size=20))
def test_littles_law_is_as_close_as_its_allowance(plan):
    """Where nothing crosses a bound the allowance is nothing, and the law exact."""
    samples = [a_sample(n, due_ns=(1 + at) * S, gaps_ns=gap * MS) for n, (at, gap) in enumerate(plan)]
    law = found(a_recording(samples))["little"]
    assert law.within == 0
    assert law.measured == pytest.approx(law.expected)


def test_tokens_that_were_shared_out_are_allowed_for():
    """Ten tokens in three events across the window's end: the books differ by less than one an answer."""
    stamps = array("q", [99 * S, 99 * S + 1, 101 * S])
    over = {"event_ns": stamps, "event_tokens": None, "first_token_ns": 99 * S, "last_token_ns": 101 * S}
    sample = a_sample(0, due_ns=98 * S, end_ns=101 * S, output_tokens=10, **over)
    audits = found(a_recording([sample]))
    assert audits["slices"].within == 1
    assert 0 < abs(audits["slices"].measured - audits["slices"].expected) < 1
    assert all(one.ok for one in audits.values())
    assert "tpot" not in audits


def test_event_without_a_token_leaves_tpot_out():
    """A gap without a token has no ITL: the two figures then speak of different times, and are not compared."""
    assert "tpot" in found(a_recording([a_sample()]))
    sample = a_sample(event_tokens=array("q", [1] * 9 + [0, 2]))
    assert "tpot" not in found(a_recording([sample]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"swept_ns": 16 * S}, ["little"]),
        ({"ended": 50, "residence_ns": 30 * S}, ["little"]),
        ({"outside_tokens": 1}, ["tokens"]),
        ({"foreign_tokens": 1}, ["tokens"]),
        ({"sliced_tokens": 549.0}, ["slices"]),
        ({"paced_ns": 10 * S + 500 * MS}, ["tpot"]),
    ],
)
def test_book_that_is_wrong_is_found(change, expected):
    """Each entry that is off makes its identity fail, and no other."""
    recording = a_recording([a_sample(n, due_ns=(n + 1) * S) for n in range(50)])
    assert failed(replace(recording, audit_totals=replace(recording.audit_totals, **change))) == expected


def test_request_that_is_added_twice_is_found():
    """An answer that never began ends in every sum, and so agrees everywhere but in the number in flight."""
    recorder = Recorder(Phases(LevelDuration(duration_ns=10 * S, warm_up_ns=S), -S))
    for number in range(5):
        recorder.started(number * S + 1)
        recorder.add(a_sample(number, due_ns=number * S + 1))
    recorder.add(a_sample(5, due_ns=5 * S))
    recording = recorder.close(window=(0, 10 * S), arrivals_due=5, missed=0, interrupted=False, health=calm())
    assert failed(recording) == ["little"]


def test_production_that_misses_tokens_is_found():
    """The window's tokens are not those of its answers, nor those of the slices."""
    recording = replace(a_recording([a_sample(due_ns=S)]), production=Production(1, 10, 50))
    assert failed(recording) == ["tokens", "slices"]


def test_more_requests_than_users_are_found():
    """Two at once of one user: the peak is wrong, and the level is invalid by a fault that is ours."""
    level = a_level([a_sample(0, due_ns=S), a_sample(1, due_ns=S + 1)], load=Closed(1))
    reason = next(reason for reason in level.verdict.reasons if reason.code == "audit")
    assert reason.message == "self-audit failed: peak is 2, expected 1"
    assert "bug in loadbench" in reason.advice
    assert [one.name for one in level.audit if not one.ok] == ["peak"]


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [a_failure(Outcome.RESET)],
        [a_sample(0, phase=Phase.WARM_UP)],
        [a_sample(0, due_ns=99 * S + 900 * MS)],
        [a_sample(0, outcome=Outcome.ABANDONED, due_ns=99 * S + 900 * MS)],
        [a_failure(Outcome.REFUSED)],
    ],
    ids=["nothing", "failure", "warm-up", "across the end", "cut", "refused"],
)
def test_odd_levels_close_too(samples):
    """Nothing, nothing but failures, nothing measured, everything across a bound."""
    assert failed(a_recording(samples)) == []


def test_level_without_a_window_or_a_worker_is_not_audited():
    """What is known to be incomplete has no books to close."""
    recording = a_recording([a_sample()])
    assert audit(replace(recording, lost_workers=1), OPEN) == []
    assert audit(replace(recording, window=(0, 0)), OPEN) == []
